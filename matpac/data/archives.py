"""Unpacks archives of strangers: nothing is written outside the folder, nothing more than allowed.

Only regular files and folders with plain relative names are written, each once; no data set needs
links, devices or pipes. An archive is unpacked beside its place and moved there when whole;
``<folder>/.unpacked/<archive>.json`` then says what was unpacked, so that it is not done again, and
that an interrupted unpacking is never taken for whole.
"""

import bz2
import errno
import gzip
import os
import re
import shutil
import tarfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, cast

from matpac.audio.listings import Headers
from matpac.core import files
from matpac.core.progress import Bytes
from matpac.data.catalogue import Archive, Kind

BLOCK = 1 << 18
MOST_FILES = 1_000_000
"""An archive with more is refused; the largest data set has 300,000."""
DEEPEST = 32
"""An archive with more folders in each other is refused."""
ZIP_END = 22
"""Bytes of the last record of a zip, behind which a comment of up to `FULL` may stand."""
FULL = 0xFFFF
STATES = ".unpacked"
OF_NAMES = (errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ)
"""What a system says of a name that it does not take."""
Digests = dict[str, dict[str, str]]
"""File name -> algorithm -> checksum."""
Member = tuple[str, int | None, Iterable[bytes]]
"""Name, with "/" behind that of a folder; number of bytes, if known; content."""


class UnsafeError(ValueError):
    """An archive that would write where or what it must not."""


class DamagedError(ValueError):
    """An archive that does not hold what it says it holds."""


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
    read: dict[Kind, Callable[..., Iterator[Member]]] = {
        "file": _copy,
        "tar": _untar,
        "zip": _unzip,
    }
    name, size = parts[-1].name, sum(part.stat().st_size for part in parts)
    try:
        with Bytes(size, f"unpack {name}") as progress, files.blaming(folder):
            place = _Place(folder, max_bytes)
            for member in read[kind](parts, progress):
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


def blocks(parts: Sequence[Path], progress: Bytes | None = None) -> Iterator[bytes]:
    """The content of files, one behind the other."""
    for part in parts:
        with part.open("rb") as file:
            while block := file.read(BLOCK):
                if progress:
                    progress.update(len(block))
                yield block


def _copy(parts: Sequence[Path], progress: Bytes) -> Iterator[Member]:
    yield parts[0].name, None, blocks(parts, progress)


def _untar(parts: Sequence[Path], progress: Bytes) -> Iterator[Member]:
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
                progress.update(raw.tell() - progress.num_bytes)
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


def _unzip(parts: Sequence[Path], progress: Bytes) -> Iterator[Member]:
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
