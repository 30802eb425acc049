"""The downloaded files of one data set: found on this machine or fetched, and checked either way.

They lie in ``<folder>/archives``, or where they are if the mirror is a folder.
"""

import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pooch
import requests

from matpac.core import files, paths
from matpac.data.catalogue import File, Source
from matpac.data.transfer import Download, Patience, RefusedError

UNPACKED = (
    "or unpack them anywhere and give that folder in params.yaml, as the path of the data set."
)


class Shelf:
    """Args: as `matpac.data.download.obtain`; source: the data set's entry in the catalogue; otherwise:
    what else the user can do who has the files."""

    def __init__(
        self,
        name: str,
        source: Source,
        folder: Path,
        mirror: str | None,
        patience: Patience | None,
        otherwise: str = UNPACKED,
    ) -> None:
        self.otherwise = otherwise
        self.name, self.source, self.patience = name, source, patience
        self.mirror, self.mirror_folder = mirror, mirror_folder(mirror)
        self.archives, self.incoming = folder / "archives", folder / "archives" / "incoming"

    def get(self, file: File) -> tuple[Path, dict[str, str]]:
        """A file that is whole and right, downloaded if need be, and its checksums.

        Raises: FileNotFoundError telling what went wrong at each address and what the user can do;
            ValueError for a wrong file in a mirror folder.
        """
        path = self.find(file)
        if path is None:
            return self._download(file)
        try:
            return path, self._checked(file, path)
        except ValueError as problem:
            if path.parent != self.archives:
                raise  # the mirror's, not ours to move
            print(f"{problem}; kept as {set_aside(path).name}")
            return self.get(file)

    def find(self, file: File) -> Path | None:
        """Where a file lies on this machine, right or not."""
        places = [self.archives / file.name, *self._mirrored(file)]
        return next((path for path in places if path.is_file()), None)

    def bytes_here(self, file: File) -> int:
        """How much of a file need not be downloaded any more."""
        part = self.incoming / f"{file.name}.part"
        if self.find(file) is not None:
            return file.size
        return min(part.stat().st_size, file.size) if part.exists() else 0

    def addresses(self, file: File) -> tuple[str, ...]:
        """Where to download a file from, in order."""
        if self.mirror is None:
            return file.urls
        if self.mirror_folder is not None:
            return ()
        base = self.mirror.rstrip("/")
        return f"{base}/{self.name}/{file.name}", f"{base}/{file.name}"

    def _mirrored(self, file: File) -> list[Path]:
        if self.mirror_folder is None:
            return []
        return [self.mirror_folder / self.name / file.name, self.mirror_folder / file.name]

    def _download(self, file: File) -> tuple[Path, dict[str, str]]:
        problems = [f"  {path}: no such file" for path in self._mirrored(file)]
        for url in self.addresses(file):
            try:
                return self._download_from(url, file)
            except (RefusedError, requests.RequestException, ValueError) as problem:
                problems.append(f"  {url}: {problem}")
                print(f"{file.name}: {problem} ({url})")
        tried = "\n".join(problems)
        raise FileNotFoundError(
            f"{self.name}: {file.name} cannot be downloaded\n{tried}\n{self.by_hand()}"
        )

    def by_hand(self) -> str:
        """What the user can do."""
        names = [file.name for archive in self.source.archives for file in archive.files]
        return (
            f"{self.source.by_hand} The page: {self.source.page}\n"
            f"Put {', '.join(names)} into {self.archives} and run this again; {self.otherwise}"
        )

    def _download_from(self, url: str, file: File) -> tuple[Path, dict[str, str]]:
        """Raises: as `Download`; ValueError for wrong content, of which nothing is kept."""
        known = file.checksums[0] if file.checksums else None
        download = Download(
            self.incoming / f"{file.name}.part",
            num_bytes=file.num_bytes,
            limit=2 * file.size or None,
            checked=known is not None,
            patience=self.patience,
        )
        for orphan in self.incoming.glob("tmp*"):  # of pooch in a process that was killed
            orphan.unlink()
        pooch.get_logger().setLevel("WARNING")  # it would print checksums to put into code
        came = self.incoming / file.name
        try:
            pooch.retrieve(url, known, fname=came.name, path=self.incoming, downloader=download)
            digests = self._checked(file, came, proven=file.checksums[:1])
        except ValueError:
            download.discard()
            came.unlink(missing_ok=True)
            raise
        download.discard()
        return came.replace(self.archives / file.name), digests

    def _checked(self, file: File, path: Path, *, proven: Sequence[str] = ()) -> dict[str, str]:
        """Checksums by algorithm, compared with the catalogue; SHA-256 if that has none.

        Args: proven: checksums that it is known to have.
        Raises: ValueError naming expected and got. For a doubtful checksum a warning does.
        """
        num_bytes = path.stat().st_size
        if file.num_bytes not in (None, num_bytes):
            raise ValueError(f"{path}: expected {file.num_bytes} bytes, got {num_bytes}")
        stated = [*file.checksums, *file.doubtful]
        algorithms = [checksum.split(":")[0] for checksum in stated] or ["sha256"]
        digests = self._digests(path, algorithms, proven)
        compare(str(path), digests, file.checksums, file.doubtful)
        return digests

    def _digests(
        self, path: Path, algorithms: Iterable[str], proven: Sequence[str]
    ) -> dict[str, str]:
        """Checksums by algorithm, remembered as long as the file keeps its size and date."""
        memory_file = self.archives / "checked.json"
        memory = files.read_json(memory_file) if memory_file.exists() else {}
        stat = path.stat()
        state = [stat.st_size, stat.st_mtime_ns]
        kept = memory.get(path.name, {})
        digests = kept["digests"] if kept.get("state") == state else {}
        digests |= dict(checksum.split(":") for checksum in proven)
        for algorithm in algorithms:
            if algorithm not in digests:
                digests[algorithm] = pooch.file_hash(path, alg=algorithm)
        files.write_json(memory_file, memory | {path.name: {"state": state, "digests": digests}})
        return digests


def compare(
    what: str, digests: dict[str, str], certain: Sequence[str], doubtful: Sequence[str]
) -> None:
    """Raises: ValueError for another checksum than a certain one; warns for a doubtful one."""
    for checksum in (*certain, *doubtful):
        algorithm, expected = checksum.split(":")
        if digests[algorithm] == expected:
            continue
        difference = f"{what}: expected {algorithm} {expected}, got {digests[algorithm]}"
        if checksum in certain:
            raise ValueError(difference)
        warnings.warn(f"{difference}; the expected one is not certain, so it is used", stacklevel=2)


def set_aside(path: Path) -> Path:
    """Renames a wrong file, so that the next run starts without it; returns its new path."""
    return path.replace(path.with_name(f"{path.name}.wrong"))


def mirror_folder(mirror: str | None) -> Path | None:
    """The folder that a mirror is, None for an address of a server.

    Raises: ValueError for any other kind of address; FileNotFoundError for a missing folder.
    """
    scheme = urlsplit(mirror or "http:").scheme if "://" in (mirror or "http://") else ""
    if scheme in ("http", "https"):
        return None
    if scheme not in ("", "file"):
        raise ValueError(f"mirror: got {mirror!r}, allowed: a folder, file://, http:// or https://")
    folder = Path(unquote(urlsplit(mirror).path)) if scheme else paths.expand(str(mirror))
    if not folder.is_dir():
        raise FileNotFoundError(f"mirror: no folder {folder}")
    return folder
