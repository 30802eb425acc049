"""By how much rows differ: from the base, and from what a paper reports of the same model.

Only like is set against the paper: its own data sets, whole, and, outside the paper profile, no run
that was trained here, since its data and its size are other than the paper's. What is † there was
not measured by its authors and is compared with nothing.
"""

from matpac.reporting.captions import NAMES, RowSpec, mark, said, steps_note
from matpac.reporting.paper import TABLE2, TASKS, Source
from matpac.reporting.results import Results, score_columns
from matpac.reporting.statistics import average, summary, verdict
from matpac.reporting.table import Block, Column, Score, Table

ELSEWHERE = (
    "†: from the system's own paper, by another protocol; nothing is compared with these cells."
)
PAIRED = (
    "Minus {base}: paired by seed and test clip; ± covers other seeds (of one seed: other repeats "
    "of the probe; of two: with what neither row nor seed explains of all such rows) and other "
    "test recordings; *: not 0 at 5 %, after Holm over the tasks."
)
EQUIVALENCE = (
    "Minus reported: equivalent: within one point (two one-sided t-tests, 5 %); different: not 0 "
    "(Welch's t-test, 5 %) and not shown to be within one point; open: neither. The paper gives "
    "its averages without an interval."
)


def differences(results: Results, name: str, source: Source) -> Table | None:
    """Each row minus the base, paired, beside Table II only; and minus what a paper reports of it.

    Returns: None if there is nothing to compare.
    """
    base = next((row for row in results.rows if row.encoder == "base"), None)
    blocks, notes = [], []
    others = [row for row in results.shown if row is not base]
    if source is TABLE2 and base and others and results.comparisons:
        lines = tuple(_paired_line(results, row, base) for row in others)
        blocks.append(Block(f"Minus {base.label}, both here", results.provenance.line, lines))
        notes.append(PAIRED.format(base=base.label))
    if rows := compared(results, source):
        lines = tuple(_reported_line(results, source, row) for row in rows)
        blocks.append(Block(f"Minus {source.name}", f"measured - {source.name}", lines))
        left_out = [NAMES[t] for t in results.papers if t not in results.provenance.comparable]
        whole = f"Left out, not known to be the paper's whole data set: {', '.join(left_out)}."
        notes += [EQUIVALENCE, ELSEWHERE * (source is TABLE2), whole * bool(left_out)]
    if not blocks:
        return None
    notes += [results.provenance.line, results.provenance.warning, refusal(results, source)]
    return Table(
        name=name,
        title=f"{source.title}, differences",
        caption="Linear evaluation on the downstream tasks: differences in points.",
        columns=(Column("model", "Models"), Column("minus", "Minus"), *score_columns(results)),
        blocks=tuple(blocks),
        notes=said(*notes, steps_note(results.rows, results.provenance)),
    )


def compared(results: Results, source: Source) -> list[RowSpec]:
    """Rows that name one of this source and can be set against it."""
    provenance = results.provenance
    return [
        row
        for row in results.rows
        if source.find(row.reported)
        and provenance.comparable
        and (provenance.profile == "paper" or row.steps is None)
    ]


def refusal(results: Results, source: Source) -> str:
    """Which rows name a reported one but are not set against it, and why; empty if none."""
    accepted, provenance = compared(results, source), results.provenance
    named = [row for row in results.rows if source.find(row.reported) and row not in accepted]
    if not named:
        return ""
    if provenance.comparable:
        why = f"what the {provenance.profile} profile trains is not the paper's model"
    else:
        why = "no task here is known to be a whole data set of the paper's Table I"
    return f"Not compared with {source.name}: {', '.join(row.label for row in named)}; {why}."


def _paired_line(results: Results, row: RowSpec, base: RowSpec) -> tuple[str | Score, ...]:
    found = results.differences(row.encoder, dict.fromkeys(results.columns, base.encoder))
    cells = [
        Score(100 * d.value, 100 * d.ci95, signed=True, note="*" * d.significant, p=d.p)
        if (d := found.get(column))
        else "—"
        for column in results.columns
    ]
    return row.label + mark(row, results.provenance), base.label, *cells


def _reported_line(results: Results, source: Source, row: RowSpec) -> tuple[str | Score, ...]:
    """Difference and verdict by task; of the average, whose interval nobody gives, no verdict."""
    system, comparable = source.find(row.reported), results.provenance.comparable
    scores = results.probed([row])
    means = summary(scores).set_index("task")
    cells: list[str | Score] = []
    for task in results.tasks:
        reported = system.cells.get(task) if task in comparable else None
        if reported is None or reported.elsewhere:
            cells.append("—")
        else:
            apart = 100 * means.loc[task, "mean"] - reported.mean
            note = f" {verdict(means.loc[task], reported)}".rstrip()
            cells.append(Score(apart, signed=True, note=note))
    whole = set(TASKS) <= set(comparable)
    mean = 100 * average(scores, TASKS)["mean"].item() if whole else 0
    cells.append(Score(mean - system.average, signed=True) if whole else "—")
    return row.label + mark(row, results.provenance), system.name, *cells
