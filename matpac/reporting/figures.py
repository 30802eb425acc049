"""The ``figures`` stage: tables and figures of one profile.

Which run belongs where follows from what it changes: a run that differs from the base in ``alpha``
alone is a column of Table III (alpha 0, which trains no prediction, is not: the paper has none), in
``num_prototypes`` alone a point of Fig. 2; a run with a label is a row of Table II, as is every
encoder that is only probed. Of two runs with the same value the one trained as long as the base is
shown. Only names in ``runs`` and ``encoders`` are read, so removing one removes it here. Where
one names what others report of it (``reported``), the two are compared.
"""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pandas as pd

from matpac.core import files, fingerprints, paths, section
from matpac.data import manifests
from matpac.pretraining import config
from matpac.pretraining.config import ResolvedRun
from matpac.reporting import collapse, hypotheses, measures
from matpac.reporting.captions import Provenance, RowSpec
from matpac.reporting.config import FiguresParams
from matpac.reporting.paper import TASKS, reported_for
from matpac.reporting.plots import figure2, learning_curve
from matpac.reporting.results import Results
from matpac.reporting.tables import write_tables

UNTRAINED = ("random", "logmel_statistics")


def figures(params: FiguresParams | dict[str, Any]) -> list[Path]:
    """Writes all tables and figures to ``figures/<profile>/``, the same bytes for the same results.

    Args:
        params: the sections of `matpac.reporting.config.FiguresParams`.
    Returns: the files.
    Raises: ValueError for bad parameters; FileNotFoundError naming the stage that has not run.
    """
    params = section.parse(FiguresParams, params)
    out = paths.root() / "figures" / params.profile
    steps = num_steps(params, "base")
    runs = one_per_value([run_row(params, run) for run in params.runs], steps)
    rows = [*runs, *encoder_rows(params)]
    infos = {task: manifests.load(params, task)[1] for task in params.tasks}
    results = Results(
        scores=pd.concat([all_scores(params, row.encoder) for row in rows], ignore_index=True),
        infos=infos,
        rows=rows,
        provenance=make_provenance(params, infos, steps=steps),
        predictions=read_predictions(params, rows),
    )
    write_tables(results, out)
    measures.write(results.scores, out)
    figure2(results, out)
    learning_curve(results, read_curves(params), out)
    logs = collapse.load(params.profile, params.runs)
    described = asdict(results.provenance)
    described = {key: described[key] for key in ("profile", "corpus", "parameters")}
    collapse.figure(logs, out, described)
    hypotheses.write(logs, out)
    return sorted(out.iterdir())


def run_row(params: FiguresParams, run: str) -> RowSpec:
    """How tables and figures show a trained run."""
    resolved = config.resolve(params, run)
    changes = differences(config.resolve(params, "base"), resolved)
    label = params.runs[run].label
    return RowSpec(
        encoder=run,
        label=label or run,
        training_data=", ".join(corpus["name"] for corpus in pretraining(params)["corpora"]),
        alpha=resolved.objective.alpha,
        num_prototypes=resolved.model.num_prototypes,
        steps=num_steps(params, run),
        table2=label is not None,
        table3=run == "base" or (changes == {"objective.alpha"} and resolved.objective.alpha > 0),
        figure2=run == "base" or changes == {"model.num_prototypes"},
        reported=params.runs[run].reported,
    )


def one_per_value(rows: list[RowSpec], steps: int) -> list[RowSpec]:
    """Leaves one row per alpha in Table III and per K in Fig. 2: of equals, one of ``steps``."""
    for field, flag in (("alpha", "table3"), ("num_prototypes", "figure2")):
        shown: set[object] = set()
        for row in sorted(rows, key=lambda row: row.steps != steps):
            if getattr(row, flag):
                value = getattr(row, field)
                if value in shown:
                    rows[rows.index(row)] = replace(row, **{flag: False})
                shown.add(value)
    return rows


def encoder_rows(params: FiguresParams) -> list[RowSpec]:
    """The encoders that are only probed."""
    return [
        RowSpec(
            encoder=name,
            label=e.label,
            training_data="—" if e.kind in UNTRAINED else "elsewhere",
            reported=e.reported or reported_for(e.kind),
        )
        for name, e in params.encoders.items()
    ]


def differences(base: ResolvedRun, run: ResolvedRun) -> set[str]:
    """Dotted names of what a run changes that decides its weights; not the number of epochs, which
    tables mark instead."""
    return {
        f"{section}.{key}"
        for section, values in run.deciding().items()
        for key, value in values.items()
        if value != getattr(getattr(base, section), key)
    } - {"pretrain.epochs"}


