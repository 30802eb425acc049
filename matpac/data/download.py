"""Fetches a data set, or weights, from hosts or a mirror.

`obtain` is all that a stage needs. Files are downloaded into ``<folder>/archives``, or used where
they lie if the mirror is a folder, checked against `matpac.data.catalogue`, and unpacked into
``<folder>``. What is there is not fetched again.
"""

import errno
import hashlib
import shutil
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import unquote, urlsplit

import requests

from matpac.core import paths
from matpac.data import archives, members
from matpac.data.catalogue import Archive, File, Source
from matpac.data.transfer import Download, RefusedError

MARGIN = 4
"""An archive that holds this many times its estimate is refused."""
ZIP, GZIP, PICKLE = b"PK", b"\x1f\x8b", b"\x80"
MAGIC = {".zip": (ZIP,), ".z01": (ZIP,), ".001": (ZIP,), ".gz": (GZIP,), ".tgz": (GZIP,)}
MAGIC |= dict.fromkeys((".pt", ".pth", ".ckpt"), (ZIP, PICKLE))
"""How a file begins, by the end of its name."""
UNPACKED = (
    "or unpack them anywhere and give that folder in params.yaml, as the path of the data set."
)
Digests = dict[str, str]
"""Algorithm -> checksum."""


def obtain(
    name: str,
    source: Source,
    *,
    folder: Path,
    mirror: str | None = None,
    keep_archives: bool = True,
    otherwise: str = UNPACKED,
) -> None:
    """Downloads, checks and unpacks what is not there yet.

    Args:
        name: of the folder in a mirror, and for messages.
        source: what to fetch.
        folder: where it goes.
        mirror: a folder, ``file://`` or ``http(s)://`` address that stands in for every host; files
            are looked up as ``<mirror>/<name>/<file>`` and ``<mirror>/<file>``.
        keep_archives: False: they are removed as soon as they are unpacked.
        otherwise: what else the user can do who has the files.
    Raises: FileNotFoundError saying what to get from where and where to put it, when a file cannot
        be had; OSError before anything is downloaded when the disk is too small; ValueError for a
        wrong file in a mirror folder, and as `archives.unpack` for a hostile or damaged archive.
    """
    cache = _Cache(name, source, folder, mirror, otherwise)
    waiting = [each for each in source.archives if not archives.is_unpacked(each, folder)]
    if waiting:
        cache.announce(waiting, keep_archives)
    for archive in waiting:
        cache.unpack(archive, keep_archives)


@contextmanager
def first_use(source: Source, folder: Path) -> Iterator[None]:
    """The block reads what `obtain` fetched: where no certain checksum tells whether that is right,
    it is set aside if the first reading fails, so that the next `obtain` fetches it again."""
    unsure = [each for each in source.archives if not all(file.checksums for file in each.files)]
    new = [each for each in unsure if not archives.state(each, folder).get("used")]
    try:
        yield
    except (ImportError, MemoryError, OSError):  # of packages and the machine, not of the file
        raise
    except Exception:
        for each in new:
            archives.forget(each, folder)
        raise
    for each in new:
        archives.note(each, folder, used=True)


