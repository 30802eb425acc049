"""Audio files of many kinds, read whole and in part; what no damage but a header may say."""

import os
import struct
from pathlib import Path

import faults
import numpy as np
import pytest
import soundfile
import torch

from matpac.audio import mp3, reading
from matpac.audio.logmel import log_mel

CONTAINERS = [("WAV", "LITTLE"), ("WAV", "BIG"), ("WAVEX", "LITTLE"), ("RF64", "LITTLE")]
CONTAINERS += [("AIFF", "BIG"), ("AIFF", "LITTLE"), ("FLAC", "FILE")]


def write_noise(path: Path, container: str, endian: str, *, channels: int) -> np.ndarray:
    """Writes 5,000 samples of 16 bits, the least and the largest among them; returns them."""
    samples = np.random.default_rng(0).integers(-32768, 32768, (5000, channels), dtype=np.int16)
    samples[:3] = [[-32768], [32767], [0]]
    soundfile.write(path, samples, 16000, "PCM_16", endian, container)
    return samples


@pytest.mark.parametrize("channels", [1, 2, 3])
@pytest.mark.parametrize(("container", "endian"), CONTAINERS)
def test_samples_of_16_bits_are_libsndfiles_to_the_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, container: str, endian: str, channels: int
) -> None:
    path = tmp_path / "noise.wav"
    samples = write_noise(path, container, endian, channels=channels)
    theirs, _ = soundfile.read(path, dtype="float32", always_2d=True)
    np.testing.assert_array_equal(theirs, samples / 32768)
    theirs = theirs.mean(axis=1)
    for block in (reading.BLOCK_SAMPLES, 777):
        monkeypatch.setattr(reading, "BLOCK_SAMPLES", block)
        for start, length in ((0, None), (1601, None), (0, 5000), (1601, 399), (4999, 1)):
            part = {"start_s": start / 16000, "duration_s": length and length / 16000}
            ours, rate = reading.read(path, **part)
            assert (rate, ours.dtype) == (16000, np.float32)
            assert ours.tobytes() == theirs[start:][:length].tobytes()
        assert b"".join(each.tobytes() for each, _ in reading.blocks(path)) == theirs.tobytes()
    path.write_bytes(path.read_bytes()[:-1001])
    for part in ({}, {"duration_s": 0.1}):  # a part of a file that is not whole is not read
        with pytest.raises(reading.UnusableAudioError, match="truncated"):
            reading.read(path, **part)
    facts = reading.check(path)
    assert container == "FLAC" or facts.problem == "truncated: the last 1001 bytes are missing"


@pytest.mark.parametrize("subtype", ["PCM_S8", "PCM_24"])
def test_flacs_of_other_depths_are_libsndfiles_to_the_bit(tmp_path: Path, subtype: str) -> None:
    noise = np.random.default_rng(0).uniform(-1, 1, (5000, 2))
    soundfile.write(tmp_path / "a.flac", noise, 16000, subtype=subtype)
    theirs, _ = soundfile.read(tmp_path / "a.flac", dtype="float32")
    assert reading.read(tmp_path / "a.flac")[0].tobytes() == theirs.mean(axis=1).tobytes()


def test_floats_are_averaged_over_channels_and_read_in_part(tmp_path: Path) -> None:
    sides = np.random.default_rng(0).uniform(-1, 1, (1000, 2))
    soundfile.write(tmp_path / "a.wav", sides, 1000, subtype="FLOAT")
    part, _ = reading.read(tmp_path / "a.wav", start_s=0.1, duration_s=0.05)
    np.testing.assert_allclose(part, sides[100:150].mean(axis=1), atol=1e-7)
    with pytest.raises(reading.UnusableAudioError, match="100 of 200 samples are there"):
        reading.read(tmp_path / "a.wav", start_s=0.9, duration_s=0.2)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e13, -1e13])
def test_samples_that_are_no_sound_are_refused(tmp_path: Path, value: float) -> None:
    samples = np.zeros(3200, dtype=np.float32)
    for path, sample in ((tmp_path / "loud.wav", -2e9), (tmp_path / "bad.wav", value)):
        samples[5] = sample
        soundfile.write(path, samples, 16000, subtype="FLOAT")
    logmel = log_mel(torch.from_numpy(reading.read(tmp_path / "loud.wav")[0]))
    assert logmel.isfinite().all() and reading.check(tmp_path / "loud.wav").problem == ""
    reason = "NaN or infinite samples, or beyond 1e+12"
    assert reading.check(tmp_path / "bad.wav").problem == reason
    with pytest.raises(reading.UnusableAudioError, match="NaN or infinite"):
        reading.read(tmp_path / "bad.wav")


