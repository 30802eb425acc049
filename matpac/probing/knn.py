"""k nearest neighbours: what frozen embeddings give without any training.

A clip's score for a label is the mean of its neighbours' targets, weighted by exp(cosine / 0.07) of
the standardised embeddings, as Wu et al. (CVPR 2018) and DINO (ICCV 2021) have it. k is the one
with the best score on the split's validation part.

Shapes: B clips of a part, W of a window of the training part, D embedding size, C labels, K
neighbours.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from matpac.probing.metrics import score
from matpac.probing.splits import Split
from matpac.probing.task import Inputs, Task, windows

NEIGHBOURS = (1, 2, 5, 10, 20, 50, 100)
"""k, of which one is chosen."""
TEMPERATURE = 0.07
VOTING = 128
"""Clips whose neighbours' targets, K * C each, are held at once."""


@torch.no_grad()
def knn(task: Task) -> list[dict[str, Any]]:
    """The classifier on every split that differs from the others in its training part.

    Returns: a row per such split; ``setting`` is k.
    """
    return [_on(task, split) for split in _different(task)]


def _on(task: Task, split: Split) -> dict[str, Any]:
    inputs = task.inputs(split)
    valid = _scored(task, inputs, split.train, split.valid)
    best = max(range(len(valid)), key=lambda i: valid[i][0])  # of equal ones the smallest k
    reached, num_classes = _scored(task, inputs, split.train, split.test)[best]
    return {
        "probe": "knn",
        "fold": split.fold,
        "repeat": split.repeat,
        "score": reached,
        "valid_score": valid[best][0],
        "num_classes_scored": num_classes,
        "setting": NEIGHBOURS[best],
    }


def _scored(
    task: Task, inputs: Inputs, train: np.ndarray, part: np.ndarray
) -> list[tuple[float, int]]:
    """For every k, the score and over how many classes."""
    votes = []
    for rows in windows(part):
        cosines, found = nearest(inputs, train, inputs[rows], max(NEIGHBOURS))
        for at in range(0, len(rows), VOTING):
            voting = found[at : at + VOTING]
            wanted = task.wanted(voting.flatten()).unflatten(0, voting.shape)  # (B, K, C)
            votes.append(_votes(cosines[at : at + VOTING], wanted))
    of_clips, targets = torch.cat(votes).cpu().numpy(), task.of(part).cpu().numpy()
    return [score(of_clips[:, i], targets) for i in range(len(NEIGHBOURS))]


def nearest(
    inputs: Inputs, among: np.ndarray, asked: Tensor, number: int
) -> tuple[Tensor, np.ndarray]:
    """The rows with the largest cosines to some vectors: all are compared, a window at a time.

    Args:
        inputs: standardised embeddings; among: rows of them.
        asked: (B, D), standardised in the same way.
        number: K, of neighbours; fewer if there are not as many rows.
    Returns: cosines (B, K), falling, and the rows (B, K).
    """
    asked = F.normalize(asked)
    cosines = asked.new_zeros(len(asked), 0)
    found = torch.zeros(len(asked), 0, dtype=torch.long)
    for rows in windows(among):
        both = torch.cat([cosines, asked @ F.normalize(inputs[rows]).T], dim=1)  # (B, K + W)
        cosines, at = both.topk(min(number, both.shape[1]))
        known = torch.cat([found, torch.from_numpy(rows).expand(len(asked), -1)], dim=1)
        found = known.gather(1, at.cpu())
    return cosines, found.numpy()


def _votes(similarity: Tensor, wanted: Tensor) -> Tensor:
    """Weighted means of the first k targets, for every k: (B, K) and (B, K, C) -> (B, ks, C).

    What was not observed has no vote.
    """
    weights = (similarity / TEMPERATURE).exp()[..., None]  # (B, K, 1)
    last = [min(k, wanted.shape[1]) - 1 for k in NEIGHBOURS]
    given = (weights * wanted.nan_to_num()).cumsum(dim=1)[:, last]
    return given / (weights * ~wanted.isnan()).cumsum(dim=1)[:, last].clamp(min=1e-30)


def _different(task: Task) -> Iterator[Split]:
    """Repeats of an official split differ in nothing that matters here."""
    seen: list[Split] = []
    for split in task.splits:
        if not any(np.array_equal(split.train, other.train) for other in seen):
            seen.append(split)
            yield split
