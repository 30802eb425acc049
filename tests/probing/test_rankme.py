"""RankMe of embeddings whose singular values are known."""

import math

import pytest
import torch

from matpac.probing.rankme import rankme


def test_equal_singular_values_have_the_whole_rank() -> None:
    assert rankme(torch.eye(5)) == pytest.approx(5)
    assert rankme(7 * torch.eye(3, 8)) == pytest.approx(3, abs=1e-4)  # of eight dimensions


def test_by_hand_and_by_singular_values() -> None:
    # Singular values 3 and 1: shares 3/4 and 1/4.
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert rankme(torch.diag(torch.tensor([3.0, 1.0]))) == pytest.approx(math.exp(entropy))
    drawn = torch.randn(2500, 12, generator=torch.Generator().manual_seed(0)) @ torch.diag(
        torch.logspace(0, -3, 12)
    )
    values = torch.linalg.svdvals(drawn.double())
    share = values / values.sum()
    assert rankme(drawn) == pytest.approx(float(torch.special.entr(share).sum().exp()), rel=1e-4)


def test_one_direction_and_nothing_at_all() -> None:
    assert rankme(torch.ones(10, 4)) == pytest.approx(1, abs=1e-3)
    assert rankme(torch.zeros(10, 4)) == pytest.approx(1)
