"""Every audio file of a data set is read once, on all cores, and the findings are kept.

The findings are keyed by a file's place, size and time of change, so a second run, or one after an
interruption, reads only what is new. A missing file, and one that the system refuses to read, is
tried again each time. For a member of a container (`matpac.audio.containers`), size and time are
the container's.
"""

import hashlib
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from matpac.audio import containers, reading
from matpac.core import files
from matpac.core.parallel import Workers
from matpac.core.progress import Progress

VERSION = 3
"""Raise when `audio.reading.check` finds other things, so that all files are read again."""
FILES_PER_JOB = 32
SECONDS_BETWEEN_SAVES = 60.0


def audit(
    folder: Path, paths: Iterable[str], *, cache: Path, workers: Workers, name: str
) -> pd.DataFrame:
    """Facts about files.

    Args:
        folder: the audio folder; ``paths`` are relative to it.
        cache: folder for the findings.
        name: of the data set, for the progress display.
    Returns: indexed by path: size, changed (ns), duration_s, sha256, problem.
    """
    facts = pd.DataFrame({"path": pd.Series(paths, dtype=str).drop_duplicates()})
    facts["holder"] = facts["path"].str.replace(containers.MEMBER, r"\1", regex=True)
    states = [(holder, *size_and_time(folder / holder)) for holder in facts["holder"].unique()]
    states = pd.DataFrame(states, columns=["holder", "size", "changed"])
    facts = facts.merge(states, on="holder", how="left").drop(columns="holder")
    # Two folders may hold files of one name, size and time: unpacked archives do.
    place = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:8]
    cache_path = cache / f"audit-v{VERSION}-{place}.parquet"
    known = pd.read_parquet(cache_path) if cache_path.exists() else _no_findings()
    facts = facts.merge(known, on=["path", "size", "changed"], how="left").set_index("path")
    new = np.flatnonzero(facts["problem"].isna())
    if len(new):
        _check_new(facts, new, folder, cache_path, workers, name)
    return facts


def add_facts(
    manifest: pd.DataFrame,
    folder: Path,
    *,
    window_ms: float,
    cache: Path,
    workers: Workers,
    name: str,
) -> None:
    """Adds the columns start_s, duration_s, sha256 and excluded to one row per file.

    Args:
        manifest: with the column path; "" where no file is named.
        window_ms: clips shorter than this are excluded.
        folder, cache, workers, name: as in `audit`.
    """
    paths = manifest["path"]
    facts = audit(folder, paths[paths != ""], cache=cache, workers=workers, name=name)
    facts = facts.reindex(paths)
    manifest["start_s"] = 0.0
    manifest["duration_s"] = facts["duration_s"].fillna(0.0).to_numpy()
    manifest["sha256"] = facts["sha256"].fillna("").to_numpy()
    problems = facts["problem"].fillna("").to_numpy(dtype=object)
    short = (problems == "") & (1000 * manifest["duration_s"] < window_ms).to_numpy()
    problems[short] = [
        f"shorter than one window ({1000 * duration:.1f} ms, needed {window_ms:g} ms)"
        for duration in manifest["duration_s"][short]
    ]
    problems[paths == ""] = "blank file name"
    duplicate = (paths.duplicated() & (paths != "")).to_numpy()
    manifest["excluded"] = np.where(
        duplicate, "duplicate row: the file is already in the table", problems
    )


def _check_new(
    facts: pd.DataFrame,
    new: np.ndarray,
    folder: Path,
    cache_path: Path,
    workers: Workers,
    name: str,
) -> None:
    """Fills in the findings of the rows ``new``, saving them every minute."""
    saved, num_saved = time.monotonic(), 0
    found: list[reading.AudioFacts] = []  # since the last time

    def save() -> None:
        rows = new[num_saved : num_saved + len(found)]
        for column in ("duration_s", "sha256", "problem"):
            values = [getattr(each, column) for each in found]
            facts.iloc[rows, facts.columns.get_loc(column)] = values
        passing = facts["problem"].str.startswith(containers.UNREAD, na=True)
        kept = facts[~passing & (facts["size"] >= 0)]
        files.write_table(cache_path, kept.reset_index())

    jobs = ([folder / path for path in batch] for batch in _batches(facts.index[new]))
    with Progress(len(new), f"check {name}", unit="file") as progress:
        for results in workers.map(_check_all, jobs, num_items=len(new)):
            found += results
            progress.update(len(results))
            if time.monotonic() - saved > SECONDS_BETWEEN_SAVES:
                save()
                saved, num_saved = time.monotonic(), num_saved + len(found)
                found.clear()
    save()


def _check_all(paths: list[Path]) -> list[reading.AudioFacts]:
    return [reading.check(path) for path in paths]


def size_and_time(path: Path) -> tuple[int, int]:
    """Size and time of change of a file; -1 and -1 if there is none."""
    try:
        state = path.stat()
    except OSError:
        return -1, -1
    return state.st_size, state.st_mtime_ns


def _batches(paths: Iterable[str]) -> Iterator[list[str]]:
    """Jobs of equal size, but longer where the next file has been read with the last."""
    batch: list[str] = []
    for path in paths:
        if len(batch) >= FILES_PER_JOB and not containers.read_together(batch[-1], path):
            yield batch
            batch = []
        batch.append(path)
    if batch:
        yield batch


def _no_findings() -> pd.DataFrame:
    types = {"path": str, "size": int, "changed": int}
    types |= {"duration_s": float, "sha256": str, "problem": str}
    return pd.DataFrame({column: pd.Series(dtype=kind) for column, kind in types.items()})
