"""Weights of published checkpoints, loaded whole or not at all."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from torch import Tensor, nn

from matpac.encoders import statedicts


def load(module: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    """Loads a state dict that has the module's own names; see `statedicts.refuse_misfits`."""
    statedicts.refuse_misfits(module.state_dict(), state, path)
    module.load_state_dict(dict(state))


def require(extra: str, package: str, error: ImportError) -> ImportError:
    """What to raise when an optional package is not there."""
    return ImportError(f"{package} is not installed: pip install 'matpac[{extra}]' ({error})")


def check_layer(layer: int, num_layers: int) -> None:
    """Raises: ValueError for a layer that there is not."""
    if not -num_layers <= layer < num_layers:
        raise ValueError(f"layer: got {layer}, allowed: {-num_layers} to {num_layers - 1}")


def check_length(num_samples: int, allowed: Iterable[int]) -> None:
    """Raises: ValueError for a piece that is shorter or longer than allowed (least, most)."""
    least, most = allowed
    if not least <= num_samples <= most:
        raise ValueError(f"samples of a piece: got {num_samples}, allowed: {least} to {most}")
