"""Audio files of every kind that is read, whole, and what happens to files.

    PYTHONPATH=. python tests/audio/faults.py

prints the table of docs/audio.md: what each kind of file gives after each fault.
"""

import io
import struct
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from matpac.audio import reading, structure

RATE = 22050
SAMPLES = 3 * RATE + 7


def wave(num_samples: int = SAMPLES) -> np.ndarray:
    """A chirp in noise that grows louder, (S, 1)."""
    noise = np.random.default_rng(0).normal(0, 0.05, (num_samples, 1))
    time = np.arange(num_samples)[:, None] / RATE
    return (time / 6 * np.sin(2 * np.pi * 300 * (1 + time) * time) + noise).clip(-1, 1)


def encoded(
    samples: np.ndarray, form: str, subtype: str | None = None, *, rate: int = RATE, **options: Any
) -> bytes:
    """What libsndfile writes; its MP3s are LAME's, with an index; Opus has no rate like ours."""
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=form, subtype=subtype, **options)
    return file.getvalue()


def patched(data: bytes, place: int, new: bytes) -> bytes:
    return data[:place] + new + data[place + len(new) :]


def streamed(data: bytes) -> bytes:
    """A WAV whose lengths were not known when its header was written."""
    return patched(patched(data, 4, b"\xff" * 4), data.index(b"data") + 4, b"\xff" * 4)


def without_index(data: bytes) -> bytes:
    """The frames of an MP3 that follow its index."""
    return data[data.index(data[:2], 4) :]


def with_cover(data: bytes) -> bytes:
    """Behind 20 kB of ID3 tag, in which there is much that looks like frames."""
    return b"ID3\x04\0\0" + bytes([0, 1, 28, 32]) + data[:2] * 10_000 + data


def in_wav(data: bytes) -> bytes:
    """An MP3 in a WAV container, whose header promises some samples more than the frames hold."""
    form = struct.pack("<2H2I5HI", 0x55, 1, RATE, 4000, 1, 0, 12, 1, 2, 0x180_0571)
    fact = struct.pack("<I", SAMPLES + 300)
    chunks = [(b"fmt ", form), (b"fact", fact), (b"data", data)]
    body = b"".join(name + struct.pack("<I", len(each)) + each for name, each in chunks)
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WAVE" + body


def kinds(num_samples: int = SAMPLES) -> dict[str, bytes]:
    """Whole files of every kind."""
    sound = wave(num_samples)
    wav = encoded(sound, "WAV", "PCM_16")
    constant = encoded(sound, "MP3", bitrate_mode="CONSTANT", compression_level=0.5)
    variable = encoded(sound[::-1], "MP3", bitrate_mode="VARIABLE", compression_level=0.5)
    return {
        "wav": wav,
        "wav, float": encoded(sound, "WAV", "FLOAT"),
        "wav, streamed": streamed(wav),
        "wav, RF64": encoded(sound, "RF64", "PCM_24"),
        "aiff": encoded(sound, "AIFF", "PCM_16"),
        "aiff-c": encoded(sound, "AIFF", "FLOAT"),
        "flac": encoded(sound, "FLAC", "PCM_16"),
        "flac, 24 bit": encoded(sound, "FLAC", "PCM_24"),
        "ogg vorbis": encoded(sound, "OGG", "VORBIS"),
        "ogg opus": encoded(sound, "OGG", "OPUS", rate=24000),
        "mp3": constant,
        "mp3, variable": variable,
        "mp3, no index": without_index(constant),
        "mp3, variable, no index": without_index(variable),
        "mp3, cover": with_cover(constant),
        "mp3 in wav": in_wav(without_index(constant)),
    }


def half(data: bytes) -> int:
    return len(data) // 2


FAULTS: dict[str, Callable[[bytes], bytes]] = {
    "whole": lambda data: data,
    "cut in half": lambda data: data[: half(data)],
    "last byte missing": lambda data: data[:-1],
    "a bit flipped": lambda data: patched(data, half(data), bytes([data[half(data)] ^ 16])),
    "512 zero bytes": lambda data: patched(data, half(data), bytes(512)),
    "3000 bytes lost": lambda data: data[: half(data)] + data[half(data) + 3000 :],
    "zeros to the end": lambda data: data[: half(data)] + bytes(len(data) - half(data)),
    "a tag behind": lambda data: data + b"TAG".ljust(128, b"\0"),
    "1000 zeros behind": lambda data: data + bytes(1000),
    "twice, joined": lambda data: data + data,
}


def saying(factor: float) -> Callable[[bytes], bytes]:
    """A file that says another number of samples than it holds, wherever its kind says one."""

    def times(data: bytes, place: int, form: str) -> bytes:
        (old,) = struct.unpack_from(form, data, place)
        return patched(data, place, struct.pack(form, int(old * factor)))

    def lie(data: bytes) -> bytes:
        place = {name: data.find(name) for name in (b"data", b"SSND", b"Info", b"Xing")}
        if data[:4] in (b"RIFF", b"RF64") and data[place[b"data"] + 4 :][:4] != b"\xff" * 4:
            return times(data, place[b"data"] + 4, "<I")
        if data[:4] == b"RF64":
            return times(data, data.index(b"ds64") + 16, "<Q")
        if data[:4] == b"FORM":
            return times(data, place[b"SSND"] + 4, ">I")
        if data[:4] == b"fLaC":
            return times(data, 22, ">I")
        if data[:4] == b"OggS":
            last = data.rindex(b"OggS")
            page = patched(times(data[last:], 6, "<Q"), 22, bytes(4))
            return data[:last] + patched(page, 22, struct.pack("<I", structure.checksum(page)))
        if (index := max(place[b"Info"], place[b"Xing"])) > 0:
            return times(data, index + 8, ">I")
        return data

    return lie


FAULTS |= {f"says {text}": saying(by) for text, by in (("none", 0), ("half", 0.5), ("twice", 2))}


def given(data: bytes, path: Path) -> np.ndarray | str:
    """What reading gives: samples, or the problem."""
    path.write_bytes(data)
    try:
        return reading.read(path)[0]
    except reading.UnusableAudioError as error:
        return str(error)


def outcome(whole: np.ndarray, found: np.ndarray | str) -> str:
    """A cell of the table."""
    if isinstance(found, str):
        return "told"
    if len(found) != len(whole):
        return f"{100 * len(found) / len(whole):.1f} %"
    return "whole" if np.array_equal(found, whole) else "as it is"


def outcomes(folder: Path) -> dict[str, dict[str, str]]:
    """Kind -> fault -> cell."""
    found: dict[str, dict[str, str]] = {}
    for kind, data in kinds().items():
        whole = given(data, folder / "a")
        cells = {fault: given(harm(data), folder / "a") for fault, harm in FAULTS.items()}
        found[kind] = {fault: outcome(whole, cell) for fault, cell in cells.items()}
    return found


def table(cells: dict[str, dict[str, str]]) -> str:
    """Markdown: a row per kind, a column per fault."""
    lines = [["", *FAULTS], ["---"] * (len(FAULTS) + 1)]
    lines += [[kind, *row.values()] for kind, row in cells.items()]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        print(table(outcomes(Path(temporary))), end="")
