"""Scores -> Tables I, II and III, ours and the paper's, visibly apart (MATPAC Sec. IV).

Pure functions of tidy scores and of what the caller says about each run: no parameters are read
here and nothing is chosen. Every table names the profile, corpus and parameters that made it, and
says what varies in its intervals. Reported rows never compete with ours.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from matpac.reporting.captions import (
    NAMES,
    classes_note,
    interval_note,
    lopsided_note,
    mark,
    said,
    steps_note,
    unique_by,
)
from matpac.reporting.comparisons import AVERAGE
from matpac.reporting.differences import ELSEWHERE, differences, refusal
from matpac.reporting.paper import GROUPS, PLUSPLUS, TABLE1, TABLE2, TABLE3, TASKS, Source, System
from matpac.reporting.results import Results, score_columns
from matpac.reporting.statistics import average
from matpac.reporting.table import SUFFIXES, Block, Column, Score, Table

SOURCES = {"table2": TABLE2, "table_plusplus": PLUSPLUS}
TYPES = {"multilabel": "ML", "multiclass": "MCSL"}
METRICS = {"map": "mAP", "accuracy": "Acc."}
OTHER_PROBES = {"knn": "kNN", "fewshot": "few-shot"}
CORPORA = "AS: AudioSet, LS: LibriSpeech."
COMPETING = ", and those not shown to be worse (paired by seed and clip, 5 %, Holm over the tasks)."


def write_tables(results: Results, out: Path) -> dict[str, Table]:
    """Writes all tables as Markdown, LaTeX and CSV to ``out``, the same bytes every time.

    Older files of a table that has nothing in it any more go.

    Returns: the tables by name, for display.
    Raises: ValueError if an encoder has no scores or lacks a task.
    """
    made = {"table1": table1(results), "table3": table3(results)}
    for name, source in SOURCES.items():
        wanted = source is TABLE2 or results.papers
        made[name] = table2(results, name, source) if wanted else None
        made[f"{name}_differences"] = differences(results, f"{name}_differences", source)
    for name, table in made.items():
        if table:
            table.write(out)
        for suffix in () if table else SUFFIXES:
            (out / f"{name}.{suffix}").unlink(missing_ok=True)
    return {name: table for name, table in made.items() if table}


def table1(results: Results) -> Table:
    """Table I: the probed data sets of this profile beside those of the paper."""
    columns = [Column("task", "Dataset")]
    for heading in ("#Samples", "#Classes", "Type", "Split", "Metric"):
        key = heading.strip("#").lower()
        columns += [Column(key, heading, "here"), Column(f"{key}_paper", heading, "paper")]
    lines = []
    for task in results.tasks:
        pairs = zip(_facts(results.infos[task]), _papers_facts(task), strict=True)
        lines.append((NAMES.get(task, task), *(fact for pair in pairs for fact in pair)))
    provenance = results.provenance
    return Table(
        name="table1",
        title="Table I",
        caption="Downstream data sets: those of this profile (here) and, for the column of "
        "Table II that each stands for, the paper's. ML: multi-label, MCSL: multi-class "
        "single-label, TVT: train/valid/test.",
        columns=tuple(columns),
        blocks=(Block(provenance.heading, provenance.line, tuple(lines)),),
        notes=said(provenance.line, provenance.warning),
    )


def table2(results: Results, name: str, source: Source) -> Table:
    """Linear probing of every run and encoder, then what a paper reports: Table II, or its like."""
    provenance, rows = results.provenance, results.shown
    extra = _extra_columns(results)
    ours = []
    for row in rows:
        cells = [
            _score(
                results.means.loc[(row.encoder, column)], bold=(row.encoder, column) in results.best
            )
            for column in results.columns
        ]
        more = [cells_of[row.encoder] for cells_of in extra.values()]
        ours.append((row.label + mark(row, provenance), row.training_data, *cells, *more))
    reported = _reported_blocks(results, source, num_extra=len(extra))
    columns = [Column("model", "Models"), Column("training_data", "Training data")]
    notes = [interval_note(results.means.reset_index(), rows)]
    if results.averaged != list(TASKS):
        notes.append(f"Avg. here is over {', '.join(NAMES.get(t, t) for t in results.averaged)}.")
    notes += [provenance.line, provenance.warning, steps_note(rows, provenance)]
    notes += [classes_note(results.probed(rows), results.infos), lopsided_note(results.lopsided)]
    notes.append(refusal(results, source))
    if reported:
        notes += [ELSEWHERE * (source is TABLE2), CORPORA]
    return Table(
        name=name,
        title=source.title,
        caption="Linear evaluation on the downstream tasks. Bold: the best of our rows"
        + (COMPETING if results.comparisons else "."),
        columns=(*columns, *score_columns(results), *extra),
        blocks=(Block(provenance.heading, provenance.line, tuple(ours)), *reported),
        notes=said(*notes),
    )


def table3(results: Results) -> Table:
    """Table III: averages over groups of tasks by the weight alpha of Eq. (5).

    Raises: ValueError if two rows have the same alpha or one has none.
    """
    rows = [row for row in results.rows if row.table3]
    by_alpha = unique_by(rows, "alpha")
    scores, provenance = results.probed(rows), results.provenance
    alphas = sorted({*by_alpha, *TABLE3["All"]})
    ours, theirs, shown = [], [], []
    for group, members in GROUPS.items():
        present = [task for task in members if task in results.infos]
        if group == "All" and not present:
            present = results.tasks  # the profile has its own tasks only
        cells = {}
        if present and rows:
            shown.append(average(scores, present))
            means = shown[-1].set_index("encoder")
            cells = {alpha: _score(means.loc[row.encoder]) for alpha, row in by_alpha.items()}
        ours.append((group, *(cells.get(alpha, "—") for alpha in alphas)))
        printed = {alpha: Score(mean) for alpha, mean in TABLE3[group].items()}
        theirs.append((group, *(printed.get(alpha, "—") for alpha in alphas)))
    marks = {alpha: mark(row, provenance) for alpha, row in by_alpha.items()}
    notes = [interval_note(pd.concat(shown), rows) if shown else "", provenance.line]
    reported = provenance.reported_heading("Reported in the paper (AudioSet)")
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
            Block(provenance.heading, provenance.line, tuple(ours)),
            Block(reported, "MATPAC, Table III", tuple(theirs)),
        ),
        notes=said(*notes, provenance.warning, steps_note(rows, provenance)),
    )


def _facts(info: Mapping[str, Any]) -> list[str]:
    """Samples, classes, type, split and metric of a data set, as Table I words them."""
    split = f"{info['num_folds']}-Fold" if info["split_scheme"] == "folds" else "TVT"
    size, classes = f"{info['num_clips']:,}", str(len(info["classes"]))
    return [size, classes, TYPES[info["kind"]], split, METRICS[info["metric"]]]


def _papers_facts(task: str) -> list[str]:
    if task not in TABLE1:
        return ["—"] * 5
    return [f"{v:,}" if isinstance(v, int) else v for k, v in TABLE1[task].items() if k != "name"]


def _score(cell: pd.Series, *, bold: bool = False) -> Score:
    """A row of `matpac.reporting.statistics` in percent."""
    seeds = tuple(100 * seed for seed in cell["seeds"]) if cell["unit"] == "seeds" else ()
    return Score(100 * cell["mean"], 100 * cell["ci95"], seeds, bold)


def _extra_columns(results: Results) -> dict[Column, dict[str, str | Score]]:
    """Behind the average, by encoder: other probes, balanced accuracies, how many seeds."""
    columns = {}
    absent = dict.fromkeys([row.encoder for row in results.shown], "—")
    scores = results.scores
    for probe in dict.fromkeys(scores["probe"]) if "probe" in scores else ():
        if probe != "linear":
            having = set(scores.loc[scores["probe"] == probe, "encoder"])
            rows = [row for row in results.shown if row.encoder in having]
            means = average(results.probed(rows, probe), results.averaged).set_index("encoder")
            cells = {encoder: _score(cell) for encoder, cell in means.iterrows()}
            heading = OTHER_PROBES.get(probe, probe)
            columns[Column(f"{AVERAGE}_{probe}", "Avg.", heading)] = absent | cells
    for task in results.lopsided:
        having = [name for name in absent if name in results.predictions]
        cells = {name: Score(100 * results.balanced(name, task)) for name in having}
        heading = NAMES.get(task, task)
        columns[Column(f"{task}_balanced", heading, "balanced(%)")] = absent | cells
    seeds = {name: len(results.means.loc[(name, AVERAGE), "seeds"]) for name in absent}
    if max(seeds.values(), default=0) > 1:
        columns[Column("seeds", "Seeds")] = {name: str(n) for name, n in seeds.items()}
    return columns


def _reported_blocks(results: Results, source: Source, *, num_extra: int) -> list[Block]:
    """What a paper reports of these tasks: self-supervised encoders, then supervised ones."""
    blocks = []
    for kind in ("self-supervised", "supervised") if results.papers else ():
        lines = [
            (s.name, s.training_data, *_reported_cells(results, s), *["—"] * num_extra)
            for s in source.systems
            if s.supervised == (kind == "supervised")
        ]
        what = f"Reported in {source.name}, {kind} (AudioSet)"
        heading = results.provenance.reported_heading(what)
        blocks.append(Block(heading, source.name, tuple(lines)))
    return blocks


def _reported_cells(results: Results, system: System) -> list[str | Score]:
    """A cell for each task ("—": not the paper's), and the average."""
    found = [system.cells.get(task) for task in results.tasks]
    cells = [c and Score(c.mean, c.ci95, note="†" * c.elsewhere) for c in found]
    return [*(cell or "—" for cell in cells), Score(system.average)]
