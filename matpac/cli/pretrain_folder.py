"""Pretraining on a folder of one's own sounds, without a table or a parameter file.

    matpac pretrain FOLDER -o RUN --minutes 10

The stages of the pipeline run with RUN as their project, so what trains here is what trains on
AudioSet. RUN then holds:

    model.safetensors, config.json, README.md   the encoder and its card: ``matpac.load(RUN)``
    scores.csv, heads/                          where sub-folders are classes: scores, and a probe
                                                for ``matpac label``
    embeddings.parquet, embeddings.png          of all files, as ``matpac embed``; a picture
    params.yaml                                 the same for the pipeline
    run.json                                    what was asked for, and what came of it
    data/                                       manifests, log-mels, training states; not needed on

The same command goes on where it was stopped.
"""

import os
import shlex
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd

from matpac.cli import folder_plan, folder_results
from matpac.cli.embed import embed_folder
from matpac.cli.folder_scan import Sounds, scan
from matpac.cli.release import release
from matpac.cli.similar import TABLE
from matpac.core import files
from matpac.data.config import FetchParams
from matpac.data.fetch import fetch
from matpac.encoders import hub
from matpac.features.preprocess import preprocess
from matpac.params import Params, load, parse
from matpac.pretraining.pretrain import pretrain

MINUTES = 10.0
RECORD = "run.json"


def pretrain_folder(
    folder: Path, out: Path | None = None, *, minutes: float | None = None, size: str | None = None
) -> Path:
    """Trains on the sounds in a folder, or goes on with it, and says what came of it.

    Args:
        out: where all of it goes; None: ``<name of the folder>-matpac`` in the working directory.
        minutes: of training on this machine; None: those that were asked for before, or 10.
        size: as of `folder_plan.plan`; None: the one that was asked for before, or it is chosen.
    Returns: ``out``.
    Raises: FileNotFoundError, ValueError naming what is wrong with the folder, or what is different
        in an ``out`` that is there; as the stages.
    """
    out = (out or Path(f"{folder.resolve().name}-matpac")).resolve()
    sounds = scan(folder)
    record = begin(out, sounds, minutes=minutes, size=size)
    if done := record["result"]:
        print("\n".join([f"{out}: finished before, nothing is trained again", *done]))
        return out
    print(sounds, flush=True)
    with rooted(out):
        params = prepare(out, sounds, record)
        pretrain("base", params)
        lines, complete = finish(out, sounds, params)
    print("\n".join(lines))
    if complete:
        files.write_json(out / RECORD, record | {"result": lines})
    return out


def begin(out: Path, sounds: Sounds, *, minutes: float | None, size: str | None) -> dict[str, Any]:
    """Claims ``out`` for this folder, or finds what was asked for there before.

    Raises: ValueError naming what is different.
    """
    folder = sounds.folder.resolve()
    if minutes is not None and not 0 < minutes < float("inf"):
        raise ValueError(f"minutes: got {minutes:g}, allowed: above 0")
    if out.is_relative_to(folder):
        raise ValueError(f"{out}: lies in {folder}, the sounds; give another -o")
    asked = {"folder": str(folder), "files": sounds.digest, "minutes": minutes, "size": size}
    record = asked | {"minutes": minutes or MINUTES, "result": None}
    path = out / RECORD
    if path.exists():
        before = files.read_json(path)
        if not isinstance(before, dict) or set(before) != set(record):
            raise ValueError(f"{path}: no record of this command; give another -o")
        if wrong := _differences(asked, before, planned=(out / "params.yaml").exists()):
            raise ValueError("\n".join([f"{out}: another run; give another -o:", *wrong]))
        record = before | {name: value for name, value in asked.items() if value is not None}
        if record["result"]:
            return record
        print(f"{out}: going on with what is there")
    elif out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise ValueError(f"{out}: is there, and no run of this command; give another -o")
    out.mkdir(parents=True, exist_ok=True)
    files.write_json(path, record)
    return record


