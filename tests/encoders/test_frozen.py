"""Embeddings of whole clips."""

import json
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch

from matpac.encoders.frozen import AudioEncoder, frozen, load_encoder, save_encoder
from matpac.method.student import Student

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
    latents = encoder(logmel)  # (1, R, n, D)
    ours = latents.mean(dim=2).flatten(1)
    assert ours.shape == (1, encoder.width) == (1, 32)
    np.testing.assert_allclose(ours[0], expected, **CLOSE)
    of_pieces = (np.mean(columns[:4], axis=0) + np.mean(columns[4:], axis=0)) / 2
    assert np.abs(of_pieces - expected).max() > 1e-3  # the mean of piece means is another thing
    np.testing.assert_allclose(latents[0].transpose(0, 1).flatten(1), columns, **CLOSE)


def test_it_is_frozen_and_the_students_own(encoder: AudioEncoder, student: Student) -> None:
    assert not encoder.training and not any(p.requires_grad for p in encoder.parameters())
    for name, tensor in encoder.state_dict().items():
        assert torch.equal(tensor, student.state_dict()[name])
    memory = {p.data_ptr() for p in student.parameters()}
    assert not memory & {p.data_ptr() for p in encoder.parameters()}


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
