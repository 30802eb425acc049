"""`matpac similar`: the nearest sounds of a folder, or of its table."""

from pathlib import Path

import encoder_checks
import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile
import torch

import matpac
from matpac.encoders.frozen import save_encoder

import command


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six sounds of their own pitch and length and two bad files; an encoder; and a sound like one
    of the six, at another rate and with a little noise."""
    save_encoder(encoder_checks.tiny_net(), tmp_path / "encoder")
    (tmp_path / "sounds" / "b").mkdir(parents=True)
    random = np.random.default_rng(0)
    for n, name in enumerate(("a.wav", "b/c.flac", "d.wav", "e.ogg", "f.wav", "g.wav")):
        tone = np.sin(2 * np.pi * 200 * 1.7**n * np.arange(9000 + 500 * n) / 16000)
        wave = 0.2 * tone + random.normal(0, 0.02, len(tone))
        soundfile.write(tmp_path / "sounds" / name, wave, 16000)
        if name == "d.wav":
            soundfile.write(
                tmp_path / "like d.wav", wave + random.normal(0, 1e-3, len(wave)), 16000
            )
    (tmp_path / "sounds" / "text.wav").write_text("no sound at all")
    soundfile.write(tmp_path / "sounds" / "short.wav", np.zeros(160), 16000)
    return tmp_path


def run(folder: Path, among: str, *options: object, file: str = "like d.wav") -> int:
    return command.matpac("similar", folder / file, folder / among, *options)


def test_a_copy_with_a_little_noise_is_found_first_and_bad_files_are_named(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(folder, "sounds", "--encoder", folder / "encoder", "-n", 4) == 0
    told = capsys.readouterr()
    rows = [line.split(maxsplit=2) for line in told.out.splitlines()]
    assert [rank for rank, *_ in rows] == ["1", "2", "3", "4"]
    assert rows[0][2] == "d.wav" and float(rows[0][1]) > 0.99
    cosines = [float(cosine) for _, cosine, _ in rows]
    assert cosines == sorted(cosines, reverse=True)
    assert told.err.startswith("2 of 8 files could not be read:\n  short.wav: got 0.01 s")
    # The same by hand, in double.
    encoder = matpac.load(folder / "encoder", device="cpu")
    names = ["a.wav", "b/c.flac", "d.wav", "e.ogg", "f.wav", "g.wav"]
    every = torch.stack([encoder.embed(folder / "sounds" / name) for name in names]).double()
    mean, std = every.mean(dim=0), every.std(dim=0, correction=0)
    asked = (encoder.embed(folder / "like d.wav").double() - mean) / std
    expected = torch.cosine_similarity((every - mean) / std, asked[None])
    assert [path for *_, path in rows] == [names[i] for i in expected.argsort(descending=True)[:4]]
    np.testing.assert_allclose(cosines, expected.sort(descending=True)[0][:4], rtol=0, atol=6e-4)


def test_a_table_gives_what_its_folder_gives(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The table knows its encoder, layer and precision; the environment's encoder is not asked."""
    encoder = ("--encoder", folder / "encoder")
    assert command.matpac("embed", folder / "sounds", "-o", folder / "t.parquet", *encoder) == 0
    capsys.readouterr()
    monkeypatch.setenv("MATPAC_ENCODER", "nowhere")
    assert run(folder, "t.parquet") == 0
    of_table = capsys.readouterr()
    assert run(folder, "sounds", *encoder) == 0
    assert capsys.readouterr() == of_table
    assert len(of_table.out.splitlines()) == 6


def test_a_table_finds_its_encoder_from_elsewhere_and_after_a_move(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    assert command.matpac("embed", "sounds", "-o", "encoder/t.parquet", "--encoder", "encoder") == 0
    monkeypatch.chdir("sounds")
    assert run(folder, "encoder/t.parquet") == 0
    (folder / "encoder").rename(folder / "moved")
    assert run(folder, "moved/t.parquet") == 0
    (folder / "moved/t.parquet").rename(folder / "t.parquet")
    capsys.readouterr()
    assert run(folder, "t.parquet") == 1
    assert f"{folder / 't.parquet'}: its encoder is not where it was; give --encoder: {folder}" in (
        capsys.readouterr().err
    )
    assert run(folder, "t.parquet", "--encoder", folder / "moved") == 0


def test_a_sound_is_not_its_own_neighbour_but_its_copy_is(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    encoder = ("--encoder", folder / "encoder")
    (folder / "sounds" / "copy.wav").write_bytes((folder / "sounds" / "d.wav").read_bytes())
    assert command.matpac("embed", folder / "sounds", "-o", folder / "t.parquet", *encoder) == 0
    capsys.readouterr()
    for among, options in (("sounds", encoder), ("t.parquet", ())):
        assert run(folder, among, *options, "-n", 9, file="sounds/d.wav") == 0
        found = [line.split(maxsplit=2)[2] for line in capsys.readouterr().out.splitlines()]
        assert found[0] == "copy.wav" and len(found) == 6 and "d.wav" not in found
    # Another file of that name is another sound.
    (folder / "other").mkdir()
    (folder / "other" / "d.wav").write_bytes((folder / "sounds" / "a.wav").read_bytes())
    assert run(folder, "t.parquet", "-n", 9, file="other/d.wav") == 0
    assert len(capsys.readouterr().out.splitlines()) == 7


def test_a_table_of_another_encoder_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    encoder, table = folder / "encoder", folder / "t.parquet"
    assert command.matpac("embed", folder / "sounds", "-o", table, "--encoder", encoder) == 0
    other = encoder_checks.tiny_net()
    torch.nn.init.normal_(other.patches.cls_token)
    save_encoder(other, folder / "other")
    assert run(folder, "t.parquet", "--encoder", folder / "other") == 1
    assert f"got embeddings of {encoder}, which was not the same" in capsys.readouterr().err
    save_encoder(other, encoder)  # trained again, under the same name
    assert run(folder, "t.parquet") == 1
    assert "make the table again" in capsys.readouterr().err


def test_what_cannot_be_searched_is_one_clear_error(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    encoder = ("--encoder", folder / "encoder")
    frames = folder / "frames.parquet"
    assert command.matpac("embed", folder / "sounds", "-o", frames, "--frames", *encoder) == 0
    pq.write_table(pq.read_table(frames).replace_schema_metadata({}), folder / "bare.parquet")
    (folder / "no.parquet").write_text("no table")
    (folder / "one").mkdir()
    (folder / "one" / "a.wav").write_bytes((folder / "sounds" / "a.wav").read_bytes())
    capsys.readouterr()
    cases = [
        (("sounds", *encoder), "sounds/text.wav", "text.wav: not audio"),
        (("sounds", *encoder), "nowhere.wav", "nowhere.wav: no such file"),
        (("sounds", *encoder), "sounds", "sounds: got a folder, allowed here: one file"),
        (("nowhere", *encoder), "like d.wav", "nowhere: no such folder"),
        (("one", *encoder), "like d.wav", "one: got 1 sound to search in, needed: 2"),
        (("sounds",), "like d.wav", "encoder: missing"),
        (("frames.parquet",), "like d.wav", "without --frames"),
        (("bare.parquet",), "like d.wav", "whose metadata say encoder"),
        (("no.parquet",), "like d.wav", "no.parquet: "),
        (("gone.parquet",), "like d.wav", "gone.parquet: no such table; `matpac embed FOLDER"),
    ]
    for arguments, file, message in cases:
        assert run(folder, *arguments, file=file) == 1
        told = capsys.readouterr()
        assert message in told.err and not told.out and "Traceback" not in told.err