def _differences(asked: dict[str, Any], before: dict[str, Any], *, planned: bool) -> list[str]:
    """What is asked for and was not before; until there is a plan, only the folder counts."""
    lines = [
        f"  {name}: got {asked[name]}, begun with {before[name]}"
        for name in (("folder", "minutes", "size") if planned else ("folder",))
        if asked[name] is not None and asked[name] != before[name]
    ]
    if planned and asked["folder"] == before["folder"] and asked["files"] != before["files"]:
        lines.append("  files: some are new, changed or gone since it began")
    return lines


@contextmanager
def rooted(out: Path) -> Iterator[None]:
    """Within it ``out`` is the project of the stages, data and all."""
    before = {name: os.environ.get(name) for name in ("MATPAC_ROOT", "MATPAC_DATA")}
    os.environ |= {"MATPAC_ROOT": str(out), "MATPAC_DATA": ""}
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


def prepare(out: Path, sounds: Sounds, record: dict[str, Any]) -> Params:
    """Log-mels of the sounds, and the plan: that of before if there is one; else noted, too."""
    path = out / "params.yaml"
    planned = load(path) if path.exists() else None
    data = planned or parse(FetchParams, folder_plan.data_sections(sounds, out))
    # A miniature is for the pipeline alone.
    own = data.model_copy(update={"tasks": [name for name in data.tasks if name in data.corpora]})
    fetch(own)
    preprocess(own)
    if planned:
        return planned
    clips = folder_plan.frames(data)
    asked = {"minutes": record["minutes"], "size": record["size"]}
    label = f"MATPAC on {sounds.folder.resolve().name}"
    sections = data.model_dump(exclude_unset=True)
    params, size, why = folder_plan.plan(sections, clips, **asked, label=label)
    record["size"] = size
    files.write_json(out / RECORD, record)
    folder_plan.write(params, sounds, path)
    print(why, flush=True)
    return load(path)


def finish(out: Path, sounds: Sounds, params: Params) -> tuple[list[str], bool]:
    """Encoder with its card, scores, embeddings and picture.

    Returns: what came of it; whether that is all.
    """
    lines, complete, classed = [], True, folder_results.TASK in params.tasks
    # A miniature, of a folder without classes, is the pipeline's to probe.
    told: dict[str, Any] = {"not_probed": []}
    if classed:
        print("scores: neighbours and a linear probe, of three encoders, five folds", flush=True)
        scores, guessing = folder_results.score(params)
        with files.replacing(out / "scores.csv") as temporary:
            pd.DataFrame(scores).to_csv(temporary, index=False, float_format="%.3f")
        told |= {"own_scores": scores, "guessing": guessing}
        lines += folder_results.told(scores, guessing)
    release("base", params, out, told=told, ours=True)
    lines.insert(0, f"{out}: the encoder; matpac.load({str(out)!r}).embed(FILE) gives embeddings")
    table = out / TABLE
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of what the scan left out, and said
        embed_folder(hub.load(out), sounds.folder, table, name=str(out))
    lines.append(f"{table}: the embeddings of all files")
    print("a picture of the embeddings: t-SNE, a minute for thousands of clips", flush=True)
    try:
        classes = sounds.table.set_index("file")["class"]
        title = params.runs["base"].label
        drawn = folder_results.picture(table, classes, out / "embeddings.png", title)
        lines.append(f"{out / 'embeddings.png'}: a dot for each of {drawn:,} clips")
    except ImportError:
        missing = "matplotlib is not installed (pip install 'matpac[pipeline]')"
        lines.append(f"no picture: {missing}; then the same command draws it")
        complete = False
    except ValueError as error:
        lines.append(f"no picture: {error}")
    lines.append(f"{out / 'params.yaml'}: the same for the pipeline (matpac check FILE)")
    run = shlex.quote(str(out))
    lines.append(f"next: matpac similar FILE {run}    # the nearest sounds")
    if classed:
        lines.append(f"      matpac label NEW_FOLDER -o labels.parquet --encoder {run}")
    return lines, complete
