"""Measured rows of Table II set against what the paper reports of them (MATPAC Table II).

A run or encoder that names the paper's row it stands for (``reported`` in ``params.yaml``) is
compared with it, task by task: the difference, and whether the two confidence intervals meet. Only
like is compared: tasks that are the paper's own data sets, whole, and, outside the paper profile,
no run that was trained here, since its data and its size are other than the paper's.

The paper's numbers are known to one decimal, so measured ones are rounded to it before anything is
subtracted: a difference is never finer than what it is taken from, and can be checked by hand.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from matpac.reporting import paper
from matpac.reporting.captions import (
    LOST,
    NAMES,
    Provenance,
    RowSpec,
    classes_note,
    dagger,
    interval_note,
    percent,
    select,
    steps_note,
    task_columns,
)
from matpac.reporting.paper import ReportedModel
from matpac.reporting.statistics import TASKS, average, summary
from matpac.reporting.typeset import Block, Cell, Column, Difference, Score, Table

NAME = "table2_differences"
MODELS = {model.name: model for model in paper.TABLE2}
VERDICT = (
    "Difference: measured minus reported, both at one decimal, since the paper's are known no "
    "further; within: not larger than the two half widths added, so that the two intervals meet; "
    "outside: larger. Neither is said where an interval is missing."
)


def check(reported: Mapping[str, str | None]) -> None:
    """Looks up the names of reported rows.

    Args: reported: by where it stands, such as ``runs.alpha1.reported``; None: no comparison.
    Raises: ValueError listing every name that is not in the paper's Table II, and those that are.
    """
    wrong = [
        f"{key}: got {name!r}" for key, name in reported.items() if name not in (None, *MODELS)
    ]
    if wrong:
        allowed = ", ".join(repr(name) for name in MODELS)
        raise ValueError("\n".join([*wrong, f"allowed: rows of the paper's Table II, {allowed}"]))


def differences(
    scores: pd.DataFrame,
    datasets: Mapping[str, Mapping[str, Any]],
    rows: Sequence[RowSpec],
    provenance: Provenance,
) -> Table | None:
    """The table of differences, then the reported rows that nothing is compared with.

    Args: as `matpac.reporting.report.write_tables`.
    Returns: None if there is nothing to compare.
    Raises: ValueError for an unknown name in ``reported``, and as `matpac.reporting.statistics`.
    """
    check({row.encoder: row.reported for row in rows})
    refused, rows = refusal(rows, provenance), compared(rows, provenance)
    if not rows:
        return None
    tasks = [task for task in TASKS if task in provenance.comparable]
    scores = select(scores, rows)
    scores = scores[scores["task"].isin(tasks)]
    averages = average(scores, tasks).set_index("encoder")
    cells = summary(scores).set_index(["encoder", "task"])
    with_average = tasks == list(TASKS)
    blocks: list[Block] = []
    for row in rows:
        measured = [percent(cells.loc[(row.encoder, task)]) for task in tasks]
        measured += [percent(averages.loc[row.encoder])] * with_average
        blocks += _compared_blocks(row, measured, tasks, provenance)
    blocks += _other_blocks({row.reported for row in rows}, tasks, with_average=with_average)
    columns = [
        Column("model", "Models"),
        Column("value", ""),
        Column("training_data", "Trained on"),
    ]
    columns += [*task_columns(tasks, datasets), *[Column("average", "Avg.")] * with_average]
    notes = [VERDICT, interval_note(averages)]
    notes += ["The paper gives its averages without an interval."] * with_average
    notes += [_left_out(datasets, tasks), provenance.line, steps_note(rows, provenance)]
    notes += [classes_note(scores, {task: datasets[task] for task in tasks}), refused]
    notes += _lost_notes(blocks)
    return Table(
        name=NAME,
        title="Table II, differences",
        caption="Linear evaluation on the downstream tasks: what was measured here beside what "
        "the paper reports of the same model.",
        columns=tuple(columns),
        blocks=tuple(blocks),
        notes=tuple(filter(None, notes)),
    )


def compared(rows: Sequence[RowSpec], provenance: Provenance) -> list[RowSpec]:
    """The rows that name a reported one and can be set against it."""
    return [
        row
        for row in rows
        if row.reported and provenance.comparable and _like_the_papers(row, provenance)
    ]


def refusal(rows: Sequence[RowSpec], provenance: Provenance) -> str:
    """Which rows name a reported one but are not set against it, and why; empty if none."""
    accepted = compared(rows, provenance)
    labels = [row.label for row in rows if row.reported and row not in accepted]
    if not labels:
        return ""
    if provenance.comparable:
        why = f"what the {provenance.profile} profile trains is not the paper's model"
    else:
        why = "no task here is known to be a whole data set of the paper's Table I"
    return f"Not compared with the paper: {', '.join(labels)}; {why}."


def reported_line(model: ReportedModel, tasks: Sequence[str]) -> tuple[Cell, ...]:
    """Name, training data, a cell for each task ("—": not the paper's), and the average."""
    cells = [model.cells.get(task) for task in tasks]
    scores = ["—" if cell is None else Score(*cell) for cell in cells]
    return model.name, model.training_data, *scores, Score(model.average)


def difference(measured: Score, reported: Score) -> Difference:
    """Measured minus reported, and whether it is within the two half widths added.

    Args: measured, reported: in percent. A lost or incomputable part leaves out what needs it.
    """
    if measured.mean is None or reported.mean is None:
        return Difference()
    tenths = _tenths(measured.mean) - _tenths(reported.mean)
    widths = (measured.ci95, reported.ci95)
    if any(width is None or math.isnan(width) for width in widths):
        return Difference(tenths / 10)
    limit = sum(_tenths(width) for width in widths)
    return Difference(tenths / 10, limit / 10, abs(tenths) <= limit)


def _like_the_papers(row: RowSpec, provenance: Provenance) -> bool:
    """Whether it is a model of the paper's: all but what another profile trains."""
    return provenance.profile == "paper" or row.steps is None


def _tenths(percent: float) -> int:
    """What is printed at one decimal, as a whole number: a tie is exactly one."""
    return round(10 * round(percent, 1))


def _compared_blocks(
    row: RowSpec, measured: list[Score], tasks: Sequence[str], provenance: Provenance
) -> list[Block]:
    """Three lines, each with its own origin: measured, reported, difference."""
    label = row.label + dagger(row, provenance)
    name, data, *reported = reported_line(MODELS[row.reported], tasks)
    reported = reported[: len(measured)]
    pairs = zip(measured, reported, strict=True)
    heading = f"Measured here beside the paper's {name}"
    lines = (
        (provenance.line, (label, "measured", row.training_data, *measured)),
        ("paper, Table II", (name, "reported", data, *reported)),
        ("measured - reported", (label, "difference", "", *(difference(*pair) for pair in pairs))),
    )
    return [Block(heading, source, (line,), joined=i > 0) for i, (source, line) in enumerate(lines)]


def _other_blocks(
    taken: set[str | None], tasks: Sequence[str], *, with_average: bool
) -> list[Block]:
    """The reported rows that nothing is compared with, if there are any."""
    lines = []
    for model in paper.TABLE2:
        name, data, *cells = reported_line(model, tasks)
        if name not in taken:
            lines.append((name, "reported", data, *cells[: len(tasks) + with_average]))
    heading = "Reported in the paper, compared with nothing here"
    return [Block(heading, "paper, Table II", tuple(lines))] if lines else []


def _left_out(datasets: Mapping[str, Any], tasks: Sequence[str]) -> str:
    """Columns of Table II that were probed and are not compared."""
    names = [NAMES[task] for task in TASKS if task in datasets and task not in tasks]
    if not names:
        return ""
    return f"Left out, not known to be the paper's whole data set: {', '.join(names)}."


def _lost_notes(blocks: Sequence[Block]) -> list[str]:
    """What the question marks are, if there are any."""
    cells = [cell for block in blocks for line in block.rows for cell in line]
    if not any(isinstance(cell, Score) and cell.mean is None for cell in cells):
        return []
    return [LOST, *(f"{model.name}: {model.note}." for model in paper.TABLE2 if model.note)]
