"""What a data set's own tables say, and how much of it there should be."""

from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

CLIPS: dict[str, dict[str, int] | dict[int, int]] = {
    "openmic": {"train": 14_915, "test": 5_085},
    "nsynth": {"train": 289_205, "valid": 12_678, "test": 4_096},
    "gtzan": {"train": 443, "valid": 197, "test": 290},
    "mtt": {"train": 18_709, "valid": 1_825, "test": 5_329},
    "fsd50k": {"train": 36_796, "valid": 4_170, "test": 10_231},
    "esc50": dict.fromkeys(range(1, 6), 400),
    "us8k": dict(enumerate((873, 888, 925, 990, 936, 823, 838, 806, 816, 837), start=1)),
}
"""Clips per split or fold of each whole data set; they add up to Table I."""
NUM_CLASSES = {"openmic": 20, "nsynth": 11, "gtzan": 10, "mtt": 50, "fsd50k": 200, "esc50": 50} | {
    "us8k": 10
}
"""Classes of each whole data set (Table I)."""


@dataclass(frozen=True)
class Layout:
    """The clips of a data set, before any audio is looked at."""

    clips: pd.DataFrame
    """A row per clip: clip, path (relative to the root), split, fold, group and either label (int)
    or labels (float array), as in `matpac.data.manifests`."""
    classes: list[str]
    broken: frozenset[str] = frozenset()
    """Clips whose files are known to be broken as shipped."""
    problems: list[str] = field(default_factory=list)
    """What in the tables is not as in the whole data set, beyond the number of clips."""
    disjoint: bool = True
    """No group is in training and elsewhere, or in two folds: the authors say so, we check it."""


def find_root(folder: Path, marker: str) -> Path:
    """The folder that holds a data set: the given one, or one up to two levels below.

    Args: marker: a pattern of `Path.glob` that matches in that folder alone.
    Raises: FileNotFoundError naming the folder and the marker.
    """
    level = [folder]
    for _ in range(3):
        for candidate in level:
            if next(candidate.glob(marker), None) is not None:
                return candidate
        level = [below for candidate in level for below in _folders(candidate)]
    raise FileNotFoundError(f"{folder}: no {marker} in it, or in a folder up to two levels below")


def _folders(folder: Path) -> list[Path]:
    return sorted(
        each for each in folder.iterdir() if each.is_dir() and not each.name.startswith(".")
    )
