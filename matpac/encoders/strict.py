"""Weights of published checkpoints, loaded whole or not at all."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from torch import Tensor, nn


def check(expected: Mapping[str, Tensor], state: Mapping[str, Tensor], path: Path) -> None:
    """Compares names and shapes.

    Args:
        expected: what the module has, under the published names.
        state: what the file has.
        path: the file, for the message.
    Raises: ValueError listing all tensors that are missing, unexpected or of another shape.
    """
    problems = [f"missing: {name}" for name in expected if name not in state]
    problems += [f"unexpected: {name}" for name in state if name not in expected]
    problems += [
        f"shape of {name}: got {tuple(tensor.shape)}, allowed: {tuple(expected[name].shape)}"
        for name, tensor in state.items()
        if name in expected and tensor.shape != expected[name].shape
    ]
    if problems:
        raise ValueError(f"{path}: does not fit:\n  " + "\n  ".join(problems))


def load(module: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    """Loads a state dict that has the module's own names; see `check`."""
    check(module.state_dict(), state, path)
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
