"""The losses of both tasks and their sum."""

import math

import numpy as np
import pytest
import torch

from matpac.method.losses import (
    best,
    classification_losses,
    distances,
    prediction_losses,
    total_loss,
)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("target", "loss"),
    [([3.0, 4.0], 0), ([0.3, 0.4], 0), ([-4.0, 3.0], 2), ([-30.0, -40.0], 4), ([1.0, 0.0], 0.8)],
)
def test_prediction_loss_is_two_minus_two_cosines(target: list[float], loss: float) -> None:
    predicted = torch.tensor([[[[3.0, 4.0]]]])
    ours = distances(predicted, torch.tensor([[target]]))
    assert ours.shape == (1, 1, 1) and prediction_losses(ours, 0.0).item() == ours.item()
    assert ours.item() == pytest.approx(loss, abs=5e-7)  # two float32 roundings of 2


def test_each_hypothesis_has_its_own_distance() -> None:
    hypotheses, target = random(2, 3, 4, 7), random(2, 3, 7, seed=1)
    ours = distances(hypotheses, target)
    assert ours.shape == (2, 3, 4)
    for number in range(4):
        alone = distances(hypotheses[:, :, number : number + 1], target)
        assert torch.equal(ours[:, :, number : number + 1], alone)


def test_soft_choice_by_hand() -> None:
    """Weights softmax(-distance / T); T ln 2 apart, one counts twice as much as the other."""
    apart = torch.tensor([[[1.0, 1.0 + 0.1 * math.log(2)]]], requires_grad=True)
    loss = prediction_losses(apart, torch.tensor(0.1))
    assert loss.item() == pytest.approx(1 + 0.1 * math.log(2) / 3, rel=1e-6)
    loss.sum().backward()
    # Constant weights: their own gradient would change these by a tenth.
    np.testing.assert_allclose(apart.grad[0, 0], [2 / 3, 1 / 3], rtol=1e-5)


def test_the_winner_takes_all_at_temperature_zero() -> None:
    three = torch.tensor([[[3.0, 1.0, 2.0], [0.5, 4.0, 1.0]]], requires_grad=True)
    loss = prediction_losses(three, 0.0)
    assert loss.tolist() == [[1.0, 0.5]]
    loss.sum().backward()
    assert three.grad.tolist() == [[[0, 1, 0], [1, 0, 0]]]
    # A small temperature comes to the same.
    np.testing.assert_allclose(prediction_losses(three, 1e-3).detach(), loss.detach(), atol=1e-6)


def test_the_best_hypothesis_is_the_nearest() -> None:
    hypotheses = random(1, 2, 3, 5)
    chosen = best(hypotheses, torch.tensor([[[3.0, 1.0, 2.0], [0.5, 4.0, 1.0]]]))
    assert torch.equal(chosen, torch.stack([hypotheses[:, 0, 1], hypotheses[:, 1, 0]], dim=1))
    assert torch.equal(best(hypotheses[:, :, :1], torch.zeros(1, 2, 1)), hypotheses[:, :, 0])


def test_classification_loss_by_hand() -> None:
    target = torch.tensor([[[0.5, 0.25, 0.25], [1.0, 0.0, 0.0]]])
    student = torch.tensor([[[0.25, 0.25, 0.5], [0.125, 0.375, 0.5]]])
    ours = classification_losses(student.log(), target)
    # In units of ln 2: .5 * 2 + .25 * 2 + .25 * 1 = 1.75, and 1 * 3.
    np.testing.assert_allclose(ours, [[1.75 * math.log(2), 3 * math.log(2)]], rtol=1e-6)


def distance(predicted: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Of one hypothesis."""
    return distances(predicted[:, :, None], target)


@pytest.mark.parametrize("loss", [distance, classification_losses])
def test_only_the_prediction_is_taught(loss) -> None:
    predicted = random(1, 2, 4).requires_grad_()
    loss(predicted, random(1, 2, 4, seed=1).softmax(dim=-1)).sum().backward()
    assert predicted.grad.any()
    with pytest.raises(AssertionError, match="targets carry no gradient"):
        loss(random(1, 2, 4), predicted)


@pytest.mark.parametrize(
    ("loss", "what"), [(distance, "latents"), (classification_losses, "distributions")]
)
def test_shapes_must_agree(loss, what: str) -> None:
    with pytest.raises(ValueError, match=rf"{what}: predicted \(1, 2, 4\) and target \(1, 1, 4\)"):
        loss(random(1, 2, 4), random(1, 1, 4))


@pytest.mark.parametrize(("alpha", "total"), [(0.0, 5.0), (0.25, 4.0), (0.5, 3.0), (1.0, 1.0)])
def test_total_loss(alpha: float, total: float) -> None:
    ours = total_loss(torch.tensor(1.0), torch.tensor(5.0), alpha)
    assert ours.item() == pytest.approx(total, rel=1e-7)


@pytest.mark.parametrize("alpha", [0.0, 0.25, 1.0])
def test_gradients_are_weighed_alike(alpha: float) -> None:
    prediction = torch.tensor(1.0, requires_grad=True)
    classification = torch.tensor(5.0, requires_grad=True)
    total_loss(prediction, classification, alpha).backward()
    for part, weight in ((prediction, alpha), (classification, 1 - alpha)):
        if weight == 0:
            assert part.grad is None  # not a zero: the other task does not take part
        else:
            assert part.grad.item() == weight


def test_a_diverged_task_that_does_not_count_does_not_leak() -> None:
    nan, one = torch.tensor(math.nan), torch.tensor(1.0)
    assert total_loss(one, nan, 1.0).item() == 1
    assert total_loss(nan, one, 0.0).item() == 1
    assert total_loss(nan, one, 0.5).isnan() and total_loss(one, nan, 0.5).isnan()
