"""Few-shot classification: eight labelled clips per class and nothing to train or to choose.

A label's prototype is the mean of the drawn clips that have it less the mean of those that have not
(Snell et al., NeurIPS 2017, for several labels at once), of standardised embeddings of unit length;
a clip's score is its product with it.

Shapes: S drawn clips, B clips of the test part, D embedding size, C labels.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from matpac.probing.metrics import score
from matpac.probing.splits import Split
from matpac.probing.task import Task, windows

SHOTS = 8
"""Clips per class, or all if there are fewer."""
DRAWS = 10
WORST = -2.0
"""Score for a label that no drawn clip has: below all others."""


@torch.no_grad()
def few_shot(task: Task, *, seed: int) -> list[dict[str, Any]]:
    """Ten draws from the training part of each fold's first split.

    Returns: a row per fold and draw, which counts as a repeat; ``setting`` is the clips per class.
    """
    first: dict[int, Split] = {}
    for split in task.splits:
        first.setdefault(split.fold, split)
    return [row for split in first.values() for row in _on(task, split, seed)]


def _on(task: Task, split: Split, seed: int) -> list[dict[str, Any]]:
    inputs = task.inputs(split)
    positive = (task.wanted(split.train) == 1).cpu().numpy()  # (train, C)
    of_class = [split.train[has] for has in positive.T]
    targets = task.of(split.test).cpu().numpy()
    found = []
    for draw in range(1, DRAWS + 1):
        rng = np.random.default_rng([seed, draw, split.fold])
        drawn = np.unique(np.concatenate([rng.permutation(rows)[:SHOTS] for rows in of_class]))
        prototypes = _prototypes(F.normalize(inputs[drawn]), task.wanted(drawn))
        asked = (F.normalize(inputs[rows]) for rows in windows(split.test))
        scores = torch.cat([rows @ prototypes.T for rows in asked])  # (B, C)
        reached, num_classes = score(scores.nan_to_num(WORST).cpu().numpy(), targets)
        found.append(
            {
                "probe": "fewshot",
                "fold": split.fold,
                "repeat": draw,
                "score": reached,
                "valid_score": float("nan"),
                "num_classes_scored": num_classes,
                "setting": SHOTS,
            }
        )
    return found


def _prototypes(inputs: Tensor, wanted: Tensor) -> Tensor:
    """(S, D) and (S, C) -> (C, D); NaN for a label that no clip has."""
    has, lacks = (wanted == 1).float(), (wanted == 0).float()
    others = (lacks.T @ inputs) / lacks.sum(dim=0).clamp(min=1)[:, None]
    return (has.T @ inputs) / has.sum(dim=0)[:, None] - others
