"""Accuracy and mean average precision, the two metrics of Table I.

Both take logits: they depend on the order of a clip's (accuracy) or a class's (average precision)
scores only. Shapes: B clips, C labels.
"""

import numpy as np


def score(logits: np.ndarray, targets: np.ndarray) -> tuple[float, int]:
    """Accuracy or macro mAP, and the number of classes with something to find.

    Args:
        logits: (B, C); for the accuracy, of equal largest ones the first counts.
        targets: class indices (B,), or 1, 0 or NaN (not observed) per label, (B, C).
    Returns: in [0, 1].
    Raises: ValueError if no class has an observed positive.
    """
    if targets.ndim == 1:
        return float(np.mean(logits.argmax(axis=1) == targets)), len(np.unique(targets))
    per_class = average_precision(logits, targets)
    scored = per_class[~np.isnan(per_class)]
    if not len(scored):
        raise ValueError("targets: got no observed positive in any class, needed: at least one")
    return float(scored.mean()), len(scored)


def average_precision(logits: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Average precision of each class over the clips where it was observed: scikit-learn's.

    Returns: (C,) in (0, 1]; NaN for a class without an observed positive, which has no precision
        (scikit-learn and torchmetrics count it as 0).
    """
    from sklearn.metrics import average_precision_score  # takes seconds to import

    observed = ~np.isnan(targets)
    return np.array(
        [
            average_precision_score(wanted[seen], said[seen])
            if (wanted[seen] > 0).any()
            else np.nan
            for said, wanted, seen in zip(logits.T, targets.T, observed.T, strict=True)
        ]
    )
