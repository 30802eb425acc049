"""Collapse diagnostics on distributions and latents whose answer is known."""

import math

import numpy as np
import pytest
import torch

from matpac.method.losses import Comparison, classification_losses
from matpac.method.student import Prediction
from matpac.method.teacher import Target
from matpac.pretraining.diagnostics import (
    Collapse,
    Spread,
    choice_sums,
    choices,
    distribution_sums,
    effective_rank,
    entropies,
    is_chosen,
)

K = 8


def values(distribution: torch.Tensor) -> list[float]:
    sums = distribution_sums("x", distribution) | {"count": distribution[..., 0].numel()}
    return [value.item() for value in entropies("x", sums, "difference").values()]


def covariance(vectors: torch.Tensor) -> torch.Tensor:
    """In three parts."""
    spread = Spread()
    for part in vectors.tensor_split(3):
        spread.add(part)
    return spread.covariance()


@pytest.mark.parametrize(
    ("distribution", "expected"),  # in units of ln 2
    [
        (torch.full((2, 4, K), 1 / K), [3, 3, 0]),  # nothing can be learnt
        (torch.eye(K).reshape(2, 4, K), [3, 0, 3]),  # as much as can be
        (torch.eye(K)[torch.zeros(2, 4, dtype=torch.long)], [0, 0, 0]),  # one takes all
        (torch.tensor([0.5, 0.25, 0.25, *[0] * 5]).expand(2, 4, K), [1.5, 1.5, 0]),
        (torch.tensor([[[0.5, 0.5, 0, 0]], [[0, 0, 0.5, 0.5]]]), [2, 1, 1]),
    ],
    ids=["uniform", "one-hot", "collapsed", "the same for all inputs", "half"],
)
def test_entropies_by_hand(distribution: torch.Tensor, expected: list[float]) -> None:
    expected = [each * math.log(2) for each in expected]
    assert values(distribution) == pytest.approx(expected, abs=1e-6)


def test_covariance_by_numpy() -> None:
    vectors = torch.randn(50, 4, generator=torch.Generator().manual_seed(0)) + 100
    expected = np.cov(vectors.double().numpy().T, bias=True)
    np.testing.assert_allclose(covariance(vectors), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("variances", "rank"),
    [
        ([1.0, 1.0, 1.0, 1.0], 4),
        ([2.0, 2.0, 0.0, 0.0], 2),
        ([9.0, 0.0, 0.0, 0.0], 1),
        # Standard deviations 3, 1, 0, 0: shares 3/4 and 1/4.
        ([9.0, 1.0, 0.0, 0.0], math.exp(0.75 * math.log(4 / 3) + 0.25 * math.log(4))),
        ([0.0, 0.0, 0.0, 0.0], 1),
    ],
)
def test_effective_rank(variances: list[float], rank: float) -> None:
    rotation, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(4, 4)))
    rotated = rotation @ np.diag(variances) @ rotation.T
    # Eigenvalues of 0 come back as 1e-16, which is 1e-8 of spread.
    assert effective_rank(torch.tensor(rotated)).item() == pytest.approx(rank, abs=1e-5)


@pytest.mark.parametrize("offset", [0.0, 5.0])
def test_collapsed_latents_have_rank_one(offset: float) -> None:
    random = torch.Generator().manual_seed(0)
    point, direction = torch.randn(2, 64, generator=random)
    line = torch.randn(500, 1, generator=random) * direction + offset
    # In float32 the rounding of the covariance alone made these 24 and 1.03.
    assert effective_rank(covariance(point.repeat(500, 1))).item() == pytest.approx(1, abs=1e-4)
    assert effective_rank(covariance(line)).item() == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_no_rank_of_what_is_not_finite(wrong: float) -> None:
    vectors = torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
    vectors[3, 2] = wrong
    assert effective_rank(covariance(vectors)).isnan()


def test_prototypes_in_use() -> None:
    assert is_chosen(torch.tensor([[3, 3, 0], [7, 3, 0]]), K).tolist() == [1, 0, 0, 1, 0, 0, 0, 1]
    assert is_chosen(torch.arange(K), K).sum() == K


@pytest.mark.parametrize("parts", [1, 3])
def test_all_together(parts: int) -> None:
    """In one batch, or gathered over micro-batches."""
    random = torch.Generator().manual_seed(0)
    target = torch.randn(3, 4, 6, generator=random)
    teacher = torch.randn(3, 4, K, generator=random).softmax(dim=-1)
    student = teacher.clone()
    student[0, :3] = student[0, :3].flip(-1)  # 3 of 12 patches disagree (K is even)
    collapse = Collapse()
    for latents, ours, other in zip(
        *(each.chunk(parts) for each in (target, student, teacher)), strict=True
    ):
        collapse.add(
            Prediction(2 * latents + 1, torch.empty(0), torch.empty(1, 1, 1)),
            Target(latents, torch.empty(0)),
            Comparison(ours.log(), other, torch.empty(0), classification_losses(ours.log(), other)),
        )
    named = collapse.gather(torch.tensor([3.0, 4.0])).values()
    spread = target.double().flatten(0, 1).numpy().std(axis=0).mean()
    assert named["target_std"] == pytest.approx(spread, rel=1e-6)
    assert named["predicted_std"] == pytest.approx(2 * spread, rel=1e-6)
    assert named["predicted_effective_rank"] == pytest.approx(named["target_effective_rank"], 1e-5)
    mean = teacher.double().mean(dim=(0, 1)).numpy()
    assert named["teacher_entropy_of_mean"] == pytest.approx(-(mean * np.log(mean)).sum(), rel=1e-6)
    single = -(teacher * teacher.log()).sum(dim=-1)
    assert named["teacher_mean_entropy"] == pytest.approx(single.mean().item(), rel=1e-5)
    assert named["student_mean_entropy"] == pytest.approx(single.mean().item(), rel=1e-5)
    kl = (teacher * (teacher.double() / torch.tensor(mean)).log()).sum(dim=-1).mean().item()
    assert named["mutual_information"] == pytest.approx(kl, abs=2e-6)
    assert named["student_entropy_of_mean"] - named["student_mean_entropy"] == pytest.approx(
        named["student_mutual_information"], abs=2e-6
    )
    kl = (teacher * (teacher / student).log()).sum(dim=-1).mean().item()
    assert named["teacher_student_kl"] == pytest.approx(kl, abs=2e-6)
    assert named["prototypes_in_use"] == len(set(teacher.argmax(dim=-1).flatten().tolist()))
    assert named["agreement"] == 0.75
    assert named["center_norm"] == 5
    assert not any("hypotheses" in name or "wins" in name for name in named)  # there is one


def test_how_often_each_hypothesis_wins_and_what_choosing_gains() -> None:
    # Nearest are 0, 0, 2 and, of equal ones, 0; the mean lies 1, 1, 0.5 and 0 beyond.
    distances = torch.tensor([[[1.0, 2, 3], [0, 1, 2]], [[2, 2, 1.25], [1, 1, 1]]])
    sums = choice_sums(distances)
    assert sums["wins"].tolist() == [3, 0, 1]
    found = choices(sums["wins"] / 4, (sums["mean"] - sums["least"]) / 4)
    assert found["choice_gain"] == pytest.approx((1 + 1 + 0.5 + 0) / 4)
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert found["effective_hypotheses"] == pytest.approx(math.exp(entropy))
    assert [found[f"wins_{n}"] for n in range(3)] == [0.75, 0, 0.25]
