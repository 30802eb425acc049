"""What every run of ``params.yaml`` takes: updates, work, hours; and the disk for all of them.

Arithmetic on sizes and one measured number, the clips that a device trains on per second.
"""

from typing import NamedTuple

import numpy as np

from matpac.core import paths
from matpac.features.store import Store
from matpac.params import Params
from matpac.pretraining import config, flops, memory
from matpac.pretraining.config import ResolvedRun
from matpac.pretraining.side_by_side import at_once

RELEASED_EPOCH = 1 + 294_816 * 2048 // 300
"""Clips of an epoch in the released configuration, for data that is not there yet."""
CLIP_S = 10
"""Seconds of such a clip."""


class Epoch(NamedTuple):
    """How many clips a pass over the corpora sees."""

    clips: int
    assumed: bool
    """True where a corpus is not there yet."""


def epoch(params: Params, crop_frames: int) -> Epoch:
    """From the stores; before they are made, from the parameters or the released configuration."""
    count, assumed = 0, False
    for name, weight in params.corpora.items():
        if (store := _store(params, name)) is not None:
            clips = int(np.count_nonzero(store.num_frames >= crop_frames))
        else:
            assumed = True
            clips = getattr(params.datasets[name], "num_clips", RELEASED_EPOCH)
        count += round(clips * weight)
    return Epoch(count, assumed)


def _store(params: Params, name: str) -> Store | None:
    folder = paths.bulk(params) / "logmel" / name
    return Store(folder) if (folder / "index.json").exists() else None


class Training(NamedTuple):
    """One pretraining, of one seed."""

    run: str
    seed: int
    resolved: ResolvedRun
    updates: int
    flop: float
    hours: float


def trainings(params: Params, *, clips_per_s: float, gpus: int = 1) -> list[Training]:
    """What every run of ``params.yaml`` takes.

    Args:
        clips_per_s: of each device, for the run ``base``; more work per clip takes longer. Seeds
            that train side by side are taken to have that rate each.
        gpus: devices that share the batch, at the same rate each.
    """
    num_mels = params.logmel.num_mels
    reference = flops.per_clip(base(params), num_mels)
    found = []
    for run in params.runs:
        seeds = config.seeds(params, run)
        for seed in seeds:
            resolved = config.resolve(params, run, seed=seed)
            pretrain, work = resolved.pretrain, flops.per_clip(resolved, num_mels)
            clips = epoch(params, resolved.model.crop_frames).clips
            updates = int(pretrain.epochs * clips / pretrain.batch_size)
            seen = updates * pretrain.batch_size
            devices = gpus * at_once(resolved, len(seeds))
            hours = seen / (clips_per_s * devices * reference / work) / 3600
            found.append(Training(run, seed, resolved, updates, seen * work, hours))
    return found


def base(params: Params) -> ResolvedRun:
    """The run that others are compared with."""
    return config.resolve(params, base_name(params))


def base_name(params: Params) -> str:
    """``base``, or the first run."""
    return "base" if "base" in params.runs else next(iter(params.runs))


def disk(params: Params) -> dict[str, int]:
    """Bytes of stores, training states and encoders when everything has run.

    A data set without a store counts with the parameters' or the released number of clips if it is
    a corpus, and not at all if it is a task.
    """
    num_mels = params.logmel.num_mels
    frame_bytes = num_mels * memory.HALF
    stores = 0
    for name in dict.fromkeys([*params.corpora, *params.tasks]):
        if (store := _store(params, name)) is not None:
            stores += sum(shard["bytes"] for shard in store.index["shards"])
        elif name in params.corpora:
            clips = getattr(params.datasets[name], "num_clips", RELEASED_EPOCH)
            stores += int(clips * CLIP_S * 1000 / params.logmel.hop_ms) * frame_bytes
    states = encoders = 0
    for run in params.runs:
        seeds = config.seeds(params, run)
        for seed in seeds:
            resolved = config.resolve(params, run, seed=seed)
            # One more is there while it is written.
            kept = resolved.pretrain.keep_checkpoints + 1
            states += kept * memory.state_bytes(resolved, num_mels)
            student = memory.parameters(resolved, num_mels)["student"]
            encoders += 2 * memory.FLOAT * student.all  # in the folder and in DVC's cache
    return {"log-mel stores": stores, "training states": states, "encoders": encoders}
