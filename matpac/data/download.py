"""Fetches a data set from its hosts or a mirror.

`obtain` is all that the stage needs. Files are downloaded into ``<folder>/archives``, or used
where they lie if the mirror is a folder, checked against `matpac.data.catalogue`, and unpacked into
``<folder>`` in the data set's official layout. What is there is not fetched again.
"""

import errno
import hashlib
import shutil
from collections.abc import Sequence
from pathlib import Path

from matpac.data import archives, catalogue, splitzip
from matpac.data.catalogue import Archive
from matpac.data.http_cache import Shelf, compare, set_aside
from matpac.data.transfer import Patience

MARGIN = 4
"""An archive that holds this many times its estimate is refused."""


def obtain(
    name: str,
    *,
    folder: Path,
    mirror: str | None,
    keep_archives: bool = True,
    patience: Patience | None = None,
) -> None:
    """Unpacks a data set in its official layout, unless it is there.

    Args:
        name: which of `catalogue.SOURCES`.
        folder: where it goes.
        mirror: a folder, ``file://`` or ``http(s)://`` address that stands in for every host; files
            are looked up as ``<mirror>/<name>/<file>`` and ``<mirror>/<file>``.
        keep_archives: False: they are removed as soon as they are unpacked.
        patience: how long to wait for servers.
    Raises: FileNotFoundError saying what to get from where and where to put it, when a file cannot
        be had; OSError before anything is downloaded when the disk is too small; ValueError for a
        name that the catalogue does not have, a wrong file in a mirror folder, and as
        `archives.unpack` for a hostile or damaged archive.
    """
    shelf = Shelf(name, catalogue.source(name), folder, mirror, patience)
    fetch_archives(shelf, folder, keep=keep_archives)


def fetch_archives(shelf: Shelf, folder: Path, *, keep: bool) -> None:
    """Downloads, checks and unpacks what is not there yet.

    Args: folder: where it goes. keep: the archives, too. Raises: as `obtain`.
    """
    waiting = [each for each in shelf.source.archives if not archives.is_unpacked(each, folder)]
    if waiting:
        _announce(shelf, folder, waiting, keep)
    for archive in waiting:
        _fetch(shelf, folder, archive, keep)


def _announce(shelf: Shelf, folder: Path, waiting: Sequence[Archive], keep: bool) -> None:
    """Prints what will happen. Raises: OSError if the disk is too small for it."""
    source, wanted = shelf.source, [file for archive in waiting for file in archive.files]
    packed, here = sum(f.size for f in wanted), sum(map(shelf.bytes_here, wanted))
    unpacked = sum(archive.unpacked_bytes for archive in waiting)
    free, needed = _free(folder), _needed(shelf, waiting, keep)
    print(
        f"{source.title}: {', '.join(file.name for file in wanted)}\n"
        f"  packed    {_amount(packed)}, of which {_amount(here)} are here; unpacked about "
        f"{_amount(unpacked)}\n"
        f"  into      {folder}, where {_amount(free)} are free and {_amount(needed)} needed\n"
        f"  from      {shelf.mirror or source.page}\n"
        f"  licence   {source.licence}\n"
        f"  cite      {source.citation}",
        flush=True,
    )
    if needed > free:
        raise OSError(
            errno.ENOSPC, f"{shelf.name} needs {_amount(needed)}, {_amount(free)} are free", folder
        )


def _needed(shelf: Shelf, waiting: Sequence[Archive], keep: bool) -> int:
    """Most bytes that will be added to the disk at any time: archives go one after another."""
    used = most = 0
    for archive in waiting:
        used += archive.size - sum(map(shelf.bytes_here, archive.files)) + archive.unpacked_bytes
        most = max(most, used)
        if not keep and shelf.mirror_folder is None:
            used -= archive.size
    return most


def _free(folder: Path) -> int:
    """Free bytes where a folder is or will be."""
    there = next(each for each in (folder.absolute(), *folder.absolute().parents) if each.exists())
    return shutil.disk_usage(there).free


def _amount(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:.2f} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:.1f} MB"


def _fetch(shelf: Shelf, folder: Path, archive: Archive, keep: bool) -> None:
    """Downloads, checks and unpacks one archive."""
    parts, digests = [], {}
    for file in archive.files:
        path, digests[file.name] = shelf.get(file)
        parts.append(path)
    for checksum in archive.doubtful:
        algorithm = checksum.split(":")[0]
        with splitzip.join(parts) as joined:
            found = {algorithm: hashlib.file_digest(joined, algorithm).hexdigest()}
        compare(f"{archive.name}, joined", found, (), (checksum,))
    largest = min(MARGIN * archive.unpacked_bytes, _free(folder))
    try:
        archives.unpack(archive, parts, folder, digests=digests, max_bytes=largest)
    except archives.DamagedError:
        for file, path in zip(archive.files, parts, strict=True):
            # One with a certain checksum is as it was published: no other one would come.
            if not file.checksums and path.parent == shelf.archives:
                set_aside(path)
        raise
    for path in parts:
        if not keep and path.parent == shelf.archives:
            path.unlink()
