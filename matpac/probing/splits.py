"""The splits of a task: which clips train, choose and test each linear probe.

A task with an official split has one per repeat. A k-fold task is one per fold and repeat:
that fold tests, the others train. Where the data set ships no validation part (OpenMIC, ESC-50,
US8K, and MATPAC does not say what it used), ours is drawn from the training part by this rule:

    Whole groups (source recordings, presets, tracks) go to validation: the fraction
    ``probe.valid_fraction`` of ``params.yaml`` of them, rounded, at least one. Groups and
    classes are shuffled with a generator keyed by (seed, repeat, fold). Again and again, the
    class that has the smallest share of its groups in validation (the first in shuffled order
    among equals) gives the first of its groups, in shuffled order, that is still in training. A
    class's last training group is never taken.

So the parts share no group, every repeat draws another part, and class proportions follow the
training part as far as whole groups allow.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

SCHEMES = ("tvt", "folds")


@dataclass(frozen=True, eq=False)
class Split:
    """One linear probe to train: row numbers of its three parts, and where its randomness starts.

    ``seed`` keys the initial weights and, with the epoch, the order of the batches. ``fold`` is 0
    for a task with an official split; ``repeat`` counts from 1.
    """

    train: np.ndarray
    valid: np.ndarray
    test: np.ndarray
    seed: int
    fold: int
    repeat: int


def make_splits(
    *,
    scheme: str,
    splits: Sequence[str],
    folds: Sequence[int],
    groups: Sequence[str],
    targets: np.ndarray,
    repeats: int,
    seed: int,
    valid_fraction: float = 0.1,
) -> list[Split]:
    """The splits of one task, ordered by repeat, then fold (MATPAC Sec. IV-A, Table I "Split").

    Args:
        scheme: "tvt" (splits name train, valid and test clips) or "folds" (folds count from 1).
        splits: "train", "valid", "test" or "" per clip, (N,); read for "tvt". With any "valid"
            clip the official part is used in all repeats, otherwise one is drawn per repeat.
        folds: fold of each clip, (N,), 0 = in none; read for "folds".
        groups: source recording of each clip, (N,); read where a validation part is drawn.
        targets: class indices (N,) or 1/0/NaN per label (N, C); drawing is stratified by them.
        repeats: how often each probe is trained; the paper repeats five times.
        seed: changes every split's seed and every drawn part.
        valid_fraction: share of the training part's groups drawn for validation.
    Raises: ValueError for an unknown scheme, a task without training or test clips, a group that
        crosses folds, or a training part too small to draw from.
    """
    splits, folds, groups = (np.asarray(column) for column in (splits, folds, groups))
    membership = _membership(np.asarray(targets))
    parts, made = _parts(scheme, splits, folds, groups), []
    for repeat in range(1, repeats + 1):
        for fold, train, valid, test in parts:
            if len(valid) == 0:
                rng = np.random.default_rng([seed, repeat, fold])
                drawn = draw_validation(groups[train], membership[train], valid_fraction, rng)
                train, valid = train[~drawn], train[drawn]
            key = int(np.random.SeedSequence([seed, repeat, fold]).generate_state(1)[0])
            made.append(Split(train, valid, test, key, fold, repeat))
    return made


def _parts(
    scheme: str, splits: np.ndarray, folds: np.ndarray, groups: np.ndarray
) -> list[tuple[int, np.ndarray, np.ndarray, np.ndarray]]:
    """The given parts: fold, training, validation (empty where there is none) and test rows."""
    if scheme == "tvt":
        parts = [(0, *(np.flatnonzero(splits == name) for name in ("train", "valid", "test")))]
    elif scheme == "folds":
        _refuse_crossing(groups, folds)
        none = np.empty(0, dtype=int)
        parts = [
            (int(k), np.flatnonzero((folds > 0) & (folds != k)), none, np.flatnonzero(folds == k))
            for k in np.unique(folds[folds > 0])
        ]
    else:
        raise ValueError(f"scheme: got {scheme!r}, allowed: {', '.join(SCHEMES)}")
    if not parts or any(len(train) == 0 or len(test) == 0 for _, train, _, test in parts):
        raise ValueError(f"a {scheme} task needs training and test clips, got none of one kind")
    return parts


def draw_validation(
    groups: np.ndarray, membership: np.ndarray, fraction: float, rng: np.random.Generator
) -> np.ndarray:
    """Which clips of a training part to hold out, by the rule at the top of this module.

    Args:
        groups: group of each clip, (B,).
        membership: whether each clip is an observed positive of each class, (B, C), bool.
        fraction: share of the groups to hold out, in (0, 1).
        rng: decides the order in which groups and classes are looked at.
    Returns: (B,), True for validation.
    Raises: ValueError if nothing can be held out without emptying the training part of a class.
    """
    names, group_of = np.unique(groups, return_inverse=True)
    order = rng.permutation(len(names))
    holds = np.zeros((len(names), membership.shape[1]), dtype=bool)  # (groups, C)
    np.logical_or.at(holds, group_of, membership)
    holds = holds[order][:, rng.permutation(holds.shape[1])]
    wanted = max(1, round(fraction * len(names)))
    taken = np.zeros(len(names), dtype=bool)
    total, given = holds.sum(axis=0), np.zeros(holds.shape[1], dtype=int)
    for _ in range(wanted):
        last = total - given <= 1  # classes down to their last training group
        free = ~taken & ~holds[:, last].any(axis=1)
        open_classes = holds[free].any(axis=0)
        if not open_classes.any():
            break
        share = np.where(open_classes, given / np.maximum(total, 1), np.inf)
        chosen = np.argmax(free & holds[:, share.argmin()])
        taken[chosen] = True
        given += holds[chosen]
    if not taken.any():
        raise ValueError(
            f"validation part: got {len(names)} groups and no class with two of them to spare, "
            "needed: a class present in at least two training groups"
        )
    return np.isin(group_of, order[taken])


def _membership(targets: np.ndarray) -> np.ndarray:
    """Class indices (N,) or 1/0/NaN targets (N, C) as booleans (N, C); label -1 belongs to none."""
    if targets.ndim == 2:
        return np.nan_to_num(targets) > 0
    return targets[:, None] == np.arange(targets.max(initial=0) + 1)


def _refuse_crossing(groups: np.ndarray, folds: np.ndarray) -> None:
    """Raises ValueError if clips of one source recording lie in several folds."""
    pairs = np.unique(np.stack([groups[folds > 0], folds[folds > 0].astype(str)]), axis=1)
    names, counts = np.unique(pairs[0], return_counts=True)
    if (counts > 1).any():
        name = str(names[counts > 1][0])
        found = ", ".join(pairs[1][pairs[0] == name])
        raise ValueError(f"groups: got {name!r} in folds {found}, allowed: one fold per group")
