"""`matpac embed`: a folder of audio as a table of embeddings."""

import os
from importlib.metadata import version
from pathlib import Path

import encoder_checks
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import soundfile
import torch

import matpac
from matpac.cli import embed
from matpac.encoders.frozen import AudioEncoder, save_encoder
from matpac.encoders.vit import ViTEncoder
from matpac.probing.identity import identity

import command

CLOSE = {"rtol": 0, "atol": 1e-6}
"""Batches of other sizes sum in another order; embeddings are of order 1."""
LENGTHS = {"a.wav": 9000, "b/c.flac": 400, "b/d.ogg": 20_000, "b/e.wav": 5360, "f.wav": 9000}


@pytest.fixture(scope="module")
def net() -> AudioEncoder:
    return encoder_checks.tiny_net()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Good files, and three of the bad ones that there are."""
    random = np.random.default_rng(0)
    folder = tmp_path / "sounds"
    (folder / "b").mkdir(parents=True)
    for name, length in LENGTHS.items():
        soundfile.write(folder / name, random.normal(0, 0.1, length), 16000)
    (folder / "b" / "text.wav").write_text("no sound at all")
    (folder / "cut.wav").write_bytes((folder / "a.wav").read_bytes()[:-100])
    soundfile.write(folder / "short.wav", np.zeros(160), 16000)
    (folder / "readme.txt").write_text("not audio")
    return folder


def run(*arguments: object) -> int:
    return command.matpac("embed", *arguments)


def test_one_row_per_file_with_its_embedding_or_the_reason(
    net: AudioEncoder, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_encoder(net, tmp_path / "encoder")
    out = tmp_path / "new" / "embeddings.parquet"
    assert run(folder, "-o", out, "--encoder", tmp_path / "encoder", "--batch-size", 2) == 0
    table = pd.read_parquet(out)
    assert list(table) == ["path", "problem", "embedding"]
    bad = ["b/text.wav", "cut.wav", "short.wav"]
    assert table["path"].tolist() == sorted([*LENGTHS, *bad])
    table = table.set_index("path")
    assert table.index[table["problem"] != ""].tolist() == bad
    assert table["problem"]["b/text.wav"].startswith("not audio")
    assert table["problem"]["cut.wav"] == "truncated: the last 100 bytes are missing"
    assert table["problem"]["short.wav"] == "got 0.01 s, allowed: at least 0.025 s"
    assert table["embedding"][bad].isna().all()
    encoder = ViTEncoder(net)
    for name in LENGTHS:
        assert table["embedding"][name].dtype == np.float32
        np.testing.assert_allclose(table["embedding"][name], encoder.embed(folder / name), **CLOSE)
    told = capsys.readouterr()
    assert told.out == f"{out}: 5 files\n"
    assert "3 of 8 files could not be read:\n  b/text.wav: not audio" in told.err
    assert [p.name for p in out.parent.iterdir()] == ["embeddings.parquet"]


def test_frames_are_rows_with_their_times(net: AudioEncoder, folder: Path, tmp_path: Path) -> None:
    encoder, out = ViTEncoder(net), tmp_path / "frames.parquet"
    found = embed.embed_folder(encoder, folder, out, frames=True, layer=0)
    assert found.num_files == 8 and list(found.problems) == ["b/text.wav", "cut.wav", "short.wav"]
    table = pd.read_parquet(out)
    assert list(table) == ["path", "time_s", "problem", "embedding"]
    assert table["path"].is_monotonic_increasing
    for name in LENGTHS:
        expected = encoder.embed(folder / name, frames=True, layer=0)
        rows = table[table["path"] == name]
        np.testing.assert_array_equal(rows["time_s"], expected.times)
        np.testing.assert_allclose(np.stack(rows["embedding"]), expected.embeddings, **CLOSE)
    bad = table[table["problem"] != ""]
    assert bad["path"].tolist() == list(found.problems)
    assert bad[["time_s", "embedding"]].isna().all(axis=None)


def test_the_table_says_what_made_it(net: AudioEncoder, folder: Path, tmp_path: Path) -> None:
    save_encoder(net, tmp_path / "encoder")
    out = tmp_path / "embeddings.parquet"
    options = ["--layer", "-2", "--precision", "bfloat16", "--device", "cpu"]
    assert run(folder, "-o", out, "--encoder", tmp_path / "encoder", *options) == 0
    schema = pq.read_schema(out)
    found = {name.decode(): value.decode() for name, value in schema.metadata.items()}
    assert found | {"ARROW:schema": ""} == {
        "ARROW:schema": "",
        "encoder": str(tmp_path / "encoder"),
        "identity": identity(matpac.load(tmp_path / "encoder", precision="bfloat16")),
        "layer": "0",
        "num_layers": "2",
        "width": "32",
        "sample_rate": "16000",
        "precision": "bfloat16",
        "matpac_version": version("matpac"),
    }
    assert str(schema.field("embedding").type).startswith("list<element: float")


def test_rows_are_written_as_the_work_goes_on(
    net: AudioEncoder, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same table from row groups of three rows, and pieces encoded one by one."""
    encoder = ViTEncoder(net)
    embed.embed_folder(encoder, folder, tmp_path / "one.parquet", frames=True)
    monkeypatch.setattr(embed, "ROW_GROUP_VALUES", 3 * 32)
    embed.embed_folder(encoder, folder, tmp_path / "many.parquet", frames=True, batch_size=1)
    one, many = (pd.read_parquet(tmp_path / f"{name}.parquet") for name in ("one", "many"))
    written = pq.ParquetFile(tmp_path / "many.parquet").metadata
    sizes = [written.row_group(i).num_rows for i in range(written.num_row_groups)]
    assert sizes[:-1] == [3] * (len(one) // 3)
    pd.testing.assert_frame_equal(one.drop(columns="embedding"), many.drop(columns="embedding"))
    for ours, theirs in zip(many["embedding"], one["embedding"], strict=True):
        assert (ours is None) == (theirs is None)
        if ours is not None:
            np.testing.assert_allclose(ours, theirs, **CLOSE)


class Failing(ViTEncoder):
    """Runs out of memory at the third piece."""

    left = 2

    def columns(self, waves: torch.Tensor, *, layer: int = -1) -> torch.Tensor:
        self.left -= 1
        if self.left < 0:
            raise RuntimeError("out of memory")
        return super().columns(waves, layer=layer)


def test_an_older_table_stays_until_the_new_one_is_complete(
    net: AudioEncoder, folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "embeddings.parquet"
    out.write_text("older")
    with pytest.raises(RuntimeError, match="out of memory"):
        embed.embed_folder(Failing(net), folder, out, batch_size=1)
    assert out.read_text() == "older"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["embeddings.parquet", "sounds"]


def test_nothing_readable_is_an_error(
    net: AudioEncoder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_encoder(net, tmp_path / "encoder")
    (tmp_path / "sounds").mkdir()
    for i in range(7):
        (tmp_path / "sounds" / f"{i}.wav").write_text("no sound at all")
    out = tmp_path / "embeddings.parquet"
    assert run(tmp_path / "sounds", "-o", out, "--encoder", tmp_path / "encoder") == 1
    told = capsys.readouterr().err
    assert "nothing could be read\n  0.wav: not audio" in told and "and 2 more" in told
    assert not out.exists()


def test_what_is_asked_for_has_to_exist(
    net: AudioEncoder, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_encoder(net, tmp_path / "encoder")
    (tmp_path / "empty").mkdir()
    (tmp_path / "folder.parquet").mkdir()
    (tmp_path / "file").touch()
    out, encoder = tmp_path / "e.parquet", ("--encoder", tmp_path / "encoder")
    cases = [
        ((folder, "-o", tmp_path / "e.csv", *encoder), "allowed: a name that ends in .parquet"),
        ((folder, "-o", tmp_path / "folder.parquet", *encoder), "a folder, allowed: a file"),
        ((tmp_path / "no", "-o", out, *encoder), "no: no such folder"),
        ((tmp_path / "file", "-o", out, *encoder), "file: is a file; give its folder"),
        ((tmp_path / "empty", "-o", out, *encoder), "no audio files"),
        ((folder, "-o", out), "encoder: missing"),
        ((folder, "-o", out, "--encoder", "nowhere"), "nowhere: no such folder"),
        ((folder, "-o", out, *encoder, "--layer", 2), "layer: got 2, allowed: -2 to 1"),
        ((folder, "-o", out, *encoder, "--batch-size", 0), "batch_size: got 0"),
        ((folder, "-o", out, *encoder, "--weights", "w.pt"), "brings its own"),
        ((folder, "-o", tmp_path / "file" / "e.parquet", *encoder), str(tmp_path / "file")),
    ]
    for arguments, message in cases:
        assert run(*arguments) == 1
        assert message in capsys.readouterr().err
        assert not out.exists()


def test_a_name_in_another_encoding_stops_no_other(net: AudioEncoder, tmp_path: Path) -> None:
    """libsndfile is given UTF-8 names only: such a file is listed, its name as far as it goes."""
    sounds = tmp_path / "sounds"
    sounds.mkdir()
    soundfile.write(sounds / "a.wav", np.zeros(5000), 16000)
    odd = Path(os.fsdecode(os.fsencode(sounds) + b"/caf\xe9.wav"))
    try:
        odd.write_bytes((sounds / "a.wav").read_bytes())
    except OSError:
        pytest.skip("this file system takes UTF-8 only")
    embed.embed_folder(ViTEncoder(net), sounds, tmp_path / "e.parquet")
    table = pd.read_parquet(tmp_path / "e.parquet")
    assert table["path"].tolist() == ["a.wav", "caf\ufffd.wav"]
    assert table["problem"][0] == "" and table["embedding"][0] is not None
    assert "surrogates not allowed" in table["problem"][1]
