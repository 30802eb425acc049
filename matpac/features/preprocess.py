"""The ``logmel`` stage: a log-mel store per data set, and what pretraining needs to know of them.

DVC tracks the small results: ``logmel/tasks/<name>.json``, the index of a task's store, and
``logmel/pretraining.json``, the corpora with the checksums of their indices, the front end and the
normalisation constants. The stores themselves lie in the bulk folder.
"""

import math
from pathlib import Path
from typing import Any

from matpac.audio.config import LogmelConfig
from matpac.core import files, paths, section
from matpac.core.parallel import Workers
from matpac.core.section import Common
from matpac.data import manifests
from matpac.data.config import LogmelParams
from matpac.features import build

FEWEST_CLIPS = 5000
"""Fewer are computed sooner by threads: other processes need seconds to start."""
FLATTEST = 1e-3
"""Standard deviation of log-mels: of recordings it is above 1, of silence 0 to rounding."""
FRONT_END = ("sample_rate", "window_ms", "hop_ms", "num_mels", "fmin_hz", "fmax_hz")


def preprocess(params: LogmelParams | dict[str, Any]) -> dict[str, Any]:
    """Runs the stage for the data sets that are corpora or tasks of the profile.

    Args: params: the sections of `LogmelParams`.
    Returns: {"stores": name -> index, "pretraining": content of ``pretraining.json``}.
    Raises: FileNotFoundError naming the ``fetch`` stage if a manifest is missing; ValueError naming
        the clips of a data set of which more than ``logmel.max_bad_fraction`` cannot be used, or
        corpora in which there is nothing but silence;
        OSError naming the file that a full disk left no room for; as `paths.claimed` and
        `Workers.map`.
    """
    params = section.parse(LogmelParams, params)
    indices = {}
    audio = [manifests.audio_folder(params, name) for name in manifests.names(params)]
    processes = Workers.of(
        params, preload="matpac.features.shards", fewest=FEWEST_CLIPS, audio=audio
    )
    with paths.claimed(params, "logmel"), processes as workers:
        for name in manifests.names(params):
            manifest, _ = manifests.load(params, name, columns=manifests.STORED)
            index, made = build.build(
                manifest,
                manifests.audio_folder(params, name),
                store_folder(params, name),
                front_end=front_end(params.logmel),
                shard_bytes=params.logmel.shard_mb * 1_000_000,
                max_bad_fraction=params.logmel.max_bad_fraction,
                workers=workers,
            )
            indices[name] = index
            _print_summary(name, index, made, params.logmel.hop_ms)
    pretraining = _pretraining(params, indices)
    small = paths.small(params) / "logmel"
    files.write_json(small / "pretraining.json", pretraining)
    _write_tasks(small / "tasks", {name: indices[name] for name in params.tasks})
    return {"stores": indices, "pretraining": pretraining}


def store_folder(params: Common, name: str) -> Path:
    """Where the log-mel store of a data set lies."""
    return paths.bulk(params) / "logmel" / name


def front_end(logmel: LogmelConfig) -> dict[str, float]:
    """The part of the section that decides log-mels: keyword arguments of `logmel.LogMel`."""
    return {key: getattr(logmel, key) for key in FRONT_END}


def statistics(weighted: list[tuple[float, dict[str, Any]]]) -> tuple[float, float]:
    """Mean and standard deviation over all frames and mel bins of several stores.

    Args: weighted: how often each clip of a store is seen, and the store's index.
    """
    total = math.fsum(
        weight * index["num_frames"] * index["front_end"]["num_mels"] for weight, index in weighted
    )
    mean = math.fsum(weight * index["sum"] for weight, index in weighted) / total
    square = math.fsum(weight * index["sum_squares"] for weight, index in weighted) / total
    return mean, math.sqrt(max(0.0, square - mean**2))


def _pretraining(params: LogmelParams, indices: dict[str, Any]) -> dict[str, Any]:
    """What ``pretrain`` reads; it names only the corpora, so that tasks leave it unchanged."""
    corpora = [
        {
            "name": name,
            "weight": weight,
            "store": f"logmel/{name}",  # in the bulk folder
            "index_sha256": files.sha256(store_folder(params, name) / "index.json"),
            "num_clips": indices[name]["num_clips"],
            "num_frames": indices[name]["num_frames"],
        }
        for name, weight in params.corpora.items()
    ]
    mean, std = statistics([(weight, indices[name]) for name, weight in params.corpora.items()])
    if std < FLATTEST:
        raise ValueError(
            f"{', '.join(params.corpora)}: nothing to learn from: every clip is silent or constant "
            f"(standard deviation of the log-mels {std:.1g})"
        )
    fixed = params.logmel.mean is not None
    if fixed:
        mean, std = params.logmel.mean, params.logmel.std
    return {
        "front_end": front_end(params.logmel),
        "normalisation": {"mean": mean, "std": std, "measured": not fixed},
        "corpora": corpora,
    }


def _write_tasks(folder: Path, indices: dict[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, index in indices.items():
        files.write_json(folder / f"{name}.json", index)
    for path in folder.iterdir():
        if path.stem not in indices:
            path.unlink()  # of a task that the profile no longer names


def _print_summary(name: str, index: dict[str, Any], made: bool, hop_ms: float) -> None:
    hours = index["num_frames"] * hop_ms / 3_600_000
    text = f"{name}: {index['num_clips']} clips, {hours:.2f} h, "
    print(text + ("made" if made else "unchanged, kept"))
    if index["excluded"]:
        listed = [(each["clip"], each["excluded"]) for each in index["excluded"]]
        print(f"  {index['num_excluded']} excluded:\n{manifests.describe(listed)}")
