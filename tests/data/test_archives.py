"""Archives of strangers: honest ones are unpacked once; hostile and damaged ones leave no trace."""

import bz2
import gc
import gzip
import hashlib
import io
import lzma
import random
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from matpac.data import archives
from matpac.data.archives import DamagedError, UnsafeError
from matpac.data.catalogue import Archive, File, Kind

RNG = random.Random(0)
MEMBERS = {f"set/audio/{i}.wav": RNG.randbytes(700 * i) for i in range(30)} | {
    "set/meta.csv": b"name,label\n"
}
PLENTY = 10_000_000


@pytest.fixture(autouse=True)
def silence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MATPAC_PROGRESS", "silent")


def tar(members: dict[str, bytes] = MEMBERS, *others: tarfile.TarInfo) -> bytes:
    """A plain tar archive; ``others`` come last."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as packed:
        folder = tarfile.TarInfo("./set")
        folder.type = tarfile.DIRTYPE
        packed.addfile(folder)
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            packed.addfile(info, io.BytesIO(content))
        for info in others:
            packed.addfile(info)
    return buffer.getvalue()


def zipped(members: dict[str, bytes] = MEMBERS, *others: zipfile.ZipInfo) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("set/", b"")
        for name, content in members.items():
            packed.writestr(name, content)
        for info in others:
            packed.writestr(info, b"content")
    return buffer.getvalue()


def unpack(folder: Path, data: bytes, kind: Kind, max_bytes: int = PLENTY) -> Path:
    """Unpacks into ``folder / "data"``, with the archive beside it."""
    part, digests = folder / "a.bin", {"a.bin": {"md5": hashlib.md5(data).hexdigest()}}
    part.write_bytes(data)
    archive = Archive("a", kind, (File("a.bin", ()),), 0)
    archives.unpack(archive, [part], folder / "data", digests=digests, max_bytes=max_bytes)
    return folder / "data"


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder and its content, but the marks of what was unpacked."""
    found = [path for path in folder.rglob("*") if ".unpacked" not in path.parts]
    return {str(p.relative_to(folder)): p.read_bytes() for p in found if not p.is_dir()}


PACKED = {
    "tar": ("tar", tar()),
    "tar.gz": ("tar", gzip.compress(tar())),
    "tar.bz2": ("tar", bz2.compress(tar())),
    "tar.xz": ("tar", lzma.compress(tar())),
    "zip": ("zip", zipped()),
}


@pytest.mark.parametrize("name", PACKED)
def test_unpacks_all_and_only_what_it_holds(tmp_path: Path, name: str) -> None:
    kind, data = PACKED[name]
    assert tree(unpack(tmp_path, data, kind)) == MEMBERS
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.bin", "data"]


def test_a_file_is_copied(tmp_path: Path) -> None:
    assert tree(unpack(tmp_path, b"1,2\n", "file")) == {"a.bin": b"1,2\n"}
    assert (tmp_path / "a.bin").exists()


def test_slices_become_one_archive(tmp_path: Path) -> None:
    data, parts = zipped(), [tmp_path / "a.001", tmp_path / "a.002"]
    parts[0].write_bytes(data[:5000])
    parts[1].write_bytes(data[5000:])
    (tmp_path / "data").mkdir()
    archives.extract("sliced zip", parts, tmp_path / "data", max_bytes=PLENTY, desc="")
    assert tree(tmp_path / "data") == MEMBERS


# ------------------------------------------------------------------------------------- hostile


def info(name: str, kind: bytes = tarfile.REGTYPE, to: str = "") -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname, member.mode = kind, to, 0o777
    return member


def zip_info(name: str, mode: int = 0o100644) -> zipfile.ZipInfo:
    member = zipfile.ZipInfo("x")
    member.filename = member.orig_filename = name  # ZipInfo itself would tidy it
    member.create_system, member.external_attr = 3, mode << 16
    return member


NAMES = ["../out", "set/../../out", "/tmp/out", "..", "a\\..\\..\\out", "C:out", "c:/out"]


