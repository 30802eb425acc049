"""Files that appear complete or not at all, and their checksums."""

import hashlib
import json
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # for what does not handle tables it would be a second's wait
    import pandas as pd


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary name beside ``path`` that takes its place when the block ends without error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Writes readable JSON, byte-identical for equal values."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", "utf-8")


def read_json(path: Path) -> Any:
    """What `write_json` wrote. Raises: ValueError naming a file that is not JSON."""
    try:
        return json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: not readable as JSON: {error}") from None


def write_table(path: Path, frame: "pd.DataFrame") -> None:
    """Writes a table as Parquet, without its row index."""
    with replacing(path) as temporary:
        frame.to_parquet(temporary, index=False)


@contextmanager
def blaming(path: Path) -> Iterator[None]:
    """Names ``path`` in an OSError of the block: "no space left" alone does not say where."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, f"{path}: not written: {error.strerror or error}") from error


def sync(path: Path) -> None:
    """Waits until the content of a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_temporaries(folder: Path) -> None:
    """Removes what `replacing` left in a folder when its process was killed."""
    for path in folder.glob(".*.tmp"):
        path.unlink(missing_ok=True)


def sha256(path: Path) -> str:
    """Checksum of a file's bytes, read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of_all(path: Path) -> str:
    """Checksum of a file, or of all files in a folder and below."""
    paths = sorted(path.rglob("*")) if path.is_dir() else [path]
    digests = [sha256(each) for each in paths if each.is_file()]
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()
