"""The members of archives of strangers, read in one pass; `matpac.data.archives` writes them."""

import bz2
import gzip
import tarfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import BinaryIO, cast

from matpac.audio.listings import Headers
from matpac.core.progress import Progress
from matpac.data.catalogue import Kind

BLOCK = 1 << 18
ZIP_END = 22
"""Bytes of the last record of a zip, behind which a comment of up to `FULL` may stand."""
FULL = 0xFFFF
Member = tuple[str, int | None, Iterable[bytes]]
"""Name, with "/" behind that of a folder; number of bytes, if known; content."""


class UnsafeError(ValueError):
    """An archive that would write where or what it must not."""


class DamagedError(ValueError):
    """An archive that does not hold what it says it holds."""


def read(kind: Kind, parts: Sequence[Path], progress: Progress) -> Iterator[Member]:
    """What a file holds, each member to be read before the next; no more is kept in memory.

    Raises: UnsafeError, DamagedError, and whatever libraries say of what is none.
    """
    readers: dict[Kind, Callable[..., Iterator[Member]]]
    readers = {"file": _copy, "tar": _untar, "zip": _unzip}
    return readers[kind](parts, progress)


def blocks(parts: Sequence[Path], progress: Progress | None = None) -> Iterator[bytes]:
    """The content of files, one behind the other."""
    for part in parts:
        with part.open("rb") as file:
            while block := file.read(BLOCK):
                if progress:
                    progress.update(len(block))
                yield block


def _copy(parts: Sequence[Path], progress: Progress) -> Iterator[Member]:
    yield parts[0].name, None, blocks(parts, progress)


def _untar(parts: Sequence[Path], progress: Progress) -> Iterator[Member]:
    """The members of a tar archive, plain, gzip or bzip2, in one pass.

    The standard library reads the headers; its filters let links pass, and names that come twice.
    """
    with parts[0].open("rb") as raw:
        opener = {b"\x1f\x8b": gzip.open, b"BZ": bz2.open}.get(raw.read(2), lambda file: file)
        raw.seek(0)
        stream = cast(BinaryIO, opener(raw))
        headers = Headers(stream)
        with tarfile.open(fileobj=headers, mode="r:") as packed:  # type: ignore[call-overload]
            while (member := packed.next()) is not None:
                packed.members.clear()  # they would pile up
                if not (member.isdir() or member.isreg()) or member.issparse():
                    raise UnsafeError(f"{member.name!r} is neither a plain file nor a folder")
                if member.size < 0 or packed.offset < stream.tell():
                    raise DamagedError(f"{member.name!r} has {member.size} bytes")
                size = 0 if member.isdir() else member.size
                yield member.name + "/" * member.isdir(), size, _content(stream, member.name, size)
                progress.update(raw.tell() - progress.done)
                headers.left = Headers.MOST
        # Behind the last member stands a block of zeros; where it is missing, members may be.
        if len(headers.last) < tarfile.BLOCKSIZE or headers.last.strip(b"\0"):
            raise DamagedError("it is cut short, or a header in it is damaged")
        while block := stream.read(BLOCK):  # to its end, where compressed data has its checksum
            if block.strip(b"\0"):
                raise DamagedError("it goes on behind its end")


def _content(stream: BinaryIO, name: str, num_bytes: int) -> Iterator[bytes]:
    left = num_bytes
    while left:
        if not (block := stream.read(min(BLOCK, left))):
            raise DamagedError(f"{name!r} ends after {num_bytes - left} of {num_bytes} bytes")
        left -= len(block)
        yield block


def _unzip(parts: Sequence[Path], progress: Progress) -> Iterator[Member]:
    """The members of a zip archive in one pass over its parts, which zipfile cannot read.

    Parts are slices of one archive, or a split one (.z01, ..., .zip); only a mark at the beginning
    tells these apart.
    """
    from stream_unzip import stream_unzip

    end, num_members = b"", 0

    def watched() -> Iterator[bytes]:
        nonlocal end
        for block in blocks(parts, progress):
            end = (end + block)[-ZIP_END - FULL :]
            yield block

    rest = watched()
    first = next(rest, b"").removeprefix(b"PK\7\x08").removeprefix(b"PK00")
    for name, size, content in stream_unzip(chain([first], rest)):
        num_members += 1
        utf8 = name.decode(errors="ignore")
        yield utf8 if utf8.encode() == name else name.decode("cp437"), size, content
    # The directory behind the members is not used, but tells whether some are missing.
    at = max(end.rfind(b"PK\5\6"), 0)
    record = end[at : at + ZIP_END]
    if len(end) != at + ZIP_END + int.from_bytes(record[20:22], "little"):
        raise DamagedError("it is cut short, or goes on behind its end")
    if int.from_bytes(record[10:12], "little") not in (num_members, FULL):
        raise DamagedError(f"not all of its members are there, only {num_members}")
