"""Reading audio files, and telling why one cannot be used: one way for every stage.

Reads wav, aiff, flac, ogg (Vorbis, Opus) and mp3, any rate from 1 kHz to 1 MHz, any number of
channels, also inside a tar or parquet file (`matpac.audio.containers`). A file is decoded once, to
its end, and gives all of its samples or one reason why not: what `matpac.audio.structure` finds
missing, what the decoder cannot read, or fewer samples than the file promises.
"""

import hashlib
import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import soundfile

from matpac.audio import containers, mp3, structure
from matpac.audio.containers import UnusableAudioError
from matpac.core import files

FORMATS = ("WAV", "WAVEX", "RF64", "AIFF", "FLAC", "OGG", "MP3")
"""libsndfile's names of those whose damage can be told; it reads more."""
RATES = range(1000, 1_000_001)
"""Hz."""
BLOCK_SAMPLES = 1 << 18
"""Of all channels together, decoded at a time."""
SYSTEM_ERROR = 2
"""libsndfile's number for a file that the system refuses to open."""
UNKNOWN_LENGTH = (1 << 63) - 1
"""libsndfile's number of frames of a FLAC file that does not say it."""
MOST_TRIMMED = 4
"""Frames of an MP3 that encoders fill up in front of the sound and behind it, and say so."""
LOUDEST = 1e12
"""Integers stored as floats reach 2e9; damaged floats more, and their power is infinite."""


@dataclass(frozen=True)
class AudioFacts:
    """What is known of a file after reading all of it; ``problem`` is "" for a usable one."""

    duration_s: float = 0.0
    sha256: str = ""
    problem: str = ""


def read(
    path: Path, *, start_s: float = 0.0, duration_s: float | None = None
) -> tuple[np.ndarray, int]:
    """Reads a file, or a part of it, as mono (the mean over its channels).

    Args:
        path: an audio file, or a member of a container.
        start_s, duration_s: the part that is kept, seconds; None: up to the end.
    Returns: float32 waveform (S,) and its sample rate in Hz.
    Raises: UnusableAudioError with the reason; for a part, too, if the file is not whole.
    """
    kept, rate, position, start, stop = [], 1, 0, 0, None
    for block, rate in blocks(path):
        start = round(start_s * rate)
        stop = None if duration_s is None else start + round(duration_s * rate)
        last = None if stop is None else max(0, stop - position)
        kept.append(block[max(0, start - position) : last])
        position += len(block)
    samples = np.concatenate(kept) if kept else np.zeros(0, np.float32)
    if stop is not None and len(samples) < stop - start:
        raise UnusableAudioError(f"{len(samples)} of {stop - start} samples are there")
    return samples, rate


def blocks(path: Path) -> Iterator[tuple[np.ndarray, int]]:
    """Reads a whole file as mono, block by block: (samples, float32; its sample rate in Hz).

    Raises: UnusableAudioError, at the latest after the last block, if it is not whole and sound.
    """
    with _reasons():
        for block, rate in _decoded(_content(path)):
            yield block[:, 0] if block.shape[1] == 1 else block.mean(axis=1), rate


def check(path: Path) -> AudioFacts:
    """Reads a whole file once, block by block, to learn its length and whether it is sound."""
    count, rate = 0, 1
    try:
        with _reasons():
            content = _content(path)
            for block, rate in _decoded(content):  # noqa: B007 (the rate of the last one)
                count += len(block)
            in_memory = isinstance(content, bytes)
            digest = hashlib.sha256(content).hexdigest() if in_memory else files.sha256(content)
    except UnusableAudioError as error:
        return AudioFacts(problem=str(error))
    return AudioFacts(duration_s=count / rate, sha256=digest)


@contextmanager
def _reasons() -> Iterator[None]:
    """Whatever a hostile file leads to is a reason not to use it, and stops nothing else."""
    try:
        yield
    except UnusableAudioError:
        raise
    except OSError as error:
        raise UnusableAudioError(f"{containers.UNREAD} ({error.strerror or error})") from None
    except soundfile.LibsndfileError as error:
        reason = error.error_string or f"libsndfile's error {error.code}"
        raise UnusableAudioError(f"truncated or damaged ({reason})") from None
    except Exception as error:
        raise UnusableAudioError(f"it cannot be read ({error!r})") from error


