"""Where the data sets come from: addresses, checksums, sizes, licences.

They are data, ``catalogue.yaml``. Nothing here opens an address; `matpac.data.download` does.
"""

from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic.dataclasses import dataclass

Kind = Literal["file", "tar", "zip"]
"""How files become data: as they are, or unpacked; a zip may have several parts."""


@dataclass(frozen=True, config={"extra": "forbid"})
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


@dataclass(frozen=True, config={"extra": "forbid"})
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


@dataclass(frozen=True, config={"extra": "forbid"})
class Source:
    """A data set."""

    title: str
    page: str
    licence: str
    citation: str
    archives: tuple[Archive, ...]
    by_hand: str
    """What the user can do where no address answers."""


def _source(described: dict[str, Any]) -> Source:
    """A data set as the YAML describes it, which leaves out what follows from names."""
    at = described.pop("at", ())
    for archive in described["archives"]:
        archive.setdefault("name", archive["files"][0]["name"])
        for file in archive["files"]:
            file.setdefault("urls", [address.format(file["name"]) for address in at])
    return Source(**described)


_DATA = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text("utf-8"))
SOURCES: dict[str, Source] = {name: _source(described) for name, described in _DATA.items()}