# ------------------------------------------------------------------------------------------- MP3


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("rate", [44100, 32000, 24000, 22050, 16000, 12000, 8000])
@pytest.mark.parametrize("mode", ["CONSTANT", "VARIABLE"])
def test_frames_of_every_version_of_mp3(
    tmp_path: Path, rate: int, channels: int, mode: str
) -> None:
    """MPEG-1 from 32 kHz on, MPEG-2 from 16 kHz on, MPEG-2.5 below; tags hold what is no frame."""
    path, longest = tmp_path / "noise.mp3", 1152 if rate >= 32000 else 576
    noise = np.random.default_rng(0).normal(0, 0.1, (3 * rate, channels)).clip(-1, 1)
    noise[rate:] *= 0.01  # a variable bit rate falls: decoders guess too little
    soundfile.write(path, noise, rate, bitrate_mode=mode, compression_level=0.5)
    assert (reading.check(path).problem, reading.check(path).duration_s) == ("", 3.0)
    indexed = mp3.frames(path.read_bytes())
    assert indexed.promised == indexed.count
    bare = faults.without_index(path.read_bytes())
    long_tag = b"ID3\x04\x00\x00" + bytes([0, 1, 72, 0]) + bytes(1 * 16384 + 72 * 128)
    short_tag = b"ID3\x04\x00\x00" + bytes([0, 0, 0, 20]) + b"\xff\xfb\x90\xc4" * 5
    ape = b"APETAGEX" + struct.pack("<4I8x", 2000, 32, 0, 1 << 31)
    for before, behind in [
        (b"", b""), (long_tag, b""), (long_tag + short_tag, b"TAG" + bytes(125)), (b"", ape)
    ]:  # fmt: skip
        path.write_bytes(before + bare + behind)
        found = mp3.frames(path.read_bytes())
        assert (found.promised, found.samples, found.missing) == (None, longest, 0)
        facts, total = reading.check(path), indexed.count * longest
        assert (facts.problem, found.total) == ("", total)
        assert round(facts.duration_s * rate) in (total, total - 529)
        path.write_bytes(before + bare[:-10])
        assert reading.check(path).problem == "truncated: the last 10 bytes are missing"


def test_an_index_that_leaves_out_sound_is_told(tmp_path: Path) -> None:
    data = faults.kinds(faults.RATE)["mp3"]
    place = data.index(b"LAME", data.index(b"Info") + 100) + 21  # 12 bits in front, 12 behind
    (tmp_path / "a.mp3").write_bytes(faults.patched(data, place, b"\xff\xff\xff"))
    assert reading.check(tmp_path / "a.mp3").problem.startswith("damaged: its index leaves out")


# --------------------------------------------------------------------------------------- headers


def test_a_flac_that_does_not_say_its_length_is_named_as_such(tmp_path: Path) -> None:
    """What encoders leave out that write to a pipe: the last 36 of the 144 bits behind byte 8."""
    write_noise(tmp_path / "noise.flac", "FLAC", "FILE", channels=1)
    content = bytearray((tmp_path / "noise.flac").read_bytes())
    content[21] &= 0xF0
    content[22:26] = bytes(4)
    (tmp_path / "noise.flac").write_bytes(content)
    reason = "its length is not in its header (written as a stream)"
    assert reading.check(tmp_path / "noise.flac").problem == reason


@pytest.mark.parametrize("rate", [0, 1, 999, 1_000_001, 2**31 - 1])
def test_rates_that_no_recording_has_are_refused(tmp_path: Path, rate: int) -> None:
    data = faults.kinds(1000)["wav"]
    (tmp_path / "a.wav").write_bytes(faults.patched(data, 24, struct.pack("<I", rate)))
    assert reading.check(tmp_path / "a.wav").problem.startswith(("sample rate", "not audio"))


def test_many_channels_are_read_in_little_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros((3000, 1000), np.float32), 16000)
    sizes, decoded = [], reading._decoded
    monkeypatch.setattr(
        reading, "_decoded", lambda c: (sizes.append(b.size) or (b, r) for b, r in decoded(c))
    )
    assert len(reading.read(tmp_path / "a.wav")[0]) == 3000
    assert max(sizes) <= reading.BLOCK_SAMPLES


def test_what_is_no_file_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.wav")  # opening it would wait for ever
    assert reading.check(tmp_path / "a.wav").problem == "missing file"


@pytest.mark.parametrize("error", [MemoryError(), ValueError("odd"), RuntimeError(), KeyError(1)])
def test_any_exception_of_a_file_is_its_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: object) -> None:
        raise error

    (tmp_path / "a.wav").write_bytes(faults.kinds(1000)["wav"])
    monkeypatch.setattr(soundfile, "SoundFile", fail)
    assert reading.check(tmp_path / "a.wav").problem.startswith("it cannot be read (")
    with pytest.raises(reading.UnusableAudioError, match="it cannot be read"):
        reading.read(tmp_path / "a.wav")
