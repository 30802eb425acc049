"""Weights of published rows: fetched once, from hosts, mirrors or the user."""

import zipfile
from dataclasses import replace
from pathlib import Path

import hosts
import pytest
import torch

from matpac import encoders
from matpac.data.catalogue import Archive, File, Source
from matpac.encoders import published, vit, weights
from matpac.encoders.published import Row


def row(file: File, kind: str = "file", member: str = "") -> Row:
    archive = Archive(file.name, kind, (file,), unpacked_bytes=1_000_000)
    source = Source("X", "https://example.org/x", "MIT", "Nobody", (archive,), "Ask the authors.")
    return Row("vit", source, width=3, member=member)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MATPAC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("MATPAC_PROGRESS", "silent")
    monkeypatch.setenv("MATPAC_ROOT", str(tmp_path))
    return tmp_path / "cache"


def test_a_file_is_fetched_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with hosts.serving(b"the weights") as host:
        file = File("x.pt", (f"{host.address}/x.pt",), num_bytes=11)
        monkeypatch.setitem(published.ROWS, "x", row(file))
        for _ in range(2):
            path = weights.obtain("x")
            assert path == cache / "x/x.pt" and path.read_bytes() == b"the weights"
        assert len(host.asked) == 1
    assert [p.name for p in cache.rglob("*.pt")] == ["x.pt"], "the download is not kept twice"


def test_a_member_of_a_zip_from_a_mirror(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mirror").mkdir()
    with zipfile.ZipFile(tmp_path / "mirror/m.zip", "w") as archive:
        archive.writestr("m/checkpoint.pth", "inside")
        archive.writestr("m/log.txt", "beside")
    monkeypatch.setitem(published.ROWS, "m", row(File("m.zip", ()), "zip", "m/checkpoint.pth"))
    path = weights.obtain("m", str(tmp_path / "mirror"))
    assert path == cache / "m/m/checkpoint.pth" and path.read_text() == "inside"
    monkeypatch.setitem(published.ROWS, "m", row(File("m.zip", ()), "zip", "m/other.pth"))
    with pytest.raises(FileNotFoundError, match=r"m: m\.zip holds no m/other\.pth"):
        weights.obtain("m", str(tmp_path / "mirror"))


def test_what_to_do_without_an_address(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(published.ROWS, "x", row(File("x.pt", ())))
    with pytest.raises(FileNotFoundError) as error:
        encoders.make("x")
    told = str(error.value)
    assert told.startswith("x: x.pt cannot be downloaded\n") and "Ask the authors." in told
    assert f"Put x.pt into {cache}/x/archives and run this again; or give its path: weights" in told
    with pytest.raises(
        FileNotFoundError, match=r"x: no weights at .*/gone\.pt; they come from htt"
    ):
        encoders.make("x", cache / "gone.pt")


def test_a_wrong_checksum_is_refused(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with hosts.serving(b"other weights") as host:
        file = File("x.pt", (f"{host.address}/x.pt",), checksums=(f"sha256:{'0' * 64}",))
        monkeypatch.setitem(published.ROWS, "x", row(file))
        with pytest.raises(FileNotFoundError, match="0000"):
            weights.obtain("x")
    assert not list(cache.rglob("x.pt"))


def test_fetched_weights_make_the_encoder(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A small ViT in the released naming, through the whole way."""
    sizes = {"encoder_width": 32, "encoder_depth": 1, "encoder_heads": 2}
    torch.manual_seed(0)
    made = vit.make(None, **sizes)
    source = cache.parent / "x.pt"
    torch.save(_published(made), source)
    with hosts.serving(source.read_bytes()) as host:
        file = File("x.pt", (f"{host.address}/x.pt",))
        monkeypatch.setitem(published.ROWS, "x", replace(row(file), options=sizes))
        ours = encoders.make("x")
    wave = torch.linspace(-1, 1, 20_000)
    expected = made.embed(wave, sample_rate=16000)
    assert torch.equal(ours.embed(wave, sample_rate=16000), expected)


def _published(encoder: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Its tensors under the released names."""
    state = encoder.net.state_dict()
    theirs = {"patches.cls_token": "cls_token", "patches.positions": "pos_embed"}
    named = {}
    for name, tensor in state.items():
        other = theirs.get(name) or name.replace("patches.proj", "patch_embed.proj")
        other = other.replace("encoder.", "student_encoder.") if other == name else other
        named[other] = tensor
    named["pos_embed"] = named["pos_embed"][None]
    weight = named["patch_embed.proj.weight"]
    named["patch_embed.proj.weight"] = weight.unflatten(1, (1, 16, 16))
    named["cls_token"] = named["cls_token"].reshape(1, 1, -1)
    return named
