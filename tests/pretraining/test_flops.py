"""Counted work: by hand, and as torch counts the real networks."""

from pathlib import Path

import pytest
import tiny
import torch
from torch.utils.flop_counter import FlopCounterMode

from matpac.method.masking import random_mask
from matpac.method.student import Student
from matpac.method.teacher import Teacher
from matpac.params import load
from matpac.pretraining import config, flops
from matpac.pretraining.config import ResolvedRun
from matpac.pretraining.flops import Work

ROOT = Path(__file__).parents[2]
CHOICE = {"choice_temp": [0.5, 0.1], "choice_temp_fraction": 0.5}


def profile_run(name: str) -> ResolvedRun:
    """The run ``base`` of one of the committed profiles."""
    for path in (ROOT / "params.yaml", ROOT / f"params.{name}.yaml"):
        if path.exists() and (params := load(path)).profile == name:
            return config.resolve(params, "base")
    raise FileNotFoundError(name)


def test_a_product_and_its_gradients() -> None:
    # (3, 4) @ (4, 5): 60 multiplications; then the gradients of both factors.
    assert flops.linear(3, 4, 5) == Work(120, 240)
    assert flops.linear(3, 4, 5, gradients=1) == Work(120, 120)
    assert (Work(1, 2) + Work(10, 20)) * 3 == Work(33, 66)
    assert Work(1, 2).total == 3 and Work(1, 2).frozen() == Work(1, 0)


def test_a_block_by_hand() -> None:
    """Five tokens of width 4, hidden width 8."""
    queries_keys_and_values, projection = 5 * 4 * 12, 5 * 4 * 4
    scores = mixing = 5 * 5 * 4
    mlp = 2 * (5 * 4 * 8)
    products = queries_keys_and_values + projection + scores + mixing + mlp
    assert flops.block(5, 4, 8) == Work(2 * products, 4 * products)


def counted(run: ResolvedRun, num_mels: int) -> dict[str, Work]:
    """As torch counts the matrix products of the networks, on tensors without content.

    There attention is taken apart into its products; on a CPU torch's fused attention would not be
    counted at all, on a GPU its backward pass would count what it computes a second time.
    """
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        student = Student(run.model, num_mels)
        teacher = Teacher(student, run.model, copy_student=False)
        if run.objective.alpha == 1:
            student.head.requires_grad_(False)
        logmel = torch.zeros(2, num_mels, run.model.crop_frames)
        mask = random_mask(torch.rand(2, student.patches.num_patches), run.model.mask_ratio)
        with torch.no_grad():
            target = teacher(student.patches(logmel, mask.masked))
        embedding = _by_part(counter)["PatchEmbedding"]
        predicted = student(logmel, mask, target.latents)
        forward = _by_part(counter)
        loss = predicted.latents.sum()
        (loss if run.objective.alpha == 1 else loss + predicted.logits.sum()).backward()
    both = _by_part(counter)

    def work(*parts: str) -> Work:
        first = sum(forward.get(part, 0) for part in parts)
        # Two clips.
        return Work(first // 2, (sum(both.get(part, 0) for part in parts) - first) // 2)

    teacher_work = work("Teacher.encoder")
    return {
        "student": work("Student.patches", "Student.encoder"),
        "predictor": work("Student.predictor"),
        "student's head": work("Student.head"),
        "teacher": Work(teacher_work.forward + embedding // 2, teacher_work.backward),
        "teacher's head": work("Teacher.head"),
    }


def _by_part(counter: FlopCounterMode) -> dict[str, int]:
    return {name: sum(each.values()) for name, each in counter.get_flop_counts().items()}


@pytest.mark.parametrize(
    ("run", "num_mels"),
    [
        pytest.param(tiny.run(), 16, id="tiny"),
        pytest.param(tiny.run(model={"predictor_depth": 3, "mask_ratio": 0.4}), 16, id="other"),
        pytest.param(tiny.run(objective={"alpha": 1.0}), 16, id="no classification"),
        pytest.param(tiny.run(model={"hypotheses": 3}, objective=CHOICE), 16, id="hypotheses"),
        pytest.param(profile_run("mini"), 80, id="mini"),
        pytest.param(profile_run("paper"), 80, id="paper"),
    ],
)
def test_every_part_is_what_torch_counts(run: ResolvedRun, num_mels: int) -> None:
    assert flops.work(run, num_mels) == counted(run, num_mels)


def test_the_papers_model() -> None:
    """By hand 23.8 G multiplications forward and 46 in all."""
    run = profile_run("paper")
    forward = sum(part.forward for part in flops.work(run, 80).values())
    assert forward == pytest.approx(2 * 23.8e9, rel=0.005)
    assert flops.per_clip(run, 80) == pytest.approx(2 * 46e9, rel=0.005)