def _decoded(content: Path | bytes) -> Iterator[tuple[np.ndarray, int]]:
    """Blocks (samples, channels), float32, and their rate."""
    file, sound = _opened(content)
    with file:
        wanted, count = max(1, BLOCK_SAMPLES // file.channels), 0
        checksum = hashlib.md5(usedforsecurity=False) if sound.md5 else None
        while len(block := _samples(file, wanted, checksum)):
            count += len(block)
            yield block, file.samplerate
            if len(block) < wanted:  # behind a short read libsndfile repeats old samples
                break
        guessed = sound.frames is not None and sound.frames.promised is None
        promised = sound.frames.total if guessed else file.frames
        if count != promised:
            raise UnusableAudioError(
                f"truncated or damaged: {count} of {promised} samples can be read"
            )
        if checksum is not None and checksum.digest() != sound.md5:
            raise UnusableAudioError("damaged: its samples do not have the checksum that it says")


def _samples(
    file: soundfile.SoundFile, wanted: int, checksum: "hashlib._Hash | None"
) -> np.ndarray:
    """The next samples, float32 (S, channels), at most ``wanted`` of them.

    Args: checksum: takes the samples of a FLAC as they were before they were encoded.
    Raises: UnusableAudioError for NaN, infinity and what is near it.
    """
    if file.subtype == "PCM_16":  # the same numbers as libsndfile's, in a third of its time
        whole = file.read(wanted, dtype="int16", always_2d=True)
        if checksum is not None:
            checksum.update(whole.astype("<i2", copy=False).tobytes())
        return np.multiply(whole, np.float32(2**-15), dtype=np.float32)
    if checksum is not None:
        whole = file.read(wanted, dtype="int32", always_2d=True)
        unused = {"PCM_24": 1, "PCM_S8": 3}[file.subtype]  # low bytes
        checksum.update(whole.astype("<i4").view(np.uint8).reshape(-1, 4)[:, unused:].tobytes())
        return np.multiply(whole, np.float32(2**-31), dtype=np.float32)
    samples = file.read(wanted, dtype="float32", always_2d=True)
    if len(samples) and not -LOUDEST < samples.min() <= samples.max() < LOUDEST:  # nor NaN
        raise UnusableAudioError(f"NaN or infinite samples, or beyond {LOUDEST:g}")
    return samples


def _content(path: Path) -> Path | bytes:
    """The path of a file, or the bytes of a member; UnusableAudioError if there is nothing."""
    if (member := containers.member(path)) is not None:
        content: Path | bytes = containers.read(member)
    elif path.is_file():
        content = path
    else:
        link = path.is_symlink()
        raise UnusableAudioError("a link to a file that is not there" if link else "missing file")
    if (len(content) if isinstance(content, bytes) else content.stat().st_size) == 0:
        raise UnusableAudioError("zero bytes")
    return content


@contextmanager
def _viewed(content: Path | bytes) -> Iterator[mp3.Content]:
    """The bytes of a file that is not empty, of which only those are read that are asked for."""
    if isinstance(content, bytes):
        yield content
        return
    with content.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        yield data


def _opened(content: Path | bytes) -> tuple[soundfile.SoundFile, structure.Sound]:
    """A file that is whole as far as its structure tells, and of a kind that is read."""
    with _viewed(content) as data:
        sound = structure.sound(data)
        file = _soundfile(content if sound.content is None else sound.content)
        missing = sound.frames.total - file.frames if sound.frames else 0
        if missing > 0 and sound.frames.promised is None:  # libsndfile's guess is too low
            file.close()
            file = _soundfile(mp3.with_index(sound.content or data))
            sound = structure.Sound()
    problem = ""
    if file.format not in FORMATS:
        problem = f"{file.format} is not read, allowed: wav, aiff, flac, ogg, mp3"
    elif file.samplerate not in RATES:
        problem = f"sample rate {file.samplerate} Hz, allowed: {RATES[0]:,} to {RATES[-1]:,}"
    elif file.frames == UNKNOWN_LENGTH:  # libsndfile reads no such file to its end
        problem = "its length is not in its header (written as a stream)"
    elif sound.frames and missing > MOST_TRIMMED * sound.frames.samples:
        problem = f"damaged: its index leaves out {missing} samples"
    if problem:
        file.close()
        raise UnusableAudioError(problem)
    return file, sound


def _soundfile(content: Path | bytes) -> soundfile.SoundFile:
    try:
        return soundfile.SoundFile(BytesIO(content) if isinstance(content, bytes) else content)
    except soundfile.LibsndfileError as error:
        reason = containers.UNREAD if error.code == SYSTEM_ERROR else "not audio"
        raise UnusableAudioError(f"{reason} ({error.error_string})") from None
