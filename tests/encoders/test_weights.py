"""Weights of published rows: fetched once, from hosts, mirrors or the user."""

import zipfile
from dataclasses import replace
from pathlib import Path

import encoder_checks
import hosts
import pytest
import torch

from matpac.data.catalogue import File
from matpac.encoders import published, vit, weights
from matpac.encoders.published import Row


def row(file: File, member: str = "") -> Row:
    return Row("X", "vit", 3, "https://example.org/x", "MIT", "Nobody", file, member=member)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MATPAC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("MATPAC_ROOT", str(tmp_path))
    return tmp_path / "cache"


def test_a_file_is_fetched_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with hosts.serving(b"PK weights ") as host:
        file = File("x.pt", (f"{host.address}/x.pt",), num_bytes=11)
        monkeypatch.setitem(published.ROWS, "x", row(file))
        for _ in range(2):
            path = weights.obtain("x")
            assert path == cache / "x/x.pt" and path.read_bytes() == b"PK weights "
        assert len(host.asked) == 1
    assert [p.name for p in cache.rglob("*.pt")] == ["x.pt"], "the download is not kept twice"


def test_a_member_of_a_zip_from_a_mirror(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mirror").mkdir()
    with zipfile.ZipFile(tmp_path / "mirror/m.zip", "w") as archive:
        archive.writestr("m/checkpoint.pth", "inside")
        archive.writestr("m/log.txt", "beside")
    monkeypatch.setitem(published.ROWS, "m", row(File("m.zip", ()), "m/checkpoint.pth"))
    path = weights.obtain("m", str(tmp_path / "mirror"))
    assert path == cache / "m/m/checkpoint.pth" and path.read_text() == "inside"
    monkeypatch.setitem(published.ROWS, "m", row(File("m.zip", ()), "m/other.pth"))
    with pytest.raises(FileNotFoundError, match=r"m: m\.zip holds no m/other\.pth"):
        weights.obtain("m", str(tmp_path / "mirror"))


def test_what_to_do_without_an_address(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(published.ROWS, "x", row(File("x.pt", ())))
    with pytest.raises(FileNotFoundError) as error:
        weights.make("x")
    told = str(error.value)
    assert (
        told.startswith("x: x.pt cannot be downloaded\n")
        and "Download x.pt from the page of X." in told
    )
    assert f"Put x.pt into {cache}/x/archives and run this again; or give its path: weights" in told
    with pytest.raises(
        FileNotFoundError, match=r"x: no weights at .*/gone\.pt; they come from htt"
    ):
        weights.make("x", cache / "gone.pt")


def test_a_wrong_checksum_is_refused(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with hosts.serving(b"other weights") as host:
        file = File("x.pt", (f"{host.address}/x.pt",), checksums=(f"sha256:{'0' * 64}",))
        monkeypatch.setitem(published.ROWS, "x", row(file))
        with pytest.raises(FileNotFoundError, match="0000"):
            weights.obtain("x")
    assert not list(cache.rglob("x.pt"))


def test_fetched_weights_make_the_encoder(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A small ViT in the released naming, through the whole way; what is none is not kept."""
    sizes = {"encoder_width": 32, "encoder_depth": 1, "encoder_heads": 2}
    torch.manual_seed(0)
    made = vit.make(None, **sizes)
    source = cache.parent / "x.pt"
    torch.save(encoder_checks.released(made.net), source)
    with hosts.serving(b"<html>Log in</html>") as host:
        file = File("x.pt", (f"{host.address}/x.pt",))
        monkeypatch.setitem(published.ROWS, "x", replace(row(file), options=sizes))
        with pytest.raises(FileNotFoundError, match=r"no \.pt file"):
            weights.make("x")
        host.content = source.read_bytes()[:-1000]  # found out when it is read
        with pytest.raises(ValueError, match=r"x\.pt"):
            weights.make("x")
        host.content = source.read_bytes()
        ours = weights.make("x")
    wave = torch.linspace(-1, 1, 20_000)
    expected = made.embed(wave, sample_rate=16000)
    assert torch.equal(ours.embed(wave, sample_rate=16000), expected)
