"""Embeddings of audio of any kind: files, arrays, lists, folders, over time, of any layer."""

from pathlib import Path

import encoder_checks
import numpy as np
import pytest
import soundfile
import tiny
import torch

from matpac.audio.logmel import LogMel
from matpac.encoders.frozen import AudioEncoder, frozen, save_encoder
from matpac.encoders.interface import Frames, list_audio
from matpac.encoders.vit import ViTEncoder
from matpac.method.student import Student

import command
import noise

CLOSE = {"rtol": 0, "atol": 1e-6}
"""Not bit for bit: the matrix products of a batch of another size may sum in another order.

Embeddings are of order 1, where float32 has steps of 1e-7.
"""
LENGTHS = [400, 16000, 3000, 5360, 5361, 401, 16000, 20480]  # a piece is 5360 samples
MODEL = {"crop_frames": 608, "patch_size": 16}  # the paper's


def small(*, reflect: int = 0) -> ViTEncoder:
    return ViTEncoder(encoder_checks.tiny_net(), reflect=reflect)


@pytest.fixture(scope="module")
def encoder() -> ViTEncoder:
    return small()


def wave(num_samples: int, *, seed: int = 0) -> np.ndarray:
    """Noise that gets louder, so that no two columns are alike."""
    made = np.random.default_rng(seed).normal(0, 0.1, num_samples)
    return (made * np.linspace(0.1, 1, num_samples)).astype(np.float32)


def write(path: Path, samples: np.ndarray, rate: int = 16000) -> Path:
    soundfile.write(path, samples, rate, subtype="FLOAT")
    return path


# -------------------------------------------------------------------------------------- values


@pytest.mark.parametrize("length", LENGTHS)
def test_an_embedding_is_the_frozen_encoders_of_the_clips_log_mel(
    encoder: ViTEncoder, length: int
) -> None:
    clip = wave(length)
    logmel = LogMel(**tiny.FRONT_END)(torch.from_numpy(clip))[None]
    expected = encoder.net(logmel)[0].mean(dim=1).flatten()
    ours = encoder.embed(clip, sample_rate=16000)
    assert ours.shape == (encoder.width,) and ours.dtype == torch.float32
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-5)  # another order of sums


@pytest.mark.parametrize("layer", [0, -1])
def test_layers_are_those_of_the_frozen_encoder(encoder: ViTEncoder, layer: int) -> None:
    clip = wave(12_000)
    logmel = LogMel(**tiny.FRONT_END)(torch.from_numpy(clip))[None]
    pieces = encoder.net.pieces(logmel)
    expected = torch.cat([encoder.net.columns(piece, layer=layer)[0] for piece in pieces])  # (n, D)
    ours = encoder.embed(clip, sample_rate=16000, layer=layer, frames=True)
    np.testing.assert_allclose(ours.embeddings, expected, rtol=0, atol=1e-5)
    pooled = encoder.embed(clip, sample_rate=16000, layer=layer)
    np.testing.assert_allclose(pooled, expected.mean(dim=0), rtol=0, atol=1e-5)


# ---------------------------------------------------------------------------------- together


@pytest.mark.parametrize("batch_size", [1, 3, 16])
@pytest.mark.parametrize("reflect", [0, 200])
def test_clips_of_any_lengths_together_are_each_alone(batch_size: int, reflect: int) -> None:
    """Piece by piece to the bit."""
    close = CLOSE if batch_size > 1 else {"rtol": 0, "atol": 0}
    encoder = small(reflect=reflect)
    clips = [wave(length, seed=i) for i, length in enumerate(LENGTHS)]
    ours = encoder.embed(clips, sample_rate=16000, batch_size=batch_size)
    options = {"sample_rate": 16000, "batch_size": 1}
    alone = torch.stack([encoder.embed(clip, **options) for clip in clips])
    assert ours.shape == (len(LENGTHS), encoder.width)
    np.testing.assert_allclose(ours, alone, **close)
    over_time = encoder.embed(clips, sample_rate=16000, frames=True, batch_size=batch_size)
    for found, clip in zip(over_time, clips, strict=True):
        single = encoder.embed(clip, **options, frames=True)
        np.testing.assert_allclose(found.embeddings, single.embeddings, **close)
        assert torch.equal(found.times, single.times) and (found.times.diff() > 0).all()


def test_a_file_is_the_array_of_its_samples(encoder: ViTEncoder, tmp_path: Path) -> None:
    for rate in (16000, 22050):
        clip = wave(40_000)
        path = write(tmp_path / "a.wav", clip, rate)
        ours = encoder.embed(path)
        assert torch.equal(ours, encoder.embed(clip, sample_rate=rate))
        assert torch.equal(ours, encoder.embed(str(path)))
        assert torch.equal(ours, encoder.embed(torch.from_numpy(clip), sample_rate=rate))


def test_a_folder_gives_a_dictionary_by_path(encoder: ViTEncoder, tmp_path: Path) -> None:
    (tmp_path / "b" / "deep").mkdir(parents=True)
    names = ["a.wav", "b/deep/c.FLAC", "b/d.ogg"]
    for i, name in enumerate(names):
        soundfile.write(tmp_path / name, wave(3000, seed=i), 16000)
    (tmp_path / "notes.txt").write_text("not audio")
    (tmp_path / "folder.wav").mkdir()
    assert list_audio(tmp_path) == sorted(names)
    ours = encoder.embed(tmp_path)
    assert list(ours) == sorted(names)
    for name, embedding in ours.items():
        np.testing.assert_allclose(embedding, encoder.embed(tmp_path / name), **CLOSE)
    over_time = encoder.embed(str(tmp_path), frames=True)
    assert all(isinstance(each, Frames) for each in over_time.values())
    with pytest.raises(ValueError, match=r"no audio files; looked for \.wav, \.flac"):
        encoder.embed(tmp_path / "folder.wav")


