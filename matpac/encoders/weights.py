"""Published rows with their weights, fetched like data sets, once for all projects of a user.

They lie in ``<cache>/<name>/``; the cache is the folder MATPAC_CACHE, else the user's cache folder.
"""

import os
from importlib import import_module
from pathlib import Path

from matpac.data.catalogue import Source
from matpac.encoders.interface import WaveEncoder
from matpac.encoders.published import PROBES, ROWS

OTHERWISE = "or give its path: weights in params.yaml, or matpac.load(..., weights=...)."


def make(name: str, weights: Path | None = None, *, mirror: str | None = None) -> WaveEncoder:
    """A published row with its weights.

    Args:
        name: which of `matpac.encoders.published.ROWS`.
        weights: its file; None: fetched once, and kept.
        mirror: as in `matpac.data.download.obtain`.
    Raises: FileNotFoundError saying where the weights are to be had; ImportError naming the extra
        to install; ValueError listing tensors that do not fit.
    """
    row = ROWS[name]
    module = import_module(f"matpac.encoders.{row.module}")
    if weights is None:
        from matpac.data.download import first_use

        fetched = obtain(name, mirror)
        with first_use(row.source, _cache() / name):
            return module.make(fetched, **row.options)
    if not weights.is_file():
        raise FileNotFoundError(f"{name}: no weights at {weights}; they come from {row.page}")
    return module.make(weights, **row.options)


def obtain(name: str, mirror: str | None = None) -> Path:
    """The file with a row's weights, downloaded and unpacked if need be. Args: as `make`.

    Raises: FileNotFoundError telling what went wrong at each address and what the user can do;
        OSError; ValueError for wrong or hostile files.
    """
    row = ROWS[name]
    folder = _fetched(name, row.source, mirror)
    path = folder / (row.member or row.file.name)
    if not path.is_file():
        raise FileNotFoundError(f"{name}: {row.file.name} holds no {path.relative_to(folder)}")
    return path


def obtain_probe(name: str, task: str) -> Path:
    """The file of a linear probe published for a row. Raises: as `obtain`."""
    folder = _fetched("probes", PROBES)
    inside = Path(ROWS[name].probes_folder, task, f"{task}.pth")
    # The archive may have a folder around them.
    found = sorted(folder.rglob(str(inside)))
    if not found:
        raise FileNotFoundError(f"{folder}: {PROBES.archives[0].name} holds no {inside}")
    return found[0]


def _fetched(name: str, source: Source, mirror: str | None = None) -> Path:
    """The folder with what a source has, downloaded and unpacked if need be."""
    # Only those who download need what it takes.
    from matpac.data import download

    folder, given = _cache() / name, {"mirror": mirror, "otherwise": OTHERWISE}
    download.obtain(name, source, folder=folder, **given, keep_archives=False)
    return folder


def _cache() -> Path:
    if given := os.environ.get("MATPAC_CACHE"):
        return Path(given).expanduser()
    import platformdirs

    return platformdirs.user_cache_path("matpac")
