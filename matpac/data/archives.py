"""Unpacks archives of strangers: nothing is written outside the folder, nothing more than allowed.

Only regular files and folders with plain relative names are taken; links, devices and pipes are
refused, since no data set needs them. An archive is unpacked beside its place and moved there when
whole; ``<folder>/.unpacked/<archive>.json`` then says what was unpacked, so that it is not done
again, and that an interrupted unpacking is never taken for whole.
"""

import bz2
import gzip
import lzma
import os
import re
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import BinaryIO, cast

from matpac.core import files
from matpac.core.progress import Bytes
from matpac.data import splitzip
from matpac.data.catalogue import Archive, Kind
from matpac.data.splitzip import DamagedError

BLOCK = 1 << 18
MOST_FILES = 1_000_000
"""An archive with more is refused; the largest data set has 300,000."""
BROKEN = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    gzip.BadGzipFile,
    EOFError,
    NotImplementedError,  # compressed in a way that Python does not know
)
Digests = dict[str, dict[str, str]]
"""File name -> algorithm -> checksum."""


class UnsafeError(ValueError):
    """An archive that would write where or what it must not."""


def is_unpacked(archive: Archive, folder: Path) -> bool:
    """Whether `unpack` has finished with this archive, and its result is still there."""
    state_file = _state_file(folder, archive.name)
    if not state_file.exists():
        return False
    state = files.read_json(state_file)
    if not state["moved"] or not all((folder / entry).exists() for entry in state["entries"]):
        return False
    for file in archive.files:
        found = state["digests"].get(file.name, {})
        for algorithm, _, value in (checksum.partition(":") for checksum in file.checksums):
            if found.get(algorithm) != value:
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
    state_file, name = _state_file(folder, archive.name), archive.name
    state_file.parent.mkdir(parents=True, exist_ok=True)  # no archive can bring it along
    state = files.read_json(state_file) if state_file.exists() else {"entries": []}
    temporary = folder / f".unpacking-{name}"
    if state.get("digests") != digests or state["moved"] or not temporary.is_dir():
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        try:
            extract(archive.kind, parts, temporary, max_bytes=max_bytes, desc=f"unpack {name}")
            entries = sorted(entry.name for entry in temporary.iterdir())
            _check_free(folder, set(entries) - set(state["entries"]), name)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        state = {"digests": digests, "entries": entries, "moved": False}
        files.write_json(state_file, state)
    for entry in state["entries"]:
        if (temporary / entry).exists():  # otherwise moved before an interruption
            _remove(folder / entry)
            (temporary / entry).rename(folder / entry)
    files.write_json(state_file, state | {"moved": True})
    temporary.rmdir()


def extract(kind: Kind, parts: Sequence[Path], folder: Path, *, max_bytes: int, desc: str) -> None:
    """Unpacks into an empty folder. Raises: UnsafeError, DamagedError; what was written stays."""
    try:
        if kind == "file":
            _copy(parts[0], _Place(folder, max_bytes))
        elif kind == "tar":
            _untar(parts[0], _Place(folder, max_bytes), desc)
        else:
            stream = splitzip.open_split(parts) if kind == "split zip" else splitzip.join(parts)
            with stream, zipfile.ZipFile(stream) as packed:
                _unzip(packed, _Place(folder, max_bytes), desc)
    except BROKEN as error:
        raise DamagedError(f"{parts[-1].name} is damaged: {error}") from error
    except (UnsafeError, DamagedError) as error:
        raise type(error)(f"{parts[-1].name}: {error}") from None


