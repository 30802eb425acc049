"""Where the data sets come from: addresses, checksums, sizes, licences.

They are data, ``catalogue.yaml``. Nothing here opens an address; `matpac.data.download` does.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

Kind = Literal["file", "tar", "zip"]
"""How files become data: as they are, or unpacked; a zip may have several parts."""


@dataclass(frozen=True)
class File:
    """One file to download."""

    name: str
    urls: tuple[str, ...] = ()
    """Tried in order. In the YAML, where none are given: those ``at`` its data set."""
    num_bytes: int | None = None
    """Exactly; a server that announces another number is not asked further."""
    about_bytes: int | None = None
    """Roughly, where the exact number is unknown or doubtful."""
    checksums: tuple[str, ...] = ()
    """``algorithm:hexadecimal``; all of them have to be right."""
    doubtful: tuple[str, ...] = ()
    """A file with others is reported, not refused."""

    @property
    def size(self) -> int:
        """Bytes to reckon with."""
        return self.num_bytes or self.about_bytes or 0


@dataclass(frozen=True)
class Archive:
    """What is unpacked at once: one file or several parts, in order."""

    name: str
    """In the YAML, where none is given: that of its file."""
    kind: Kind
    files: tuple[File, ...]
    unpacked_bytes: int
    """Estimate; much more is taken for a hostile archive."""
    doubtful: tuple[str, ...] = ()
    """Checksums of the joined parts."""

    @property
    def size(self) -> int:
        """Packed bytes to reckon with."""
        return sum(file.size for file in self.files)


@dataclass(frozen=True)
class Source:
    """A data set."""

    title: str
    page: str
    licence: str
    citation: str
    archives: tuple[Archive, ...]
    by_hand: str
    """What the user can do where no address answers."""


def _tuples(described: dict[str, Any]) -> dict[str, Any]:
    return {k: tuple(v) if isinstance(v, list) else v for k, v in described.items()}


def file(described: dict[str, Any], at: tuple[str, ...] = ()) -> File:
    """A file as YAML describes it. Args: at: its addresses, with "{}" for its name."""
    urls = [address.format(described["name"]) for address in at]
    return File(**_tuples({"urls": urls} | described))


def _source(described: dict[str, Any]) -> Source:
    at, archives = described.pop("at", ()), []
    for each in described.pop("archives"):
        files = tuple(file(one, at) for one in each.pop("files"))
        archives.append(Archive(**_tuples({"name": files[0].name} | each), files=files))
    return Source(**described, archives=tuple(archives))


_DATA = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text("utf-8"))
SOURCES: dict[str, Source] = {name: _source(described) for name, described in _DATA.items()}


def source(name: str) -> Source:
    """The entry of a data set. Raises: ValueError naming the known ones."""
    if name not in SOURCES:
        raise ValueError(f"data set: got {name!r}, allowed: {', '.join(SOURCES)}")
    return SOURCES[name]
