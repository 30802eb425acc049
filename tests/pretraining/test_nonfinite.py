"""An update that was not finite is explained: step, tensor, clips."""

import math
from pathlib import Path

import pytest
import tiny
import torch
from tiny import AT

from matpac.pretraining import nonfinite
from matpac.pretraining.run import prepare


def parts(bulk: Path, tmp_path: Path, **pretrain: object) -> tuple:
    batches, trainer = prepare(tiny.make_job(bulk, tmp_path, tiny.run(pretrain=pretrain)))
    return trainer, batches


@pytest.mark.parametrize("micro_batch_size", [None, 3])
def test_clips_whose_log_mels_are_not_finite(bulk, tmp_path, monkeypatch, micro_batch_size) -> None:
    trainer, batches = parts(bulk, tmp_path, micro_batch_size=micro_batch_size)
    batch = batches[1]
    batch.logmel[3, 2, 1] = math.inf
    monkeypatch.setattr(type(batches), "__getitem__", lambda self, update: batch)
    names = batches.names(1)
    assert nonfinite.describe(trainer, batches, 1, AT) == f"  log-mel of {names[3]}"
    # Names are those of the clips that the update read.
    read = trainer.run.pretrain.batch_size
    assert len(set(names)) == read and all(n.startswith("noise/") for n in names)


def test_the_first_tensor_on_the_way_is_named(bulk, tmp_path) -> None:
    trainer, batches = parts(bulk, tmp_path)
    trainer.student.head.mlp[0].bias.data[0] = math.inf
    lines = nonfinite.describe(trainer, batches, 0, AT).splitlines()
    assert lines == [f"  student's logits of {name}" for name in batches.names(0)]


def test_a_gradient_alone(bulk, tmp_path) -> None:
    trainer, batches = parts(bulk, tmp_path)
    weight = trainer.student.predictor.project.weight
    weight.register_hook(lambda gradient: gradient * math.inf)
    text = nonfinite.describe(trainer, batches, 0, AT)
    assert text == "  gradient of predictor.project.weight"
    assert all(p.grad is None for p in trainer.student.parameters())


def test_nothing_found_the_second_time(bulk, tmp_path) -> None:
    trainer, batches = parts(bulk, tmp_path)
    before = {n: t.clone() for n, t in trainer.student.state_dict().items()}
    assert "fault of the machine" in nonfinite.describe(trainer, batches, 0, AT)
    assert all(torch.equal(t, before[n]) for n, t in trainer.student.state_dict().items())


def test_long_lists_end_with_a_count(bulk, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(nonfinite, "SHOWN", 2)
    trainer, batches = parts(bulk, tmp_path)
    trainer.student.head.mlp[0].bias.data[0] = math.inf
    assert nonfinite.describe(trainer, batches, 0, AT).splitlines()[2:] == ["  ... and 2 more"]
