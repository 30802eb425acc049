"""What lies in a container of audio (`matpac.audio.containers`), and what is wrong with it.

One scan reads the headers of a tar, or the footer and names of a parquet file. Of a damaged tar,
all that lies before and behind the damage is found.
"""

import math
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from matpac.audio import containers, finding

BLOCK = 512
"""Bytes: a tar is made of such blocks."""
PADDING = 1 << 20
"""More zero bytes than that at the end of a tar are no padding but missing content."""
SHOWN = 3
"""Problems of a container that are named."""


@dataclass
class Listing:
    """The members of a container, in their order, and what is wrong with it."""

    members: list[tuple[str, int, int]] = field(default_factory=list)
    """Name as in the container ("" for a row without one), and where it lies, as in
    `containers.Member`."""
    problems: list[str] = field(default_factory=list)

    @property
    def problem(self) -> str:
        """The first problems in a line; "" if there is none."""
        more = [f"and {len(self.problems) - SHOWN} more"] if len(self.problems) > SHOWN else []
        return "; ".join(self.problems[:SHOWN] + more)


def scan(path: Path) -> Listing:
    """Finds the audio of a tar by its headers alone, of a parquet file by its footer and names.

    Members of a tar are told by their extension; hidden ones are passed over.
    """
    listing = Listing()
    try:
        if path.name.lower().endswith(finding.COMPRESSED):
            raise ValueError("compressed, so its members cannot be reached one by one")
        if path.suffix.lower() == ".parquet":
            _scan_parquet(path, listing)
        else:
            _scan_tar(path, listing)
    except Exception as error:  # whatever libraries say of what a stranger has made
        listing.problems.append(f"cannot be read ({str(error) or type(error).__name__})")
    if not listing.members and not listing.problems:
        listing.problems.append("no audio in it")
    return listing


class Headers:
    """The file of a tar, from which only headers are read; for `tarfile.open`.

    Tarfile believes what a header says of the records behind it, however long: names, and
    attributes of a member.

    Args:
        left: bytes that may be read until the caller raises it again.
    """

    MOST = 1 << 16
    """Bytes of the records of a member; a path has at most 4,096."""
    DIGITS = re.compile(rb"\d{300}")
    """No name or number has as many, and tarfile (before 3.11.10, 3.12.6) takes their square."""

    def __init__(self, stream: BinaryIO, left: float = MOST) -> None:
        self.stream, self.left, self.last = stream, left, b""
        self.seek, self.tell = stream.seek, stream.tell

    def read(self, size: int) -> bytes:
        """Raises: tarfile.InvalidHeaderError."""
        self.left -= size
        if not 0 <= size <= self.MOST or self.left < 0:
            raise tarfile.InvalidHeaderError("records too long")  # type: ignore[attr-defined]
        self.last = self.stream.read(size)
        if self.DIGITS.search(self.last):
            raise tarfile.InvalidHeaderError("a number too long")  # type: ignore[attr-defined]
        return self.last


def _scan_tar(path: Path, listing: Listing) -> None:
    end, size = 0, path.stat().st_size
    with (
        path.open("rb") as file,
        tarfile.open(fileobj=Headers(file, math.inf), mode="r:", errors="replace") as tar,  # type: ignore[call-overload]
    ):
        for each in _headers(tar):
            if not 0 <= each.size < 1 << 62 or tar.offset < each.offset_data:
                listing.problems.append(f"damaged at byte {each.offset}: {each.size} bytes")
                end = tar.offset = each.offset_data
                continue
            if each.offset > end and not _is_empty(file, end, each.offset):
                listing.problems.append(f"damaged between the bytes {end} and {each.offset}")
            end = tar.offset
            if not each.name.lower().endswith(finding.EXTENSIONS) or _is_hidden(each.name):
                continue
            if each.isreg() and not each.issparse():
                listing.members.append((each.name, each.offset_data, each.size))
            elif not each.isdir():
                listing.problems.append(f"{each.name}: a link, or stored with holes")
        if end > size:
            listing.problems.append("cut off")
        elif size - end < BLOCK:
            listing.problems.append("perhaps cut off: it ends without the mark of its end")
        elif not _is_empty(file, end, size) or size - end > PADDING:
            listing.problems.append(f"damaged from byte {end} on")


def _headers(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """Headers up to the last that can be read; of those before, none is kept in memory."""
    tar.ignore_zeros = True  # go on behind damage, and where tars were joined
    try:
        while (header := tar.next()) is not None:
            tar.members.clear()
            yield header
    except tarfile.ReadError:
        return  # what follows the last header tells how it ended


def _is_empty(file: BinaryIO, begin: int, end: int) -> bool:
    """Whether a part of a tar is padding, perhaps followed by a header for all members."""
    found = b""
    file.seek(begin)
    while not found and file.tell() < end:
        part = file.read(min(PADDING, end - file.tell()))
        found = part.lstrip(b"\0")
    header = part[(len(part) - len(found)) // BLOCK * BLOCK :]
    return not found or header[156:157] == tarfile.XGLTYPE


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") and part not in (".", "..") for part in name.split("/"))


def _scan_parquet(path: Path, listing: Listing) -> None:
    with containers.opened(path) as file:
        _, names = containers.columns(file)
        for group in range(file.num_row_groups):
            if names is None:
                found = [""] * file.metadata.row_group(group).num_rows
            else:
                found = containers.column(file, group, names).to_pylist()
            listing.members += [(name or "", group, row) for row, name in enumerate(found)]
