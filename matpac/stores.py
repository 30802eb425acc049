"""Making the log-mel store of a data set: all shards, then the table of clips and the index.

A store is kept as long as what decides it (the files of the manifest, the front end, this code's
version) stays the same. An interrupted one is continued from its finished shards.
"""

import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from matpac import datasets, files
from matpac.clips import COLUMNS, verify
from matpac.progress import Progress
from matpac.shards import ShardJob, finished, plan_shards, write_shard
from matpac.workers import Workers

VERSION = 1
"""Raise when equal manifests and front ends give other stores, so that all are made again."""


def build(
    manifest: pd.DataFrame,
    audio_folder: Path,
    folder: Path,
    *,
    front_end: dict[str, float],
    shard_bytes: int,
    max_bad_fraction: float,
    workers: Workers,
) -> tuple[dict[str, Any], bool]:
    """Makes the store of a data set, or keeps the one that is there.

    Args:
        manifest: as in `matpac.datasets`; excluded rows are not read.
        folder: the store; its name is the data set's. It is built beside itself and then renamed.
        front_end: keyword arguments of `logmel.LogMel`.
        shard_bytes: size after which a shard ends.
        max_bad_fraction: largest fraction of the manifest's rows that may be excluded.
    Returns: the index and whether anything was made.
    Raises: ValueError naming the clips if too many cannot be used.
    """
    key = datasets.fingerprint(
        {"version": VERSION, "front_end": front_end, "shard_bytes": shard_bytes}
        | {"manifest": datasets.content_hash(manifest)}
    )
    if (index := _kept(folder, key)) is not None:
        _refuse_bad(folder, manifest, max_bad_fraction)
        return index, False
    building = folder.with_name(f"{folder.name}.building")
    plan = building / "plan.json"
    if plan.exists() and files.read_json(plan) != key:
        shutil.rmtree(building)
    files.write_json(plan, key)
    shards = plan_shards(manifest, front_end, shard_bytes)
    jobs = _jobs(manifest, shards, building, audio_folder, front_end)
    _write_missing(jobs, folder.name, int((shards >= 0).sum()), workers)
    _write_index(building, manifest, shards, {"fingerprint": key, "front_end": front_end})
    _refuse_bad(building, manifest, max_bad_fraction)
    _swap(building, folder)
    return files.read_json(folder / "index.json"), True


def _jobs(
    manifest: pd.DataFrame,
    shards: np.ndarray,
    folder: Path,
    audio_folder: Path,
    front_end: dict[str, float],
) -> Iterator[ShardJob]:
    """One job per shard, made when it is needed: two million clips are never listed at once."""
    clips = manifest[["path", "start_s", "duration_s"]]
    order = np.flatnonzero(shards >= 0)
    for number, rows in enumerate(_split_at_changes(order, shards[order])):
        listed = list(clips.iloc[rows].itertuples(index=False, name=None))
        yield ShardJob(number, folder, audio_folder, front_end, listed)


def _split_at_changes(rows: np.ndarray, shards: np.ndarray) -> list[np.ndarray]:
    return np.split(rows, np.flatnonzero(np.diff(shards)) + 1) if len(rows) else []


def _write_missing(jobs: Iterator[ShardJob], name: str, num_clips: int, workers: Workers) -> None:
    threads = torch.get_num_threads()  # write_shard changes it, perhaps in this process
    with Progress(num_clips, f"log-mel {name}", unit="clip") as progress:

        def missing() -> Iterator[ShardJob]:
            for job in jobs:
                if finished(job):
                    progress.update(len(job.clips))
                else:
                    yield job

        try:
            for done in workers.map(write_shard, missing(), num_items=num_clips):
                progress.update(done)
        finally:
            torch.set_num_threads(threads)


def _write_index(
    folder: Path, manifest: pd.DataFrame, shards: np.ndarray, header: dict[str, Any]
) -> None:
    """Joins the parts of all shards into ``clips.parquet`` and ``index.json``."""
    paths = [folder / "parts" / f"{number:05d}.json" for number in range(shards.max() + 1)]
    parts = [files.read_json(path) for path in paths]
    clips = {
        key: [value for part in parts for value in part["clips"][key]]
        for key in ("num_frames", "sums", "squares", "problems")
    }
    used = shards >= 0
    table = pd.DataFrame({"clip": manifest["clip"].to_numpy(), "shard": shards})
    table["first_frame"], table["num_frames"] = np.int64(0), np.int64(0)
    table.loc[used, "num_frames"] = np.array(clips["num_frames"], dtype=np.int64)
    table.loc[used, "first_frame"] = np.concatenate(
        [np.cumsum([0, *part["clips"]["num_frames"][:-1]], dtype=np.int64) for part in parts]
        or [np.empty(0, np.int64)]
    )
    table["excluded"] = manifest["excluded"].to_numpy()
    table.loc[used, "excluded"] = clips["problems"]
    table.loc[table["excluded"] != "", "shard"] = -1
    tables = _write_tables(folder, table)
    excluded = table[table["excluded"] != ""]
    index = header | {
        "num_clips": len(table) - len(excluded),
        "num_frames": int(table["num_frames"].sum()),
        "sum": math.fsum(clips["sums"]),
        "sum_squares": math.fsum(clips["squares"]),
        "tables": tables,
        "shards": [part["entry"] for part in parts],
        "num_excluded": len(excluded),
        "excluded": excluded[["clip", "excluded"]].head(datasets.LISTED).to_dict("records"),
    }
    files.write_json(folder / "index.json", index)


def _write_tables(folder: Path, table: pd.DataFrame) -> list[dict[str, Any]]:
    """Writes ``clips.parquet`` and ``clips.npy``; returns their names, sizes and checksums."""
    paths = [folder / "clips.parquet", folder / "clips.npy"]
    files.write_table(paths[0], table)
    usable = table.assign(row=np.arange(len(table)))[table["excluded"] == ""]
    with files.replacing(paths[1]) as temporary, temporary.open("wb") as file:
        np.save(file, usable[list(COLUMNS)].to_numpy(np.int32).T.copy())  # (4, clips)
    return [
        {"file": path.name, "bytes": path.stat().st_size, "sha256": files.sha256(path)}
        for path in paths
    ]


def _kept(folder: Path, key: str) -> dict[str, Any] | None:
    """The index of an existing store if it is the wanted one and its files have their sizes."""
    if not (folder / "index.json").exists():
        return None
    try:
        index = verify(folder)
    except (FileNotFoundError, ValueError) as error:
        print(f"made again: {error}")
        return None
    shutil.rmtree(_old(folder), ignore_errors=True)  # if the run that made this one was killed
    return index if index["fingerprint"] == key else None


def _refuse_bad(folder: Path, manifest: pd.DataFrame, max_bad_fraction: float) -> None:
    table = pd.read_parquet(folder / "clips.parquet", columns=["clip", "excluded"])
    name = folder.name.removesuffix(".building")
    excluded = datasets.excluded_clips(table)
    if problem := datasets.too_many_bad(name, excluded, len(manifest), max_bad_fraction):
        raise ValueError(problem)


def _swap(building: Path, folder: Path) -> None:
    """Puts the finished store in place of an older one.

    Killed in between, ``building`` is still whole and the next run finishes this.
    """
    old = _old(folder)
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.replace(old)
    building.replace(folder)
    shutil.rmtree(folder / "parts")
    (folder / "plan.json").unlink()
    shutil.rmtree(old, ignore_errors=True)


def _old(folder: Path) -> Path:
    """The name that a store has while a newer one takes its place."""
    return folder.with_name(f"{folder.name}.old")
