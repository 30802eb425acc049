"""Zip archives in several files, as one that Python's zipfile can read; nothing is copied.

Two kinds are about. *Slices* are one archive cut anywhere: joined, they are it. A *split* archive
(``.z01``, ``.z02``, ..., ``.zip``) is made in parts, which its specification calls disks: its
central directory gives each member's place as a disk and an offset on that disk, which zipfile does
not read. Here the disks are joined and the directory is written anew, with offsets from the start.

The records are those of PKWARE's APPNOTE, sections 4.3.12 to 4.3.16 and 4.5.3; little-endian.
"""

import errno
import io
import struct
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import BinaryIO

MEMBER = struct.Struct("<4s6H3L5H2L")
END = struct.Struct("<4s4H2LH")
LOCATOR64 = struct.Struct("<4sLQL")
END64 = struct.Struct("<4sQ2H2L4Q")
FULL16, FULL32 = 0xFFFF, 0xFFFFFFFF
"""Mean that the value stands in a 64-bit record."""
ZIP64 = 0x0001
"""Number of the extra field with 64-bit values."""
LONGEST_END = END.size + FULL16
"""Bytes of the last record with the longest comment."""


class DamagedError(ValueError):
    """An archive that does not hold what it says it holds."""


class Joined(io.RawIOBase):
    """Files read as if they lay one behind the other.

    Args:
        streams: open files; `close` closes them.
        lengths: how many bytes of each, from its start.
    """

    def __init__(self, streams: Sequence[BinaryIO], lengths: Sequence[int]) -> None:
        self.streams, self.lengths = list(streams), list(lengths)
        self.ends = list(accumulate(lengths))
        self.position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self.position, io.SEEK_END: self.size}[whence]
        if start + offset < 0:
            raise OSError(errno.EINVAL, f"no position {start + offset}")
        self.position = start + offset
        return self.position

    @property
    def size(self) -> int:
        """Bytes in all."""
        return self.ends[-1] if self.ends else 0

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        for stream, length, end in zip(self.streams, self.lengths, self.ends, strict=True):
            if self.position < end:
                stream.seek(self.position - (end - length))
                block = stream.read(min(len(buffer), end - self.position))
                buffer[: len(block)] = block
                self.position += len(block)
                return len(block)
        return 0

    def replace_from(self, place: int, data: bytes) -> None:
        """Reads ``data`` in place of everything from ``place`` on; the files stay as they are."""
        starts = [0, *self.ends[:-1]]
        lengths = [
            min(length, max(place - start, 0))
            for start, length in zip(starts, self.lengths, strict=True)
        ]
        self.streams.append(io.BytesIO(data))
        self.lengths = [*lengths, len(data)]
        self.ends = list(accumulate(self.lengths))

    def close(self) -> None:
        for stream in self.streams:
            stream.close()
        super().close()


def join(parts: Sequence[Path]) -> io.BufferedReader:
    """The parts of a sliced archive, or of any file, one behind the other."""
    return io.BufferedReader(_joined(parts))


def open_split(parts: Sequence[Path]) -> io.BufferedReader:
    """A split archive as one.

    Args: parts: in the order of their numbers, the ``.zip`` last.
    Raises: DamagedError if the parts are not one whole archive.
    """
    disks = _joined(parts)
    try:
        disks.replace_from(*_rewritten_directory(disks))
    except BaseException:
        disks.close()
        raise
    return io.BufferedReader(disks)


def _joined(parts: Sequence[Path]) -> Joined:
    return Joined([part.open("rb") for part in parts], [part.stat().st_size for part in parts])


def _rewritten_directory(disks: Joined) -> tuple[int, bytes]:
    """Where the directory begins in the joined disks, and the directory that goes there."""
    starts = [0, *disks.ends[:-1]]
    last, first, num_members, size, offset = _end(disks, starts)
    if last + 1 != len(starts):
        raise DamagedError(f"there are {len(starts)} parts, the archive says {last + 1}")
    place = _absolute(first, offset, starts)
    if place + size > disks.size:
        raise DamagedError("its central directory ends behind its last part")
    old, new, at = _read(disks, place, size), bytearray(), 0
    for _ in range(num_members):
        member, at = _moved(old, at, starts)
        new += member
    return place, bytes(new) + _new_end(place, len(new), num_members)


