"""Archives of strangers: honest ones are unpacked once; hostile and damaged ones leave no trace."""

import bz2
import gzip
import hashlib
import io
import random
import resource
import shutil
import subprocess
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest

from matpac.core.progress import Progress
from matpac.data import archives
from matpac.data.catalogue import Archive, File, Kind
from matpac.data.members import DamagedError, UnsafeError

RNG = random.Random(0)
MEMBERS = {f"set/audio/{i}.wav": RNG.randbytes(700 * i) for i in range(30)} | {
    "set/meta.csv": b"name,label\n"
}
PLENTY = 10_000_000


def info(name: str, kind: bytes = tarfile.REGTYPE, to: str = "") -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname, member.mode = kind, to, 0o777
    return member


def tar(
    members: dict[str, bytes] = MEMBERS, *others: tarfile.TarInfo, folder: str | None = "./set"
) -> bytes:
    """A plain tar archive; ``others``, of which all but those with headers are empty, come last."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as packed:
        if folder:
            packed.addfile(info(folder, tarfile.DIRTYPE))
        for name, content in members.items():
            member = info(name)
            member.size = len(content)
            packed.addfile(member, io.BytesIO(content))
        for member in others:
            packed.addfile(member)
    return buffer.getvalue()


def zipped(members: dict[str, bytes] = MEMBERS, *others: zipfile.ZipInfo) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("set/", b"")
        for name, content in members.items():
            packed.writestr(name, content)
        for member in others:
            packed.writestr(member, b"content")
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


# ------------------------------------------------------------------------------------- hostile


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
    nul = info("set/x")
    nul.pax_headers = {"path": "set/x\0y"}
    members = {
        "twice": info("set/meta.csv"),
        "twice, spelt otherwise": info("set//./meta.csv"),
        "file as folder": info("set/meta.csv/x"),
        "folder as file": info("set/audio"),
        "no name": info("."),
        "NUL": nul,
        "deep": info("d/" * 2000 + "x"),
        "no text": info("set/\udcff\udcfe"),
    }
    found |= {f"tar {name}": ("tar", tar(MEMBERS, member)) for name, member in members.items()}
    links = info("link", tarfile.SYMTYPE, ".."), info("link/out")
    found["tar through a link"] = "tar", tar({}, *links)
    with pytest.warns(UserWarning, match="Duplicate"):
        found["zip twice"] = "zip", zipped(MEMBERS, zip_info("set/meta.csv"))
    found["zip NUL"] = "zip", zipped(MEMBERS, zip_info("set/x_y")).replace(b"x_y", b"x\0y")
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
    original = Path.open

    def refusing(path: Path, mode: str = "r", *args: object, **kwargs: object) -> object:
        assert mode != "xb", "nothing may be written"
        return original(path, mode, *args, **kwargs)

    monkeypatch.setattr(Path, "open", refusing)
    with pytest.raises(UnsafeError, match=r"unpacks to more than 0\.010 GB"):
        unpack(tmp_path, data, kind)


def test_many_files_that_together_are_a_bomb(tmp_path: Path) -> None:
    data = gzip.compress(tar({f"set/{i}": bytes(100_000) for i in range(30)}))
    with pytest.raises(UnsafeError, match="unpacks to more than"):
        unpack(tmp_path, data, "tar", max_bytes=2_900_000)
    assert tree(tmp_path / "data") == {}
    assert len(tree(unpack(tmp_path, data, "tar", max_bytes=3_000_000))) == 30


def test_a_file_with_holes_is_refused(tmp_path: Path) -> None:
    """A tar of 10 kB that claims a file of a terabyte."""
    sparse = tarfile.TarInfo("set/x")
    entries = {"major": 1, "minor": 0, "name": "set/x", "realsize": 10**12}
    sparse.pax_headers = {f"GNU.sparse.{key}": str(value) for key, value in entries.items()}
    buffer, body = io.BytesIO(), b"1\n0\n5\n".ljust(512, b"\0") + b"hello"
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as packed:
        sparse.size = len(body)
        packed.addfile(sparse, io.BytesIO(body))
    with pytest.raises(UnsafeError, match="'set/x' is neither a plain file nor a folder"):
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
    lying = data.replace(size, (100).to_bytes(4, "little"))
    with pytest.raises(UnsafeError, match="unpacks to more than"):
        unpack(tmp_path, lying, "zip", max_bytes=1000)
    with pytest.raises(DamagedError, match="Size"):
        unpack(tmp_path, lying, "zip")
    assert tree(tmp_path / "data") == {}


def test_what_a_zip_may_hold_besides_files(tmp_path: Path) -> None:
    """What would be a link is a file with the name of its target; nothing follows it."""
    made = unpack(tmp_path, zipped(MEMBERS, zip_info("set/x", 0o120777)), "zip")
    assert tree(made) == MEMBERS | {"set/x": b"content"}
    assert not (made / "set/x").is_symlink()
    secret = bytearray(zipped())
    secret[secret.index(b"PK\3\4", 100) + 6] |= 1
    with pytest.raises(DamagedError, match="Password"):
        unpack(tmp_path / "data", bytes(secret), "zip")


def record(kind: bytes, content: bytes) -> bytes:
    """What stands before a tar's member: a long name, or attributes."""
    header = info("x", kind)
    header.size = len(content)
    return header.tobuf(tarfile.GNU_FORMAT) + content + bytes(-len(content) % 512)


