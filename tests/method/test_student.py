"""The student: its parts wired as in Fig. 1."""

import tiny
import torch

from matpac.method.masking import Mask, random_mask
from matpac.method.student import Student


def make_student() -> tuple[Student, torch.Tensor, Mask]:
    torch.manual_seed(0)
    student = Student(tiny.run().model, 16)
    mask = random_mask(torch.rand(2, 8), 0.6)
    return student, torch.randn(2, 16, tiny.CROP), mask


def test_forward_is_the_parts_in_order() -> None:
    student, logmel, mask = make_student()
    ours = student(logmel, mask)
    visible = student.encoder(student.patches(logmel, mask.visible))
    latents = student.predictor(visible, mask)
    assert ours.latents.shape == (2, 5, 16) and ours.logits.shape == (2, 5, 12)
    assert torch.equal(ours.latents, latents)
    assert torch.equal(ours.logits, student.head(latents))


def test_the_student_does_not_see_masked_patches() -> None:
    student, logmel, mask = make_student()
    before = student(logmel, mask)
    row, column = divmod(int(mask.masked[0, 0]), 4)
    logmel[0, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8] = 100.0
    assert torch.equal(student(logmel, mask).latents, before.latents)
    row, column = divmod(int(mask.visible[0, 0]), 4)
    logmel[0, 8 * row, 8 * column] = 100.0
    difference = (student(logmel, mask).latents - before.latents).abs().amax(dim=(1, 2))
    assert difference[0] > 1e-3 and difference[1] == 0


def test_forward_changes_nothing() -> None:
    student, logmel, mask = make_student()
    before = {name: tensor.clone() for name, tensor in student.state_dict().items()}
    student.train()
    first, second = student(logmel, mask), student(logmel, mask)
    assert torch.equal(first.logits, second.logits)  # no dropout either
    for name, tensor in student.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_all_but_fixed_tables_are_trained() -> None:
    student, logmel, mask = make_student()
    predicted = student(logmel, mask)
    (predicted.latents.square().sum() + predicted.logits.square().sum()).backward()
    without = [name for name, p in student.named_parameters() if p.grad is None]
    assert without == ["patches.positions", "predictor.positions"]
