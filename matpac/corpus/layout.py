"""Which clip goes where: splits, folds, classes and source recordings as functions of its index.

Nothing depends on how many clips are made: clip 17 has the same place and the same sound in a
corpus of 100 clips and in one of 1000.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

_TVT = (*("train",) * 5, "valid", *("test",) * 4)  # 50 % / 10 % / 40 %, interleaved
TAKES = 2  # clips cut from one source recording, in tasks with folds


class Slot(NamedTuple):
    """The place of one clip in its data set."""

    index: int
    split: str  # train, valid, test, or "" where there are folds or no labels
    fold: int  # 1..n, 0 where there are splits
    lead: int  # index of the class the clip shows for certain, -1 without labels
    number: int  # how many earlier clips share split or fold and lead


class Clip(NamedTuple):
    """One clip as made by a recipe."""

    audio: NDArray[np.int16]
    target: int | list[float] | None  # class index, labels (C,), or nothing
    group: str  # source recording, preset or artist; "" if the clip is its own


@dataclass(frozen=True)
class Recipe:
    """How one data set of the embedded corpus is made."""

    name: str
    kind: Literal["unlabelled", "multiclass", "multilabel"]
    classes: tuple[str, ...]
    make: Callable[[int, Slot], Clip]
    """Makes a clip from the seed of the corpus and the clip's place."""
    metric: Literal["accuracy", "map"] | None = None
    num_folds: int = 0

    @property
    def split_scheme(self) -> Literal["tvt", "folds"] | None:
        """How the data set is divided."""
        if self.kind == "unlabelled":
            return None
        return "folds" if self.num_folds else "tvt"

    @property
    def smallest(self) -> int:
        """Fewest clips for which every split or fold holds every class."""
        return max(1, len(self.classes)) * (self.num_folds or (len(_TVT) if self.classes else 1))

    def slot(self, index: int) -> Slot:
        """The place of the clip with this index."""
        if not self.classes:
            return Slot(index, "", 0, -1, index)
        if self.num_folds:
            round_, part = divmod(index, self.num_folds)
            number, lead = divmod(round_, len(self.classes))
            return Slot(index, "", part + 1, lead, number)
        round_, part = divmod(index, len(_TVT))
        number, lead = divmod(round_, len(self.classes))
        split = _TVT[part]
        earlier = number * _TVT.count(split) + part - _TVT.index(split)
        return Slot(index, split, 0, lead, earlier)
