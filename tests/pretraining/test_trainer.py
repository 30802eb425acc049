"""One update however it is computed: in micro-batches, in half precision, compiled, recomputed."""

import math
import os
import sys

import pytest
import tiny
import torch
from tiny import AT, tensors
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from matpac.pretraining.batches import Batch
from matpac.pretraining.trainer import Trainer

pytestmark = pytest.mark.usefixtures("one_thread")


def make_trainer(**changes: dict) -> Trainer:
    # With Adam's usual epsilon, gradients that are 0 but for rounding would move weights by chance.
    return tiny.make_trainer(**changes | {"pretrain": {"eps": 1e-2} | changes.get("pretrain", {})})


def make_batch(seed: int = 0) -> Batch:
    return tiny.make_batch(8, seed)


def updates(trainer: Trainer, count: int = 3) -> tuple[list[float], dict[str, torch.Tensor]]:
    """Losses, gradient norms and diagnostics of some updates, and the tensors after them."""
    measured = []
    for step in range(count):
        values = trainer.step(make_batch(seed=step), step, AT, measure=True)
        measured += [*values.losses.tolist(), *values.collapse.values().values()]
    return measured, tensors(trainer)


def test_an_update_is_that_of_torchs_optimiser_without_loading_its_compiler(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("matpac.pretraining.trainer.AdamW", torch.optim.AdamW)
        theirs = make_trainer()
        measured, wanted = updates(theirs)
        optimizer = theirs.state()["optimizer"]
    torch.manual_seed(0)  # which the compiler, once loaded, wraps in what would load it
    monkeypatch.setitem(sys.modules, "torch._dynamo", None)  # importing it is an error
    ours = make_trainer()
    assert updates(ours)[0] == measured
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in tensors(ours).items())
    state = ours.state()
    torch.testing.assert_close(state["optimizer"], optimizer, rtol=0, atol=0)
    ours.load_state(state)


ROUNDING = 1e-4
"""Of three updates in float32: a gradient adds up some hundred products of numbers that are 6e-8
exact, ten layers deep, and Adam divides it by at least 1e-2. Weighing the last, smaller micro-batch
as a whole one changes the losses by 1e-2."""


def assert_alike(ours: Trainer, expected: Trainer, *, tolerance: float) -> None:
    (measured, after), (wanted, reference) = updates(ours), updates(expected)
    assert measured == pytest.approx(wanted, rel=tolerance, abs=tolerance)
    for name, tensor in reference.items():
        # Relative to the tensor: single entries near 0 have no relative precision of their own; and
        # to what three updates move a weight: biases start at 0.
        error = (after[name] - tensor).abs().max().item()
        assert error <= tolerance * max(tensor.abs().max().item(), 3 * AT.learning_rate), name


@pytest.mark.parametrize("size", [4, 2, 1, 3])
def test_micro_batches_give_the_update_of_the_whole_batch(size: int) -> None:
    """Also a size that does not divide the batch: its last part counts for fewer clips."""
    accumulating = make_trainer(pretrain={"micro_batch_size": size})
    assert_alike(accumulating, make_trainer(), tolerance=ROUNDING)


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_an_update_reads_no_value_of_a_tensor(
    precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On tensors without values: a loss turned into a float, or a mask as an index, raises here.

    On a GPU each would wait for it; `test_gpu` sees there what else does.
    """
    settings = {"precision": precision, "micro_batch_size": 3, "activation_checkpointing": True}
    # Such tensors cannot be moved; here there is nowhere to move them to.
    monkeypatch.setattr(torch.nn.Module, "to", lambda self, _: self)
    with FakeTensorMode():
        trainer = make_trainer(pretrain=settings)
        for step in range(2):
            measured = trainer.step(make_batch(), step, AT, measure=True)
        with pytest.raises(DataDependentOutputException):
            measured.losses.tolist()


def test_recomputing_activations_changes_nothing_and_keeps_less() -> None:
    recomputing = make_trainer(pretrain={"activation_checkpointing": True})
    assert_alike(recomputing, make_trainer(), tolerance=1e-6)
    kept = {}
    for recompute in (False, True):
        trainer, numbers = make_trainer(pretrain={"activation_checkpointing": recompute}), []

        def count(tensor: torch.Tensor, numbers=numbers) -> torch.Tensor:
            numbers.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            trainer.forward(make_batch(), AT)
        kept[recompute] = sum(numbers)
    assert kept[True] < 0.7 * kept[False]


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_compiled_networks_compute_the_same(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is one graph. Inductor's C++ takes more than a minute: `make soak` waits for it."""
    if backend == "inductor" and not os.environ.get("MATPAC_SOAK"):
        pytest.skip("MATPAC_SOAK is not set")
    whole = torch.nn.Module.compile
    monkeypatch.setattr(
        torch.nn.Module, "compile", lambda self: whole(self, backend=backend, fullgraph=True)
    )
    plain = make_trainer()
    compiled = make_trainer(pretrain={"compile": True, "micro_batch_size": 4})
    assert set(compiled.student.state_dict()) == set(plain.student.state_dict())
    assert_alike(compiled, plain, tolerance=ROUNDING)


@pytest.mark.parametrize(("precision", "digits"), [("bfloat16", 5e-2), ("float16", 5e-3)])
def test_half_precision_differs_by_its_rounding(precision: str, digits: float) -> None:
    half, full = make_trainer(pretrain={"precision": precision}), make_trainer()
    if precision == "float16":  # so small a model overflows at the usual first scale
        half.scaler.load_state_dict(half.scaler.state_dict() | {"scale": 2.0**8})
    ours, expected = (t.step(make_batch(), 1, AT, measure=False).losses for t in (half, full))
    difference = ((ours - expected).abs() / expected).max()
    assert 0 < difference < digits
    assert all(t.dtype == torch.float32 for t in tensors(half).values())
    assert int(half.skipped) == 0 and half.failed_at() is None


def test_float16_skips_an_update_that_overflows_and_scales_less() -> None:
    trainer = make_trainer(pretrain={"precision": "float16"})
    trainer.scaler.load_state_dict(trainer.scaler.state_dict() | {"scale": 2.0**8})
    trainer.step(make_batch(), 1, AT, measure=False)
    trainer.scaler.load_state_dict(trainer.scaler.state_dict() | {"scale": 2.0**40})
    before = tensors(trainer)
    trainer.step(make_batch(), 2, AT, measure=False)
    after = tensors(trainer)
    assert all(torch.equal(after[n], before[n]) for n in before if n.startswith("student."))
    assert int(trainer.skipped) == 1 and trainer.failed_at() is None
    assert trainer.scaler.get_scale() == 2.0**39
    steps = [int(each["step"]) for each in trainer.optimizer.state.values()]
    assert set(steps) == {1}  # Adam's own count leaves skipped updates out
    other = make_trainer(pretrain={"precision": "float16"})
    other.load_state(trainer.state())
    assert other.scaler.get_scale() == 2.0**39 and int(other.skipped) == 1


def test_float16_stops_at_a_loss_that_is_not_finite() -> None:
    trainer, batch = make_trainer(pretrain={"precision": "float16"}), make_batch()
    batch.logmel[2, 3, 4] = math.nan
    before = tensors(trainer)
    trainer.step(batch, 5, AT, measure=False)
    assert trainer.failed_at() == 5 and int(trainer.skipped) == 0
    assert all(torch.equal(t, before[n]) for n, t in tensors(trainer).items())