def num_steps(params: FiguresParams, run: str) -> int:
    """Updates of a finished run. Raises: FileNotFoundError naming the stage that has not run."""
    seed = config.seeds(params, run)[0]
    path = paths.small(params) / "logs" / run / f"seed_{seed}" / "log.csv"
    with paths.made(path, params.profile, "pretrain", run).open() as file:
        return sum(1 for _ in file) - 1


def read_scores(params: FiguresParams, name: str, file: str = "scores.csv") -> pd.DataFrame:
    """Scores of a run or encoder on the tasks of the profile."""
    stage = "probe" if name in params.runs else "probe_only"
    path = paths.small(params) / "probe" / name / file
    scores = pd.read_csv(paths.made(path, params.profile, stage, name))
    return scores[scores["task"].isin(params.tasks)]


def all_scores(params: FiguresParams, name: str) -> pd.DataFrame:
    """Those of the linear probe, and of the quick ones, if it has any.

    Nearest neighbours differ over repeats only where these draw a validation part: to be averaged
    with tasks that have one, all repeats count as one.
    """
    linear = read_scores(params, name)
    if not (paths.small(params) / "probe" / name / "quick.csv").exists():
        return linear
    quick = read_scores(params, name, "quick.csv")
    nearest = quick["probe"] == "knn"
    key = ["encoder", "seed", "task", "metric", "probe", "fold"]
    means = quick[nearest].groupby(key, sort=False)["score"].mean().reset_index()
    return pd.concat([linear, means.assign(repeat=1), quick[~nearest]], ignore_index=True)


def read_predictions(params: FiguresParams, rows: list[RowSpec]) -> dict[str, pd.DataFrame]:
    """Predictions on test clips by run or encoder, of those that kept them."""
    found = {}
    for row in rows:
        path = paths.small(params) / "probe" / row.encoder / "predictions.parquet"
        if path.exists():
            table = pd.read_parquet(path)
            found[row.encoder] = table[table["task"].isin(params.tasks)]
    return found


def read_curves(params: FiguresParams) -> pd.DataFrame:
    """Scores of runs on their way, with the ``fraction`` of training done; empty if none has any.

    ``data/<profile>/probe/<run>/curve.csv`` is as ``scores.csv`` but for that column.
    """
    folder = paths.small(params) / "probe"
    found = [run for run in params.runs if (folder / run / "curve.csv").exists()]
    return pd.concat([pd.DataFrame(), *(read_scores(params, run, "curve.csv") for run in found)])


def pretraining(params: FiguresParams) -> dict[str, Any]:
    """What the ``logmel`` stage says of the pretraining corpora."""
    path = paths.small(params) / "logmel" / "pretraining.json"
    return files.read_json(paths.made(path, params.profile, "logmel"))


def make_provenance(
    params: FiguresParams, infos: dict[str, dict[str, Any]], *, steps: int
) -> Provenance:
    """Profile, corpora with their sizes, and a hash of every parameter behind the results."""
    # What a row is compared with is behind no result, nor is an option that an encoder lacks.
    sections = params.deciding()
    del sections["storage"]
    for name in params.runs:
        del sections["runs"][name]["reported"]
    sections["encoders"] = {
        name: encoder.model_dump(exclude={"reported"}, exclude_none=True)
        for name, encoder in params.encoders.items()
    }
    index = pretraining(params)
    hours = 0.001 * index["front_end"]["hop_ms"] / 3600
    described = [
        f"{corpus['name']} ({corpus['num_clips']:,} clips, {corpus['num_frames'] * hours:,.1f} h)"
        for corpus in index["corpora"]
    ]
    return Provenance(
        profile=params.profile,
        corpus=" + ".join(described),
        parameters=fingerprints.digest(sections)[:8],
        steps=steps,
        miniature=all(info["source"] == "embedded" for info in infos.values()),
        incomplete=", ".join(
            f"{task} ({info['num_clips']:,} of {info['official_clips']:,} clips)"
            for task, info in infos.items()
            if _is_part(info)
        ),
        comparable=papers_tasks(infos),
    )


def papers_tasks(infos: dict[str, dict[str, Any]]) -> tuple[str, ...]:
    """Tasks that are data sets of Table I in their official layout, with all of their clips."""
    return tuple(
        task
        for task in TASKS
        if task in infos and infos[task]["source"] == task and not _is_part(infos[task])
    )


def _is_part(info: dict[str, Any]) -> bool:
    """Whether clips are missing, beyond those that were there and could not be used."""
    return info["num_clips"] + info["num_excluded"] < info.get("official_clips", 0)
