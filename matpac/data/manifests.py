"""Manifests: one table per data set, one row per clip, and what its columns mean.

A manifest is ``data/<profile>/manifests/<name>.parquet`` with, per row:

    clip        unique name
    path        audio file, relative to the data set's audio folder
    start_s     where the clip starts in that file, seconds
    duration_s  its length, seconds
    split       "train", "valid", "test" or "" (none)
    fold        1 to the number of folds, or 0 (none)
    group       source recording or preset; a validation part drawn by us shares none with training
    sha256      of the audio file, "" if that cannot be used
    excluded    "" or the reason why the clip is left out
    label       multiclass data sets: index into the classes, -1 if none
    labels      multilabel data sets: 1, 0, a likelihood or NaN (not observed) per class

Beside it, ``<name>.json`` holds the data set's kind, metric, split scheme, classes and counts.
"""

import hashlib
import json
from collections.abc import Sequence
from os.path import commonpath
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from matpac.core import files, paths
from matpac.core.section import Common
from matpac.data.config import LogmelParams, named

METRICS = {"unlabelled": None, "multiclass": "accuracy", "multilabel": "map"}
"""By kind of labels."""
SPLITS = ("train", "valid", "test")
STORED = ("clip", "path", "start_s", "duration_s", "sha256", "excluded")
"""Columns that decide a log-mel store: labels and splits may change without touching it."""
ROWS_AT_A_TIME = 1 << 14
"""Rows hashed at a time: hashing needs more memory than the table."""
LISTED = 1000
"""Excluded clips named in the JSON; the table names all."""
SHOWN = 20
"""Excluded clips named on the screen and in an error."""
KNOWN = "known to be broken: "
"""Starts the reason for a file that its data set ships broken; such are not counted as bad."""


def names(params: LogmelParams) -> list[str]:
    """The data sets that a profile uses: corpora first, then tasks, each once."""
    return list(dict.fromkeys([*params.corpora, *params.tasks]))


def audio_folder(params: LogmelParams, name: str) -> Path:
    """What the paths of a data set are relative to."""
    dataset = params.datasets[name]
    if dataset.source == "embedded":
        return paths.bulk(params) / "audio" / name
    folders = [
        named(text)[0] if key == "shards" else paths.expand(text)
        for key, text in dataset.places
        if key != "csv"
    ]
    if not folders:
        return paths.bulk(params) / "downloads" / dataset.source
    return Path(commonpath(folders))


def load(
    params: Common, name: str, *, columns: Sequence[str] | None = None
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """The manifest, or some of its columns, and the information of a data set.

    Raises: FileNotFoundError naming the stage to run.
    """
    folder = paths.small(params) / "manifests"
    table, info = folder / f"{name}.parquet", folder / f"{name}.json"
    for path in (table, info):
        paths.made(path, params.profile, "fetch")
    return pd.read_parquet(table, columns=columns), files.read_json(info)


def save(folder: Path, manifest: pd.DataFrame, info: dict[str, Any]) -> None:
    """Writes ``<name>.parquet`` and ``<name>.json``; the name is in the information."""
    files.write_table(folder / f"{info['name']}.parquet", manifest)
    files.write_json(folder / f"{info['name']}.json", info)


def content_hash(manifest: pd.DataFrame) -> str:
    """Checksum of what decides a log-mel store: the `STORED` columns and the order of rows."""
    digest = hashlib.sha256()
    for first in range(0, len(manifest), ROWS_AT_A_TIME):
        rows = manifest.iloc[first : first + ROWS_AT_A_TIME][list(STORED)]
        digest.update(pd.util.hash_pandas_object(rows, index=False).to_numpy().tobytes())
    return digest.hexdigest()


def information(
    name: str,
    source: str,
    kind: str = "unlabelled",
    scheme: str | None = None,
    num_folds: int = 0,
    classes: Sequence[str] = (),
) -> dict[str, Any]:
    """What is written beside a manifest; counts (`summarise`) and "audio" come to it."""
    info = {"name": name, "source": source, "kind": kind, "metric": METRICS[kind]}
    return info | {"split_scheme": scheme, "num_folds": num_folds, "classes": list(classes)}


def summarise(manifest: pd.DataFrame, info: dict[str, Any]) -> dict[str, Any]:
    """``info`` with counts, hours, excluded clips, and where validation parts come from."""
    used = manifest[manifest["excluded"] == ""]
    excluded = manifest[manifest["excluded"] != ""]
    counts: dict[str, Any] = {
        "num_clips": len(used),
        "num_excluded": len(excluded),
        "hours": round(float(used["duration_s"].sum()) / 3600, 4),
    }
    if info["split_scheme"] == "tvt":
        counts["splits"] = {split: int((used["split"] == split).sum()) for split in SPLITS}
        # Where none is given, matpac.probing.splits draws one from the training part, each time.
        counts["validation"] = "given" if counts["splits"]["valid"] else "drawn"
    elif info["split_scheme"] == "folds":
        sizes = used["fold"].value_counts()
        counts["folds"] = [int(sizes.get(k, 0)) for k in range(1, info["num_folds"] + 1)]
        counts["validation"] = "drawn"
    if info["kind"] == "unlabelled" and len(used):
        lengths = used["duration_s"].quantile([0, 0.5, 1]).round(2)
        counts["seconds"] = dict(zip(("shortest", "median", "longest"), lengths, strict=True))
    listed = excluded[["clip", "excluded"]].head(LISTED)
    return info | counts | {"excluded": listed.to_dict("records")}


def describe(excluded: Sequence[tuple[str, str]]) -> str:
    """Excluded clips and their reasons, one per line; long lists end with a count."""
    lines = [f"  {clip}: {reason}" for clip, reason in excluded[:SHOWN]]
    if len(excluded) > SHOWN:
        lines.append(f"  ... and {len(excluded) - SHOWN} more, all in the manifest or index")
    return "\n".join(lines)


def too_many_bad(
    name: str, excluded: Sequence[tuple[str, str]], num_rows: int, max_bad_fraction: float
) -> str:
    """The error text if more than ``max_bad_fraction`` of a data set is excluded, otherwise "".

    Clips that are known to be broken are not counted.
    """
    bad = [each for each in excluded if not each[1].startswith(KNOWN)]
    if num_rows > len(excluded) and len(bad) <= max_bad_fraction * num_rows:
        return ""
    return (
        f"{name}: {len(bad)} of {num_rows} clips cannot be used, "
        f"allowed: logmel.max_bad_fraction {max_bad_fraction:g}\n{describe(bad or excluded)}"
    )


def exclude(manifest: pd.DataFrame, rows: np.ndarray, reason: str) -> None:
    """Excludes ``rows`` (booleans) that are not excluded for another reason."""
    manifest.loc[rows & (manifest["excluded"] == "").to_numpy(), "excluded"] = reason


def excluded_clips(manifest: pd.DataFrame) -> list[tuple[str, str]]:
    """Names and reasons of the clips that are left out."""
    bad = manifest[manifest["excluded"] != ""]
    return list(zip(bad["clip"], bad["excluded"], strict=True))


def fingerprint(value: dict[str, Any]) -> str:
    """SHA-256 of a JSON-able value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
