"""A linear probe as a head for others (`matpac.encoders.heads`), which makes labels of audio."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from matpac.encoders.heads import Head
from matpac.probing.linear import ProbeResult
from matpac.probing.task import Task


def of_probe(
    task: Task, result: ProbeResult, classes: Sequence[str], about: Mapping[str, Any]
) -> Head:
    """A linear probe for others to use: of several labels with thresholds from its validation part.

    A label's threshold is the probability with the best F1 there; 0.5 where it does not occur.
    """
    thresholds = None
    if task.multilabel:
        split = next(s for s in task.splits if (s.fold, s.repeat) == (result.fold, result.repeat))
        targets = task.of(split.valid).cpu().numpy()
        columns = zip(targets.T, result.valid_logits.T, strict=True)
        thresholds = torch.tensor([best_threshold(*column) for column in columns]).sigmoid()
    activation = "sigmoid" if task.multilabel else "softmax"
    return Head(
        tuple(classes), **result.layer, activation=activation, thresholds=thresholds, about=about
    )


def best_threshold(targets: np.ndarray, logits: np.ndarray) -> float:
    """The logit of the best F1; 0 for a label that does not occur.

    Args: targets: 1, 0 or NaN (not observed), (N,); logits: (N,).
    """
    from sklearn.metrics import precision_recall_curve  # takes seconds to import

    seen = ~np.isnan(targets)
    if not (targets[seen] == 1).any():
        return 0.0
    precision, recall, thresholds = precision_recall_curve(targets[seen], logits[seen])
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    return float(thresholds[np.argmax(f1[:-1])])
