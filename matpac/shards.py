"""Shards of a log-mel store: audio files -> half-precision log-mels in one large file.

Which clips share a shard follows from the manifest alone, and a shard is the unit of work and of
resumption: its bytes do not depend on the number of processes or on interruptions.
"""

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from matpac import audio, files, logmel
from matpac.clips import DTYPE

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

    @property
    def shard(self) -> Path:
        return self.folder / f"shard-{self.number:05d}.f16"

    @property
    def part(self) -> Path:
        """What was found while writing the shard; it exists only after the shard does."""
        return self.folder / "parts" / f"{self.number:05d}.json"


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
    """
    front_end = logmel.front_end(**job.front_end)
    found: dict[str, list] = {"num_frames": [], "sums": [], "squares": [], "problems": []}
    digest = hashlib.sha256()
    torch.set_num_threads(1)  # with another number, the last digits could differ
    with files.replacing(job.shard) as temporary, temporary.open("wb") as file:
        for path, start_s, duration_s in job.clips:
            clip_sum, squares, num_frames, problem = [], [], 0, ""
            position = file.tell()
            try:
                for block in _blocks(job.audio_folder / path, start_s, duration_s, front_end):
                    content = block.tobytes()
                    file.write(content)
                    digest.update(content)
                    wide = block.astype(np.float64)
                    clip_sum.append(wide.sum())
                    squares.append(np.square(wide).sum())
                    num_frames += len(block)
            except audio.UnusableAudioError as error:
                assert file.tell() == position  # a clip is read whole before its first block
                problem = str(error)
            found["num_frames"].append(num_frames)
            found["sums"].append(math.fsum(clip_sum))
            found["squares"].append(math.fsum(squares))
            found["problems"].append(problem)
        size = file.tell()
    entry = {"file": job.shard.name, "bytes": size, "sha256": digest.hexdigest()}
    files.write_json(job.part, {"entry": entry, "clips": found})
    return len(job.clips)


def _blocks(
    path: Path, start_s: float, duration_s: float, front_end: logmel.LogMel
) -> Iterator[np.ndarray]:
    """Log-mel of a clip in blocks of (T, F), half precision."""
    samples, rate = audio.read(path, start_s=start_s, duration_s=duration_s)
    waveform = logmel.resample(torch.from_numpy(samples), rate, front_end.sample_rate)  # (S,)
    num_frames = front_end.num_frames(len(waveform))
    if num_frames == 0:
        raise audio.UnusableAudioError(f"shorter than one window ({duration_s * 1000:.1f} ms)")
    for first in range(0, num_frames, BLOCK_FRAMES):
        last = min(first + BLOCK_FRAMES, num_frames) - 1
        part = waveform[first * front_end.hop : last * front_end.hop + front_end.window]
        yield front_end(part).T.contiguous().numpy().astype(DTYPE)  # (T, F)


def finished(job: ShardJob) -> bool:
    """Whether an earlier run wrote this shard; one with unreadable clips is tried again."""
    if not (job.part.exists() and job.shard.exists()):
        return False
    part = files.read_json(job.part)
    return part["entry"]["bytes"] == job.shard.stat().st_size and not any(part["clips"]["problems"])