@dataclass(frozen=True)
class _Cache:
    """The files of a source: found on this machine or fetched. Args: as `obtain`."""

    name: str
    source: Source
    folder: Path
    mirror: str | None
    otherwise: str

    @property
    def archives(self) -> Path:
        return self.folder / "archives"

    def announce(self, waiting: Sequence[Archive], keep: bool) -> None:
        """Prints what will happen. Raises: OSError if the disk is too small for it."""
        source, wanted = self.source, [file for archive in waiting for file in archive.files]
        packed, here = sum(f.size for f in wanted), sum(map(self._bytes_here, wanted))
        free, needed = _free(self.folder), self._needed(waiting, keep)
        print(
            f"{source.title}: {', '.join(file.name for file in wanted)}\n"
            f"  packed    {_amount(packed)}, of which {_amount(here)} are here\n"
            f"  into      {self.folder}: {_amount(free)} are free, {_amount(needed)} needed\n"
            f"  from      {self.mirror or source.page}\n"
            f"  licence   {source.licence}\n"
            f"  cite      {source.citation}",
            flush=True,
        )
        if needed > free:
            text = f"{self.name} needs {_amount(needed)}, {_amount(free)} are free"
            raise OSError(errno.ENOSPC, text, self.folder)

    def _needed(self, waiting: Sequence[Archive], keep: bool) -> int:
        """Most bytes that will be added to the disk at any time: archives go one by one."""
        used = most = 0
        for archive in waiting:
            here = sum(map(self._bytes_here, archive.files))
            used += archive.size - here + archive.unpacked_bytes
            most = max(most, used)
            if not keep and mirror_folder(self.mirror) is None:
                used -= archive.size
        return most

    def unpack(self, archive: Archive, keep: bool) -> None:
        """Downloads, checks and unpacks one archive. Raises: as `obtain`."""
        got = [self._get_pinned(file, archive) for file in archive.files]
        paths = [path for path, _ in got]
        _compare(f"{archive.name}, joined", paths, (), archive.doubtful)
        digests = {file.name: each for file, (_, each) in zip(archive.files, got, strict=True)}
        largest = min(MARGIN * archive.unpacked_bytes, _free(self.folder))
        try:
            archives.unpack(archive, paths, self.folder, digests=digests, max_bytes=largest)
        except (members.DamagedError, members.UnsafeError):
            for file, path in zip(archive.files, paths, strict=True):
                # One with a certain checksum is as it was published: no other one would come.
                if not file.checksums and path.parent == self.archives:
                    archives.set_aside(path)
            raise
        for path in paths:
            if not keep and path.parent == self.archives:
                path.unlink()

    def _get_pinned(self, file: File, archive: Archive) -> tuple[Path, Digests]:
        """One without a certain checksum has to have that of its first use, if there was one."""
        known = archives.state(archive, self.folder)["digests"].get(file.name, {}).get("sha256")
        if file.checksums or not known:
            return self._get(file)
        try:
            return self._get(replace(file, checksums=(f"sha256:{known}",)))
        except (ValueError, FileNotFoundError) as error:
            pin = archives.state_file(archive, self.folder)
            text = f"{file.name} was pinned at its first use; remove {pin} to take another"
            raise type(error)(f"{error}\n{text}") from None

    def _get(self, file: File) -> tuple[Path, Digests]:
        """A file that is whole and right, downloaded if need be."""
        path = self._find(file)
        if path is None:
            return self._download(file)
        try:
            return path, _check(file, path)
        except ValueError as problem:
            if path.parent != self.archives:
                raise  # the mirror's, not ours to move
            print(f"{problem}; kept as {archives.set_aside(path).name}")
            return self._get(file)

    def _find(self, file: File) -> Path | None:
        """Where a file lies on this machine, right or not."""
        places = [self.archives / file.name, *self._mirrored(file)]
        return next((path for path in places if path.is_file()), None)

    def _mirrored(self, file: File) -> list[Path]:
        folder = mirror_folder(self.mirror)
        return [] if folder is None else [folder / self.name / file.name, folder / file.name]

    def _part(self, file: File) -> Path:
        return self.archives / "incoming" / f"{file.name}.part"

    def _bytes_here(self, file: File) -> int:
        """How much of a file need not be downloaded any more."""
        part = self._part(file)
        if self._find(file) is not None:
            return file.size
        return min(part.stat().st_size, file.size) if part.exists() else 0

    def _download(self, file: File) -> tuple[Path, Digests]:
        problems = [f"  {path}: no such file" for path in self._mirrored(file)]
        base, limit = (self.mirror or "").rstrip("/"), 2 * file.size or None
        mirrored = () if problems else (f"{base}/{self.name}/{file.name}", f"{base}/{file.name}")
        for url in file.urls if self.mirror is None else mirrored:
            part = Download(url, self._part(file), file.num_bytes, limit, bool(file.checksums))
            try:
                digests = _check(file, part.finish(), at_least=file.size // 2)
            except (RefusedError, requests.RequestException, ValueError) as problem:
                if isinstance(problem, ValueError):
                    part.discard()
                problems.append(f"  {url}: {problem}")
                print(f"{file.name}: {problem} ({url})")
            else:
                path = part.part.replace(self.archives / file.name)
                part.discard()
                return path, digests
        tried = "\n".join(problems)
        names = ", ".join(each.name for archive in self.source.archives for each in archive.files)
        raise FileNotFoundError(
            f"{self.name}: {file.name} cannot be downloaded\n{tried}\n"
            f"{self.source.by_hand} The page: {self.source.page}\n"
            f"Put {names} into {self.archives} and run this again; {self.otherwise}"
        )


def _check(file: File, path: Path, at_least: int = 0) -> Digests:
    """Checksums, compared with the catalogue; SHA-256 if that has no certain one.

    Args: at_least: bytes of one without a certain checksum.
    Raises: ValueError naming expected and got.
    """
    num_bytes, end = path.stat().st_size, Path(file.name).suffix
    if file.num_bytes not in (None, num_bytes) or (num_bytes < at_least and not file.checksums):
        raise ValueError(f"{path}: expected {file.size} bytes, got {num_bytes}")
    if file.checksums:
        return _compare(str(path), [path], file.checksums, file.doubtful)
    with path.open("rb") as content:
        start = content.read(64)
    if start.lstrip().startswith(b"<") or not start.startswith(MAGIC.get(end, b"")):
        raise ValueError(f"{path}: begins with {start[:20]!r}, so it is no {end} file")
    return {"sha256": _digest([path], "sha256")} | _compare(str(path), [path], (), file.doubtful)


def _compare(
    what: str, parts: Sequence[Path], certain: Sequence[str], doubtful: Sequence[str]
) -> Digests:
    """The checksums of joined parts. Raises: ValueError; for a doubtful one a warning does."""
    digests = {}
    for checksum in (*certain, *doubtful):
        algorithm, expected = checksum.split(":")
        digests[algorithm] = _digest(parts, algorithm)
        if digests[algorithm] == expected:
            continue
        difference = f"{what}: expected {algorithm} {expected}, got {digests[algorithm]}"
        if checksum in certain:
            raise ValueError(difference)
        warnings.warn(f"{difference}; the expected one is not certain, so it is used", stacklevel=2)
    return digests


def _digest(parts: Sequence[Path], algorithm: str) -> str:
    found = hashlib.new(algorithm)
    for block in members.blocks(parts):
        found.update(block)
    return found.hexdigest()


def _free(folder: Path) -> int:
    """Free bytes where a folder is or will be."""
    there = next(each for each in (folder.absolute(), *folder.absolute().parents) if each.exists())
    return shutil.disk_usage(there).free


def _amount(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:.2f} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:.1f} MB"


def mirror_folder(mirror: str | None) -> Path | None:
    """The folder that a mirror is, None for an address of a server.

    Raises: FileNotFoundError for a missing folder, and any other kind of address.
    """
    if mirror is None or mirror.startswith(("http://", "https://")):
        return None
    is_address = mirror.startswith("file://")
    folder = Path(unquote(urlsplit(mirror).path)) if is_address else paths.expand(mirror)
    if not folder.is_dir():
        allowed = "a folder, file://, http:// or https://"
        raise FileNotFoundError(f"mirror: no folder {folder}, allowed: {allowed}")
    return folder
