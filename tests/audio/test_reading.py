"""Audio files of many kinds, read whole and in part, and what tells of a file that was cut off."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from matpac.audio import mp3, reading
from matpac.audio.logmel import log_mel

CHUNKED = [("WAV", "LITTLE"), ("WAV", "BIG"), ("WAVEX", "LITTLE"), ("RF64", "LITTLE")]
CHUNKED += [("AIFF", "BIG"), ("AIFF", "LITTLE")]
"""Containers that say how many bytes of samples follow, of which libsndfile says nothing."""
OTHERS = [("FLAC", "FILE"), ("W64", "LITTLE"), ("CAF", "BIG"), ("CAF", "LITTLE"), ("AU", "BIG")]


def write_noise(path: Path, container: str, endian: str, *, channels: int) -> np.ndarray:
    """Writes 5,000 samples of 16 bits, the least and the largest among them; returns them."""
    samples = np.random.default_rng(0).integers(-32768, 32768, (5000, channels), dtype=np.int16)
    samples[:3] = [[-32768], [32767], [0]]
    soundfile.write(path, samples, 16000, "PCM_16", endian, container)
    return samples


@pytest.mark.parametrize("channels", [1, 2, 3])
@pytest.mark.parametrize(("container", "endian"), CHUNKED + OTHERS)
def test_samples_of_16_bits_are_libsndfiles_to_the_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, container: str, endian: str, channels: int
) -> None:
    path, cut = tmp_path / "noise.wav", tmp_path / "cut.wav"
    samples = write_noise(path, container, endian, channels=channels)
    theirs, _ = soundfile.read(path, dtype="float32", always_2d=True)
    np.testing.assert_array_equal(theirs, samples / 32768)
    theirs = theirs.mean(axis=1)
    for start, length in ((0, None), (1601, None), (0, 5000), (1601, 399), (4999, 1)):
        part = {"start_s": start / 16000, "duration_s": length and length / 16000}
        ours, rate = reading.read(path, **part)
        assert (rate, ours.dtype) == (16000, np.float32)
        assert ours.tobytes() == theirs[start:][:length].tobytes()
    monkeypatch.setattr(reading, "BLOCK_FRAMES", 777)
    assert b"".join(block.tobytes() for block, _ in reading.blocks(path)) == theirs.tobytes()
    cut.write_bytes(path.read_bytes()[:-1001])
    with pytest.raises(reading.UnusableAudioError, match="truncated"):
        reading.read(cut, duration_s=5000 / 16000)
    if container != "FLAC":  # of which no frame is whole
        left, _ = soundfile.read(cut, dtype="float32", always_2d=True)
        assert 4000 < len(left) < 5000
        assert reading.read(cut)[0].tobytes() == left.mean(axis=1).tobytes()


@pytest.mark.parametrize(("container", "endian"), CHUNKED)
def test_missing_bytes_are_counted(tmp_path: Path, container: str, endian: str) -> None:
    path = tmp_path / "noise.wav"
    write_noise(path, container, endian, channels=1)
    assert reading.check(path).problem == ""
    path.write_bytes(path.read_bytes()[:-1001])
    assert reading.check(path).problem == "truncated: the last 1001 bytes are missing"


def test_audio_is_the_mean_over_channels_and_parts_can_be_read(tmp_path: Path) -> None:
    left, right = np.linspace(0, 0.5, 1000), np.linspace(0.5, 0, 1000)
    soundfile.write(tmp_path / "a.wav", np.stack([left, right], axis=1), 1000, subtype="FLOAT")
    samples, rate = reading.read(tmp_path / "a.wav")
    assert rate == 1000 and samples.dtype == np.float32 and samples.shape == (1000,)
    np.testing.assert_allclose(samples, 0.25, atol=1e-7)
    soundfile.write(tmp_path / "b.wav", left, 1000, subtype="FLOAT")
    part, _ = reading.read(tmp_path / "b.wav", start_s=0.1, duration_s=0.05)
    np.testing.assert_allclose(part, left[100:150], atol=1e-7)
    with pytest.raises(reading.UnusableAudioError, match="100 of 200 samples"):
        reading.read(tmp_path / "b.wav", start_s=0.9, duration_s=0.2)


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


def mp3_frames(content: bytes) -> list[bytes]:
    """The frames of an MPEG-1 layer III file at 44.1 kHz without tags."""
    kbits = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
    frames, position = [], 0
    while position < len(content):
        third = content[position + 2]
        length = 144000 * kbits[third >> 4] // 44100 + (third >> 1 & 1)
        frames.append(content[position : position + length])
        position += length
    assert all(frame[:2] == b"\xff\xfb" for frame in frames)
    return frames


@pytest.mark.parametrize("mode", ["CONSTANT", "VARIABLE"])
def test_mp3s_without_index_are_measured_by_their_frames(tmp_path: Path, mode: str) -> None:
    """Half silence, half noise: with a variable bit rate the first frame tells nothing."""
    noise = np.random.default_rng(0).normal(0, 0.3, 66150).clip(-1, 1)
    for order, half in (("quiet_first", [0 * noise, noise]), ("loud_first", [noise, 0 * noise])):
        whole = tmp_path / f"{order}.mp3"
        soundfile.write(
            whole, np.concatenate(half), 44100, bitrate_mode=mode, compression_level=0.5
        )
        index, *frames = mp3_frames(whole.read_bytes())
        assert b"Xing" in index or b"Info" in index
        assert mp3.frames(whole) == mp3.Frames(indexed=True)
        assert reading.check(whole).problem == "" and reading.check(whole).duration_s == 3.0
        long_tag = b"ID3\x04\x00\x00" + bytes([0, 1, 72, 0]) + bytes(1 * 16384 + 72 * 128)
        short_tag = b"ID3\x04\x00\x00" + bytes([0, 0, 0, 20]) + b"\xff\xfb\x90\xc4" * 5
        ape = b"APETAGEX" + b"\xff\xfb" + bytes(22)
        for before, behind in [
            (b"", b""), (long_tag, b""), (long_tag + short_tag, b"TAG" + bytes(125)), (b"", ape)
        ]:  # fmt: skip
            bare = tmp_path / "bare.mp3"
            bare.write_bytes(before + b"".join(frames) + behind)
            samples = 1152 * len(frames)
            assert mp3.frames(bare) == mp3.Frames(False, samples, 1152)
            facts = reading.check(bare)
            read = reading.read(bare)[0]
            if (mode, order) == ("VARIABLE", "loud_first"):  # the guessed length is too short
                assert len(read) < 0.9 * samples and facts.problem == (
                    "MP3 of variable bit rate without an index: "
                    f"{len(read)} of {samples} samples can be read"
                )
            else:
                assert facts.problem == "" and facts.duration_s == len(read) / 44100
                assert len(read) == samples
            bare.write_bytes(before + b"".join(frames)[:-10])
            assert reading.check(bare).problem == "truncated: the last 10 bytes are missing"


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("rate", [32000, 24000, 22050, 16000, 12000, 8000])
def test_frames_of_every_version_of_mp3(tmp_path: Path, rate: int, channels: int) -> None:
    """MPEG-1 from 32 kHz on, MPEG-2 from 16 kHz on, MPEG-2.5 below; a decoder counts, too."""
    path = tmp_path / "noise.mp3"
    noise = np.random.default_rng(0).normal(0, 0.1, (3 * rate, channels)).clip(-1, 1)
    soundfile.write(path, noise, rate, bitrate_mode="CONSTANT", compression_level=0.5)
    assert mp3.frames(path) == mp3.Frames(indexed=True)
    content = path.read_bytes()
    path.write_bytes(content[content.index(b"\xff", 4) :])  # behind the index
    longest = 1152 if rate >= 32000 else 576
    samples = len(reading.read(path)[0])
    assert mp3.frames(path) == mp3.Frames(False, samples, longest)
    assert reading.check(path).problem == "" and samples >= 3 * rate
    path.write_bytes(path.read_bytes()[:-10])
    assert reading.check(path).problem == "truncated: the last 10 bytes are missing"


def test_wav_written_as_a_stream_is_not_truncated(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "stream.wav", np.sin(np.arange(3200) / 7), 16000)
    content = bytearray((tmp_path / "stream.wav").read_bytes())
    for position in (4, content.index(b"data") + 4):  # lengths unknown when the header was written
        content[position : position + 4] = b"\xff\xff\xff\xff"
    (tmp_path / "stream.wav").write_bytes(content)
    assert reading.check(tmp_path / "stream.wav").problem == ""


def test_a_flac_that_does_not_say_its_length_is_named_as_such(tmp_path: Path) -> None:
    """What encoders leave out that write to a pipe: the last 36 of the 144 bits behind byte 8."""
    write_noise(tmp_path / "noise.flac", "FLAC", "FILE", channels=1)
    content = bytearray((tmp_path / "noise.flac").read_bytes())
    content[21] &= 0xF0
    content[22:26] = bytes(4)
    (tmp_path / "noise.flac").write_bytes(content)
    reason = "its length is not in its header (written as a stream)"
    assert reading.check(tmp_path / "noise.flac").problem == reason
    with pytest.raises(reading.UnusableAudioError, match="its length is not in its header"):
        reading.read(tmp_path / "noise.flac")
