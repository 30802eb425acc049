"""The ``fetch`` stage: makes the audio of every data set available and writes its manifest.

Embedded data sets are rendered by `matpac.corpus`, those of Table I downloaded where no path is
given; what a user keeps in folders, tars or parquet files stays there. What was found out about
unchanged files and recipes is kept in the bulk folder, so that a second run (DVC deletes a stage's
outputs before each) neither downloads nor renders nor reads any audio again.
"""

from pathlib import Path
from typing import Any

import pandas as pd

from matpac.core import paths, section
from matpac.core.parallel import Workers
from matpac.data import manifests
from matpac.data.audit import add_facts
from matpac.data.config import FetchParams
from matpac.data.folders import folder_manifest, plain_manifest
from matpac.data.labels import hopeless, not_trained
from matpac.data.official import official_manifest
from matpac.data.packed import packed_manifest
from matpac.data.sources import shards

FEWEST_FILES = 5000
"""Fewer are checked sooner by threads: other processes need seconds to start."""


def fetch(params: FetchParams | dict[str, Any]) -> dict[str, Any]:
    """Runs the stage for the data sets that are corpora or tasks of the profile.

    Args: params: the sections of `FetchParams`.
    Returns: name -> the information written beside its manifest.
    Raises: ValueError naming the clips of each data set of which more than
        ``logmel.max_bad_fraction`` cannot be used, for tables that do not fit, for a task on which
        no probe could be trained, and for an official data set of which something is missing;
        FileNotFoundError for a missing folder or table, and for what cannot be downloaded; as
        `paths.claimed` and `Workers.map`.
    """
    params = section.parse(FetchParams, params)
    folder = paths.small(params) / "manifests"
    infos, problems = {}, []
    audio = [manifests.audio_folder(params, name) for name in manifests.names(params)]
    processes = Workers.of(params, preload="matpac.data.audit", fewest=FEWEST_FILES, audio=audio)
    with paths.claimed(params, "fetch"), processes as workers:
        for name in manifests.names(params):
            manifest, info = _manifest(params, name, workers)
            excluded = manifests.excluded_clips(manifest)
            info = manifests.summarise(manifest, info)
            problem = manifests.too_many_bad(
                name, excluded, len(manifest), params.logmel.max_bad_fraction
            )
            if not problem and name in params.tasks and (why := hopeless(manifest, info)):
                column = getattr(params.datasets[name], "labels", None)
                problem = f"{name}: {f'column {column!r}: ' if column else ''}{why}"
            if problem:
                problems.append(problem)
                continue
            manifests.save(folder, manifest, info)
            _print_summary(info, excluded)
            if name in params.tasks and (lost := not_trained(manifest, info)):
                print(f"  classes of test clips that no training clip has: {', '.join(lost)}")
            infos[name] = info
    if problems:
        raise ValueError("\n".join(problems))
    _remove_others(folder, infos)
    return infos


def _manifest(
    params: FetchParams, name: str, workers: Workers
) -> tuple[pd.DataFrame, dict[str, Any]]:
    dataset = params.datasets[name]
    folder = manifests.audio_folder(params, name)
    cache = paths.bulk(params) / "audit" / name
    common = {"cache": cache, "workers": workers, "window_ms": params.logmel.window_ms}
    if dataset.source == "embedded":
        from matpac import corpus

        recipe = dataset.model_dump(exclude={"source"})
        manifest, info = corpus.render(folder=folder, **recipe, workers=workers.pool() or 1)
        add_facts(manifest, folder, name=name, **common)
        info |= {"name": name, "source": "embedded", "made_by": info["source"]}
        return manifest, info | {"audio": f"audio/{name}"}  # in the bulk folder
    if dataset.source == "packed":
        found = [path for _, text in dataset.places for path in shards(text)]
        bad = params.logmel.max_bad_fraction
        manifest, info = packed_manifest(
            name, shards=found, relative_to=folder, max_bad_fraction=bad, **common
        )
        return manifest, info | {"audio": dataset.shards}
    if dataset.source != "folder":
        if dataset.path is None:
            from matpac.data import catalogue, download  # only those who download need them

            source = catalogue.SOURCES[dataset.source]
            download.obtain(dataset.source, source, folder=folder, **params.downloads.model_dump())
        manifest, info = official_manifest(
            name, dataset.source, folder=folder, subset=dataset.subset, **common
        )
        return manifest, info | {"audio": dataset.path or f"downloads/{dataset.source}"}
    if dataset.csv is None:
        folders = [paths.expand(text) for _, text in dataset.places]
        manifest, info = plain_manifest(name, folders=folders, relative_to=folder, **common)
    else:
        columns = dataset.model_dump(exclude={"source", "audio", "csv"})
        csv = paths.expand(dataset.csv)
        manifest, info = folder_manifest(name, audio_folder=folder, csv=csv, **columns, **common)
    return manifest, info | {"audio": dataset.audio}


def _print_summary(info: dict[str, Any], excluded: list[tuple[str, str]]) -> None:
    text = f"{info['name']}: {info['num_clips']} clips, {info['hours']:.2f} h"
    if info["num_clips"] + info["num_excluded"] < info.get("official_clips", 0):
        text += f", a part of the {info['official_clips']} of the whole data set"
    if (seconds := info.get("seconds")) and seconds["shortest"] != seconds["longest"]:
        text += f", {seconds['shortest']:g} to {seconds['longest']:g} s each (median "
        text += f"{seconds['median']:g} s)"
    if parts := info.get("splits") or info.get("folds"):
        text += f", {info['split_scheme']} {parts}, validation {info['validation']}"
    print(text + (f", {len(excluded)} excluded:" if excluded else ""))
    if excluded:
        print(manifests.describe(excluded))
    for folder, left_out in info.get("left_out", {}).items():
        print(f"  left out of {folder}: {left_out}")
    if twins := info.get("names_of_several_clips"):
        print(f"  names that several different clips have, all kept: {twins}")


def _remove_others(folder: Path, infos: dict[str, Any]) -> None:
    """Manifests of data sets that the profile no longer names would be taken for its own."""
    for path in [*folder.glob("*.parquet"), *folder.glob("*.json")]:
        if path.stem not in infos:
            path.unlink()
