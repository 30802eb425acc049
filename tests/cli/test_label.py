"""`matpac label`: a folder of audio as a table of labels."""

from pathlib import Path

import encoder_checks
import numpy as np
import pandas as pd
import pytest
import soundfile
import torch

import matpac
from matpac.cli.label import label_folder
from matpac.encoders.frozen import save_encoder
from matpac.encoders.heads import Head

import command


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two sounds, a file that is none, and an encoder of theirs with a head."""
    net = encoder_checks.tiny_net()
    save_encoder(net, tmp_path / "encoder")
    names, ones = ("hum", "hiss", "click"), torch.ones(net.width)
    head = Head(names, torch.randn(3, net.width), torch.zeros(3), 0 * ones, ones, "sigmoid")
    head.save(tmp_path / "encoder" / "heads" / "made.safetensors")
    sounds = tmp_path / "sounds"
    (sounds / "b").mkdir(parents=True)
    for n, name in enumerate(("a.wav", "b/c.flac")):
        soundfile.write(sounds / name, 0.1 * np.random.default_rng(n).normal(size=9000), 16000)
    (sounds / "bad.wav").write_bytes(b"no sound")
    return tmp_path


def table(folder: Path, *options: object) -> pd.DataFrame:
    out = folder / "labels.parquet"
    base = ["label", folder / "sounds", "-o", out, "--encoder", folder / "encoder"]
    assert command.matpac(*base, *options) == 0
    return pd.read_parquet(out)


def test_a_row_per_file_with_its_labels_or_the_reason(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = table(folder, "--top", 2)
    encoder = matpac.load(folder / "encoder")
    assert rows["path"].tolist() == ["a.wav", "b/c.flac", "bad.wav"]
    assert rows["problem"].astype(bool).tolist() == [False, False, True]
    for row in rows[:2].itertuples():
        expected = encoder.label(folder / "sounds" / row.path, top=2)
        assert list(row.labels) == list(expected) and len(expected) == 2
        assert list(row.probabilities) == pytest.approx(list(expected.values()), abs=1e-6)
    assert len(rows["labels"][2]) == 0 and "1 of 3 files" in capsys.readouterr().err


def test_over_time_and_by_another_head(folder: Path) -> None:
    rows = table(folder, "--frames", "--head", "made")
    expected = matpac.load(folder / "encoder").label(folder / "sounds/a.wav", frames=True)
    ours = rows[rows["path"] == "a.wav"]
    assert ours["time_s"].tolist() == [time_s for time_s, _ in expected]
    assert [list(labels) for labels in ours["labels"]] == [list(labels) for _, labels in expected]
    (folder / "encoder/heads/made.safetensors").rename(folder / "other.safetensors")
    alone = table(folder, "--head", folder / "other.safetensors", "--activation", "softmax")
    assert np.sum(alone["probabilities"][0]) == pytest.approx(1)


def test_what_cannot_be_written_is_known_before_the_work(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("matpac.cli.label.rows", lambda *_, **__: pytest.fail("it has begun"))
    out = folder / "sounds/bad.wav/x.parquet"
    with pytest.raises(OSError, match=r"bad\.wav"):
        label_folder(matpac.load(folder / "encoder"), folder / "sounds", out)


def test_errors_write_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = ["label", folder / "sounds", "--encoder", folder / "encoder", "-o"]
    for options, said in (
        ([folder / "x.csv"], "allowed: a name that ends in .parquet"),
        ([folder / "x.parquet", "--head", "none.safetensors"], "none.safetensors: no such head"),
    ):
        assert command.matpac(*base, *options) == 1
        assert said in capsys.readouterr().err
    assert not list(folder.glob("x.*"))


def test_an_encoder_without_labels_says_so(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    encoder = ("--encoder", folder / "encoder")
    options = (folder / "sounds", "-o", folder / "x.parquet", *encoder)
    assert command.matpac("label", *options, "--head", "maid") == 1
    assert f"heads of {folder / 'encoder'}: made" in capsys.readouterr().err
    (folder / "encoder/heads/made.safetensors").unlink()
    assert command.matpac("label", *options) == 1
    said = capsys.readouterr().err
    assert "--head is missing" in said and "none; `--encoder mini` has some" in said
    assert not (folder / "x.parquet").exists()
