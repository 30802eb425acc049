"""The teacher: an EMA that is never trained."""

import pytest
import tiny
import torch

from matpac.method.student import Student
from matpac.method.teacher import Teacher


def pair(*, copy_student: bool = False) -> tuple[Student, Teacher]:
    torch.manual_seed(0)
    student = Student(tiny.run().model, 16)
    torch.nn.init.normal_(student.head.weight_g)
    return student, Teacher(student, copy_student=copy_student)


def parts(student: Student) -> dict[str, torch.Tensor]:
    """The student's tensors that the teacher has too, detached from it."""
    state = student.state_dict()
    return {n: t.clone() for n, t in state.items() if n.startswith(("encoder.", "head."))}


def test_copies_of_the_student() -> None:
    student, teacher = pair(copy_student=True)
    own, other = teacher.state_dict(), parts(student)
    assert set(own) == set(other)
    assert all(torch.equal(own[name], other[name]) for name in own)
    student.encoder.norm.weight.data.zero_()
    assert teacher.encoder.norm.weight.all()  # a copy, not the same memory


def test_a_draw_of_its_own_shares_only_the_prototypes() -> None:
    student, teacher = pair(copy_student=False)
    own, other = teacher.state_dict(), parts(student)
    matrices = [name for name in own if own[name].ndim > 1 and name != "head.weight_g"]
    equal = [name for name in matrices if torch.equal(own[name], other[name])]
    assert equal == ["head.weight_v"] and len(matrices) > 10
    # DINO's head starts small, the student's from Xavier weights.
    assert own["head.mlp.0.weight"].std() < 0.03 < 0.2 < other["head.mlp.0.weight"].std()


@pytest.mark.parametrize(
    ("decays", "expected"),
    [((0.0, 0.0), "student"), ((1.0, 1.0), "teacher"), ((0.5, 0.25), "between")],
)
def test_update(decays: tuple[float, float], expected: str) -> None:
    student, teacher = pair()
    old, new = {n: t.clone() for n, t in teacher.state_dict().items()}, parts(student)
    teacher.update(student, encoder_decay=decays[0], head_decay=decays[1])
    for name, tensor in teacher.state_dict().items():
        decay = decays[name.startswith("head.")]
        wanted = decay * old[name].double() + (1 - decay) * new[name].double()
        if expected == "between":
            torch.testing.assert_close(tensor.double(), wanted, rtol=1e-6, atol=1e-7)
        else:
            assert torch.equal(tensor, new[name] if expected == "student" else old[name]), name


def test_an_update_that_is_not_active_changes_nothing() -> None:
    student, teacher = pair()
    before = {n: t.clone() for n, t in teacher.state_dict().items()}
    teacher.update(student, encoder_decay=0.5, head_decay=0.1, active=torch.tensor(0.0))
    assert all(torch.equal(tensor, before[n]) for n, tensor in teacher.state_dict().items())


def test_targets_are_latents_without_class_token_and_their_logits() -> None:
    student, teacher = pair()
    tokens = student.patches(torch.randn(2, 16, tiny.CROP), torch.tensor([[0, 5, 3], [7, 1, 2]]))
    assert tokens.requires_grad
    target = teacher(tokens)
    assert target.latents.shape == (2, 3, 16)
    assert torch.equal(target.latents, teacher.encoder(tokens)[:, 1:])
    assert torch.equal(target.logits, teacher.head(target.latents))
    assert not target.latents.requires_grad and not target.logits.requires_grad


def test_it_is_in_eval_mode_without_gradients() -> None:
    _, teacher = pair(copy_student=True)
    assert not any(module.training for module in teacher.modules())
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
