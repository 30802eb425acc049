"""Scores -> Tables I, II and III, ours and the paper's, visibly apart (MATPAC Sec. IV).

The differences between the two are a table of their own, `matpac.reporting.compare`.

Pure functions of tidy scores and of what the caller says about each run: no parameters are read
here and nothing is chosen. Every table names the profile, corpus and parameters that made it, and
says what its intervals cover.

In Table II the best mean of each column among *our* rows is bold; the reported rows never compete.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from matpac.reporting import compare, paper
from matpac.reporting.captions import (
    CORPORA,
    LOST,
    NAMES,
    Provenance,
    RowSpec,
    classes_note,
    dagger,
    interval_note,
    ordered,
    ours_heading,
    paper_heading,
    percent,
    select,
    steps_note,
    task_columns,
    unique_by,
)
from matpac.reporting.statistics import GROUPS, TASKS, average, summary
from matpac.reporting.typeset import SUFFIXES, Block, Column, Score, Table

TYPES = {"multilabel": "ML", "multiclass": "MCSL"}
METRICS = {"map": "mAP", "accuracy": "Acc."}


def write_tables(
    scores: pd.DataFrame,
    datasets: Mapping[str, Mapping[str, Any]],
    rows: Sequence[RowSpec],
    provenance: Provenance,
    out: Path,
) -> dict[str, Table]:
    """Writes Tables I to III as Markdown, LaTeX and CSV to ``out``, the same bytes every time.

    Beside them go the differences from the paper, if there is one to give; an older file goes.

    Args:
        scores: tidy scores, see `matpac.reporting.statistics`; others than ``rows`` are ignored.
        datasets: the info of each probed task's manifest, in any order.
        rows: runs and encoders to show.
        provenance: what made the scores.
        out: folder, made if needed.
    Returns: the tables by name, for display.
    Raises: ValueError if an encoder has no scores or lacks a task.
    """
    made = [
        table1(datasets, provenance),
        table2(scores, datasets, rows, provenance),
        table3(scores, datasets, rows, provenance),
    ]
    differences = compare.differences(scores, datasets, rows, provenance)
    if differences is not None:
        made.append(differences)
    else:
        for suffix in SUFFIXES:
            (out / f"{compare.NAME}.{suffix}").unlink(missing_ok=True)
    for table in made:
        table.write(out)
    return {table.name: table for table in made}


def table1(datasets: Mapping[str, Mapping[str, Any]], provenance: Provenance) -> Table:
    """Table I: the probed data sets of this profile beside those of the paper."""
    fields = ("#Samples", "#Classes", "Type", "Split", "Metric")
    columns = [Column("task", "Dataset")]
    for field in fields:
        key = field.strip("#").lower()
        columns += [Column(key, field, "here"), Column(f"{key}_paper", field, "paper")]
    lines = []
    for task in ordered(datasets):
        theirs = _paper_facts(task)
        pairs = zip(_facts(datasets[task]), theirs, strict=True)
        lines.append((NAMES.get(task, task), *(value for pair in pairs for value in pair)))
    return Table(
        name="table1",
        title="Table I",
        caption="Downstream data sets: those of this profile (here) and, for the column of "
        "Table II that each stands for, the paper's. ML: multi-label, MCSL: multi-class "
        "single-label, TVT: train/valid/test.",
        columns=tuple(columns),
        blocks=(Block("", provenance.line, tuple(lines)),),
        notes=tuple(filter(None, [provenance.line, provenance.warning])),
    )


def table2(
    scores: pd.DataFrame,
    datasets: Mapping[str, Mapping[str, Any]],
    rows: Sequence[RowSpec],
    provenance: Provenance,
) -> Table:
    """Table II: linear probing of every run and encoder, then all rows the paper reports."""
    refusal = compare.refusal(rows, provenance)
    rows = [row for row in rows if row.table2]
    scores = select(scores, rows)
    tasks = ordered(datasets)
    averaged = [task for task in tasks if task in TASKS] or tasks
    cells = summary(scores).set_index(["encoder", "task"])
    averages = average(scores, averaged).set_index("encoder")
    average(scores, tasks)  # for its complaints about tasks that the averages leave out
    found = [[cells.loc[(row.encoder, task)] for task in tasks] for row in rows]
    found = [[*line, averages.loc[row.encoder]] for row, line in zip(rows, found, strict=True)]
    marked = _with_best_bold([[percent(cell) for cell in line] for line in found])
    ours = [
        (row.label + dagger(row, provenance), row.training_data, *line)
        for row, line in zip(rows, marked, strict=True)
    ]
    columns = [Column("model", "Models"), Column("training_data", "Training data")]
    columns += [*task_columns(tasks, datasets), Column("average", "Avg.")]
    seeds = bool(averages["num_seeds"].max() > 1)
    if seeds:
        columns += [Column("seeds", "Seeds", "n, SD of avg.")]
        ours = [
            (*line, _seeds(averages.loc[r.encoder])) for line, r in zip(ours, rows, strict=True)
        ]
    blocks = [Block(ours_heading(provenance), provenance.line, tuple(ours))]
    blocks += _reported_blocks(tasks, provenance, seeds=seeds)
    notes = [interval_note(averages), provenance.line, provenance.warning]
    if averaged != list(TASKS):
        notes.insert(1, f"Avg. here is over {', '.join(NAMES.get(t, t) for t in averaged)}.")
    notes += [steps_note(rows, provenance), classes_note(scores, datasets), refusal]
    if len(blocks) > 1:
        notes += [LOST, CORPORA, *(f"{m.name}: {m.note}." for m in paper.TABLE2 if m.note)]
    return Table(
        name="table2",
        title="Table II",
        caption="Linear evaluation on the downstream tasks. Best of our rows in bold.",
        columns=tuple(columns),
        blocks=tuple(blocks),
        notes=tuple(filter(None, notes)),
    )


def _reported_blocks(tasks: Sequence[str], provenance: Provenance, *, seeds: bool) -> list[Block]:
    """What the paper reports of these tasks: self-supervised encoders, then supervised ones."""
    if not set(tasks) & set(TASKS):
        return []
    blocks = []
    for supervised in (False, True):
        lines = tuple(
            (*compare.reported_line(model, tasks), *["—"] * seeds)
            for model in paper.TABLE2
            if model.supervised == supervised
        )
        kind = "supervised" if supervised else "self-supervised"
        blocks.append(Block(paper_heading(kind, provenance), "paper, Table II", lines))
    return blocks


def table3(
    scores: pd.DataFrame,
    datasets: Mapping[str, Mapping[str, Any]],
    rows: Sequence[RowSpec],
    provenance: Provenance,
) -> Table:
    """Table III: averages over groups of tasks by the weight alpha of Eq. (5).

    Raises: ValueError if two rows have the same alpha or one has none.
    """
    rows = [row for row in rows if row.table3]
    by_alpha = unique_by(rows, "alpha")
    scores = select(scores, rows)
    alphas = sorted({*by_alpha, *paper.TABLE3["All"]})
    ours, theirs, shown = [], [], []
    for group, members in GROUPS.items():
        present = [task for task in members if task in datasets]
        if group == "All" and not present:
            present = list(datasets)  # the profile has its own tasks only
        line: list[str | Score] = ["—"] * len(alphas)
        if present and rows:
            means = average(scores, present).set_index("encoder")
            shown.append(means)
            cells = {alpha: percent(means.loc[row.encoder]) for alpha, row in by_alpha.items()}
            line = [cells.get(alpha, "—") for alpha in alphas]
        ours.append((group, *line))
        printed = paper.TABLE3[group]
        theirs.append((group, *(Score(printed[a]) if a in printed else "—" for a in alphas)))
    marks = {alpha: dagger(row, provenance) for alpha, row in by_alpha.items()}
    notes = [interval_note(pd.concat(shown)) if shown else "", provenance.line]
    notes += [provenance.warning, steps_note(rows, provenance)]
    return Table(
        name="table3",
        title="Table III",
        caption="Average scores by the weight α of the prediction task in the loss, Eq. (5); "
        "α = 1 is training without the classification task. Music: OpenMIC, NSynth, GTZAN, MTT; "
        "Environment: FSD50K, ESC-50, US8K.",
        columns=(
            Column("group", "α"),
            *(Column(f"alpha_{a:g}", f"{a:g}{marks.get(a, '')}") for a in alphas),
        ),
        blocks=(
            Block(ours_heading(provenance), provenance.line, tuple(ours)),
            Block(paper_heading("", provenance), "paper, Table III", tuple(theirs)),
        ),
        notes=tuple(filter(None, notes)),
    )


def _facts(info: Mapping[str, Any]) -> tuple[str, str, str, str, str]:
    """Samples, classes, type, split and metric of a data set, as Table I words them."""
    split = f"{info['num_folds']}-Fold" if info["split_scheme"] == "folds" else "TVT"
    return (
        f"{info['num_clips']:,}",
        str(len(info["classes"])),
        TYPES[info["kind"]],
        split,
        METRICS[info["metric"]],
    )


def _paper_facts(task: str) -> tuple[str, str, str, str, str]:
    dataset = paper.TABLE1.get(task)
    if dataset is None:
        return ("—",) * 5
    size = f"{dataset.num_clips:,}"
    return size, str(dataset.num_classes), dataset.kind, dataset.split, dataset.metric


def _with_best_bold(lines: list[list[Score]]) -> list[list[Score]]:
    """Marks the best of each column; what reads the same at one decimal is equally good."""
    shown = [[round(score.mean, 1) for score in line] for line in lines]
    best = [max(column) for column in zip(*shown, strict=True)]
    return [
        [score._replace(best=value == top) for score, value, top in zip(*row, best, strict=True)]
        for row in zip(lines, shown, strict=True)
    ]


def _seeds(cell: pd.Series) -> str:
    """Number of pretraining seeds and the standard deviation of the average over them."""
    if cell["num_seeds"] < 2:
        return "1"
    return f"{cell['num_seeds']:.0f}, {100 * cell['seed_std']:.1f}"