@cache
def hostile() -> dict[str, tuple[Kind, bytes]]:
    """Archives that hold something bad behind something good."""
    found: dict[str, tuple[Kind, bytes]] = {}
    for name in NAMES:
        found[f"tar {name}"] = "tar", tar(MEMBERS, info(name))
        found[f"zip {name}"] = "zip", zipped(MEMBERS, zip_info(name))
    found["tar folder"] = "tar", tar(MEMBERS, info("../out", tarfile.DIRTYPE))
    found["zip folder"] = "zip", zipped(MEMBERS, zip_info("../out/"))
    special = {
        "symlink": (tarfile.SYMTYPE, "/etc"),
        "inner symlink": (tarfile.SYMTYPE, "meta.csv"),
        "hard link": (tarfile.LNKTYPE, "/etc/passwd"),
        "inner hard link": (tarfile.LNKTYPE, "set/meta.csv"),
        "pipe": (tarfile.FIFOTYPE, ""),
        "character device": (tarfile.CHRTYPE, ""),
        "block device": (tarfile.BLKTYPE, ""),
        "unknown": (b"V", ""),
    }
    for name, (kind, to) in special.items():
        found[f"tar {name}"] = "tar", tar(MEMBERS, info("set/x", kind, to))
    for name, mode in {"symlink": 0o120777, "pipe": 0o010644, "device": 0o060644}.items():
        found[f"zip {name}"] = "zip", zipped(MEMBERS, zip_info("set/x", mode))
    found["tar through a link"] = (
        "tar",
        tar({}, info("link", tarfile.SYMTYPE, ".."), info("link/out")),
    )
    with pytest.warns(UserWarning, match="Duplicate"):
        found["zip twice"] = "zip", zipped(MEMBERS, zip_info("set/meta.csv"))
    found["tar twice"] = "tar", tar(MEMBERS, info("set/meta.csv"))
    found["tar twice, spelt otherwise"] = "tar", tar(MEMBERS, info("set//./meta.csv"))
    found["tar file as folder"] = "tar", tar(MEMBERS, info("set/meta.csv/x"))
    found["tar folder as file"] = "tar", tar(MEMBERS, info("set/audio"))
    found["tar no name"] = "tar", tar(MEMBERS, info("."))
    nul = info("set/x")
    nul.pax_headers = {"path": "set/x\0y"}
    found["tar NUL"] = "tar", tar(MEMBERS, nul)
    found["zip NUL"] = "zip", zipped(MEMBERS, zip_info("set/x_y")).replace(b"x_y", b"x\0y")
    secret = bytearray(zipped())
    secret[secret.index(b"PK\1\2") + 8] |= 1
    found["zip encrypted"] = "zip", bytes(secret)
    return found


@pytest.mark.parametrize("name", hostile())
def test_a_hostile_archive_writes_nothing(tmp_path: Path, name: str) -> None:
    kind, data = hostile()[name]
    inner = tmp_path / "inner"
    inner.mkdir()
    with pytest.raises(UnsafeError, match=r"^a\.bin: "):
        unpack(inner, data, kind)
    assert tree(tmp_path) == {"inner/a.bin": data}
    assert not any(path.is_symlink() for path in tmp_path.rglob("*"))
    assert sorted(path.name for path in (inner / "data").iterdir()) == [".unpacked"]


def test_what_is_there_already_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/set").write_text("mine")
    with pytest.raises(FileExistsError, match=r"a holds set, which .*has already"):
        unpack(tmp_path, zipped(), "zip")
    assert tree(tmp_path / "data") == {"set": b"mine"}


def test_an_archive_cannot_bring_the_mark_of_another(tmp_path: Path) -> None:
    with pytest.raises(FileExistsError, match="unpacked"):
        unpack(tmp_path, zipped({".unpacked/b.json": b"{}"}), "zip")


BOMB = {"set/bomb": bytes(30_000_000)}


