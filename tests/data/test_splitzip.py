"""Zip archives in parts: those that Info-ZIP makes, and some built here byte by byte."""

import io
import random
import shutil
import struct
import subprocess
import zipfile
import zlib
from itertools import pairwise
from pathlib import Path

import pytest

from matpac.data import splitzip
from matpac.data.splitzip import DamagedError

RNG = random.Random(0)
MEMBERS = {f"audio/{i}.wav": RNG.randbytes(RNG.randrange(3000)) + bytes(500) for i in range(40)}


def build(cuts: list[int], *, large: bool = False, comment: bytes = b"") -> list[bytes]:
    """A split archive of MEMBERS as the specification has it, cut at these places.

    Args: large: every number that may stand in a 64-bit record does.
    """
    whole, records = bytearray(b"PK\7\x08"), []
    bounds = [0, *cuts]

    def place(at: int) -> tuple[int, int]:
        disk = max(i for i, start in enumerate(bounds) if start <= at)
        return disk, at - bounds[disk]

    for name, content in MEMBERS.items():
        deflate = zlib.compressobj(wbits=-15)
        packed = deflate.compress(content) + deflate.flush()
        numbers = (zlib.crc32(content), len(packed), len(content))
        records.append((name.encode(), numbers, place(len(whole))))
        fixed = (20, 0, 8, 0, 0x21, *numbers, len(name), 0)
        whole += struct.pack("<4s5H3L2H", b"PK\3\4", *fixed) + name.encode() + packed
    directory_place, start = place(len(whole)), len(whole)
    for name, (crc, packed_size, size), (disk, offset) in records:
        extra = struct.pack("<2HL", 0x5455, 4, 7)  # another field, in front
        if large:
            extra += struct.pack("<2H3QL", 1, 28, size, packed_size, offset, disk)
            size = packed_size = offset = 0xFFFFFFFF
            disk = 0xFFFF
        extra += struct.pack("<2HB", 0xCAFE, 1, 9)  # and one behind
        fixed = (20, 20, 0, 8, 0, 0x21, crc, packed_size, size, len(name), len(extra), 3, disk, 0)
        whole += struct.pack("<4s6H3L5H2L", b"PK\1\2", *fixed, 0o100644 << 16, offset)
        whole += name + extra + b"abc"
    length, last, count = len(whole) - start, len(bounds) - 1, len(records)
    end = (last, directory_place[0], count, count, length, directory_place[1])
    if large:
        disk, offset = place(len(whole))
        whole += struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, *end)
        whole += struct.pack("<4sLQL", b"PK\6\7", disk, offset, last + 1)
        end = (last, 0xFFFF, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF)
    whole += struct.pack("<4s4H2LH", b"PK\5\6", *end, len(comment)) + comment
    return [bytes(whole[a:b]) for a, b in pairwise([*bounds, len(whole)])]


def save(folder: Path, parts: list[bytes]) -> list[Path]:
    names = [f"a.z{i + 1:02}" for i in range(len(parts) - 1)] + ["a.zip"]
    for name, part in zip(names, parts, strict=True):
        (folder / name).write_bytes(part)
    return [folder / name for name in names]


def contents(stream: io.BufferedReader) -> dict[str, bytes]:
    """Names and contents of a zip archive, each with its CRC checked."""
    with stream, zipfile.ZipFile(stream) as packed:
        return {each.filename: packed.read(each) for each in packed.infolist()}


SIZE = len(b"".join(build([])))
DIRECTORY = b"".join(build([])).index(b"PK\1\2")


@pytest.mark.parametrize("large", [False, True], ids=["32", "64"])
@pytest.mark.parametrize(
    "cuts",
    [
        [],
        [10_000, 20_000, 30_000],
        [DIRECTORY],
        [4, DIRECTORY - 1],
        [20_000, DIRECTORY + 1000, DIRECTORY + 2000],
        list(range(1000, SIZE, 1000)),
    ],
    ids=["one", "data", "directory", "edges", "in the directory", "many"],
)
def test_a_split_archive_is_read(tmp_path: Path, cuts: list[int], large: bool) -> None:
    parts = save(tmp_path, build(cuts, large=large))
    assert contents(splitzip.open_split(parts)) == MEMBERS


