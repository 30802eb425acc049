"""Reading audio files, and telling why one cannot be used.

Reads what libsndfile reads: wav, flac, ogg, mp3, aiff and more, any rate, any number of channels,
also inside a tar or parquet file (`matpac.audio.containers`).
"""

import hashlib
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile

from matpac.audio import containers, mp3
from matpac.core import files

BLOCK_FRAMES = 1 << 18
SYSTEM_ERROR = 2
"""libsndfile's number for a file that the system refuses to open."""
UNKNOWN_LENGTH = (1 << 63) - 1
"""libsndfile's number of frames of a FLAC file that does not say it."""
LOUDEST = 1e12
"""Integers stored as floats reach 2e9; damaged floats more, and their power is infinite."""


class UnusableAudioError(ValueError):
    """A file, or a part of one, that gives no usable waveform; the message is the reason."""


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
        start_s, duration_s: the part to read, seconds; None: up to the end.
    Returns: float32 waveform (S,) and its sample rate in Hz.
    Raises: UnusableAudioError with the reason.
    """
    with _open(_content(path)) as file:
        wanted = -1 if duration_s is None else round(duration_s * file.samplerate)
        try:
            if start_s:
                file.seek(round(start_s * file.samplerate))
            samples = _samples(file, wanted)
        except soundfile.LibsndfileError as error:
            raise UnusableAudioError(f"truncated or damaged ({error})") from None
        if len(samples) < wanted:
            raise UnusableAudioError(f"truncated: {len(samples)} of {wanted} samples can be read")
        return _mono(samples), file.samplerate


def blocks(path: Path) -> Iterator[tuple[np.ndarray, int]]:
    """Reads a whole file as mono, block by block: (samples, float32; its sample rate in Hz).

    Raises: UnusableAudioError, after the last good block, if it cannot be read to its end.
    """
    for block, rate in _blocks(_content(path)):
        yield _mono(block), rate


def check(path: Path) -> AudioFacts:
    """Reads a whole file once, block by block, to learn its length and whether it is sound."""
    try:
        content = _content(path)
        duration_s = _checked_duration_s(content)
    except UnusableAudioError as error:
        return AudioFacts(problem=str(error))
    if isinstance(content, bytes):
        return AudioFacts(duration_s=duration_s, sha256=hashlib.sha256(content).hexdigest())
    return AudioFacts(duration_s=duration_s, sha256=files.sha256(content))


def _checked_duration_s(content: Path | bytes) -> float:
    """Length of a file that can be read to its end. Raises: UnusableAudioError."""
    count, rate = 0, 1
    for block, rate in _blocks(content):  # noqa: B007 (the rate of the last one)
        count += len(block)
    return count / rate


def _blocks(content: Path | bytes) -> Iterator[tuple[np.ndarray, int]]:
    """Blocks (samples, channels) and their rate. Raises: UnusableAudioError, at the latest
    after the last block, for a file that cannot be read to its end."""
    with _open(content) as file:
        promised, count, damage = file.frames, 0, ""
        try:
            while len(block := _samples(file, BLOCK_FRAMES)):
                count += len(block)
                yield block, file.samplerate
        except soundfile.LibsndfileError as error:
            damage = error.error_string  # told below if fewer samples than there are came out
        found = mp3.frames(content) if file.format == "MP3" else None
        if found is not None and not found.indexed:
            _refuse_part_of_mp3(found, count, damage)
        elif count < promised:
            raise UnusableAudioError(f"truncated: {count} of {promised} samples can be read")
        if missing := _missing_bytes(content):
            raise UnusableAudioError(f"truncated: the last {missing} bytes are missing")


def _samples(file: soundfile.SoundFile, wanted: int) -> np.ndarray:
    """The next samples, float32 (S, channels), at most ``wanted`` of them; -1: all.

    Raises: UnusableAudioError for NaN, infinity and what is near it; soundfile.LibsndfileError for
        damage.
    """
    if file.subtype == "PCM_16":  # the same numbers as libsndfile's, in a third of its time
        whole = file.read(wanted, dtype="int16", always_2d=True)
        return np.multiply(whole, np.float32(2**-15), dtype=np.float32)
    samples = file.read(wanted, dtype="float32", always_2d=True)
    if len(samples) and not -LOUDEST < samples.min() <= samples.max() < LOUDEST:  # nor NaN
        raise UnusableAudioError(f"NaN or infinite samples, or beyond {LOUDEST:g}")
    return samples


def _mono(samples: np.ndarray) -> np.ndarray:
    """(S, channels) -> (S,)."""
    return samples[:, 0] if samples.shape[1] == 1 else samples.mean(axis=1)


def _refuse_part_of_mp3(found: mp3.Frames, count: int, damage: str) -> None:
    """Raises UnusableAudioError if frames are cut off, or more of them are there than are read."""
    if found.missing_bytes:
        raise UnusableAudioError(f"truncated: the last {found.missing_bytes} bytes are missing")
    # The guess at the length of a file without index may be a frame short; decoders drop another.
    if count < found.samples - 2 * found.longest:
        reason = f"damaged ({damage})" if damage else "MP3 of variable bit rate without an index"
        raise UnusableAudioError(f"{reason}: {count} of {found.samples} samples can be read")


def _content(path: Path) -> Path | bytes:
    """The path of a file, or the bytes of a member; UnusableAudioError if there is nothing."""
    if (member := containers.member(path)) is not None:
        try:
            content: Path | bytes = containers.read(member)
        except containers.UnreadableError as error:
            raise UnusableAudioError(str(error)) from None
    elif path.is_file():
        content = path
    elif path.is_symlink():
        raise UnusableAudioError("a link to a file that is not there")
    else:
        raise UnusableAudioError("missing file")
    if _size(content) == 0:
        raise UnusableAudioError("zero bytes")
    return content


def _size(content: Path | bytes) -> int:
    return len(content) if isinstance(content, bytes) else content.stat().st_size


def _stream(content: Path | bytes) -> BinaryIO:
    return BytesIO(content) if isinstance(content, bytes) else content.open("rb")


def _open(content: Path | bytes) -> soundfile.SoundFile:
    try:
        file = soundfile.SoundFile(BytesIO(content) if isinstance(content, bytes) else content)
    except soundfile.LibsndfileError as error:
        reason = containers.UNREAD if error.code == SYSTEM_ERROR else "not audio"
        raise UnusableAudioError(f"{reason} ({error.error_string})") from None
    except OSError as error:
        raise UnusableAudioError(f"{containers.UNREAD} ({error.strerror})") from None
    if file.frames == UNKNOWN_LENGTH:  # libsndfile reads no such file to its end
        file.close()
        raise UnusableAudioError("its length is not in its header (written as a stream)")
    return file


def _missing_bytes(content: Path | bytes) -> int:
    """How many bytes a cut-off wav, aiff or ogg lacks: libsndfile shortens them in silence."""
    size = _size(content)
    with _stream(content) as file:
        magic = file.read(4)
        if magic in (b"RIFF", b"RIFX", b"RF64", b"FORM"):
            return max(0, _end_of_samples(file, magic) - size)
        if magic == b"OggS":
            file.seek(max(0, size - (1 << 17)))  # a page has at most 65,307 bytes
            return _missing_of_last_page(file.read())
    return 0


def _end_of_samples(file: BinaryIO, magic: bytes) -> int:
    """Where the sample chunk says that it ends; 0 if it does not say (written as a stream)."""
    header_of_chunk = "<4sI" if magic in (b"RIFF", b"RF64") else ">4sI"
    position, large = 12, 0
    while True:
        file.seek(position)
        header = file.read(8)
        if len(header) < 8:
            return 0
        name, length = struct.unpack(header_of_chunk, header)
        if name == b"ds64":  # RF64 has room for sizes beyond 4 GB here
            large = int.from_bytes(file.read(16)[8:], "little")
        if name in (b"data", b"SSND"):
            if length >= 0x7FFFF000 and magic != b"FORM":
                length = large
            return position + 8 + length if length else 0
        position += 8 + length + length % 2


def _missing_of_last_page(tail: bytes) -> int:
    """Bytes that the last Ogg page lacks, from the lengths in its header."""
    start = tail.rfind(b"OggS")
    page = tail[start:]
    if start < 0 or len(page) < 27:
        return 1
    lengths = page[27 : 27 + page[26]]
    return max(0, 27 + page[26] + sum(lengths) - len(page))
