"""The published rows of Table II: where their weights are, and what makes an encoder of them.

The rows are data, ``published.yaml``; `matpac.encoders.weights` fetches and makes them.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from matpac.data.catalogue import Archive, File, Source


@dataclass(frozen=True)
class Row:
    """A published encoder."""

    title: str
    module: str
    """Of `matpac.encoders`; its ``make`` gives the encoder."""
    width: int
    page: str
    """Where the weights are to be had."""
    licence: str
    citation: str
    file: File
    options: dict[str, Any] = field(default_factory=dict)
    """Of ``make``."""
    extra: str = ""
    """Of this package, to be installed; "": none."""
    member: str = ""
    """Of a zip archive, the file with the weights."""
    probes: tuple[str, ...] = ()
    """Tasks of which a linear probe was published, in `probes_folder` of `PROBES`."""
    probes_folder: str = ""
    reported: str | None = None
    """Name of its row in Table II as the paper reports it, where that is certain."""

    @property
    def source(self) -> Source:
        """For the download."""
        return _source(self.title, self.page, self.licence, self.citation, self.file, self.member)


def _source(
    title: str, page: str, licence: str, citation: str, file: File, member: str = ""
) -> Source:
    """Args: member: not "" for an archive."""
    archive = Archive(file.name, "zip" if member else "file", (file,), unpacked_bytes=2_000_000_000)
    by_hand = f"Download {file.name} from the page of {title}."
    return Source(title, page, licence, citation, (archive,), by_hand)


def _row(described: dict[str, Any]) -> Row:
    """Lists of the data are the tuples that `File` wants."""
    file = {k: tuple(v) if isinstance(v, list) else v for k, v in described["file"].items()}
    return Row(**described | {"file": File(**file), "probes": tuple(described.get("probes", ()))})


_DATA = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text("utf-8"))
ROWS: dict[str, Row] = {name: _row(described) for name, described in _DATA["rows"].items()}
"""All of them, by name."""
_OF_PROBES = _DATA["probes"]
PROBES = _source(
    *(_OF_PROBES[name] for name in ("title", "page", "licence", "citation")),
    File(_OF_PROBES["name"], tuple(_OF_PROBES["urls"])),
    member="all",
)
"""The archive of published probes."""