def _state_file(folder: Path, name: str) -> Path:
    return folder / ".unpacked" / f"{name}.json"


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

    def reserve(self, num_bytes: int) -> None:
        """Counts bytes before they are written."""
        self.num_bytes += num_bytes
        if self.num_bytes > self.max_bytes:
            most = f"{self.max_bytes / 1e9:.3f} GB"
            raise UnsafeError(f"it unpacks to more than {most}, the most that is expected or free")

    def count(self) -> None:
        """Counts a file or folder."""
        self.num_files += 1
        if self.num_files > MOST_FILES:
            raise UnsafeError(f"it holds more than {MOST_FILES:,} files")

    def add_folder(self, name: str) -> None:
        """Makes a folder and those above it."""
        self.count()
        with _clash(name):
            self._path(name).mkdir(parents=True, exist_ok=True)

    def add_file(self, name: str, num_bytes: int, content: BinaryIO) -> Iterator[int]:
        """Writes a file that was reserved; yields the size of each block written."""
        self.count()
        path, written = self._path(name), 0
        with _clash(name):
            path.parent.mkdir(parents=True, exist_ok=True)
            file = path.open("xb")  # never through something that is there
        with file:
            while block := content.read(BLOCK):
                written += len(block)
                if written > num_bytes:
                    raise UnsafeError(f"{name!r} is longer than it says")
                file.write(block)
                yield len(block)
        if written < num_bytes:
            raise DamagedError(f"{name!r} ends after {written} of {num_bytes} bytes")

    def _path(self, name: str) -> Path:
        """Where a member goes. Raises: UnsafeError unless that is in the folder, on any system."""
        path = PurePosixPath(name)
        bad = path.is_absolute() or ".." in path.parts or re.match("[A-Za-z]:", name)
        if bad or not name or "\0" in name or "\\" in name:
            raise UnsafeError(f"the name {name!r} leads out of the folder")
        return self.folder / path


@contextmanager
def _clash(name: str) -> Iterator[None]:
    try:
        yield
    except (FileExistsError, NotADirectoryError, IsADirectoryError):
        raise UnsafeError(f"{name!r} is there twice, or is both a file and a folder") from None


def _copy(path: Path, place: _Place) -> None:
    with path.open("rb") as file:
        place.reserve(size := path.stat().st_size)
        for _ in place.add_file(path.name, size, file):
            pass


def _untar(path: Path, place: _Place, desc: str) -> None:
    """Unpacks a tar archive, plain or compressed, in one pass."""
    openers = {b"\x1f\x8b": gzip.open, b"BZ": bz2.open, b"\xfd7": lzma.open}
    with path.open("rb") as raw, Bytes(path.stat().st_size, desc) as progress:
        opener = openers.get(raw.read(2), lambda file: file)
        raw.seek(0)
        stream = cast(BinaryIO, opener(raw))
        with tarfile.open(fileobj=stream, mode="r|") as packed:
            while (member := packed.next()) is not None:
                packed.members.clear()  # they would pile up
                if member.isdir():
                    place.add_folder(member.name)
                elif member.isreg():
                    place.reserve(member.size)
                    content = cast(BinaryIO, packed.extractfile(member))
                    for _ in place.add_file(member.name, member.size, content):
                        progress.update(raw.tell() - progress.num_bytes)
                else:
                    raise UnsafeError(f"{member.name!r} is neither a file nor a folder")
            # Behind the last member stands a block of zeros; where it is missing, members may be.
            if packed.fileobj.tell() <= packed.offset:  # type: ignore[union-attr]
                raise DamagedError("it is cut short")
        while block := stream.read(BLOCK):  # to its end, where compressed data has its checksum
            if block.strip(b"\0"):
                raise DamagedError("it goes on behind its end")


def _unzip(packed: zipfile.ZipFile, place: _Place, desc: str) -> None:
    """Unpacks a zip archive; its size is known, and refused, before the first file is written."""
    members = packed.infolist()
    for member in members:
        place.reserve(member.file_size)
    with Bytes(place.num_bytes, desc) as progress:
        for member in members:
            name, mode = member.orig_filename, stat.S_IFMT(member.external_attr >> 16)
            if mode not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise UnsafeError(f"{name!r} is neither a file nor a folder")
            if member.flag_bits & 1:
                raise UnsafeError(f"{name!r} is encrypted")
            if member.is_dir():
                place.add_folder(name)
                continue
            with packed.open(member) as content:
                for size in place.add_file(name, member.file_size, cast(BinaryIO, content)):
                    progress.update(size)
