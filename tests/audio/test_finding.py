"""Which files of a folder are its audio: the same ones for every route."""

import os
from pathlib import Path

import pytest

from matpac.audio import finding
from matpac.core.parallel import Workers
from matpac.data.folders import plain_manifest
from matpac.encoders.interface import list_audio


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Audio of many extensions, links of every kind, and what file managers leave."""
    root = tmp_path / "set"
    for name in ("b.WAV", "deep/er/c.opus", "deep/d.oga", "._b.wav", ".hidden/e.wav", "f.m4a"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    for name in ("g.m4a", "notes.txt", "README", "h.aifc", "i.wave", "j.rf64"):
        (root / name).write_bytes(b"x")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/k.flac").write_bytes(b"x")
    (root / "a_link").symlink_to(tmp_path / "elsewhere")
    (root / "another").symlink_to(tmp_path / "elsewhere")  # to the same
    (root / "a_deep").symlink_to(root / "deep")  # to a folder that has a name of its own here
    (root / "deep/up").symlink_to(root)  # round and round
    (root / "self.wav").symlink_to(root / "self.wav")
    (root / "gone.wav").symlink_to(tmp_path / "nowhere.wav")
    (root / "l.wav").symlink_to(tmp_path / "elsewhere/k.flac")
    return root


NAMES = [
    "a_link/k.flac", "b.WAV", "deep/d.oga", "deep/er/c.opus", "gone.wav", "h.aifc", "i.wave",
    "j.rf64", "l.wav", "self.wav",
]  # fmt: skip


def test_links_are_followed_once_and_hidden_files_passed_over(folder: Path) -> None:
    told = "files of other extensions: 2 .m4a, 1 without, 1 .txt"
    assert finding.audio_files(folder) == (NAMES, told)
    assert sorted(finding.walk(folder)) == sorted([*NAMES, "README", "f.m4a", "g.m4a", "notes.txt"])


def test_of_many_extensions_the_most_frequent_are_named(tmp_path: Path) -> None:
    others = {".txt": 9, ".mid": 5, ".m4a": 4, "": 3, ".png": 2, ".pdf": 1}
    for name in (f"{n}{kind}" for kind, number in others.items() for n in range(number)):
        (tmp_path / name).touch()
    told = "files of other extensions: 9 .txt, 5 .mid, 4 .m4a, 3 without, 3 more"
    assert finding.audio_files(tmp_path) == ([], told)


def test_every_route_sees_the_same_files(folder: Path, tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match=r"set: left out: files of other extensions: 2 \.m4a, 1"):
        assert list_audio(folder) == NAMES
    workers = Workers(1, preload="matpac.data.audit")
    place = {"relative_to": folder, "cache": tmp_path / "cache", "workers": workers}
    manifest, info = plain_manifest("set", folders=[folder], **place)
    assert manifest["path"].tolist() == NAMES
    assert info["left_out"] == {str(folder): "files of other extensions: 2 .m4a, 1 without, 1 .txt"}
    told = manifest.set_index("path")["excluded"]
    assert told["gone.wav"] == told["self.wav"] == "a link to a file that is not there"


def test_a_folder_that_cannot_be_opened_is_told(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scan = os.scandir

    def refusing(path: Path) -> object:
        if Path(path).name == "er":
            raise PermissionError(13, "Permission denied")
        return scan(path)

    monkeypatch.setattr(os, "scandir", refusing)
    names, left_out = finding.audio_files(folder)
    assert names == [name for name in NAMES if "er/" not in name]
    assert left_out.endswith(f"; {folder / 'deep/er'}: Permission denied")
