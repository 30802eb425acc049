"""Audio inside WebDataset tars and parquet shards, read without unpacking.

A member of a container has a path of its own: ``train-0001.tar::1024+320044`` are 320,044 bytes
from byte 1,024 on, ``train-0001.parquet::12+7`` is row 7 of row group 12.
"""

import os
import re
import threading
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:  # most who ask what a path means read no parquet
    import pyarrow as pa
    import pyarrow.parquet as pq

UNREAD = "cannot be read"
"""Begins the reason where the system refuses to read, which may pass."""
MEMBER = r"(?is)^(.*\.(tar|parquet))::(\d+)\+(\d+)$"
"""The path of a member: its container, what that is, and two numbers."""


class UnusableAudioError(ValueError):
    """Audio, or a container of it, that gives no usable waveform; the message is the reason."""


class Member(NamedTuple):
    """Where a member lies."""

    container: Path
    first: int
    """Byte of a tar, or row group."""
    second: int
    """Number of bytes, or row in the row group."""


def member(path: Path | str) -> Member | None:
    """What the path of a member means; None for that of an ordinary file."""
    if (found := re.match(MEMBER, str(path))) is None:
        return None
    return Member(Path(found[1]), int(found[3]), int(found[4]))


def read_together(path: str, other: str) -> bool:
    """Whether reading one reads the other too: rows of one row group."""
    found = re.match(MEMBER, path)
    same = path.rpartition("+")[0] == other.rpartition("+")[0]
    return same and found is not None and found[2].lower() == "parquet"


def read(where: Member) -> bytes:
    """The bytes of a member.

    Of a parquet file, a whole row group is read; each thread keeps its last one.

    Raises: UnusableAudioError.
    """
    try:
        if where.container.suffix.lower() == ".parquet":
            return _row(where)
        with where.container.open("rb") as file:
            file.seek(where.first)
            rest = os.fstat(file.fileno()).st_size - where.first
            content = file.read(min(where.second, max(rest, 0)))  # no memory for what is not there
    except FileNotFoundError:
        raise UnusableAudioError("missing file") from None
    except OSError as error:
        raise UnusableAudioError(f"{UNREAD} ({error.strerror or error})") from None
    if missing := where.second - len(content):
        raise UnusableAudioError(f"truncated: the last {missing} bytes are missing")
    return content


_kept = threading.local()
"""Of each thread: `group`, the row group read last, and `rows`, the audio in it."""


def _row(where: Member) -> bytes:
    state = where.container.stat()
    group = (where.container, where.first, state.st_size, state.st_mtime_ns)
    if getattr(_kept, "group", None) != group:
        _kept.group = _kept.rows = None  # two at a time would need twice the memory
        with opened(where.container) as file:
            if where.first >= file.num_row_groups:
                raise UnusableAudioError("no such row group")
            _kept.rows = column(file, where.first, columns(file)[0])
        _kept.group = group
    if where.second >= len(_kept.rows):
        raise UnusableAudioError("no such row")
    content = _kept.rows[where.second].as_py()
    if content is None:
        raise UnusableAudioError("no bytes in this row")
    return content


def opened(path: Path) -> "pq.ParquetFile":
    """A parquet file. Raises: UnusableAudioError; OSError."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(path)
    except pa.ArrowException as error:
        raise UnusableAudioError(str(error)) from None


def column(file: "pq.ParquetFile", group: int, name: str) -> "pa.ChunkedArray":
    """One column of a row group; ``audio.bytes`` is a part of the column ``audio``.

    Raises: UnusableAudioError.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    try:
        column = file.read_row_group(group, columns=[name], use_threads=False).column(0)
    except (pa.ArrowException, OSError) as error:
        raise UnusableAudioError(f"{UNREAD} (row group {group}: {error})") from None
    _, _, part = name.rpartition(".")
    return pc.struct_field(column, part) if pa.types.is_struct(column.type) else column


def columns(file: "pq.ParquetFile") -> tuple[str, str | None]:
    """The column with the audio, and the one with its names, if there is one.

    Audio is the only column of bytes, or else the one called "audio". Hugging Face's columns have
    two parts, the bytes and their path.

    Raises: UnusableAudioError if it cannot be told which column is the audio.
    """
    import pyarrow.types as types

    found: dict[str, tuple[str, str | None]] = {}
    schema = file.schema_arrow
    key = "__key__" if "__key__" in schema.names else None  # of a WebDataset that was converted
    for column in schema:
        if _is_bytes(column.type):
            found[column.name] = column.name, key
        elif types.is_struct(column.type):
            parts = {part.name: part.type for part in column.type}
            if "bytes" in parts and _is_bytes(parts["bytes"]):
                name = f"{column.name}.path" if _is_text(parts.get("path")) else key
                found[column.name] = f"{column.name}.bytes", name
    if len(found) != 1 and "audio" not in found:
        got = f"got {', '.join(found)}" if found else "got none"
        raise UnusableAudioError(f"{got}; needed: one column of bytes, or one called 'audio'")
    return found["audio"] if "audio" in found else next(iter(found.values()))


def _is_bytes(kind: "pa.DataType") -> bool:
    return str(kind) in ("binary", "large_binary", "binary_view")


def _is_text(kind: "pa.DataType | None") -> bool:
    return str(kind) in ("string", "large_string", "string_view")
