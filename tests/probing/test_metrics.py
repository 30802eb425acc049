"""Accuracy and mAP: by hand, then against scikit-learn and torchmetrics, with ties and masks."""

import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import multilabel_average_precision

from matpac.probing.metrics import average_precision, score

NAN = float("nan")


def test_accuracy_by_hand() -> None:
    logits = np.array([[2.0, 1.0, 0.0], [0.0, 3.0, 1.0], [0.0, 0.0, 5.0], [1.0, 2.0, 0.0]])
    assert score(logits, np.array([0, 1, 1, 1])) == (0.75, 2)
    assert score(np.zeros((2, 3)), np.array([0, 1]))[0] == 0.5, "of equal ones the first counts"


def test_average_precision_by_hand() -> None:
    # In order of the logits the targets read 1, 0, 1, 0: precision 1/1 at the first positive and
    # 2/3 at the second, each gaining half of the recall.
    logits = np.array([[0.9], [0.8], [0.7], [0.1]])
    targets = np.array([[1.0], [0.0], [1.0], [0.0]])
    np.testing.assert_allclose(average_precision(logits, targets), [(1 + 2 / 3) / 2])


def test_masked_cells_and_classes_without_positives_leave_the_mean() -> None:
    logits = np.array([[0.9, 0.9, 0.3, 0.1], [0.8, 0.5, 0.2, 0.2], [0.7, 0.1, 0.1, 0.3]])
    targets = np.array([[NAN, 1.0, 0.0, NAN], [0.0, 0.0, 0.0, NAN], [1.0, NAN, NAN, NAN]])
    # Class 0 without its masked top row: 0, 1 -> 1/2. Class 1: 1, 0 -> 1. Class 2: no positive.
    # Class 3: no row at all.
    np.testing.assert_array_equal(average_precision(logits, targets), [0.5, 1.0, NAN, NAN])
    assert score(logits, targets) == (0.75, 2)


@pytest.mark.filterwarnings("ignore:No positive samples")
def test_equals_torchmetrics_with_ties_and_masks() -> None:
    """Half of the cells are masked, and class 3 has no positive."""
    rng = np.random.default_rng(0)
    logits = np.round(rng.normal(size=(400, 12)), 1)
    targets = (rng.random((400, 12)) < 0.2).astype(float)
    targets[rng.random((400, 12)) < 0.5] = NAN
    targets[:, 3] = np.where(np.isnan(targets[:, 3]), NAN, 0.0)
    ours = average_precision(logits, targets)
    theirs = multilabel_average_precision(
        torch.from_numpy(logits),
        torch.from_numpy(np.nan_to_num(targets, nan=-1)).long(),
        num_labels=12,
        average=None,
        ignore_index=-1,
    ).numpy()
    some = np.delete(np.arange(12), 3)
    # It computes in float32, after a sigmoid that keeps the order of logits one decimal apart.
    np.testing.assert_allclose(ours[some], theirs[some], rtol=0, atol=1e-6)
    assert np.isnan(ours[3]) and theirs[3] == 0, "the empty class, which would pull its mean down"
    assert score(logits, targets) == pytest.approx((theirs[some].mean(), 11), abs=1e-6)


def test_refuses_what_it_cannot_score() -> None:
    with pytest.raises(ValueError, match="no observed positive in any class"):
        score(np.zeros((2, 2)), np.array([[0.0, NAN], [0.0, 0.0]]))
    with pytest.raises(ValueError, match="NaN"):
        score(np.array([[NAN]]), np.array([[1.0]]))
