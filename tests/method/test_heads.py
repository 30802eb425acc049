"""Classification head, centre, and the two distributions."""

import numpy as np
import pytest
import tiny
import torch
from scipy.special import erf, softmax

from matpac.method.heads import Center, Head, student_log_distribution, teacher_distribution


def make_head(width: int, *, hidden: int, bottleneck: int, **model: int) -> Head:
    sizes = {"encoder_width": width, "head_hidden": hidden, "head_bottleneck": bottleneck}
    return Head(tiny.run(model=sizes | model).model)


def test_logits_by_numpy() -> None:
    torch.manual_seed(0)
    head = make_head(8, hidden=5, bottleneck=4, num_prototypes=7)
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter)
    latents = torch.randn(2, 3, 8)
    x = latents.double().numpy()
    for number, layer in enumerate(head.mlp[::2]):
        x = x @ layer.weight.detach().double().numpy().T + layer.bias.detach().double().numpy()
        if number < 2:
            x = x * (1 + erf(x / np.sqrt(2))) / 2
    x /= np.linalg.norm(x, axis=-1, keepdims=True)
    v, g = head.weight_v.detach().double().numpy(), head.weight_g.detach().double().numpy()
    expected = x @ (g * v / np.linalg.norm(v, axis=1, keepdims=True)).T
    # float32 against float64; logits are of order 1
    np.testing.assert_allclose(head(latents).detach().numpy(), expected, rtol=0, atol=5e-6)


@pytest.mark.parametrize("trained", [True, False])
def test_norms_of_prototypes(trained: bool) -> None:
    head = make_head(4, hidden=2, bottleneck=2, num_prototypes=3, train_weight_g=trained)
    assert head.weight_g.tolist() == [[1.0]] * 3
    head(torch.randn(4, 4)).sum().backward()
    assert head.weight_v.grad is not None
    assert (head.weight_g.grad is not None) == trained == head.weight_g.requires_grad


def test_initial_weights_are_small_and_normal() -> None:
    torch.manual_seed(0)
    head = make_head(128, hidden=128, bottleneck=128, num_prototypes=4)
    for layer in head.mlp[::2]:
        # 16384 draws: the standard deviation of their standard deviation is 0.55 %
        assert layer.weight.std().item() == pytest.approx(0.02, rel=0.03)
        assert not layer.bias.any()


LOGITS = torch.tensor([[[1.0, 3.0], [3.0, 5.0]], [[0.0, 0.0], [4.0, 4.0]]])  # mean (2, 3)
PROBABILITIES = torch.tensor([[[1.0, 0.0], [1.0, 0.0]], [[0.5, 0.5], [0.5, 0.5]]])  # (.75, .25)


@pytest.mark.parametrize(
    ("averages", "after_two"),
    # .1 m after one update, .9 * .1 m + .1 m = .19 m after two
    [("probabilities", [0.1425, 0.0475]), ("logits", [0.38, 0.57]), ("none", [0.0, 0.0])],
)
def test_centre_is_a_moving_average(averages: str, after_two: list[float]) -> None:
    center = Center(2, averages=averages, momentum=0.9)
    assert not center.value.any()
    for _ in range(2):
        mean = center.batch_mean(LOGITS, PROBABILITIES)
        center.update(mean)
    np.testing.assert_allclose(center.value, after_two, rtol=1e-6)


def test_centre_forgets_what_it_was() -> None:
    center = Center(2, averages="logits", momentum=0.75)
    center.value.copy_(torch.tensor([4.0, -8.0]))
    center.update(torch.tensor([0.0, 8.0]))
    assert center.value.tolist() == [3.0, -4.0]  # 3/4 * (4, -8) + 1/4 * (0, 8)
    assert "value" in center.state_dict()  # or a resumed run would lose it


def test_teacher_distribution_by_hand() -> None:
    logits = torch.tensor([[[1.0, 2.0], [1.5, 1.0]]])
    distribution = teacher_distribution(logits, torch.tensor([0.0, 1.0]), 0.5)
    # Centred (1, 1) and (1.5, 0); odds of the second exp(1.5 / .5) = exp(3).
    odds = np.exp(3)
    expected = [[0.5, 0.5], [odds / (1 + odds), 1 / (1 + odds)]]
    np.testing.assert_allclose(distribution[0], expected, rtol=1e-6)


def test_student_distribution() -> None:
    logits = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(0))
    ours = student_log_distribution(logits, 0.1)
    np.testing.assert_allclose(ours.exp(), softmax(logits.numpy() / 0.1, axis=-1), atol=1e-6)


def test_distributions_are_computed_in_float32() -> None:
    logits = torch.tensor([[[1.0, 0.5]]], dtype=torch.bfloat16)
    for ours in (
        teacher_distribution(logits, torch.zeros(2), 0.07),
        student_log_distribution(logits, 0.1).exp(),
    ):
        assert ours.dtype == torch.float32
        assert ours.sum().item() == pytest.approx(1, abs=1e-6)  # bfloat16 would be off by 1e-3
