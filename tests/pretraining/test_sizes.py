"""Parameters, work and memory: by hand, and as the real networks have them."""

from pathlib import Path

import pytest
import tiny
import torch

from matpac.params import load
from matpac.pretraining import config, sizes
from matpac.pretraining.batches import Batch
from matpac.pretraining.config import ResolvedRun
from matpac.pretraining.schedules import Scheduled
from matpac.pretraining.trainer import Trainer

ROOT = Path(__file__).parents[2]
AT = Scheduled(learning_rate=1e-3, encoder_ema_decay=0.9, head_ema_decay=0.9, teacher_temp=0.05)


def profile_run(name: str) -> ResolvedRun:
    """The run ``base`` of one of the committed profiles."""
    for path in (ROOT / "params.yaml", ROOT / f"params.{name}.yaml"):
        if path.exists() and (params := load(path)).profile == name:
            return config.resolve(params, "base")
    raise FileNotFoundError(name)


def make_batch(run: ResolvedRun, num_mels: int, clips: int) -> Batch:
    patches = num_mels * run.model.crop_frames // run.model.patch_size**2
    return Batch(
        torch.zeros(clips, num_mels, run.model.crop_frames).half(), torch.rand(clips, patches)
    )


def block(tokens: int, width: int) -> int:
    """Multiplications of a block whose hidden width is twice its width: layers and attention."""
    return tokens * width * (3 * width + width + 2 * 2 * width) + 2 * tokens**2 * width


@pytest.mark.parametrize("alpha", [0.5, 1.0])
def test_work_by_hand(alpha: float) -> None:
    """8 patches of 8 x 8, 3 of them visible, and the class token."""
    run = tiny.run(objective={"alpha": alpha})
    m = run.model
    assert (m.encoder_width, m.encoder_depth, m.mlp_ratio) == (16, 2, 2.0)
    embedded = 3 * 64 * 16
    student = embedded + 2 * block(4, 16)
    inner = m.predictor_width
    predictor = 4 * 16 * inner + m.predictor_depth * block(9, inner) + 5 * inner * 16
    hidden, bottleneck = m.head_hidden, m.head_bottleneck
    head = 16 * hidden + hidden**2 + hidden * bottleneck + bottleneck * m.num_prototypes
    forward = {"student": student, "predictor": predictor, "student's head": 5 * head}
    forward |= {"teacher": 5 * 64 * 16 + 2 * block(6, 16), "teacher's head": 5 * head}
    found = sizes.parts(run, 16)
    assert {name: part.forward for name, part in found.items()} == {
        name: 2 * products for name, products in forward.items()
    }
    # A product has a gradient for each of its factors; the log-mels need none.
    backward = {"student": 4 * student - 2 * embedded, "predictor": 4 * predictor}
    backward |= {"student's head": 20 * head if alpha < 1 else 0}
    backward |= {"teacher": 0, "teacher's head": 0}
    assert {name: part.backward for name, part in found.items()} == backward
    assert sizes.per_clip(run, 16) == 2 * sum(forward.values()) + sum(backward.values())


def test_the_papers_model() -> None:
    """23.8 G multiplications forward, 46 in all; 118.1 million trained parameters."""
    run = profile_run("paper")
    parts = sizes.parts(run, 80).values()
    assert sum(part.forward for part in parts) == pytest.approx(2 * 23.8e9, rel=0.005)
    assert sizes.per_clip(run, 80) == pytest.approx(2 * 46e9, rel=0.005)
    trained = sum(part.trained for part in parts)
    assert round(trained / 1e6, 1) == 118.1
    assert sizes.crop_bytes(run, 80) == 608 * 80 * 2
    assert sizes.held(run, 80)["half-precision weights"] == 2 * trained


@pytest.mark.parametrize("alpha", [0.5, 1.0])
def test_what_a_process_holds_is_what_a_trainer_holds(alpha: float) -> None:
    run = tiny.run(objective={"alpha": alpha}, model={"positions": "learned"})
    trainer = Trainer(run, 16, mean=0.0, std=1.0)
    trainer.step(make_batch(run, 16, 2), 0, AT, measure=False)
    gradients = [p.grad for p in trainer.student.parameters() if p.grad is not None]
    averages = [
        s[key] for s in trainer.optimizer.state.values() for key in ("exp_avg", "exp_avg_sq")
    ]
    assert sizes.held(run, 16) == {
        "weights": sum(p.nbytes for p in trainer.student.parameters()),
        "gradients": sum(each.nbytes for each in gradients),
        "optimiser": sum(each.nbytes for each in averages),
        "teacher": sum(p.nbytes for p in trainer.teacher.parameters()),
        "half-precision weights": 0,
    }


def test_counting_draws_no_random_number() -> None:
    before = torch.get_rng_state()
    sizes.parts(tiny.run(model={"num_prototypes": 11}), 16)
    sizes.activations(tiny.run(), 16)
    assert torch.equal(torch.get_rng_state(), before)


def kept(trainer: Trainer, clips: int) -> int:
    """Bytes that autograd keeps for the backward pass of one micro-batch."""
    found: dict[int, int] = {}
    alive = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        found[storage.data_ptr()] = storage.nbytes()
        alive.append(tensor)  # or its address would be taken by another
        return tensor

    batch = make_batch(trainer.run, 80, clips)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        trainer.forward(batch, AT._replace(choice_temp=0.5))
    return sum(found.values())


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    ("recompute", "hypotheses"),
    [(False, 1), (True, 1), (False, 5)],
    ids=["kept", "recomputed", "hypotheses"],
)
def test_activations_are_what_autograd_keeps_of_a_trainer(
    precision: str, recompute: bool, hypotheses: int
) -> None:
    plain = {"precision": precision, "activation_checkpointing": recompute, "compile": False}
    mini = profile_run("mini")  # whose layers are too small for `core.products`, which keeps more
    changed = {
        "model": mini.model.model_copy(update={"hypotheses": hypotheses}),
        "pretrain": mini.pretrain.model_copy(update=plain),
    }
    run = mini.model_copy(update=changed)
    trainer = Trainer(run, 80, mean=0.0, std=1.0)
    assert sizes.activations(run, 80) == kept(trainer, 3) - kept(trainer, 2)
