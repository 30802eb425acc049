"""Files that appear complete or not at all, are compared with their checksums, and are locked."""

import errno
import fcntl
import hashlib
import json
import os
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:  # for what does not handle tables it would be a second's wait
    import pandas as pd

CHECKED = ".checked.json"
"""File name -> inode, size and time of change at which its checksum was last found right."""
LOCK_WAIT_S = 60.0
"""How long to wait for another process: it may be about to end."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary name beside ``path`` that takes its place when the block ends without error.

    Raises: as `blaming`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        with blaming(path):
            yield temporary
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def blaming(path: Path) -> Iterator[None]:
    """Names ``path`` in an OSError of the block that names no file, as those of a full disk."""
    try:
        yield
    except OSError as error:
        if error.filename is not None:
            raise
        raise OSError(error.errno, f"{path}: not written: {error.strerror or error}") from error


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


# ------------------------------------------------------------------------------------ checksums


def sha256(path: Path) -> str:
    """Checksum of a file's bytes, read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of_all(path: Path) -> str:
    """Checksum of a file, or of all files in a folder and below."""
    paths = sorted(path.rglob("*")) if path.is_dir() else [path]
    digests = [sha256(each) for each in paths if each.is_file()]
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()


def wrong(folder: Path, checksums: dict[str, str], *, again: bool = False) -> list[str]:
    """Which files of a folder are not those of their recorded checksums.

    Each is read once per change of its inode, size or time of change, which `CHECKED` in the folder
    remembers; several at a time; by one process, for which others wait.

    Args:
        checksums: name -> SHA-256; all are there.
        again: read all, whatever is remembered.
    """
    record, places = folder / CHECKED, {name: _place(folder / name) for name in checksums}
    if (
        not again
        and places.items() <= _known(record.read_text() if record.exists() else "").items()
    ):
        return []
    if not os.access(folder, os.W_OK):  # somebody else's: nothing can be remembered
        return _differing(folder, checksums)
    with locked(record, "compares its files with their checksums", wait_s=float("inf")) as file:
        file.seek(0)
        known = _known(file.read())
        new = {
            name: each
            for name, each in checksums.items()
            if again or known.get(name) != places[name]
        }
        bad = _differing(folder, new)
        file.truncate(0)
        json.dump({name: at for name, at in (known | places).items() if name not in bad}, file)
    return bad


def _place(path: Path) -> list[int]:
    """Inode, size and time of change (ns) of a file."""
    state = path.stat()
    return [state.st_ino, state.st_size, state.st_ctime_ns]


def _known(record: str) -> dict[str, list[int]]:
    """What a record says, which may be torn."""
    try:
        return json.loads(record)
    except ValueError:
        return {}


def _differing(folder: Path, checksums: dict[str, str]) -> list[str]:
    with ThreadPoolExecutor() as threads:  # hashing leaves the interpreter free
        found = threads.map(sha256, [folder / name for name in checksums])
        return [
            name for name, each in zip(checksums, found, strict=True) if each != checksums[name]
        ]


# ---------------------------------------------------------------------------------------- locks


@contextmanager
def locked(path: Path, doing: str, *, wait_s: float | None = None) -> Iterator[IO[str]]:
    """One process at a time; the system unlocks when this one ends, however it does.

    Args:
        path: the lock, made if missing. Nothing else may open it meanwhile in this process: closing
            it again would unlock it.
        doing: what the holder does, for the message: "another process <doing>".
        wait_s: seconds to wait for another holder; None: `LOCK_WAIT_S`.
    Yields: the lock, opened to read and to append.
    Raises: BlockingIOError naming it if another process keeps it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", encoding="utf-8") as lock:
        deadline, said = time.monotonic() + (LOCK_WAIT_S if wait_s is None else wait_s), False
        while not _taken(lock):
            if time.monotonic() >= deadline:
                raise BlockingIOError(f"{path}: another process {doing}")
            if not said:
                print(f"{path}: waiting for another process that {doing}", flush=True)
            said = True
            time.sleep(0.1)
        yield lock


def _taken(lock: IO[str]) -> bool:
    """Locks a file unless another process has. A file system without locks asks nobody."""
    try:
        fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in (errno.EACCES, errno.EAGAIN)
    return True