def test_zipfile_alone_does_not_read_one(tmp_path: Path) -> None:
    """The reason for this module."""
    parts = save(tmp_path, build([20_000]))
    with pytest.raises(zipfile.BadZipFile):
        contents(splitzip.join(parts))


def test_a_comment_is_no_hindrance(tmp_path: Path) -> None:
    parts = save(tmp_path, build([20_000], comment=b"made by " * 100))
    assert contents(splitzip.open_split(parts)) == MEMBERS


def test_a_member_behind_the_first_four_gigabytes(tmp_path: Path) -> None:
    """FSD50K has five parts of 3 GiB: offsets from the start do not fit 32 bits."""
    first, rest = build([len(b"PK\7\x08")])
    parts = save(tmp_path, [first, rest])
    gap = 5 << 30
    with parts[0].open("r+b") as file:
        file.truncate(gap)  # takes no room on the disk
    stream = splitzip.open_split(parts)
    assert stream.seek(0, io.SEEK_END) > gap
    assert contents(stream) == MEMBERS


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
    found = contents(splitzip.open_split(parts))
    assert {name: content for name, content in found.items() if name != "in/"} == made


def test_slices_are_joined(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as packed:
        for name, content in MEMBERS.items():
            packed.writestr(name, content)
    data = buffer.getvalue()
    parts = save(tmp_path, [data[:777], data[777:50_000], data[50_000:]])
    assert contents(splitzip.join(parts)) == MEMBERS


def test_joined_reads_and_seeks_across_files(tmp_path: Path) -> None:
    parts = save(tmp_path, [b"abc", b"", b"defg"])
    with splitzip.join(parts).detach() as joined:
        assert joined.read() == b"abcdefg" and joined.read() == b""
        assert joined.seek(-5, io.SEEK_END) == 2 and joined.read(1) == b"c"
        assert joined.tell() == 3 and joined.read(4) == b"defg"
        assert joined.seek(0) == 0 and joined.seek(1, io.SEEK_CUR) == 1
        assert joined.read() == b"bcdefg"
        with pytest.raises(OSError, match="no position -1"):
            joined.seek(-1)


CUTS = [10_000, 20_000, 30_000]


def missing_middle(parts: list[bytes]) -> list[bytes]:
    return [*parts[:1], *parts[2:]]


def short_middle(parts: list[bytes]) -> list[bytes]:
    return [parts[0], parts[1][:-1], *parts[2:]]


def swapped(parts: list[bytes]) -> list[bytes]:
    return [parts[1], parts[0], *parts[2:]]


def short_end(parts: list[bytes]) -> list[bytes]:
    return [*parts[:-1], parts[-1][:-1]]


def long_end(parts: list[bytes]) -> list[bytes]:
    return [*parts[:-1], parts[-1] + b"x"]


def no_end(parts: list[bytes]) -> list[bytes]:
    return [*parts[:-1], parts[-1][: len(parts[-1]) // 2]]


def empty(parts: list[bytes]) -> list[bytes]:
    return [*parts[:-1], b""]


@pytest.mark.parametrize("large", [False, True], ids=["32", "64"])
@pytest.mark.parametrize(
    "harm", [missing_middle, short_middle, swapped, short_end, long_end, no_end, empty]
)
def test_an_incomplete_archive_is_never_read_in_silence(
    tmp_path: Path, harm: object, large: bool
) -> None:
    parts = save(tmp_path, harm(build(CUTS, large=large)))  # type: ignore[operator]
    with pytest.raises((DamagedError, zipfile.BadZipFile, zlib.error)):
        contents(splitzip.open_split(parts))


def test_a_missing_part_is_told(tmp_path: Path) -> None:
    parts = save(tmp_path, missing_middle(build(CUTS)))
    with pytest.raises(DamagedError, match="there are 3 parts, the archive says 4"):
        splitzip.open_split(parts)


def test_every_cut_of_the_last_part_is_noticed(tmp_path: Path) -> None:
    *first, last = build([20_000], large=True)
    for length in range(0, len(last), 311):
        with pytest.raises(DamagedError):
            splitzip.open_split(save(tmp_path, [*first, last[:length]]))
