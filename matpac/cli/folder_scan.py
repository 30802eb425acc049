"""What lies in a folder of sounds, and whether its sub-folders are classes.

The sub-folders are taken for classes if two of them, or more, hold five clips or more each. The
clips of a class are dealt into five folds; what belongs together stays in one:

    cat/kitchen/a.wav   files in a folder below the class: kitchen, in whatever class
    cat/anna_01.wav     files whose names begin alike (up to the first _, -, . or blank), if every
                        class has five such beginnings

so that no speaker, recording or session is on both sides of a score.
"""

import os
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pandas as pd

from matpac.audio import finding
from matpac.core import files, fingerprints
from matpac.data.audit import size_and_time
from matpac.data.labels import SPLIT_ALIASES

FOLDS = 5
BEGINNING = re.compile(r"[^_\-. ]+")
PARTS = {alias for aliases in SPLIT_ALIASES.values() for alias in aliases}
"""Sub-folders of these names are no classes; those below them are."""
TABLES = {"sounds": ["filename", "label", "group", "fold"], "others": ["filename"]}
"""Columns, of the names that `matpac probe TABLE.csv` looks for."""


@dataclass(frozen=True)
class Sounds:
    """The audio files of a folder."""

    folder: Path
    table: pd.DataFrame
    """A row per file: ``file``, relative to the folder; ``class``, its sub-folder or ""; ``group``;
    ``fold``, 1 to 5, or 0 where the class is not scored."""
    left_out: str
    """What is not among them, and why; "" if nothing is."""

    @property
    def scored(self) -> pd.DataFrame:
        """The files in sub-folders that are classes; none if there is no task in that."""
        return self.table[self.table["fold"] > 0]

    @property
    def digest(self) -> str:
        """Changes with the name or size of any file."""
        # A link to nothing has a size, too: the stage `fetch` leaves it out and says so.
        sizes = [(name, size_and_time(self.folder / name)[0]) for name in self.table["file"]]
        return fingerprints.digest(sizes)

    def write_tables(self, out: Path) -> dict[str, Path]:
        """Writes what a data set's ``csv`` names, where there are classes.

        Returns: name of the data set -> its table; "others" holds what is trained on, not scored.
        """
        table = self.table.rename(columns={"file": "filename", "class": "label"})
        scored, written = table["fold"] > 0, {}
        for name, rows in (("sounds", table[scored]), ("others", table[~scored])):
            if scored.any() and len(rows):
                written[name] = out / f"{name}.csv"
                with files.replacing(written[name]) as temporary:
                    rows[TABLES[name]].to_csv(temporary, index=False, lineterminator="\n")
        return written

    def __str__(self) -> str:
        text = f"{self.folder}: {len(self.table):,} audio files" + self._classes()
        # Without a table the stage `fetch` says it.
        told = self.left_out and not self.scored.empty
        return f"{text}\nleft out: {self.left_out}" if told else text

    def _classes(self) -> str:
        scored = self.scored
        if scored.empty:
            return f"; no score in the end: that needs two sub-folders of {FOLDS} clips, as classes"
        text = f", {scored['class'].nunique()} sub-folders are taken for classes"
        if rest := len(self.table) - len(scored):
            text += f" ({rest} files in none, or in one of fewer than {FOLDS}, have no score)"
        if (groups := scored["group"].nunique()) < len(scored):
            example = scored["group"].iloc[0]
            text += f"; {groups} groups of files, such as {example!r}, are not torn apart"
        return text


def scan(folder: Path) -> Sounds:
    """Looks at names only; what can be read is found out by the stage ``fetch``.

    Raises: FileNotFoundError for a missing folder; ValueError naming what was found if there is no
        audio file.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder")
    found, others = finding.audio_files(folder)
    names = [name for name in found if _fits_a_table(name)]
    left_out = [others] if others else []
    if odd := len(found) - len(names):
        left_out.append(
            f"{odd} whose names a table cannot hold (no UTF-8, line breaks, blank ends)"
        )
    if not names:
        there = "; ".join(left_out) or "it is empty"
        raise ValueError(
            f"{folder}: no audio file, allowed: {', '.join(finding.EXTENSIONS)}; found: {there}"
        )
    table = pd.DataFrame({"file": names})
    table["class"], table["group"] = _places(names)
    table["fold"] = folds(table)
    return Sounds(folder, table, "; ".join(left_out))


def _fits_a_table(name: str) -> bool:
    text = name.encode("utf-8", "ignore").decode()
    return text == name == name.strip() and len(name.splitlines()) == 1


def _places(names: list[str]) -> tuple[list[str], list[str]]:
    """Class, "" where there is none, and group of each file."""
    parents = [PurePosixPath(name).parts[:-1] for name in names]
    common = os.path.commonpath(["/" + "/".join(parts) for parts in parents])
    depth = len(PurePosixPath(common).parts) - 1
    if all(len(parts) > depth and parts[depth].lower() in PARTS for parts in parents):
        depth += 1
    classes = [parts[depth] if len(parts) > depth else "" for parts in parents]
    deeper = ["/".join(parts[depth + 1 :]) for parts in parents]
    begins = [_beginning(name) for name in names]
    kinds = Counter(name for name, _ in set(zip(classes, begins, strict=True)))
    alike = all(count >= FOLDS for name, count in kinds.items() if name)
    own = begins if alike else names
    return classes, [below or each for below, each in zip(deeper, own, strict=True)]


def _beginning(name: str) -> str:
    stem = PurePosixPath(name).stem
    found = BEGINNING.match(stem)
    return found[0] if found else stem


def folds(table: pd.DataFrame) -> pd.Series:
    """Folds of the classes that have a group for each; 0 for the rest."""
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    dealt = pd.Series(0, index=table.index)
    counts = table.groupby("class")["group"].nunique()
    usable = [name for name, count in counts.items() if name and count >= FOLDS]
    rows = table.index[table["class"].isin(usable)]
    if len(usable) > 1:
        classed = table.loc[rows]
        grouped = classed["group"].duplicated().any()  # the other is quicker by far
        splitter = (StratifiedGroupKFold if grouped else StratifiedKFold)(
            FOLDS, shuffle=True, random_state=0
        )
        groups = classed["group"] if grouped else None
        parts = splitter.split(classed, classed["class"], groups)
        for fold, (_, test) in enumerate(parts, start=1):
            dealt[rows[test]] = fold
    return dealt
