"""Shards of a log-mel store: audio files -> half-precision log-mels in one large file.

Which clips share a shard follows from the manifest alone, and a shard is the unit of work and of
resumption: its bytes do not depend on the number of processes or on interruptions. Two workers may
write one at once (a cluster that has lost sight of a worker asks another): each writes under a name
of its own, and the last to finish replaces the other's file by an equal one.
"""

import hashlib
import math
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from matpac.audio import logmel, reading
from matpac.core import files
from matpac.features.store import DTYPE

SHARDS_AT_LEAST = 16
SMALLEST_SHARD = 1_000_000
"""Bytes. A data set of a few shards could not keep many cores busy, so small sets get 16."""
BLOCK_FRAMES = 6000
"""Frames computed at a time: one minute, so that an hour of audio needs no more memory."""


@dataclass(frozen=True)
class ShardJob:
    """Everything that a process needs to write one shard."""

    number: int
    folder: Path
    audio_folder: Path
    front_end: dict[str, float]
    clips: list[tuple[str, float, float]]
    """Path, start (s) and duration (s) of each clip."""


def shard_path(folder: Path, number: int) -> Path:
    """The log-mels of a shard."""
    return folder / f"shard-{number:05d}.f16"


def part_path(folder: Path, number: int) -> Path:
    """What was found while writing a shard; it exists only after the shard does."""
    return folder / "parts" / f"{number:05d}.json"


def plan_shards(
    manifest: pd.DataFrame, front_end: dict[str, float], shard_bytes: int
) -> np.ndarray:
    """The shard of each row of the manifest, from durations alone; -1 for excluded rows."""
    seconds = manifest["duration_s"].to_numpy()
    frame_bytes = front_end["num_mels"] * DTYPE.itemsize
    used = (manifest["excluded"] == "").to_numpy()
    sizes = np.where(used, np.ceil(seconds * 1000 / front_end["hop_ms"]) * frame_bytes, 0)
    target = min(shard_bytes, max(SMALLEST_SHARD, sizes.sum() / SHARDS_AT_LEAST))
    shards = np.full(len(manifest), -1, dtype=np.int32)
    begins = (np.cumsum(sizes) - sizes)[used]
    shards[used] = np.unique((begins // target).astype(np.int64), return_inverse=True)[1]
    return shards


def write_shard(job: ShardJob) -> int:
    """Writes one shard and, after it, its part file; returns the number of clips.

    A clip that cannot be read takes no frames and is listed with its reason.

    Raises: FileNotFoundError if the store's folder is not there: finished by others meanwhile, or
        out of this machine's sight.
    """
    if not job.folder.is_dir():
        raise FileNotFoundError(
            f"{job.folder}: not there on {socket.gethostname()}; where several machines make "
            "a store, all have to see its folder"
        )
    shard = shard_path(job.folder, job.number)
    front_end = logmel.front_end(**job.front_end)
    found: dict[str, list] = {"num_frames": [], "sums": [], "squares": [], "problems": []}
    digest = hashlib.sha256()
    torch.set_num_threads(1)  # with another number, the last digits could differ
    with files.replacing(shard) as temporary, temporary.open("wb") as file:
        for path, start_s, duration_s in job.clips:
            clip_sum, squares, num_frames, problem = [], [], 0, ""
            position = file.tell()
            try:
                for block in _blocks(job.audio_folder / path, start_s, duration_s, front_end):
                    content = block.tobytes()
                    file.write(content)
                    digest.update(content)
                    # torch widens sooner; NumPy adds up, since another order has other last digits.
                    wide = torch.from_numpy(block).double().numpy()
                    clip_sum.append(wide.sum())
                    squares.append(np.square(wide, out=wide).sum())
                    num_frames += len(block)
            except reading.UnusableAudioError as error:
                assert file.tell() == position  # a clip is read whole before its first block
                problem = str(error)
            found["num_frames"].append(num_frames)
            found["sums"].append(math.fsum(clip_sum))
            found["squares"].append(math.fsum(squares))
            found["problems"].append(problem)
        size = file.tell()
        file.flush()
        os.fsync(file.fileno())  # after a power cut, what has its size has its bytes
    entry = {"file": shard.name, "bytes": size, "sha256": digest.hexdigest()}
    files.write_json(part_path(job.folder, job.number), {"entry": entry, "clips": found})
    return len(job.clips)


def _blocks(
    path: Path, start_s: float, duration_s: float, front_end: logmel.LogMel
) -> Iterator[np.ndarray]:
    """Log-mel of a clip in blocks of (T, F), half precision."""
    samples, rate = reading.read(path, start_s=start_s, duration_s=duration_s)
    waveform = logmel.resample(torch.from_numpy(samples), rate, front_end.sample_rate)  # (S,)
    num_frames = front_end.num_frames(len(waveform))
    if num_frames == 0:
        raise reading.UnusableAudioError(f"shorter than one window ({duration_s * 1000:.1f} ms)")
    for first in range(0, num_frames, BLOCK_FRAMES):
        last = min(first + BLOCK_FRAMES, num_frames) - 1
        part = waveform[first * front_end.hop : last * front_end.hop + front_end.window]
        yield front_end(part).T.contiguous().half().numpy()  # (T, F)


def finished(folder: Path) -> set[int]:
    """Shards that an earlier run wrote; one with unreadable clips is tried again."""
    done = set()
    for path in (folder / "parts").glob("*.json"):
        try:
            part = files.read_json(path)
        except ValueError:  # torn by a power cut
            continue
        shard = folder / part["entry"]["file"]
        whole = shard.exists() and part["entry"]["bytes"] == shard.stat().st_size
        if whole and not any(part["clips"]["problems"]):
            done.add(int(path.stem))
    return done
