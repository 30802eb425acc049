"""Unpacks archives of strangers: nothing is written outside the folder, nothing more than allowed.

Only regular files and folders with plain relative names are written, each once; no data set needs
links, devices or pipes. An archive is unpacked beside its place and moved there when whole;
``<folder>/.unpacked/<archive>.json`` then says what was unpacked, so that it is not done again, and
that an interrupted unpacking is never taken for whole.
"""

import errno
import os
import re
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from matpac.core import files
from matpac.core.progress import Progress
from matpac.data import members
from matpac.data.catalogue import Archive, Kind
from matpac.data.members import DamagedError, UnsafeError

MOST_FILES = 1_000_000
"""An archive with more is refused; the largest data set has 300,000."""
DEEPEST = 32
"""An archive with more folders in each other is refused."""
STATES = ".unpacked"
OF_NAMES = (errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ)
"""What a system says of a name that it does not take."""
Digests = dict[str, dict[str, str]]
"""File name -> algorithm -> checksum."""


def state_file(archive: Archive, folder: Path) -> Path:
    """Says what was unpacked of an archive."""
    return folder / STATES / f"{archive.name}.json"


def state(archive: Archive, folder: Path) -> dict[str, Any]:
    """What was unpacked of an archive: the "digests" of its files, the "entries" of the folder that
    came from it, and whether they are all "moved" there."""
    file = state_file(archive, folder)
    nothing = {"digests": {}, "entries": [], "moved": False}
    return files.read_json(file) if file.exists() else nothing


def note(archive: Archive, folder: Path, **more: object) -> None:
    """Adds to `state`."""
    files.write_json(state_file(archive, folder), state(archive, folder) | more)


def forget(archive: Archive, folder: Path) -> None:
    """Sets aside what was unpacked of an archive, which was wrong."""
    for entry in state(archive, folder)["entries"]:
        if (folder / entry).exists():
            set_aside(folder / entry)
    state_file(archive, folder).unlink(missing_ok=True)


def set_aside(path: Path) -> Path:
    """Renames what is wrong, so that the next run starts without it; returns its new path."""
    aside = path.with_name(f"{path.name}.wrong")
    _remove(aside)
    return path.rename(aside)


def is_unpacked(archive: Archive, folder: Path) -> bool:
    """Whether `unpack` has finished with this archive, and its result is still there.

    Of an archive that is a plain file, its content is compared, too.
    """
    found = state(archive, folder)
    if not found["moved"] or not all((folder / entry).exists() for entry in found["entries"]):
        return False
    for file in archive.files:
        digests = found["digests"].get(file.name, {})
        certain = dict(checksum.split(":") for checksum in file.checksums)
        plain = {file.name: digests["sha256"]} if "sha256" in digests else {}
        if digests | certain != digests or (archive.kind == "file" and files.wrong(folder, plain)):
            return False
    return True


def unpack(
    archive: Archive, parts: Sequence[Path], folder: Path, *, digests: Digests, max_bytes: int
) -> None:
    """Unpacks into ``folder``, replacing what an earlier unpacking of the same archive put there.

    Args:
        archive: its name and kind.
        parts: the files that it consists of, in order.
        digests: what these are, kept for `is_unpacked`.
        max_bytes: an archive that holds more is refused before the disk fills.
    Raises: UnsafeError; DamagedError; FileExistsError if other files are in the way. Then nothing
        of it is left behind.
    """
    known, temporary = state(archive, folder)["entries"], folder / f".unpacking-{archive.name}"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    (folder / STATES).mkdir(exist_ok=True)  # no archive can bring it along
    try:
        extract(archive.kind, parts, temporary, max_bytes=max_bytes)
        entries = sorted(entry.name for entry in temporary.iterdir())
        _check_free(folder, {*entries} - {*known}, archive.name)
        # Told first, so that after an interruption they are not taken for files from elsewhere.
        note(archive, folder, digests=digests, entries=sorted({*entries, *known}), moved=False)
        for entry in entries:
            _remove(folder / entry)
            (temporary / entry).rename(folder / entry)
        note(archive, folder, entries=entries, moved=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def extract(kind: Kind, parts: Sequence[Path], folder: Path, *, max_bytes: int) -> None:
    """Unpacks into an empty folder.

    Raises: UnsafeError, DamagedError; OSError of the disk. What was written stays.
    """
    name, size = parts[-1].name, sum(part.stat().st_size for part in parts)
    try:
        with Progress(size, f"unpack {name}", unit="B") as progress, files.blaming(folder):
            place = _Place(folder, max_bytes)
            for member in members.read(kind, parts, progress):
                place.add(*member)
    except (UnsafeError, DamagedError) as error:
        raise type(error)(f"{name}: {error}") from None
    except Exception as error:  # whatever libraries say of what a stranger has made
        if isinstance(error, OSError) and error.errno not in (None, *OF_NAMES):
            raise
        raise DamagedError(f"{name} is damaged: {error!r}") from error


def _check_free(folder: Path, entries: set[str], name: str) -> None:
    if taken := sorted(entry for entry in entries if os.path.lexists(folder / entry)):
        raise FileExistsError(
            f"{name} holds {', '.join(taken)}, which {folder} has already from elsewhere; move it "
            "away, or give that folder in params.yaml if it is the unpacked data set"
        )


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


class _Place:
    """A new folder that accepts regular files and folders, up to ``max_bytes`` and `MOST_FILES`."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self.folder, self.max_bytes = folder, max_bytes
        self.num_bytes = self.num_files = 0

    def add(self, name: str, num_bytes: int | None, blocks: Iterable[bytes]) -> None:
        """Writes a member. Raises: UnsafeError, before anything too large is written."""
        self.num_files += 1
        if self.num_files > MOST_FILES:
            raise UnsafeError(f"it holds more than {MOST_FILES:,} files")
        self._check(num_bytes or 0)
        path, is_folder = self._path(name), name.endswith("/")
        try:
            (path if is_folder else path.parent).mkdir(parents=True, exist_ok=True)
            if is_folder and not any(blocks):
                return
            file = path.open("xb")  # never through something that is there
        except (FileExistsError, NotADirectoryError, IsADirectoryError):
            problem = f"{name!r} is there twice, or is both a file and a folder"
            raise UnsafeError(problem) from None
        with file:
            for block in blocks:
                self._check(len(block))
                self.num_bytes += len(block)
                file.write(block)

    def _check(self, more: int) -> None:
        if self.num_bytes + more > self.max_bytes:
            most = f"{self.max_bytes / 1e9:.3f} GB"
            raise UnsafeError(f"it unpacks to more than {most}, the most that is expected or free")

    def _path(self, name: str) -> Path:
        """Where a member goes. Raises: UnsafeError unless that is in the folder, on any system."""
        path = PurePosixPath(name)
        bad = path.is_absolute() or ".." in path.parts or re.match("[A-Za-z]:", name)
        # Surrogates stand for bytes that are no text.
        if bad or not name or re.search("[\0\\\\\ud800-\udfff]", name):
            raise UnsafeError(f"the name {name!r} leads out of the folder, or is none")
        if len(path.parts) > DEEPEST:
            raise UnsafeError(f"a name has more than {DEEPEST} folders")
        return self.folder / path
