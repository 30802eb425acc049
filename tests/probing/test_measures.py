"""Measures of embeddings whose values are known."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from matpac.probing.measures import alignment, alpha_req, gram_matrix, measures, rankme, uniformity
from matpac.probing.splits import Split
from matpac.probing.task import Task


def task_of(features: Tensor, targets: Tensor, num_classes: int) -> Task:
    part = np.arange(2)
    split = Split(part, part, part, seed=0, fold=0, repeat=1)
    return Task(features, targets, [split], num_classes=num_classes)


def test_equal_singular_values_have_the_whole_rank() -> None:
    assert rankme(gram_matrix(torch.eye(5))) == pytest.approx(5)
    assert rankme(gram_matrix(7 * torch.eye(3, 8))) == pytest.approx(
        3, abs=1e-4
    )  # of eight dimensions


def test_by_hand_and_by_singular_values() -> None:
    # Singular values 3 and 1: shares 3/4 and 1/4.
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert rankme(gram_matrix(torch.diag(torch.tensor([3.0, 1.0])))) == pytest.approx(
        math.exp(entropy)
    )
    drawn = torch.randn(2500, 12, generator=torch.Generator().manual_seed(0)) @ torch.diag(
        torch.logspace(0, -3, 12)
    )
    values = torch.linalg.svdvals(drawn.double())
    share = values / values.sum()
    assert rankme(gram_matrix(drawn)) == pytest.approx(
        float(torch.special.entr(share).sum().exp()), rel=1e-4
    )


def test_one_direction_and_nothing_at_all() -> None:
    assert rankme(gram_matrix(torch.ones(10, 4))) == pytest.approx(1, abs=1e-3)
    assert rankme(gram_matrix(torch.zeros(10, 4))) == pytest.approx(1)


@pytest.mark.parametrize("exponent", [0.5, 1.0, 2.0])
def test_the_exponent_of_a_power_law_is_found_wherever_the_mean_lies(exponent: float) -> None:
    spread = torch.arange(1, 65, dtype=torch.float64) ** (-exponent / 2)
    drawn = torch.randn(400, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    drawn -= drawn.mean(dim=0)
    left = torch.linalg.qr(drawn).Q  # of orthonormal columns with mean 0
    features = left * spread + 3
    assert alpha_req(features, gram_matrix(features)) == pytest.approx(exponent, abs=1e-6)


def test_no_power_law_of_a_handful_of_dimensions() -> None:
    for features in (torch.randn(100, 20), torch.ones(100, 64)):
        assert math.isnan(alpha_req(features, gram_matrix(features)))


def test_uniformity_of_points_on_a_circle() -> None:
    assert uniformity(torch.ones(5, 1)) == pytest.approx(0)
    assert uniformity(torch.tensor([[1.0], [-1.0]])) == pytest.approx(-8)  # at a distance of 2
    angles = torch.linspace(0, 2 * torch.pi, 5)[:4]
    square = torch.stack([angles.cos(), angles.sin()], dim=1)
    # Four pairs of neighbours at sqrt(2), two of opposite corners at 2.
    assert uniformity(square) == pytest.approx(
        math.log((4 * math.exp(-4) + 2 * math.exp(-8)) / 6), abs=1e-5
    )


@pytest.mark.parametrize("multilabel", [False, True])
def test_alignment_is_the_distance_of_pairs_with_the_same_label(multilabel: bool) -> None:
    torch.manual_seed(0)
    features, labels = torch.randn(30, 6), torch.randint(0, 4, (30,))
    labels[labels == 3] = 2
    labels[0] = 3  # which one clip alone has
    targets = labels
    if multilabel:
        targets = F.one_hot(labels, 4).float()
        targets[5], targets[6] = torch.nan, 1.0
    task = task_of(features, targets, 4)
    inputs = task.inputs(Split(*3 * (np.arange(30),), seed=0, fold=0, repeat=1))
    units = F.normalize(inputs[np.arange(30)])
    has = targets.nan_to_num() if multilabel else F.one_hot(labels, 4)
    expected = [
        torch.pdist(units[has[:, label] == 1]).square().mean()
        for label in range(4)
        if has[:, label].sum() > 1
    ]
    assert alignment(task, inputs) == pytest.approx(float(torch.stack(expected).mean()), rel=1e-5)


def test_all_of_a_task_are_finite_and_know_structure_from_noise() -> None:
    torch.manual_seed(0)
    labels = torch.arange(200) % 5
    noise = torch.randn(200, 40)
    found = measures(task_of(noise, labels, 5))
    near = measures(task_of(noise + 3 * F.one_hot(labels, 40), labels, 5))
    assert all(map(math.isfinite, found.values()))
    assert near["alignment"] < found["alignment"] == pytest.approx(2, abs=0.1)
