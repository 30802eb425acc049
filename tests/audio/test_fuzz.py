"""Thousands of damaged files: each gives what ffmpeg gives, or a reason; none stops the others."""

import io
import os
import resource
import signal
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import faults
import numpy as np
import pytest
import torch
from mutants import mutants

from matpac.audio.logmel import log_mel, resample

try:
    import av
except ImportError:  # then nobody says how much sound is in a damaged file
    av = None

SOAK = bool(os.environ.get("MATPAC_SOAK"))
ROUNDS = 20 if SOAK else 3
EACH = 1000
ROOM = 1 << 30
"""Bytes above those of the process so far."""
PATIENCE_S = 60


class HangError(BaseException):
    """Not an Exception: reading takes those for a problem of the file."""


@pytest.fixture
def bounds() -> Iterator[None]:
    """Limits on memory and, of each file, on time."""

    def hang(*_: object) -> None:
        raise HangError

    old, limits = signal.signal(signal.SIGALRM, hang), resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + ROOM, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, limits)
    signal.alarm(0)
    signal.signal(signal.SIGALRM, old)


def ffmpegs_count(data: bytes) -> int | None:
    try:
        with av.open(io.BytesIO(data)) as file:
            return sum(frame.samples for frame in file.decode(audio=0))
    except (av.FFmpegError, ValueError, IndexError, OverflowError):
        return None


def is_right(kind: str, data: bytes, count: int, whole: int) -> bool:
    """Whether so many samples are the whole file's, or those that ffmpeg finds."""
    reference = ffmpegs_count(data)
    if reference is None:
        # Uncompressed samples are what their header says: ffmpeg refuses 128 channels, for example.
        return count == whole or kind.startswith(("wav", "aiff"))
    if data[:4] == b"OggS":  # resampled to 48 kHz, or the last packet is not cut
        return count == whole
    # Of MP3s whose index is harmed: the index is a frame, and there is a delay of 1105 samples.
    return abs(count - reference) <= (1105 + 1152 if kind.startswith("mp3") else 0)


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux")
@pytest.mark.parametrize("seed", range(ROUNDS))
def test_damaged_files_give_their_audio_or_a_reason(
    seed: int, tmp_path: Path, bounds: None
) -> None:
    whole = faults.kinds(faults.RATE // 2)
    counts = {kind: len(faults.given(data, tmp_path / "a")) for kind, data in whole.items()}
    read = 0
    for kind, data in islice(mutants(whole, seed), EACH):
        signal.alarm(PATIENCE_S)
        found = faults.given(data, tmp_path / "a")
        signal.alarm(0)
        if isinstance(found, str):
            assert found and "MemoryError" not in found
            continue
        read += 1
        assert not av or is_right(kind, data, len(found), counts[kind]), (kind, len(found))
        wave = resample(torch.from_numpy(found), faults.RATE, 16000)
        assert len(wave) < 400 or np.isfinite(log_mel(wave).numpy()).all()
    assert EACH / 10 < read < EACH / 2
