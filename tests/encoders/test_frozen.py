"""Embeddings of whole clips."""

import json
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from torch.nn import functional as F

from matpac.encoders import pooling
from matpac.encoders.frozen import AudioEncoder, frames, frozen, load_encoder, save_encoder
from matpac.method.student import Student

LENGTHS = [32, 1, 45, 64, 33, 8, 100, 45, 31, 2000, 1, 96]  # a piece is 32 frames, a column 8
CLOSE = {"rtol": 0, "atol": 1e-5}  # float32 sums in another order; embeddings are of order 1


def clip(num_frames: int, seed: int = 0) -> torch.Tensor:
    """A log-mel, (1, F, T)."""
    values = np.random.default_rng(seed).normal(-8, 4, (1, 16, num_frames))
    return torch.from_numpy(values.astype(np.float16)).float()


@pytest.fixture(scope="module")
def student() -> Student:
    torch.manual_seed(0)
    student = Student(tiny.run().model, 16)
    for parameter in student.encoder.norm.parameters():
        torch.nn.init.normal_(parameter)
    return student


@pytest.fixture(scope="module")
def encoder(student: Student) -> AudioEncoder:
    return frozen(student, tiny.FRONT_END, mean=-8.0, std=4.0)


def test_an_embedding_is_the_mean_over_all_columns_of_all_pieces(
    encoder: AudioEncoder, student: Student
) -> None:
    """45 frames: a piece of 32 (4 columns) and one of 13, padded to 16 (2 columns)."""
    logmel = clip(45)
    normal = (logmel[0].numpy() + 8) / 4
    padded = np.pad(normal, ((0, 0), (0, 3)))
    columns = []
    for start, stop in ((0, 32), (32, 48)):
        piece = torch.from_numpy(padded[None, :, start:stop])
        with torch.no_grad():
            tokens = student.encoder(student.patches(piece))[0, 1:].numpy()
        num_columns = (stop - start) // 8
        low, high = tokens[:num_columns], tokens[num_columns:]  # band 0, band 1
        columns += [np.concatenate([low[c], high[c]]) for c in range(num_columns)]
    assert len(columns) == 6
    expected = np.mean(columns, axis=0)
    ours = encoder.embed(logmel)
    assert ours.shape == (1, encoder.width) == (1, 32)
    np.testing.assert_allclose(ours[0], expected, **CLOSE)
    of_pieces = (np.mean(columns[:4], axis=0) + np.mean(columns[4:], axis=0)) / 2
    assert np.abs(of_pieces - expected).max() > 1e-3  # the mean of piece means is another thing
    np.testing.assert_allclose(frames(encoder(logmel))[0, -1], columns, **CLOSE)


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_clips_of_any_lengths_together_are_each_alone(
    encoder: AudioEncoder, batch_size: int
) -> None:
    clips = [clip(n, seed) for seed, n in enumerate(LENGTHS)]
    pieces = [[piece[0] for piece in encoder.pieces(each)] for each in clips]
    ours = [
        pooling.mean(p) for p in pooling.encoded(pieces, encoder.columns, batch_size=batch_size)
    ]
    alone = torch.cat([encoder.embed(each) for each in clips])
    torch.testing.assert_close(torch.stack(ours), alone, **CLOSE)


def test_a_layer_is_that_of_all_layers(encoder: AudioEncoder) -> None:
    logmel = clip(29)
    every = frames(encoder(logmel))  # (B, L, n, R * D)
    for layer in (0, 1, -2, -1):
        torch.testing.assert_close(encoder.columns(logmel, layer=layer), every[:, layer], **CLOSE)
    assert (every[:, 0] - every[:, 1]).abs().max() > 0.1


def test_padding_is_zero_after_normalisation(encoder: AudioEncoder) -> None:
    short = clip(13)
    filled = F.pad(short, (0, 3), value=-8)  # the mean, not silence
    torch.testing.assert_close(encoder.embed(short), encoder.embed(filled), **CLOSE)


def test_it_is_frozen_and_the_students_own(encoder: AudioEncoder, student: Student) -> None:
    assert not encoder.training and not any(p.requires_grad for p in encoder.parameters())
    for name, tensor in encoder.state_dict().items():
        assert torch.equal(tensor, student.state_dict()[name])
    memory = {p.data_ptr() for p in student.parameters()}
    assert not memory & {p.data_ptr() for p in encoder.parameters()}


def test_saving_and_loading_is_exact(encoder: AudioEncoder, tmp_path: Path) -> None:
    folder = tmp_path / "new" / "encoder"
    save_encoder(encoder, folder)
    loaded = load_encoder(folder)
    assert sorted(p.name for p in folder.iterdir()) == ["config.json", "model.safetensors"]
    modes = {p.stat().st_mode for p in folder.iterdir()}
    assert len(modes) == 1, "who may read one may read the other"
    assert (loaded.mean, loaded.std, loaded.front_end) == (-8.0, 4.0, tiny.FRONT_END)
    assert loaded.config == encoder.config and not loaded.training
    logmel = clip(77)
    assert torch.equal(loaded.embed(logmel), encoder.embed(logmel))
    before = [path.read_bytes() for path in sorted(folder.iterdir())]
    save_encoder(loaded, folder)
    assert before == [path.read_bytes() for path in sorted(folder.iterdir())]


def test_learned_positions_are_saved(tmp_path: Path) -> None:
    student = Student(tiny.run(model={"positions": "learned"}).model, 16)
    student.patches.positions.data += 1
    save_encoder(frozen(student, tiny.FRONT_END, mean=0.0, std=1.0), tmp_path)
    loaded = load_encoder(tmp_path)
    assert torch.equal(loaded.patches.positions, student.patches.positions)


def test_a_missing_encoder_names_the_stage(encoder: AudioEncoder, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"model\.safetensors: .* the pretrain stage"):
        load_encoder(tmp_path)
    save_encoder(encoder, tmp_path)
    (tmp_path / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"config\.json"):
        load_encoder(tmp_path)
    described = {"model": {}, "front_end": {}, "mean": "-7.056", "std": 4.2}
    (tmp_path / "config.json").write_text(json.dumps(described))
    with pytest.raises(ValueError, match=r"(?s)config\.json:\n.*  mean: .*got '-7\.056'"):
        load_encoder(tmp_path)
    (tmp_path / "config.json").write_text('{"hidden_size": 768}')
    with pytest.raises(
        ValueError, match=r"config\.json:\n  model: missing\n  front_end: missing\n"
    ):
        load_encoder(tmp_path)
