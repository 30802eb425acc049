"""Who is in a table or figure, and what must be said beneath it.

A number is never shown without the profile, corpus and parameters that made it, nor an interval
without what varies in it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from matpac.reporting.paper import TABLE1
from matpac.reporting.statistics import FEWEST_SEEDS

NAMES = {task: dataset["name"] for task, dataset in TABLE1.items()}
NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


@dataclass(frozen=True)
class RowSpec:
    """One run or encoder, as tables and figures show it; their order is the order of the rows.

    Attributes:
        encoder: its name in the column ``encoder`` of the scores.
        label: how a reader knows it.
        training_data: pretraining corpora, "—" if it was not pretrained.
        alpha: weight of the prediction task, Eq. (5); needed for Table III.
        num_prototypes: K; needed for Fig. 2.
        steps: optimiser updates of its pretraining here; None if there was none.
        table2, table3, figure2: where it belongs. A row of Table III differs from the base in
            ``alpha`` only, a point of Fig. 2 in ``num_prototypes`` only; the base is in both.
        reported: what it is compared with, one of `matpac.reporting.paper.NAMES`, if anything.
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
        steps: updates of the base run; runs with another number are marked.
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

    @property
    def heading(self) -> str:
        """Heads the rows that were measured here."""
        if self.profile == "paper":
            return "This run"
        tasks = "miniature tasks" if self.miniature else "tasks"
        return f"This run: {tasks} of the {self.profile} profile"

    def reported_heading(self, what: str) -> str:
        """Heads rows that others report, so that nobody reads them as ours."""
        if self.profile == "paper":
            return what
        # Encoders that were trained elsewhere can be, on the paper's own data sets.
        return f"{what}: NOT comparable{' with runs of this profile' * bool(self.comparable)}"


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


def mark(row: RowSpec, provenance: Provenance) -> str:
    """Stands behind the label of a run that was not pretrained for as long as the base."""
    return "‡" if row.steps not in (None, provenance.steps) else ""


def steps_note(rows: Sequence[RowSpec], provenance: Provenance) -> str:
    """How long the marked runs were pretrained; empty if none is marked."""
    marked = [f"{row.label}: {row.steps:,}" for row in rows if mark(row, provenance)]
    if not marked:
        return ""
    return f"‡ pretrained for another number of updates than {provenance.steps:,}: " + (
        "; ".join(marked) + "."
    )


def interval_note(means: pd.DataFrame, rows: Sequence[RowSpec]) -> str:
    """What varies in the intervals, from the columns ``encoder``, ``unit`` and ``n`` of means."""
    labels = {row.encoder: row.label for row in rows}
    counts = means.groupby(["encoder", "unit"], sort=False)["n"].min()
    # Pairs: rows may share a label.
    seeds = [(labels[name], n) for (name, unit), n in counts.items() if unit == "seeds"]
    repeats = min((n for (_, unit), n in counts.items() if unit == "repeats"), default=0)
    what = "±: half width of the 95 % confidence interval (Student t)"
    over = "the pretraining seeds, the repeats of the probe averaged within each"
    probe = f"{_number(repeats)} repeats of the probe; it covers probe noise only, not another "
    if not seeds:
        if repeats < 2:
            return "One repeat of the probe: no interval can be given."
        return f"{what} over {probe}pretraining."
    named = ", ".join(f"{label} ({n})" for label, n in seeds)
    few = [n for _, n in seeds if n < FEWEST_SEEDS]
    if few and len(seeds) > 1:
        over += ", where there are two with the spread of all these rows"
    if not repeats:
        return f"{what} over {over}: {named}."
    if repeats < 2:
        return f"{what}: of {named} over {over}; of the others, one repeat of the probe gives none."
    return f"{what}: of {named} over {over}; of the others over {probe}pretraining."


def classes_note(scores: pd.DataFrame, infos: Mapping[str, Mapping[str, Any]]) -> str:
    """Which mAP leaves out classes, since the test part has no observed positive of them."""
    if "num_classes_scored" not in scores:
        return ""
    fewest = scores.groupby("task")["num_classes_scored"].min()
    short = [
        f"{NAMES.get(task, task)} over {fewest[task]:.0f} of {len(info['classes'])} classes"
        for task, info in infos.items()
        if info["metric"] == "map" and fewest[task] < len(info["classes"])
    ]
    return f"mAP of {'; '.join(short)}: the others have no positive to test." if short else ""


def lopsided_note(lopsided: Mapping[str, float]) -> str:
    """What guessing gives where one class is most of a task; empty if it nowhere is."""
    told = [f"{100 * share:.1f} % in {NAMES.get(task, task)}" for task, share in lopsided.items()]
    if not told:
        return ""
    return (
        f"Always naming the largest class gives an accuracy of {', '.join(told)}; balanced: the "
        "mean over the classes of the fraction that is recognised, which guessing does not raise."
    )


def _number(n: int) -> str:
    return NUMBERS[n] if n < len(NUMBERS) else str(n)


def said(*notes: str) -> tuple[str, ...]:
    """Those notes that say something."""
    return tuple(filter(None, notes))
