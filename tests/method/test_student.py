"""The student: its parts wired as in Fig. 1."""

import tiny
import torch

from matpac.method.masking import Mask, random_mask
from matpac.method.student import Student


def make_student(**model: int) -> tuple[Student, torch.Tensor, Mask]:
    torch.manual_seed(0)
    objective = {"choice_temp": [0.1, 1e-4], "choice_temp_decay": 0.9} if model else {}
    student = Student(tiny.run(model=model, objective=objective).model, 16)
    mask = random_mask(torch.rand(2, 8), 0.6)
    return student, torch.randn(2, 16, tiny.CROP), mask


TARGET = torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(3))


def test_the_head_sees_the_hypothesis_nearest_to_the_target() -> None:
    student, logmel, mask = make_student(hypotheses=3)
    hypotheses = student.predictor(student.encoder(student.patches(logmel, mask.visible)), mask)
    target = torch.stack([hypotheses[:, m, m % 3] for m in range(5)], dim=1).detach() * 7
    ours = student(logmel, mask, target)
    assert ours.distances.argmin(dim=2).tolist() == [[0, 1, 2, 0, 1]] * 2
    torch.testing.assert_close(ours.latents, target / 7, rtol=1e-6, atol=1e-6)
    assert torch.equal(ours.logits, student.head(ours.latents))
    ours.logits.square().sum().backward()
    # The second task teaches the chosen hypothesis, and it alone.
    rows = student.predictor.project.weight.grad.unflatten(0, (3, 16)).abs().sum(dim=(1, 2))
    assert (rows > 0).all()
    student.zero_grad()
    student(logmel, mask, target).logits[:, 1].square().sum().backward()
    rows = student.predictor.project.weight.grad.unflatten(0, (3, 16)).abs().sum(dim=(1, 2))
    assert rows[1] > 0 and rows[0] == rows[2] == 0


def test_the_student_does_not_see_masked_patches() -> None:
    student, logmel, mask = make_student()
    before = student(logmel, mask, TARGET)
    row, column = divmod(int(mask.masked[0, 0]), 4)
    logmel[0, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8] = 100.0
    assert torch.equal(student(logmel, mask, TARGET).latents, before.latents)
    row, column = divmod(int(mask.visible[0, 0]), 4)
    logmel[0, 8 * row, 8 * column] = 100.0
    difference = (student(logmel, mask, TARGET).latents - before.latents).abs().amax(dim=(1, 2))
    assert difference[0] > 1e-3 and difference[1] == 0


def test_all_but_fixed_tables_are_trained() -> None:
    student, logmel, mask = make_student()
    predicted = student(logmel, mask, TARGET)
    (predicted.latents.square().sum() + predicted.logits.square().sum()).backward()
    without = [name for name, p in student.named_parameters() if p.grad is None]
    assert without == ["patches.positions", "predictor.positions"]
