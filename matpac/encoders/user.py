"""Encoders of the user's: a function that makes a `WaveEncoder`, or a module of the HEAR 2021 API.

Modules are looked for as Python does and, besides, in the project's root.
"""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from matpac.core import paths
from matpac.core.fingerprints import on_path
from matpac.encoders.interface import WaveEncoder

HEAR_FUNCTIONS = ("load_model", "get_timestamp_embeddings")
HEAR_PIECE_S = 30
"""Seconds given to a HEAR model at once; the API allows 20 minutes, a GPU's memory may not."""

HEAR_LEAST_S = 0.1
"""Seconds that a shorter clip is filled up to (UrbanSound8K has some), and of what is still a piece
at the end of a longer one, often a few samples: less than a window is an error in most models."""


def from_function(where: str, weights: Path | None = None) -> WaveEncoder:
    """The encoder that a function makes.

    Args:
        where: ``package.module:function``; called with ``weights``, a path or None.
    Raises: ImportError for a module that is not found; ValueError for one without that function, or
        whose function gives something else.
    """
    name, _, function = where.partition(":")
    module = _imported(name)
    if not callable(made := getattr(module, function, None)):
        raise ValueError(f"{where}: {module.__file__} has no function {function!r}")
    encoder = made(weights)
    if not isinstance(encoder, WaveEncoder):
        raise ValueError(
            f"{where}: got a {type(encoder).__name__}, needed: a matpac.encoders.interface."
            "WaveEncoder"
        )
    for attribute in ("sample_rate", "width", "piece_samples"):
        if not isinstance(value := getattr(encoder, attribute, None), int) or value < 1:
            raise ValueError(f"{where}: {attribute}: got {value!r}, allowed: positive integers")
    hop = encoder.piece_hop or encoder.piece_samples
    for attribute, value in (("piece_hop", hop), ("min_samples", encoder.min_samples)):
        if not 1 <= value <= encoder.piece_samples:
            raise ValueError(
                f"{where}: {attribute}: got {value}, allowed: 1 to {encoder.piece_samples}, its "
                "piece_samples"
            )
    return encoder.requires_grad_(False).eval()


class HearEncoder(WaveEncoder):
    """A model of the HEAR 2021 API: its timestamp embeddings are the columns.

    Args:
        module: with the API's functions.
        model: what its ``load_model`` gave.
    """

    def __init__(self, module: ModuleType, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self._embed: Callable[[Tensor, nn.Module], Any] = module.get_timestamp_embeddings
        self.sample_rate = int(model.sample_rate)
        self.width = int(model.timestamp_embedding_size)
        self.piece_samples = HEAR_PIECE_S * self.sample_rate
        self.min_samples, self.fills = round(HEAR_LEAST_S * self.sample_rate), True
        self.requires_grad_(False).eval()

    def columns(self, waves: Tensor, *, layer: int = -1) -> Tensor:
        """As `WaveEncoder.columns`. Raises: ValueError for another form than the API's."""
        embeddings, _ = self._embed(waves, self.model)
        if embeddings.ndim != 3 or embeddings.shape[::2] != (len(waves), self.width):
            raise ValueError(
                f"get_timestamp_embeddings: got shape {tuple(embeddings.shape)}, needed: "
                f"({len(waves)}, timestamps, {self.width})"
            )
        return embeddings

    def times(self, num_samples: int) -> Tensor:
        """As `WaveEncoder.times`: what the model says of silence of that length."""
        parameter = next(self.model.parameters(), torch.zeros(0))
        silence = torch.zeros(1, num_samples, device=parameter.device)
        return self._embed(silence, self.model)[1][0].double().cpu() / 1000  # ms


def from_hear(name: str, weights: Path | None = None) -> HearEncoder:
    """A module of the HEAR 2021 API and its model.

    Args: weights: for ``load_model``; None: it is called without argument.
    Raises: ImportError; ValueError naming what the module or its model lacks.
    """
    module = _imported(name)
    if missing := [each for each in HEAR_FUNCTIONS if not hasattr(module, each)]:
        raise ValueError(f"{name}: no {', '.join(missing)}: not of the HEAR 2021 API")
    model = module.load_model(str(weights)) if weights else module.load_model()
    if not isinstance(model, nn.Module):
        raise ValueError(
            f"{name}: load_model gave a {type(model).__name__}, needed: a torch.nn.Module"
        )
    needed = ("sample_rate", "timestamp_embedding_size")
    if missing := [each for each in needed if not hasattr(model, each)]:
        raise ValueError(f"{name}: the model has no {', '.join(missing)}")
    return HearEncoder(module, model)


def _imported(name: str) -> ModuleType:
    try:
        with on_path(paths.root()):
            return import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not name.startswith(error.name):
            raise  # something that the module itself needs
        raise ImportError(
            f"{name}: no such module, neither installed nor in {paths.root()}"
        ) from error
