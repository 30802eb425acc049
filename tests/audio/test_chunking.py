"""Audio of any kind -> pieces of a waveform."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from matpac.audio import logmel, reading
from matpac.audio.chunking import pieces


@dataclass
class Cut:
    """How to cut, as an encoder says it."""

    sample_rate: int = 16000
    piece_samples: int = 1000
    piece_hop: int = 0
    min_samples: int = 1
    reflect: int = 0
    fills: bool = False


def noise(num_samples: int, *, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.1, num_samples).astype(np.float32)


def cut(wave: np.ndarray | torch.Tensor, cutting: Cut, *, sample_rate: int = 16000) -> list:
    return [piece.numpy() for piece in pieces(wave, cutting, sample_rate=sample_rate)]


# --------------------------------------------------------------------------------------- cutting


@pytest.mark.parametrize(("hop", "least"), [(0, 1), (0, 400), (760, 400), (600, 400), (1000, 1000)])
@pytest.mark.parametrize(
    "length",
    [1, 399, 400, 759, 760, 761, 999, 1000, 1001, 1159, 1160, 1400, 1759, 1760, 2000, 5321],
)
def test_pieces_of_every_length(length: int, hop: int, least: int) -> None:
    """The k-th starts at k hops; it is there if a whole piece or, in the end, enough remains."""
    wave = noise(length)
    step = hop or 1000
    expected = []
    start = 0
    while length - start >= least:
        expected.append(wave[start : start + 1000])
        if length - start < 1000:
            break
        start += step
    cutting = Cut(piece_hop=hop, min_samples=least)
    if not expected:
        with pytest.raises(ValueError, match=f"got {length / 16000:g} s, allowed: at least"):
            cut(wave, cutting)
        return
    ours = cut(wave, cutting)
    assert [len(piece) for piece in ours] == [len(piece) for piece in expected]
    for piece, right in zip(ours, expected, strict=True):
        np.testing.assert_array_equal(piece, right)


@pytest.mark.parametrize("length", [201, 202, 400, 1000, 1001, 300_000])
def test_reflection_is_numpys(length: int, tmp_path: Path) -> None:
    wave = noise(length)
    expected = np.pad(wave, 200, mode="reflect")
    cutting = Cut(piece_samples=10**6, min_samples=400, reflect=200)
    np.testing.assert_array_equal(np.concatenate(cut(wave, cutting)), expected)
    soundfile.write(tmp_path / "a.wav", wave, 16000, subtype="FLOAT")  # in blocks of 2^18
    (piece,) = pieces(tmp_path / "a.wav", cutting)
    np.testing.assert_array_equal(piece, expected)


def test_reflection_needs_as_much_sound() -> None:
    with pytest.raises(ValueError, match=r"got 0.0125 s, allowed: at least 0.0125625 s"):
        cut(noise(200), Cut(min_samples=400, reflect=200))


def test_pieces_are_not_views_of_the_callers_array() -> None:
    wave = noise(500)
    (piece,) = pieces(wave, Cut(), sample_rate=16000)
    piece.zero_()
    assert wave.any()


# ------------------------------------------------------------------------------------ resampling


@pytest.mark.parametrize("rate", [8000, 22050, 44100, 48000])
def test_a_resampled_waveform_is_logmel_resample_of_it(rate: int) -> None:
    wave = noise(3 * rate + 17)
    expected = logmel.resample(torch.from_numpy(wave), rate, 16000)
    ours = cut(wave, Cut(piece_samples=7000), sample_rate=rate)
    np.testing.assert_array_equal(np.concatenate(ours), expected)


@pytest.mark.parametrize("rate", [8000, 22050, 44100])
def test_blocks_cut_anywhere_give_the_same_bits(rate: int) -> None:
    wave = torch.from_numpy(noise(2 * rate + 3))
    random = np.random.default_rng(1)
    whole = logmel.resample(wave, rate, 16000)
    for _ in range(5):
        places = np.sort(random.choice(len(wave), size=random.integers(1, 40), replace=False))
        blocks = torch.tensor_split(wave, torch.from_numpy(places))
        ours = torch.cat(list(logmel.resampled(blocks, rate, 16000)))
        assert torch.equal(ours, whole)


@pytest.mark.parametrize("block_frames", [1000, 4410, 100_000])
def test_a_file_read_in_blocks_of_any_size_gives_the_same_bits(
    block_frames: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wave = noise(100_000)
    soundfile.write(tmp_path / "a.wav", wave, 44100, subtype="FLOAT")
    monkeypatch.setattr(reading, "BLOCK_SAMPLES", block_frames)
    cutting = Cut(piece_samples=7000, piece_hop=6000, min_samples=400)
    expected = cut(wave, cutting, sample_rate=44100)
    for piece, right in zip(pieces(tmp_path / "a.wav", cutting), expected, strict=True):
        np.testing.assert_array_equal(piece, right)


# ----------------------------------------------------------------------------------- waveforms


@pytest.mark.parametrize(
    "same",
    [
        lambda wave: torch.from_numpy(wave),
        lambda wave: torch.from_numpy(wave).double().requires_grad_(),
        lambda wave: wave.astype(np.float64),
        lambda wave: wave.astype(">f4"),
        lambda wave: wave[::-1].copy()[::-1],  # a negative stride
        lambda wave: np.stack([wave, wave], axis=1)[:, 0],
        lambda wave: np.frombuffer(wave.tobytes(), np.float32),  # read-only
    ],
    ids=["tensor", "with gradient", "float64", "big-endian", "reversed", "strided", "read-only"],
)
@pytest.mark.filterwarnings("error")
def test_arrays_and_tensors_of_every_make(same: object) -> None:
    wave = noise(2500)
    for ours, right in zip(cut(same(wave), Cut()), cut(wave, Cut()), strict=True):
        np.testing.assert_array_equal(ours, right)
        assert ours.dtype == np.float32


@pytest.mark.parametrize(
    ("source", "rate", "message"),
    [
        (np.zeros((2, 800), np.float32), 16000, r"shape \(2, 800\), allowed: \(samples,\), mono"),
        (np.zeros(800, np.int16), 16000, r"int16, allowed: floating point .* divided by 32768"),
        (np.array([0.0, np.nan]), 16000, "NaN or infinite"),
        (np.array([0.0, np.inf]), 16000, "NaN or infinite"),
        (torch.full((800,), 1e300, dtype=torch.float64), 16000, "NaN or infinite"),
        (np.zeros(800), None, "sample_rate: missing"),
        (np.zeros(800), "16000", "sample_rate: got '16000', allowed: whole numbers"),
        (np.zeros(800), float("nan"), "sample_rate: got nan, allowed: whole numbers"),
        (np.zeros(800), 0, "sample_rate: got 0, allowed: whole numbers"),
        (np.zeros(800), 44100.5, "sample_rate: got 44100.5, allowed: whole numbers"),
        (np.zeros(0), 16000, "waveform: got 0 s, allowed: at least"),
        ("a.wav", 16000, "got 16000 for a.wav, which tells its own"),
        (0.5, None, "audio: got float, allowed: a file, an array, a tensor"),
    ],
)
def test_what_is_no_waveform_is_refused(source: object, rate: int | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        list(pieces(source, Cut(), sample_rate=rate))


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    (tmp_path / "text.wav").write_text("no sound at all")
    soundfile.write(tmp_path / "whole.wav", noise(9000), 16000)
    (tmp_path / "cut.wav").write_bytes((tmp_path / "whole.wav").read_bytes()[:-999])
    soundfile.write(tmp_path / "short.wav", noise(441), 44100)
    soundfile.write(tmp_path / "empty.wav", noise(0), 44100)
    for name, message in {
        "none.wav": r"none\.wav: no such file",
        "": "got a folder, allowed here: one file",
        "text.wav": r"text\.wav: not audio",
        "cut.wav": r"cut\.wav: truncated: the last 999 bytes are missing",
        "short.wav": r"short\.wav: got 0.01 s, allowed: at least 0.025 s",
        "empty.wav": r"empty\.wav: got 0 s",
    }.items():
        with pytest.raises((FileNotFoundError, ValueError), match=message):
            list(pieces(tmp_path / name, Cut(min_samples=400)))


# -------------------------------------------------------------------------------------- memory

LONG = """
import resource, sys
from test_chunking import Cut
from matpac.audio.chunking import pieces
cutting = Cut(piece_samples=97600, min_samples=400)
list(pieces(sys.argv[1], cutting))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
num_samples = sum(len(piece) for piece in pieces(sys.argv[2], cutting))
print(num_samples, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_a_long_file_needs_no_more_memory_than_a_short_one(tmp_path: Path) -> None:
    """10 minutes at 44.1 kHz are 106 MB as float32, and 38 MB resampled."""
    second = np.round(32767 * np.clip(noise(44100), -1, 1)).astype(np.int16)
    for name, seconds in (("short", 60), ("long", 600)):
        with soundfile.SoundFile(tmp_path / f"{name}.wav", "w", 44100, 1) as file:
            for _ in range(seconds // 60):
                file.write(np.tile(second, 60))
    paths = [str(tmp_path / f"{name}.wav") for name in ("short", "long")]
    done = subprocess.run(
        [sys.executable, "-c", LONG, *paths],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=True,
    )
    (tmp_path / "long.wav").unlink()  # pytest keeps its folders for a while
    num_samples, kib = map(int, done.stdout.split())
    assert num_samples == 600 * 16000
    assert kib < 30 * 1024  # the allocator's own play; holding either waveform would show