@pytest.mark.parametrize(
    ("kind", "data"),
    [("tar", gzip.compress(tar(BOMB))), ("tar", bz2.compress(tar(BOMB))), ("zip", zipped(BOMB))],
    ids=["gz", "bz2", "zip"],
)
def test_a_bomb_is_refused_before_it_is_written(
    tmp_path: Path, kind: Kind, data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(data) < 60_000
    monkeypatch.setattr(Path, "open", _refuse_writing(Path.open))
    with pytest.raises(UnsafeError, match=r"unpacks to more than 0\.010 GB"):
        unpack(tmp_path, data, kind)


def _refuse_writing(original: Callable) -> Callable:
    def behave(path: Path, mode: str = "r", *args: object, **kwargs: object) -> object:
        assert mode != "xb", "nothing may be written"
        return original(path, mode, *args, **kwargs)

    return behave


def test_many_files_that_together_are_a_bomb(tmp_path: Path) -> None:
    data = gzip.compress(tar({f"set/{i}": bytes(100_000) for i in range(30)}))
    with pytest.raises(UnsafeError, match="unpacks to more than"):
        unpack(tmp_path, data, "tar", max_bytes=2_900_000)
    assert tree(tmp_path / "data") == {}
    assert len(tree(unpack(tmp_path, data, "tar", max_bytes=3_000_000))) == 30


def test_a_sparse_file_counts_in_full(tmp_path: Path) -> None:
    """A tar of 10 kB that claims a file of a terabyte, nearly all of it holes."""
    sparse = tarfile.TarInfo("set/x")
    entries = {"major": 1, "minor": 0, "name": "set/x", "realsize": 10**12}
    sparse.pax_headers = {f"GNU.sparse.{key}": str(value) for key, value in entries.items()}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as packed:
        body = b"1\n0\n5\n".ljust(512, b"\0") + b"hello"
        sparse.size = len(body)
        packed.addfile(sparse, io.BytesIO(body))
    with pytest.raises(UnsafeError, match="unpacks to more than"):
        unpack(tmp_path, buffer.getvalue(), "tar")


def test_too_many_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MOST_FILES", 31)
    with pytest.raises(UnsafeError, match="more than 31 files"):
        unpack(tmp_path, tar(), "tar")
    monkeypatch.setattr(archives, "MOST_FILES", 32)  # with the folder
    assert tree(unpack(tmp_path, tar(), "tar")) == MEMBERS


def test_a_zip_that_lies_about_a_size(tmp_path: Path) -> None:
    data = zipped({"set/x": bytes(5_000_000)})
    size = (5_000_000).to_bytes(4, "little")
    assert data.count(size) == 2  # in the member and in the directory
    with pytest.raises(DamagedError):
        unpack(tmp_path, data.replace(size, (100).to_bytes(4, "little")), "zip", max_bytes=1000)
    assert tree(tmp_path / "data") == {}


def test_no_reader_is_trusted_with_the_size_of_a_file(tmp_path: Path) -> None:
    place = archives._Place(tmp_path, PLENTY)
    with pytest.raises(UnsafeError, match="'x' is longer than it says"):
        list(place.add_file("x", 3, io.BytesIO(b"four")))
    with pytest.raises(DamagedError, match="'y' ends after 4 of 5 bytes"):
        list(place.add_file("y", 5, io.BytesIO(b"four")))


def test_members_that_are_done_are_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """300,000 of them would be remembered by tarfile otherwise."""
    alive, original = [], archives._Place.add_file

    def count(place: archives._Place, *args: Any) -> Iterator[int]:
        alive.append(sum(type(each) is tarfile.TarInfo for each in gc.get_objects()))
        return original(place, *args)

    gc.collect()
    monkeypatch.setattr(archives._Place, "add_file", count)
    unpack(tmp_path, PACKED["tar"][1], "tar")
    assert len(alive) == len(MEMBERS) and max(alive) - min(alive) <= 3


# ------------------------------------------------------------------------------------- damaged


@pytest.mark.parametrize("name", PACKED)
@pytest.mark.parametrize("kept", [0.0, 0.1, 0.5, 0.9])
def test_half_an_archive_is_never_taken_for_whole(tmp_path: Path, name: str, kept: float) -> None:
    kind, data = PACKED[name]
    with pytest.raises(DamagedError, match=r"^a\.bin"):
        unpack(tmp_path, data[: int(kept * len(data))], kind)
    assert tree(tmp_path / "data") == {}
    assert tree(unpack(tmp_path, data, kind)) == MEMBERS


@pytest.mark.parametrize("name", [name for name in PACKED if name != "tar"])
def test_the_last_byte_counts(tmp_path: Path, name: str) -> None:
    kind, data = PACKED[name]
    with pytest.raises(DamagedError):
        unpack(tmp_path, data[:-1], kind)


def test_a_tar_that_ends_between_two_members(tmp_path: Path) -> None:
    data = tar()
    end = data.index(b"set/audio/20.wav")
    for packed in (data[:end], gzip.compress(data[:end])):
        with pytest.raises(DamagedError, match="cut short"):
            unpack(tmp_path, packed, "tar")


def test_a_wrong_byte_is_noticed(tmp_path: Path) -> None:
    for kind, data in (PACKED["tar.gz"], PACKED["tar.bz2"], PACKED["zip"]):
        harmed = bytearray(data)
        harmed[len(data) // 2] ^= 1
        with pytest.raises(DamagedError):
            unpack(tmp_path, bytes(harmed), kind)
    stored = bytearray(gzip.compress(tar(), compresslevel=0))  # only the checksum at the end tells
    stored[len(stored) // 2] ^= 1
    with pytest.raises(DamagedError, match="CRC"):
        unpack(tmp_path, bytes(stored), "tar")


def test_a_second_archive_behind_the_first_is_not_ignored(tmp_path: Path) -> None:
    with pytest.raises(DamagedError, match="behind its end"):
        unpack(tmp_path, gzip.compress(tar() + tar()), "tar")


def test_what_is_no_archive(tmp_path: Path) -> None:
    for kind in ("tar", "zip", "sliced zip", "split zip"):
        with pytest.raises(DamagedError):
            unpack(tmp_path, b"<html>404</html>" * 100, kind)


# ---------------------------------------------------------------------------------- once, whole


def archive(checksum: str = "md5:1") -> Archive:
    return Archive("a", "tar", (File("a.bin", (), checksums=(checksum,)),), 0)


def prepared(folder: Path, data: bytes | None = None) -> dict:
    (folder / "a.bin").write_bytes(tar() if data is None else data)
    return {
        "parts": [folder / "a.bin"],
        "folder": folder / "data",
        "digests": {"a.bin": {"md5": "1"}},
        "max_bytes": PLENTY,
    }


def test_is_unpacked_knows_what(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    assert not archives.is_unpacked(archive(), folder)
    archives.unpack(archive(), **prepared(tmp_path))
    assert archives.is_unpacked(archive(), folder)
    assert archives.is_unpacked(Archive("a", "tar", (File("a.bin", ()),), 0), folder)
    assert not archives.is_unpacked(archive("md5:2"), folder)
    assert not archives.is_unpacked(archive("sha256:1"), folder)
    (folder / "set").rename(folder / "other")
    assert not archives.is_unpacked(archive(), folder)


def test_a_new_version_replaces_the_old(tmp_path: Path) -> None:
    archives.unpack(archive(), **prepared(tmp_path))
    new = prepared(tmp_path, tar({"set/new.wav": b"new"})) | {"digests": {"a.bin": {"md5": "2"}}}
    archives.unpack(archive("md5:2"), **new)
    assert tree(tmp_path / "data") == {"set/new.wav": b"new"}


def test_interrupted_while_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(place: object, name: str, *_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as context:
        context.setattr(archives._Place, "add_file", stop)
        with pytest.raises(KeyboardInterrupt):
            archives.unpack(archive(), **prepared(tmp_path))
    assert not archives.is_unpacked(archive(), tmp_path / "data")
    assert tree(tmp_path / "data") == {}


def test_killed_while_writing(tmp_path: Path) -> None:
    """Whatever an earlier process left is not mixed with what comes now."""
    left = tmp_path / "data/.unpacking-a"
    left.mkdir(parents=True)
    (left / "half.wav").write_text("half")
    archives.unpack(archive(), **prepared(tmp_path))
    assert tree(tmp_path / "data") == MEMBERS


def test_killed_while_a_new_version_takes_the_place_of_the_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archives.unpack(archive(), **prepared(tmp_path))
    new = prepared(tmp_path, tar({"set/new.wav": b"new"})) | {"digests": {"a.bin": {"md5": "2"}}}
    with monkeypatch.context() as context:
        context.setattr(archives, "_remove", None)
        with pytest.raises(TypeError):
            archives.unpack(archive("md5:2"), **new)
    assert tree(tmp_path / "data/set") == {k.removeprefix("set/"): v for k, v in MEMBERS.items()}
    assert not archives.is_unpacked(archive(), tmp_path / "data")
    assert not archives.is_unpacked(archive("md5:2"), tmp_path / "data")
    archives.unpack(archive("md5:2"), **new)
    assert tree(tmp_path / "data") == {"set/new.wav": b"new"}


def test_killed_while_moving(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = tar({"one/a": b"1", "three/c": b"3", "two/b": b"2"})
    moved, original = [], Path.rename

    def rename(path: Path, to: Path) -> None:
        if len(moved) == 1:
            raise KeyboardInterrupt
        moved.append(path.name)
        original(path, to)

    with monkeypatch.context() as context:
        context.setattr(Path, "rename", rename)
        with pytest.raises(KeyboardInterrupt):
            archives.unpack(archive(), **prepared(tmp_path, data))
    assert moved == ["one"]
    assert not archives.is_unpacked(archive(), tmp_path / "data")
    monkeypatch.setattr(archives, "extract", None)  # not again
    archives.unpack(archive(), **prepared(tmp_path, data))
    assert archives.is_unpacked(archive(), tmp_path / "data")
    assert tree(tmp_path / "data") == {"one/a": b"1", "three/c": b"3", "two/b": b"2"}
    assert not (tmp_path / "data/.unpacking-a").exists()