def pax(**values: str) -> bytes:
    lines = [f" {key}={value}\n".encode() for key, value in values.items()]
    return record(b"x", b"".join(str(len(line) + 2).encode() + line for line in lines))


TRAPS = {
    "a long name of 2 GB": record(b"L", b"")[:124] + b"17777777777\0" + record(b"L", b"")[136:],
    "a long name of 2 MB": record(b"L", b"n" * 2_000_000),
    "names before names": record(b"L", b"n\0") * 20_000,
    "400 kB of digits": record(b"x", b"1" * 400_000),
    "60 kB of digits": record(b"x", b"1" * 60_000),
    "a size that leads back": pax(size="-2048"),
    "a size that is none": pax(size="-"),
    "a size of 10^4000": pax(size="9" * 99),
    "a sparse map without end": pax(
        **{"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "y"}
    ),
}


@contextmanager
def memory_for(num_bytes: int) -> Iterator[None]:
    """The block may take so much more than is in use."""
    limit, state = resource.getrlimit(resource.RLIMIT_AS), Path("/proc/self/statm").read_text()
    used = int(state.split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + num_bytes, limit[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limit)


@pytest.mark.parametrize("pack", [bytes, bz2.compress, gzip.compress], ids=["tar", "bz2", "gz"])
@pytest.mark.parametrize("name", TRAPS)
def test_records_of_a_tar_decide_neither_memory_nor_time(
    tmp_path: Path, name: str, pack: Callable[[bytes], bytes]
) -> None:
    """Each took gigabytes, minutes or forever, or came as some other exception."""
    good, tail = tar({"set/a": b"1"})[:1536], tar({"b": b"2\n" * 500_000})[512:]
    with memory_for(100_000_000), pytest.raises((DamagedError, UnsafeError), match=r"^a\.bin"):
        unpack(tmp_path, pack(good + TRAPS[name] + tail), "tar")
    assert tree(tmp_path / "data") == {}


def test_a_mutated_archive_is_unpacked_or_one_of_two_errors(tmp_path: Path) -> None:
    """A sixth of them were bare errors of the system or of a library."""
    found = []
    for seed in range(300):
        rng, folder = random.Random(seed), tmp_path / str(seed)
        folder.mkdir()
        kind, data = PACKED[rng.choice([*PACKED])]
        harmed = bytearray(data)
        for _ in range(rng.randrange(1, 5)):
            at = rng.choice([rng.randrange(len(harmed)), max(harmed.rfind(b"PK\1\2"), 0) + 30])
            harmed[at : at + rng.randrange(4)] = rng.randbytes(rng.randrange(5))
        try:
            unpack(folder, bytes(harmed), kind)
        except (DamagedError, UnsafeError) as error:
            assert str(error).startswith("a.bin")
            assert sorted(p.name for p in (folder / "data").iterdir()) == [".unpacked"]
            found.append(seed)
    assert 100 < len(found) < 300


RECORDED = Path(__file__).parents[3] / "shared/cases/hostile"


@pytest.mark.skipif(not RECORDED.exists(), reason="the recorded inputs are not beside the project")
@pytest.mark.parametrize("name", ["sliced_zip_wrong_order", "tar.bz2_long-name_record_of_2_GB",
    "tar_name_300", "tar_non-utf8_top_name", "tar_path_5000", "zip_empty", "zip_lzma_dict_4_GB",
    "zip_name_300", "zip_path_5000"])  # fmt: skip
def test_recorded_archives_are_refused_by_name(tmp_path: Path, name: str) -> None:
    parts, kind = sorted(RECORDED.glob(f"{name}.[0-9]")), name[:3].replace("sli", "zip")
    with pytest.raises((DamagedError, UnsafeError), match=f"^{parts[-1].name}"):
        archives.extract(kind, parts, tmp_path, max_bytes=PLENTY)  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------- damaged


@pytest.mark.parametrize("name", PACKED)
def test_half_an_archive_is_never_taken_for_whole(tmp_path: Path, name: str) -> None:
    kind, data = PACKED[name]
    lengths = [int(kept * len(data)) for kept in (0.0, 0.1, 0.5, 0.9)]
    for length in [*lengths, len(data) - 1][: 4 if name == "tar" else 5]:  # zeros end a tar
        with pytest.raises(DamagedError, match=r"^a\.bin"):
            unpack(tmp_path, data[:length], kind)
        assert tree(tmp_path / "data") == {}
    assert tree(unpack(tmp_path, data, kind)) == MEMBERS


def test_a_tar_that_ends_between_two_members_or_goes_on_behind_its_end(tmp_path: Path) -> None:
    data = tar()
    end = data[: data.index(b"set/audio/20.wav")]
    for packed, said in (
        (end, "cut short"), (gzip.compress(end), "cut short"),
        (gzip.compress(data + data), "behind its end"),
    ):  # fmt: skip
        with pytest.raises(DamagedError, match=said):
            unpack(tmp_path, packed, "tar")


def test_a_damaged_header_of_a_tar_is_noticed_wherever_it_stands(tmp_path: Path) -> None:
    """In the last 10 kB of a plain tar it was taken for the end."""
    data = tar({f"set/{i}": bytes(100) for i in range(20)})
    for at in range(0, data.rindex(b"set/19") + 1, 512):
        if data[at]:
            harmed = bytearray(data)
            harmed[at] ^= 1
            with pytest.raises(DamagedError, match="damaged"):
                unpack(tmp_path, bytes(harmed), "tar")


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


# ---------------------------------------------------------------------------------- once, whole


def archive(checksum: str = "md5:1") -> Archive:
    return Archive("a", "tar", (File("a.bin", (), checksums=(checksum,)),), 0)


def prepared(folder: Path, data: bytes | None = None, *, md5: str = "1") -> dict:
    (folder / "a.bin").write_bytes(tar() if data is None else data)
    digests = {"a.bin": {"md5": md5}}
    place = {"parts": [folder / "a.bin"], "folder": folder / "data"}
    return place | {"digests": digests, "max_bytes": PLENTY}


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


def test_stopped_while_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as context:
        context.setattr(Progress, "update", stop)
        with pytest.raises(KeyboardInterrupt):
            archives.unpack(archive(), **prepared(tmp_path))
    assert not archives.is_unpacked(archive(), tmp_path / "data")
    assert tree(tmp_path / "data") == {}
    left = tmp_path / "data/.unpacking-a"  # of a process that was killed
    left.mkdir()
    (left / "half.wav").write_text("half")
    archives.unpack(archive(), **prepared(tmp_path))
    assert tree(tmp_path / "data") == MEMBERS


def test_killed_while_a_new_version_takes_the_place_of_the_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archives.unpack(archive(), **prepared(tmp_path))
    new = prepared(tmp_path, tar({"set/new.wav": b"new"}), md5="2")
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
    archives.unpack(archive(), **prepared(tmp_path, data))
    assert archives.is_unpacked(archive(), tmp_path / "data")
    assert tree(tmp_path / "data") == {"one/a": b"1", "three/c": b"3", "two/b": b"2"}
    assert not (tmp_path / "data/.unpacking-a").exists()


# ---------------------------------------------------------------------------------- zip in parts

SPLIT = {f"audio/{i}.wav": RNG.randbytes(RNG.randrange(3000)) + bytes(500) for i in range(40)}


def build(cuts: list[int], comment: bytes = b"") -> list[bytes]:
    """A split archive of SPLIT, cut at these places.

    Its directory does not say in which part a member lies, as that of a true one (see what Info-ZIP
    makes) does, but is not used.
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.comment = comment
        for name, content in SPLIT.items():
            packed.writestr(name, content)
    whole = b"PK\7\x08" + buffer.getvalue()
    return [whole[a:b] for a, b in pairwise([0, *cuts, len(whole)])]


def contents(folder: Path, parts: list[bytes]) -> dict[str, bytes]:
    """Names and contents of a zip archive in parts."""
    to = folder / "out"
    shutil.rmtree(to, ignore_errors=True)
    to.mkdir()
    paths = [folder / f"a.z{i + 1:02}" for i in range(len(parts) - 1)] + [folder / "a.zip"]
    for path, part in zip(paths, parts, strict=True):
        path.write_bytes(part)
    archives.extract("zip", paths, to, max_bytes=1 << 34)
    return tree(to)


SIZE = len(b"".join(build([])))
DIRECTORY = b"".join(build([])).index(b"PK\1\2")


PLACES = {
    "one": [],
    "data": [10_000, 20_000, 30_000],
    "directory": [DIRECTORY],
    "edges": [4, DIRECTORY - 1],
    "in the directory": [20_000, DIRECTORY + 1000, DIRECTORY + 2000],
    "many": list(range(1000, SIZE, 1000)),
}


@pytest.mark.parametrize("place", PLACES)
def test_a_split_archive_is_read(tmp_path: Path, place: str) -> None:
    assert contents(tmp_path, build(PLACES[place])) == SPLIT
    assert contents(tmp_path, build(PLACES[place], comment=b"made by " * 100)) == SPLIT


@pytest.mark.skipif(shutil.which("zip") is None, reason="Info-ZIP's zip is not installed")
@pytest.mark.parametrize("options", [["-6"], ["-0"], ["-fz"]], ids=["deflated", "stored", "zip64"])
def test_what_info_zip_splits(tmp_path: Path, options: list[str]) -> None:
    made = {f"in/{i}.bin": RNG.randbytes(RNG.randrange(60_000)) for i in range(20)}
    (tmp_path / "in").mkdir()
    for name, content in made.items():
        (tmp_path / name).write_bytes(content)
    subprocess.run(
        ["zip", "-q", "-r", *options, "-s", "64k", "a.zip", "in"], cwd=tmp_path, check=True
    )
    parts = [*sorted(tmp_path.glob("a.z[0-9]*")), tmp_path / "a.zip"]
    assert len(parts) > 5
    assert contents(tmp_path, [part.read_bytes() for part in parts]) == made


HARM: dict[str, Callable[[list[bytes]], list[bytes]]] = {
    "a part is missing": lambda p: [*p[:1], *p[2:]],
    "the first is missing": lambda p: p[1:],
    "the last is missing": lambda p: p[:-1],
    "a part is short": lambda p: [p[0], p[1][:-1], *p[2:]],
    "two are swapped": lambda p: [p[1], p[0], *p[2:]],
    "the end is short": lambda p: [*p[:-1], p[-1][:-1]],
    "the end is long": lambda p: [*p[:-1], p[-1] + b"x"],
}


@pytest.mark.parametrize("harm", HARM)
def test_an_incomplete_archive_is_never_read_in_silence(tmp_path: Path, harm: str) -> None:
    with pytest.raises(DamagedError):
        contents(tmp_path, HARM[harm](build(PLACES["data"])))


def test_a_part_that_holds_whole_members_is_missed(tmp_path: Path) -> None:
    whole = b"".join(build([]))
    members = [at for at in range(len(whole)) if whole.startswith(b"PK\3\4", at)]
    first, _, last = build([members[10], members[20]])
    with pytest.raises(DamagedError, match="not all of its members are there, only 30"):
        contents(tmp_path, [first, last])


def test_every_cut_of_the_last_part_is_noticed(tmp_path: Path) -> None:
    *first, last = build([20_000])
    for length in range(0, len(last), 997):
        with pytest.raises(DamagedError):
            contents(tmp_path, [*first, last[:length]])