def test_lists_of_every_kind(encoder: ViTEncoder, tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", wave(3000))
    one = encoder.embed(path)
    assert encoder.embed([]).shape == (0, encoder.width)
    assert encoder.embed([], frames=True) == []
    for several in ([path], (str(path),), iter([path]), tmp_path.glob("*.wav")):
        assert torch.equal(encoder.embed(several), one[None])


def test_an_embedding_may_go_into_a_network_that_is_trained(encoder: ViTEncoder) -> None:
    embeddings = encoder.embed([wave(3000)], sample_rate=16000)
    single = encoder.embed(wave(3000), sample_rate=16000)
    probe = torch.nn.Linear(encoder.width, 2)
    (probe(embeddings).sum() + probe(single).sum()).backward()
    np.testing.assert_allclose(probe.weight.grad[0], 2 * single, **CLOSE)


# -------------------------------------------------------------------------------------- times


def test_times_of_the_papers_sizes() -> None:
    model = tiny.run(model=MODEL).model
    net = AudioEncoder(model, noise.FRONT_END, mean=-8.0, std=4.0)
    encoder = ViTEncoder(net)
    found = encoder.embed(wave(16000 * 13), sample_rate=16000, frames=True)
    # 16 frames of 10 ms a column: its middle is 7.5 hops after the first window's, at 12.5 ms.
    # A piece has 608 frames, so the second goes on where the first ends.
    expected = 0.0875 + 0.16 * np.arange(82)
    expected[-1] = 1296.5 * 0.01 + 0.0125  # the last two of the 1298 frames have one of their own
    np.testing.assert_allclose(found.times, expected, rtol=0, atol=1e-9)
    assert found.times.dtype == torch.float64 and found.embeddings.shape == (82, 5 * 16)


@pytest.mark.parametrize("length", LENGTHS)
def test_the_mean_of_the_frames_is_the_embedding(encoder: ViTEncoder, length: int) -> None:
    clip = wave(length)
    found = encoder.embed(clip, sample_rate=16000, frames=True)
    assert len(found.embeddings) == len(found.times)
    ours = encoder.embed(clip, sample_rate=16000)
    np.testing.assert_allclose(found.embeddings.mean(dim=0), ours, **CLOSE)


def test_reflection_moves_the_times_to_the_clips_own_start() -> None:
    plain, centred = small(), small(reflect=200)
    clip = wave(16000)
    before = plain.embed(clip, sample_rate=16000, frames=True)
    after = centred.embed(clip, sample_rate=16000, frames=True)
    assert float(before.times[0] - after.times[0]) == pytest.approx(200 / 16000, abs=1e-9)
    padded = plain.embed(np.pad(clip, 200, mode="reflect"), sample_rate=16000, frames=True)
    assert torch.equal(after.embeddings, padded.embeddings)


# -------------------------------------------------------------------------------------- errors


def test_bad_arguments_say_what_is_allowed(encoder: ViTEncoder, tmp_path: Path) -> None:
    """What is wrong with a waveform or a file: tests/audio/test_chunking.py."""
    clip = wave(3000)
    (tmp_path / "text.wav").write_text("no sound at all")
    for source, options, match in (
        (clip, {"layer": 2}, "layer: got 2, allowed: -2 to 1"),
        (clip, {"batch_size": 0}, "batch_size: got 0, allowed: 1 or more"),
        (5, {}, "audio: got int, allowed: a file, a waveform, a list"),
        ("", {}, 'audio: got "", allowed: a file'),
        ([clip, clip * np.nan], {"sample_rate": 16000}, "NaN"),
        (tmp_path, {}, r"text\.wav: not audio"),
    ):
        with pytest.raises(ValueError, match=match):
            encoder.embed(source, **options)
    with pytest.raises(FileNotFoundError, match=r"none\.wav: no such file"):
        encoder.embed(tmp_path / "none.wav")


# ----------------------------------------------------------------------------- precision, memory


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_is_close_and_comes_as_float32(precision: str) -> None:
    encoder, clip = small(), wave(16000)
    exact = encoder.embed(clip, sample_rate=16000)
    encoder.precision = precision
    ours = encoder.embed(clip, sample_rate=16000)
    assert ours.dtype == torch.float32
    difference = (ours - exact).abs().max()
    assert 0 < difference < 0.1 * exact.std()  # bfloat16 keeps 8 bits; it is a few per cent off


LONG = """
import resource, sys
from matpac.encoders.hub import Pretrained
encoder = Pretrained.from_pretrained(sys.argv[1])
encoder.embed(sys.argv[2])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
embedding = encoder.embed(sys.argv[3])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, float(embedding.std()))
"""


def test_a_long_file_needs_no_more_memory_than_a_short_one(tmp_path: Path) -> None:
    """20 minutes are 77 MB as float32, and their tokens more."""
    torch.manual_seed(0)
    student = Student(tiny.run(model={"crop_frames": 608}).model, 16)
    save_encoder(frozen(student, tiny.FRONT_END, mean=-8.0, std=4.0), tmp_path / "encoder")
    for name, minutes in (("short", 2), ("long", 20)):
        soundfile.write(tmp_path / f"{name}.wav", np.tile(wave(960_000), minutes), 16000)
    paths = [str(tmp_path / name) for name in ("encoder", "short.wav", "long.wav")]
    kib, std = map(float, command.code(LONG, *paths).split())
    (tmp_path / "long.wav").unlink()  # pytest keeps its folders for a while
    assert std > 0
    assert kib < 50 * 1024  # the allocator's own play
