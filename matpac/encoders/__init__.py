"""Frozen encoders that are not trained here: the rows of Table II (MATPAC Sec. IV-B).

    interface   what a row is: waveforms in, embeddings out
    published   the published rows: weights, licence, reference, package
    vit         MATPAC, MATPAC++ and M2D in our own ViT
    own         the user's own modules, and modules of the HEAR 2021 API
    ...         one module per other row, which imports its package when it is made

None of them is imported before it is used: their packages are optional and heavy.
"""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matpac.encoders.interface import WaveEncoder


def names() -> list[str]:
    """The published rows."""
    return list(import_module("matpac.encoders.published").ROWS)


def make(name: str, weights: Path | None = None, *, mirror: str | None = None) -> "WaveEncoder":
    """A published row with its weights.

    Args:
        name: which of `names`.
        weights: its file; None: fetched once, and kept in the user's cache folder.
        mirror: as in `matpac.data.download.obtain`.
    Raises: FileNotFoundError saying where the weights are to be had; ImportError naming the extra
        to install; ValueError listing tensors that do not fit.
    """
    row = import_module("matpac.encoders.published").ROWS[name]
    if weights is None:
        weights = import_module("matpac.encoders.weights").obtain(name, mirror)
    elif not weights.is_file():
        raise FileNotFoundError(f"{name}: no weights at {weights}; they come from {row.page}")
    return import_module(f"matpac.encoders.{row.module}").make(weights, **row.options)
