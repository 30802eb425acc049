"""Accuracy and mean average precision, the two metrics of Table I.

Both take logits: they depend on the order of a clip's (accuracy) or a class's (average precision)
scores only. Average precision is the step-wise sum that scikit-learn computes, not the interpolated
one; it is written out here because importing scikit-learn costs every probe stage several seconds,
and the tests hold the two against each other.

Shapes: B clips, C labels.
"""

from typing import NamedTuple

import numpy as np


class MeanAveragePrecision(NamedTuple):
    """Macro mAP and the number of classes it is the mean of."""

    score: float
    num_classes_scored: int


def accuracy(logits: np.ndarray, labels: np.ndarray) -> float:
    """Fraction of clips whose largest logit is that of their label (MATPAC Table I, "Acc.").

    Args:
        logits: (B, C); of equal largest logits the first counts.
        labels: class of each clip, (B,), integers in [0, C).
    Returns: in [0, 1].
    Raises: ValueError if there is no clip or a label is out of range.
    """
    logits, labels = np.asarray(logits), np.asarray(labels)
    if logits.ndim != 2 or labels.shape != logits.shape[:1] or len(labels) == 0:
        raise ValueError(
            f"accuracy: got logits {logits.shape} and labels {labels.shape}, "
            "allowed: (B, C) and (B,) with B > 0"
        )
    if labels.min() < 0 or labels.max() >= logits.shape[1]:
        raise ValueError(
            f"labels: got values in [{labels.min()}, {labels.max()}], "
            f"allowed: 0 to {logits.shape[1] - 1}"
        )
    return float(np.mean(logits.argmax(axis=1) == labels))


def average_precision(logits: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Average precision of each class over the clips where that class was observed.

    Args:
        logits: (B, C).
        targets: 1 present, 0 absent, NaN not observed (OpenMIC's mask), (B, C).
    Returns: (C,) in (0, 1]; NaN for a class without an observed positive, which has no precision
        (scikit-learn and torchmetrics would count it as 0).
    Raises: ValueError if the shapes differ, a logit is NaN or a target is not 0, 1 or NaN.
    """
    logits, targets = np.asarray(logits), np.asarray(targets, dtype=float)
    if logits.ndim != 2 or logits.shape != targets.shape:
        raise ValueError(
            f"average_precision: got logits {logits.shape} and targets {targets.shape}, "
            "allowed: two equal shapes (B, C)"
        )
    if np.isnan(logits).any():
        raise ValueError("logits: got NaN, allowed: numbers")
    observed = ~np.isnan(targets)
    if not np.isin(targets[observed], (0.0, 1.0)).all():
        raise ValueError("targets: got a value other than 0, 1 and NaN (= not observed)")
    return np.array(
        [_average_precision(logits[rows, c], targets[rows, c]) for c, rows in enumerate(observed.T)]
    )


def mean_average_precision(logits: np.ndarray, targets: np.ndarray) -> MeanAveragePrecision:
    """Macro mAP: the plain mean of the average precisions that exist (MATPAC Table I, "mAP").

    Args:
        logits: (B, C).
        targets: 1 present, 0 absent, NaN not observed, (B, C).
    Returns: the mean over classes with at least one observed positive, and their number.
    Raises: ValueError as ``average_precision``, and if no class has an observed positive.
    """
    per_class = average_precision(logits, targets)
    scored = ~np.isnan(per_class)
    if not scored.any():
        raise ValueError("targets: got no observed positive in any class, needed: at least one")
    return MeanAveragePrecision(float(per_class[scored].mean()), int(scored.sum()))


def _average_precision(logits: np.ndarray, targets: np.ndarray) -> float:
    """One class: sum over thresholds of precision times the recall gained there.

    NaN without positives. Clips with equal logits pass a threshold together, so the order of the
    rows never matters.
    """
    if not targets.any():
        return float("nan")
    order = np.argsort(-logits, kind="stable")
    ends_a_tie = np.append(np.diff(logits[order]) != 0, True)
    hits = np.cumsum(targets[order])[ends_a_tie]
    retrieved = np.flatnonzero(ends_a_tie) + 1
    gained = np.diff(hits, prepend=0.0)
    return float(np.sum(gained * hits / retrieved) / hits[-1])
