"""Making the log-mel store of a data set: all shards, then the table of clips and the index.

A store is kept as long as what decides it (the files of the manifest, the front end, this code's
version) stays the same. An interrupted one is continued from its finished shards. Memory is needed
for the table alone, a row per clip.

``matpac verify`` reads all stores of the active profile and compares their checksums.
"""

import math
import shutil
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from matpac.core import files
from matpac.core.parallel import Workers
from matpac.core.progress import Progress
from matpac.data import manifests
from matpac.features.shards import (
    ShardJob,
    finished,
    part_path,
    plan_shards,
    shard_path,
    write_shard,
)
from matpac.features.store import COLUMNS, digest, verify

VERSION = 2
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
        manifest: as in `matpac.data.manifests`; excluded rows are not read.
        folder: the store; its name is the data set's. It is built beside itself, in a folder whose
            name tells its inputs from others, so that no worker of an earlier run can write into
            it, and then renamed.
        front_end: keyword arguments of `logmel.LogMel`.
        shard_bytes: size after which a shard ends.
        max_bad_fraction: largest fraction of the manifest's rows that may be excluded.
    Returns: the index and whether anything was made.
    Raises: ValueError naming the clips if too many cannot be used; as `Workers.map`.
    """
    key = manifests.fingerprint(
        {"version": VERSION, "front_end": front_end, "shard_bytes": shard_bytes}
        | {"manifest": manifests.content_hash(manifest)}
    )
    if (index := _kept(folder, key)) is not None:
        _refuse_bad(folder, manifest, max_bad_fraction)
        return index, False
    building = folder.with_name(f"{folder.name}.building-{key[:16]}")
    for other in folder.parent.glob(f"{folder.name}.building*"):
        if other != building:
            shutil.rmtree(other, ignore_errors=True)
    (building / "parts").mkdir(parents=True, exist_ok=True)
    shards = plan_shards(manifest, front_end, shard_bytes)
    _write_missing(manifest, shards, building, audio_folder, front_end, workers)
    _write_index(building, manifest, shards, {"fingerprint": key, "front_end": front_end})
    _refuse_bad(building, manifest, max_bad_fraction)
    _swap(building, folder)
    return files.read_json(folder / "index.json"), True


def _write_missing(
    manifest: pd.DataFrame,
    shards: np.ndarray,
    folder: Path,
    audio_folder: Path,
    front_end: dict[str, float],
    workers: Workers,
) -> None:
    """Writes the shards that are not there yet; which is ready first does not matter."""
    order = np.flatnonzero(shards >= 0)
    rows = np.split(order, np.flatnonzero(np.diff(shards[order])) + 1) if len(order) else []
    done = finished(folder)
    kept = sum(len(rows[number]) for number in done)
    # Each job is made when it is needed: two million clips are never listed at once.
    clips = manifest[["path", "start_s", "duration_s"]]
    jobs = (
        ShardJob(number, folder, audio_folder, front_end, _listed(clips.iloc[rows[number]]))
        for number in range(len(rows))
        if number not in done
    )
    threads = torch.get_num_threads()  # write_shard changes it, perhaps in this process
    title = f"log-mel {_name(folder)}"
    with Progress(len(order), title, unit="clip", initial=kept) as progress:
        try:
            left = len(order) - kept
            for num_clips in workers.map(write_shard, jobs, num_items=left, ordered=False):
                progress.update(num_clips)
        finally:
            torch.set_num_threads(threads)


def _listed(clips: pd.DataFrame) -> list[tuple[str, float, float]]:
    return list(clips.itertuples(index=False, name=None))


def _write_index(
    folder: Path, manifest: pd.DataFrame, shards: np.ndarray, header: dict[str, Any]
) -> None:
    """Joins the parts of all shards into ``clips.parquet`` and ``index.json``."""
    num_frames, first_frame, problems, sums, squares, entries = [], [], [], [], [], []
    for number in range(shards.max() + 1):
        entry, clips = _part(folder, number)
        entries.append(entry)
        num_frames.append(np.array(clips["num_frames"], dtype=np.int64))
        first_frame.append(np.cumsum(num_frames[-1]) - num_frames[-1])
        problems += clips["problems"]
        sums.append(np.array(clips["sums"]))
        squares.append(np.array(clips["squares"]))
    used = shards >= 0
    table = pd.DataFrame({"clip": manifest["clip"].array, "shard": shards})
    for name, values in (("first_frame", first_frame), ("num_frames", num_frames)):
        table[name] = np.int64(0)
        table.loc[used, name] = np.concatenate([np.empty(0, np.int64), *values])
    excluded = manifest["excluded"].to_numpy(dtype=object, copy=True)
    excluded[used] = problems
    table["excluded"] = excluded
    table.loc[table["excluded"] != "", "shard"] = -1
    tables = _write_tables(folder, table)
    left_out = table[table["excluded"] != ""]
    index = header | {
        "num_clips": len(table) - len(left_out),
        "num_frames": int(table["num_frames"].sum()),
        "sum": math.fsum(chain.from_iterable(sums)),
        "sum_squares": math.fsum(chain.from_iterable(squares)),
        "tables": tables,
        "shards": entries,
        "num_excluded": len(left_out),
        "excluded": left_out[["clip", "excluded"]].head(manifests.LISTED).to_dict("records"),
    }
    files.write_json(folder / "index.json", index | {"digest": digest(index)})


def _part(folder: Path, number: int) -> tuple[dict[str, Any], dict[str, list]]:
    """What was found while writing a shard: its entry in the index, and its clips.

    Raises: RuntimeError if it is not about the shard that is there.
    """
    path, shard = part_path(folder, number), shard_path(folder, number)
    part = files.read_json(path)
    if part["entry"]["bytes"] != (size := shard.stat().st_size):
        raise RuntimeError(
            f"{shard}: got {size} bytes, {path.name} says {part['entry']['bytes']}: two workers "
            "wrote it, and one of them could not read all clips; run the stage again"
        )
    return part["entry"], part["clips"]


def _write_tables(folder: Path, table: pd.DataFrame) -> list[dict[str, Any]]:
    """Writes ``clips.parquet`` and ``clips.npy``; returns their names, sizes and checksums."""
    paths = [folder / "clips.parquet", folder / "clips.npy"]
    files.write_table(paths[0], table)
    usable = (table["excluded"] == "").to_numpy()
    table["row"] = np.arange(len(table))
    columns = [table[name].to_numpy(np.int32)[usable] for name in COLUMNS]
    with files.replacing(paths[1]) as temporary, temporary.open("wb") as file:
        np.save(file, np.stack(columns))  # (4, clips)
    return [
        {"file": path.name, "bytes": path.stat().st_size, "sha256": files.sha256(path)}
        for path in paths
    ]


def _kept(folder: Path, key: str) -> dict[str, Any] | None:
    """The index of an existing store if it is the wanted one and its files are what it says."""
    if not (folder / "index.json").exists():
        return None
    try:
        index = verify(folder)
    except (FileNotFoundError, ValueError) as error:
        print(f"made again: {error}")
        return None
    if index["fingerprint"] != key:
        return None
    _tidy(folder)  # if the run that made it was killed
    return index


def _refuse_bad(folder: Path, manifest: pd.DataFrame, max_bad_fraction: float) -> None:
    table = pd.read_parquet(folder / "clips.parquet", columns=["clip", "excluded"])
    excluded = manifests.excluded_clips(table)
    if problem := manifests.too_many_bad(_name(folder), excluded, len(manifest), max_bad_fraction):
        raise ValueError(problem)


def _name(folder: Path) -> str:
    """The data set of a store, also of one that is being built."""
    return folder.name.partition(".")[0]


def _swap(building: Path, folder: Path) -> None:
    """Puts the finished store in place of an older one.

    Killed in between, ``building`` is still whole and the next run finishes this.
    """
    for path in [*building.glob("clips.*"), building / "index.json", building]:
        files.sync(path)  # as the shards were, before the parts that could make it anew are removed
    old = folder.with_name(f"{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.replace(old)
    building.replace(folder)
    _tidy(folder)


def _tidy(folder: Path) -> None:
    """Removes what building left within and beside a finished store."""
    for path in [folder / "parts", *folder.parent.glob(f"{folder.name}.*")]:
        shutil.rmtree(path, ignore_errors=True)
    files.remove_temporaries(folder)  # of a cluster's lost worker, which may still be at it
