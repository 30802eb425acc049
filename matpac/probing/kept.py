"""A linear probe as a head for others (`matpac.encoders.heads`), which makes labels of audio."""

from collections.abc import Sequence

import numpy as np
import torch

from matpac.core import paths
from matpac.encoders import heads
from matpac.probing.config import ProbeParams
from matpac.probing.linear import ProbeResult, row_of
from matpac.probing.rows import Features
from matpac.probing.task import Task


def keep_head(
    params: ProbeParams,
    features: Features,
    name: str,
    task: Task,
    results: Sequence[ProbeResult],
    classes: Sequence[str],
) -> None:
    """Writes the linear probe with the best validation loss, for others to use.

    Of several labels each has a threshold: the probability with the best F1 on the probe's
    validation part; 0.5 where it does not occur.
    """
    best, thresholds = min(results, key=lambda result: result.valid_loss), None
    if task.multilabel:
        split = next(s for s in task.splits if (s.fold, s.repeat) == (best.fold, best.repeat))
        targets = task.of(split.valid).cpu().numpy()
        columns = zip(targets.T, best.valid_logits.T, strict=True)
        thresholds = torch.tensor([best_threshold(*column) for column in columns]).sigmoid()
    head = heads.Head(
        tuple(classes),
        **best.layer,
        activation="sigmoid" if task.multilabel else "softmax",
        thresholds=thresholds,
        about={"task": name, **row_of(best)},
    )
    folder = paths.small(params) / "probe" / features.name / heads.FOLDER / f"seed_{features.seed}"
    head.save(folder / f"{name}.safetensors")


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
