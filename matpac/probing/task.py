"""A task as its probes see it: embeddings, targets and splits, checked once.

Shapes: N clips, D embedding size, C labels, B clips of a batch.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from matpac.probing.splits import Split

ROWS_AT_ONCE = 1024
"""Clips that are read at once: embeddings may lie in a file that is larger than the memory."""
CONSTANT = 1e-6
"""Deviation over mean below which a float32 feature shows rounding noise only."""


class Task:
    """Embeddings of all clips, what is known of them, and the splits.

    On a CPU the embeddings are read a window at a time and never copied as a whole, so an array
    that is mapped from a file needs no memory of its own; a GPU holds all of them.

    Args:
        features: clip embeddings, (N, D), of any floating type; computed with in float32.
        targets: class indices (N,), or 1, 0 or NaN (not observed: left out of losses and metrics)
            per label, (N, C).
        splits: see `matpac.probing.splits.make_splits`.
        num_classes: C.
        device: where its probes are trained.
    Raises: ValueError for features, targets or splits that no probe could be trained on.
    """

    def __init__(
        self,
        features: Tensor | np.ndarray,
        targets: Tensor | np.ndarray,
        splits: Sequence[Split],
        *,
        num_classes: int,
        device: str | torch.device = "cpu",
    ) -> None:
        self.features = torch.as_tensor(features, device=device)
        targets = torch.as_tensor(targets, device=device)
        self.multilabel = targets.ndim == 2
        self.targets = targets.float() if self.multilabel else targets.long()
        self.splits, self.num_classes, self.device = splits, num_classes, self.features.device
        _check(self.features, targets, splits, num_classes)

    def inputs(self, split: Split, *, standardize: bool = True) -> "Inputs":
        """Features, to zero mean and unit variance of the split's training part or as they are."""
        return Inputs(self.features, split.train if standardize else None)

    def of(self, part: np.ndarray) -> Tensor:
        """Targets of some clips."""
        return self.targets[torch.from_numpy(part).to(self.device)]

    def wanted(self, part: np.ndarray) -> Tensor:
        """1, 0 or NaN (not observed) for every label of some clips, (B, C)."""
        targets = self.of(part)
        return targets if self.multilabel else F.one_hot(targets, self.num_classes).float()


class Inputs:
    """Rows of features (N, D). Args: train: the rows to standardise by; None: as they are."""

    def __init__(self, features: Tensor, train: np.ndarray | None) -> None:
        self.features, self.dim = features, features.shape[1]
        self.mean = torch.zeros(self.dim, device=features.device)
        self.scale = torch.ones(self.dim, device=features.device)
        if train is not None:
            self.mean, self.scale = _mean_and_scale(features, train)

    def __getitem__(self, part: np.ndarray) -> Tensor:
        """(B,) -> (B, D), float32."""
        rows = torch.from_numpy(part).to(self.features.device)
        return self.features.index_select(0, rows).float().sub_(self.mean).mul_(self.scale)


def windows(part: np.ndarray) -> list[np.ndarray]:
    """Rows that are read at once."""
    return [part[first : first + ROWS_AT_ONCE] for first in range(0, len(part), ROWS_AT_ONCE)]


def _mean_and_scale(features: Tensor, train: np.ndarray) -> tuple[Tensor, Tensor]:
    """Mean and 1/std (population) of some rows, each (D,); a constant feature's scale is 0.

    Zero, because a weight that training never moves would otherwise pass on whatever that feature
    does in other parts.
    """
    total = torch.zeros(features.shape[1], dtype=torch.float64, device=features.device)
    squares = torch.zeros_like(total)
    for rows in windows(train):
        values = features[torch.from_numpy(rows).to(features.device)].double()
        total += values.sum(dim=0)
        squares += values.square().sum(dim=0)
    mean = total / len(train)
    std = (squares / len(train) - mean.square()).clamp(min=0).sqrt()
    varies = std > CONSTANT * mean.abs()
    return mean.float(), torch.where(varies, 1 / std, 0.0).float()


def _check(features: Tensor, targets: Tensor, splits: Sequence[Split], num_classes: int) -> None:
    """Raises ValueError for what would otherwise train silently on nonsense."""
    expected = [(len(features),), (len(features), num_classes)]
    if features.ndim != 2 or tuple(targets.shape) not in expected:
        raise ValueError(
            f"probe: got features {tuple(features.shape)} and targets {tuple(targets.shape)}, "
            f"allowed: (N, D) and {expected[0]} or {expected[1]}"
        )
    if not all(window.isfinite().all() for window in features.split(ROWS_AT_ONCE)):
        raise ValueError("features: got a value that is not finite")
    parts = [part for split in splits for part in (split.train, split.valid, split.test)]
    if not parts or min(len(part) for part in parts) == 0:
        raise ValueError("splits: got none or an empty part, needed: train, valid and test rows")
    used = targets[torch.from_numpy(np.unique(np.concatenate(parts))).to(targets.device)]
    if targets.ndim == 1:
        bad, allowed = (used < 0) | (used >= num_classes), f"0 to {num_classes - 1}"
    else:
        bad, allowed = (used != 0) & (used != 1) & ~used.isnan(), "0, 1 and NaN (not observed)"
    if bad.any():
        raise ValueError(f"targets: got {used[bad][0].item()}, allowed: {allowed}")
