"""Updates on a GPU against the same on the CPU: ``MATPAC_TEST_GPU=1 pytest -m gpu tests``."""

import os
import signal
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch

from matpac.core import distributed
from matpac.core.signals import Interrupted
from matpac.pretraining import states
from matpac.pretraining.batches import Batch
from matpac.pretraining.loop import train
from matpac.pretraining.schedules import Scheduled
from matpac.pretraining.trainer import Measured, Trainer

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU, or MATPAC_TEST_GPU is unset"),
]


AT = Scheduled(4e-3, 0.97, 0.97, 0.05)


def make_trainer(device: str, monkeypatch: pytest.MonkeyPatch, **pretrain: object) -> Trainer:
    monkeypatch.setattr(distributed, "device", lambda: torch.device(device))
    torch.backends.cuda.matmul.allow_tf32 = False
    return tiny.make_trainer(pretrain=pretrain)


def two_updates(trainer: Trainer) -> list[Measured]:
    return [trainer.step(tiny.make_batch(), step, AT, measure=True) for step in (1, 2)]


@pytest.mark.parametrize(
    ("settings", "tolerance"),
    [
        ({"precision": "float32"}, 1e-3),
        ({"precision": "float32", "micro_batch_size": 2}, 1e-3),
        ({"precision": "float32", "compile": True}, 1e-3),
        ({"precision": "float32", "activation_checkpointing": True}, 1e-3),
        ({"precision": "bfloat16"}, 5e-2),
        ({"precision": "bfloat16", "compile": True, "micro_batch_size": 2}, 5e-2),
        ({"precision": "float16"}, 5e-2),
    ],
    ids=str,
)
def test_updates_on_a_gpu_are_those_on_the_cpu(monkeypatch, settings, tolerance) -> None:
    """The first update is compared through the second's losses; bfloat16 has three digits."""
    gpu = make_trainer("cuda", monkeypatch, **settings)
    if settings["precision"] == "float16":  # so small a model overflows at the usual first scale
        gpu.scaler.load_state_dict(gpu.scaler.state_dict() | {"scale": 256.0})
    on_gpu = two_updates(gpu)
    on_cpu = two_updates(make_trainer("cpu", monkeypatch))
    for ours, expected in zip(on_gpu, on_cpu, strict=True):
        assert ours.losses.device.type == "cuda"
        torch.testing.assert_close(ours.losses.cpu(), expected.losses, rtol=tolerance, atol=0)
        assert ours.collapse.values() == pytest.approx(
            expected.collapse.values(), rel=10 * tolerance, abs=10 * tolerance
        )


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("micro_batch_size", [None, 2])
def test_no_update_waits_for_the_device(monkeypatch, precision, micro_batch_size) -> None:
    trainer = make_trainer(
        "cuda", monkeypatch, precision=precision, micro_batch_size=micro_batch_size
    )
    two_updates(trainer)  # makes the optimiser's state
    batch = Batch(*(each.pin_memory() for each in tiny.make_batch()))
    torch.cuda.set_sync_debug_mode("error")
    try:
        measured = trainer.step(batch, 3, AT, measure=True)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert measured.losses.isfinite().all() and trainer.failed_at() is None


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_a_run_stops_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    """The whole loop: batches from a loader process, a state from the device and back to it."""
    tiny.make_store(tmp_path / "bulk" / "logmel" / "noise", [32 + n for n in range(8)])
    run = tiny.run(pretrain={"precision": precision, "micro_batch_size": 3, "workers": 1})
    whole, stopped = (
        tiny.make_job(tmp_path / "bulk", tmp_path / name, run) for name in ("whole", "stopped")
    )
    train(whole)
    step, pinned = Trainer.step, []

    def interrupted(self: Trainer, batch: Batch, index: int, *args: object, **named: object):
        pinned.extend(tensor.is_pinned() for tensor in batch)
        if index == 5:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self, batch, index, *args, **named)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "step", interrupted)
        with pytest.raises(Interrupted, match="stopped after step 5; state saved"):
            train(stopped)
    assert pinned == [True] * 12
    assert "cuda" in states.read(tiny.newest(stopped))["random"][0]
    train(stopped)
    logs = [np.loadtxt(job.logs / "log.csv", delimiter=",", skiprows=1) for job in (stopped, whole)]
    assert logs[0].shape == (12, 11)
    # Kernels add up in any order: the last digits of half precision.
    np.testing.assert_allclose(*logs, rtol=5e-2)
