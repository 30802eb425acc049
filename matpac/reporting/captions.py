"""Who is in a table or figure, under which heads, and what must be said beneath it.

A number is never shown without the profile, corpus and parameters that made it, nor an interval
without what it covers (MATPAC Sec. IV-A repeats the probe, not the pretraining).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from matpac.reporting import paper
from matpac.reporting.statistics import TASKS
from matpac.reporting.typeset import Column, Score

NAMES = {task: dataset.name for task, dataset in paper.TABLE1.items()}
UNITS = {"map": "mAP", "accuracy": "Acc.(%)"}
CORPORA = "AS: AudioSet, LS: LibriSpeech."
LOST = "?: lost in the text of the paper that was available."
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
        reported: name of the row of the paper's Table II that it is compared with, if any.
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
    reported: str | None = None


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
        comparable: tasks that are the paper's own data sets, whole; differences from what it
            reports are given for these alone.
    """

    profile: str
    corpus: str
    parameters: str
    steps: int | None = None
    miniature: bool = True
    incomplete: str = ""
    comparable: tuple[str, ...] = ()

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
            scores = "scores of its runs" if self.comparable else "its scores"
            return (
                f"The {self.profile} profile has other data and a smaller model than the paper: "
                f"{scores} cannot be compared with the paper's."
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


def ordered(datasets: Mapping[str, Any]) -> list[str]:
    """Tasks in the order of Table II, then those the paper does not have."""
    return [t for t in TASKS if t in datasets] + [t for t in datasets if t not in TASKS]


def task_columns(
    tasks: Iterable[str], datasets: Mapping[str, Mapping[str, Any]]
) -> tuple[Column, ...]:
    """A column for each task, headed as in Table II."""
    return tuple(
        Column(task, NAMES.get(task, task), UNITS[datasets[task]["metric"]]) for task in tasks
    )


def percent(cell: pd.Series) -> Score:
    """A row of `matpac.reporting.statistics` in percent."""
    return Score(100 * cell["mean"], 100 * cell["ci95"])


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


def ours_heading(provenance: Provenance) -> str:
    """Heads the block of rows that were measured here."""
    if provenance.profile == "paper":
        return "This run"
    tasks = "miniature tasks" if provenance.miniature else "tasks"
    return f"This run: {tasks} of the {provenance.profile} profile"


def paper_heading(kind: str, provenance: Provenance) -> str:
    """Heads a block of reported rows so that nobody reads them as ours."""
    what = f"Reported in the paper{f', {kind}' * bool(kind)} (AudioSet)"
    if provenance.profile == "paper":
        return what
    # Encoders that were trained elsewhere can be, on the paper's own data sets.
    return f"{what}: NOT comparable{' with runs of this profile' * bool(provenance.comparable)}"


def interval_note(means: pd.DataFrame) -> str:
    """What the intervals are, from the columns ``n`` and ``num_seeds`` of the means."""
    n = int(means["n"].min())
    if n < 2:
        return "One repeat of the probe: no interval can be given."
    count = REPEATS[n] if n < len(REPEATS) else str(n)
    text = (
        f"±: half width of the 95 % confidence interval over {count} repeats of the probe "
        f"(Student t, {n - 1} degree{'s' * (n > 2)} of freedom); it covers probe noise "
        "only, not another pretraining."
    )
    if means["num_seeds"].max() > 1:
        text += " Runs with several pretraining seeds are averaged over them within each repeat."
    return text


def classes_note(scores: pd.DataFrame, datasets: Mapping[str, Mapping[str, Any]]) -> str:
    """Which mAP leaves out classes, since the test part has no observed positive of them."""
    if "num_classes_scored" not in scores:
        return ""
    fewest = scores.groupby("task")["num_classes_scored"].min()
    short = [
        f"{NAMES.get(task, task)} over {fewest[task]} of {len(info['classes'])} classes"
        for task, info in datasets.items()
        if info["metric"] == "map" and fewest[task] < len(info["classes"])
    ]
    return f"mAP of {'; '.join(short)}: the others have no positive to test." if short else ""
