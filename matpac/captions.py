"""Who is in a table or figure, and what must be said beneath it.

A number is never shown without the profile, corpus and parameters that made it, nor an interval
without what it covers (MATPAC Sec. IV-A repeats the probe, not the pretraining).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

REPEATS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


@dataclass(frozen=True)
class RowSpec:
    """One run or encoder, as tables and figures show it; their order is the order of the rows.

    Attributes:
        encoder: its name in the column ``encoder`` of the scores.
        label: how a reader knows it.
        training_data: pretraining corpora, "—" if it was not pretrained.
        alpha: weight of the prediction task, Eq. (5); needed for Table III.
        num_prototypes: K; needed for Fig. 2.
        steps: optimiser updates of its pretraining; None if there was none.
        table2, table3, figure2: where it belongs. A row of Table III differs from the base in
            ``alpha`` only, a point of Fig. 2 in ``num_prototypes`` only; the base is in both.
    """

    encoder: str
    label: str
    training_data: str = "—"
    alpha: float | None = None
    num_prototypes: int | None = None
    steps: int | None = None
    table2: bool = True
    table3: bool = False
    figure2: bool = False


@dataclass(frozen=True)
class Provenance:
    """What made the numbers.

    Attributes:
        profile: "mini", "paper", ...; every profile but "paper" is announced as incomparable.
        corpus: pretraining data in words.
        parameters: short hash of the complete parameters.
        steps: updates of the base run; runs with another number are marked with a dagger.
        miniature: whether the tasks are miniatures of the paper's, made on this machine.
        incomplete: tasks that have only a part of their data set's clips, in words.
    """

    profile: str
    corpus: str
    parameters: str
    steps: int | None = None
    miniature: bool = True
    incomplete: str = ""

    @property
    def line(self) -> str:
        """One line that stands under every table and figure."""
        line = f"Profile {self.profile}; corpus: {self.corpus}; parameters {self.parameters}."
        return f"{line} Not the whole data set: {self.incomplete}." if self.incomplete else line

    @property
    def warning(self) -> str:
        """Says that the numbers are not the paper's tasks; empty in the paper profile."""
        if self.profile == "paper":
            return ""
        if not self.miniature:
            return (
                f"The {self.profile} profile has other data and a smaller model than the paper: "
                "its scores cannot be compared with the paper's."
            )
        return (
            f"Scores of the {self.profile} profile are of miniature tasks made on this machine, "
            "not of the data sets they imitate: they cannot be compared with the paper's."
        )


def select(scores: pd.DataFrame, rows: Sequence[RowSpec]) -> pd.DataFrame:
    """The scores of these rows only. Raises: ValueError naming the stage that has not run."""
    present = set(scores["encoder"])
    for row in rows:
        if row.encoder not in present:
            raise ValueError(f"scores: none of {row.encoder}; run the stage probe for it")
    return scores[scores["encoder"].isin([row.encoder for row in rows])]


def unique_by(rows: Sequence[RowSpec], field: str) -> dict[Any, RowSpec]:
    """Rows by the value they are compared in, ascending. Raises: ValueError: none or twice."""
    found: dict[Any, RowSpec] = {}
    for row in rows:
        value = getattr(row, field)
        if value is None or value in found:
            other = f", as {found[value].encoder}" if value in found else ""
            raise ValueError(f"{field} of {row.encoder}: got {value}{other}, needed: one each")
        found[value] = row
    return dict(sorted(found.items()))


def dagger(row: RowSpec, provenance: Provenance) -> str:
    """Mark behind the label of a run that was not pretrained for as long as the base."""
    return "†" if row.steps not in (None, provenance.steps) else ""


def steps_note(rows: Sequence[RowSpec], provenance: Provenance) -> str:
    """How long the marked runs were pretrained; empty if none is marked."""
    marked = [f"{row.label}: {row.steps:,}" for row in rows if dagger(row, provenance)]
    if not marked:
        return ""
    return f"† pretrained for another number of updates than {provenance.steps:,}: " + (
        "; ".join(marked) + "."
    )


def interval_note(means: pd.DataFrame) -> str:
    """What the intervals are, from the columns ``n`` and ``num_seeds`` of `matpac.statistics`."""
    n = int(means["n"].min())
    if n < 2:
        return "One repeat of the probe: no interval can be given."
    count = REPEATS[n] if n < len(REPEATS) else str(n)
    text = (
        f"±: half width of the 95 % confidence interval over {count} repeats of the probe "
        f"(Student t, {n - 1} degrees of freedom); it covers probe noise only, not another "
        "pretraining."
    )
    if means["num_seeds"].max() > 1:
        text += " Runs with several pretraining seeds are averaged over them within each repeat."
    return text