def _end(disks: Joined, starts: list[int]) -> tuple[int, int, int, int, int]:
    """Last disk; the directory's first disk, number of members, bytes and offset on its disk."""
    tail_start = max(disks.size - LONGEST_END, 0)
    tail = _read(disks, tail_start, disks.size - tail_start)
    at = tail.rfind(b"PK\5\6")
    if at < 0 or len(tail) - at < END.size:
        raise DamagedError("its last part does not end like a zip archive")
    _, last, first, _, num_members, size, offset, comment = END.unpack_from(tail, at)
    if at + END.size + comment != len(tail):
        raise DamagedError("its last part is cut short or has bytes behind its end")
    locator_at = tail_start + at - LOCATOR64.size
    if locator_at >= 0:
        locator = LOCATOR64.unpack(_read(disks, locator_at, LOCATOR64.size))
        if locator[0] == b"PK\6\7":
            at = _absolute(locator[1], locator[2], starts)
            record = END64.unpack(_read(disks, at, END64.size))
            if record[0] != b"PK\6\6":
                raise DamagedError("its 64-bit end record is not where it should be")
            last, first, _, num_members, size, offset = record[4:]
    return last, first, num_members, size, offset


def _moved(directory: bytes, at: int, starts: list[int]) -> tuple[bytes, int]:
    """The member's record at ``at``, placed from the start of the first disk; where the next is."""
    if at + MEMBER.size > len(directory) or directory[at : at + 4] != b"PK\1\2":
        raise DamagedError("its central directory is cut short or not where it should be")
    fields = list(MEMBER.unpack_from(directory, at))
    name_end = at + MEMBER.size + fields[10]
    extra_end = name_end + fields[11]
    end = extra_end + fields[12]
    large, others = _extra(directory[name_end:extra_end])
    # Of these, in this order, only those that did not fit their own fields stand in `large`.
    sizes = b""
    for size in (fields[9], fields[8]):
        if size == FULL32:
            sizes, large = sizes + large[:8], large[8:]
    disk, offset = fields[13], fields[16]
    if offset == FULL32:
        offset, large = int.from_bytes(large[:8], "little"), large[8:]
    if disk == FULL16:
        disk = int.from_bytes(large[:4], "little")
    value = sizes + _absolute(disk, offset, starts).to_bytes(8, "little")
    extra = struct.pack("<2H", ZIP64, len(value)) + value + others
    if len(extra) > FULL16 or end > len(directory):
        raise DamagedError("a member's record in its central directory is not valid")
    fields[11], fields[13], fields[16] = len(extra), 0, FULL32
    name, comment = directory[at + MEMBER.size : name_end], directory[extra_end:end]
    return MEMBER.pack(*fields) + name + extra + comment, end


def _extra(extra: bytes) -> tuple[bytes, bytes]:
    """The content of the 64-bit field ("" if there is none), and all other fields as they are."""
    large, others = b"", b""
    while len(extra) >= 4:
        number, length = struct.unpack_from("<2H", extra)
        field, extra = extra[: 4 + length], extra[4 + length :]
        if number == ZIP64:
            large = field[4:]
        else:
            others += field
    return large, others


def _new_end(place: int, size: int, num_members: int) -> bytes:
    """The records behind a directory in an archive of one disk."""
    end64 = END64.pack(
        b"PK\6\6", END64.size - 12, 45, 45, 0, 0, num_members, num_members, size, place
    )
    locator = LOCATOR64.pack(b"PK\6\7", 0, place + size, 1)
    return end64 + locator + END.pack(b"PK\5\6", 0, 0, FULL16, FULL16, FULL32, FULL32, 0)


def _absolute(disk: int, offset: int, starts: list[int]) -> int:
    if disk >= len(starts):
        raise DamagedError(f"it speaks of part {disk + 1}, there are {len(starts)}")
    return starts[disk] + offset


def _read(disks: Joined, at: int, size: int) -> bytes:
    disks.seek(at)
    data = b""
    while len(data) < size and (block := disks.read(size - len(data))):
        data += block
    if len(data) < size:
        raise DamagedError("it is cut short")
    return data
