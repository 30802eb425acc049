"""The ``figures`` stage: Tables I to III, Fig. 2 and the collapse figure of one profile.

Which run belongs where follows from what it changes: a run that differs from the base in ``alpha``
alone is a column of Table III (alpha 0, which trains no prediction, is not: the paper has none), in
``num_prototypes`` alone a point of Fig. 2; a run with a label is a row of Table II, as is every
encoder that is only probed. Of two runs with the same value the one trained as long as the base is
shown. Only names in ``runs`` and ``encoders`` are read, so removing one removes it here. Where
one names a row of the paper's (``reported``), the two are compared.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from matpac.core import files, fingerprints, paths, section
from matpac.data import manifests
from matpac.encoders.published import ROWS
from matpac.pretraining import config
from matpac.pretraining.config import ResolvedRun
from matpac.reporting import collapse
from matpac.reporting.captions import Provenance, RowSpec
from matpac.reporting.config import FiguresParams
from matpac.reporting.plots import figure2
from matpac.reporting.report import write_tables
from matpac.reporting.statistics import TASKS

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
    provenance = make_provenance(
        params,
        steps=steps,
        miniature=all(info["source"] == "embedded" for info in infos.values()),
        incomplete=parts_of_tasks(infos),
        comparable=papers_tasks(infos),
    )
    scores = pd.concat([read_scores(params, row.encoder) for row in rows], ignore_index=True)
    write_tables(scores, infos, rows, provenance, out)
    figure2(scores, rows, provenance, out)
    logs = collapse.load(params.profile)
    described = {
        "profile": provenance.profile,
        "corpus": provenance.corpus,
        "parameters": provenance.parameters,
    }
    collapse.figure(logs[logs["run"].isin(list(params.runs))], out, described)
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
            reported=e.reported or reported_row(e.kind),
        )
        for name, e in params.encoders.items()
    ]


def reported_row(kind: str) -> str | None:
    """What the paper reports of a published row's encoder; None: nothing, or it is not certain."""
    return ROWS[kind].reported if kind in ROWS else None


def differences(base: ResolvedRun, run: ResolvedRun) -> set[str]:
    """Dotted names of what a run changes; not the number of epochs, which tables mark instead."""
    return {
        f"{section}.{key}"
        for section, values in run.model_dump().items()
        for key, value in values.items()
        if value != getattr(getattr(base, section), key)
    } - {"pretrain.epochs"}


def num_steps(params: FiguresParams, run: str) -> int:
    """Updates of a finished run. Raises: FileNotFoundError naming the stage that has not run."""
    path = paths.small(params) / "logs" / run / f"seed_{config.seeds(params, run)[0]}" / "log.csv"
    if not path.exists():
        raise FileNotFoundError(f"{path}: missing; run the stage pretrain@{params.profile}-{run}")
    with path.open() as file:
        return sum(1 for _ in file) - 1


def read_scores(params: FiguresParams, name: str) -> pd.DataFrame:
    """Scores of a run or encoder on the tasks of the profile."""
    path = paths.small(params) / "probe" / name / "scores.csv"
    if not path.exists():
        stage = "probe" if name in params.runs else "probe_only"
        raise FileNotFoundError(f"{path}: missing; run the stage {stage}@{params.profile}-{name}")
    scores = pd.read_csv(path)
    return scores[scores["task"].isin(params.tasks)]


def pretraining(params: FiguresParams) -> dict[str, Any]:
    """What the ``logmel`` stage says of the pretraining corpora."""
    path = paths.small(params) / "logmel" / "pretraining.json"
    if not path.exists():
        raise FileNotFoundError(f"{path}: missing; run the stage logmel@{params.profile}")
    return files.read_json(path)


def make_provenance(
    params: FiguresParams,
    *,
    steps: int,
    miniature: bool,
    incomplete: str = "",
    comparable: tuple[str, ...] = (),
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
    hop_s = 0.001 * pretraining(params)["front_end"]["hop_ms"]
    described = [
        f"{corpus['name']} ({corpus['num_clips']:,} clips, "
        f"{corpus['num_frames'] * hop_s / 3600:,.1f} h)"
        for corpus in pretraining(params)["corpora"]
    ]
    return Provenance(
        profile=params.profile,
        corpus=" + ".join(described),
        parameters=fingerprints.digest(sections)[:8],
        steps=steps,
        miniature=miniature,
        incomplete=incomplete,
        comparable=comparable,
    )


def parts_of_tasks(infos: dict[str, dict[str, Any]]) -> str:
    """Tasks that have fewer clips than their official data sets, in words."""
    return ", ".join(
        f"{task} ({info['num_clips']:,} of {info['official_clips']:,} clips)"
        for task, info in infos.items()
        if _is_part(info)
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
