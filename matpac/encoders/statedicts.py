"""State dicts of published checkpoints, read without executing anything that lies in them.

A ``torch.save`` file is a pickle, and a pickle can call any function. Here only tensors and plain
containers are read; a file that holds other objects is refused by name. Where such objects are
mere company (training arguments, paths, scores), the command

    matpac convert FILE FILE.safetensors

writes the tensors alone: the objects are replaced by placeholders, not made.
"""

import pickle
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from matpac.core import files

NESTED = ("model", "state_dict", "teacher")
"""Keys under which checkpoints keep their state dict beside other things."""
WANTED = f"a mapping name -> tensor, also under {' or '.join(map(repr, NESTED))}"
BROKEN = (RuntimeError, ValueError, EOFError, KeyError, TypeError, pickle.UnpicklingError)
"""What `torch.load` raises for what it cannot read."""
SYSTEM = ("os.", "posix.", "nt.", "sys.")
"""Where no checkpoint has to call anything: not even a placeholder is made for these."""

DEFAULTS = "collections.defaultdict"
"""Filled after it was made, which only real dictionaries can be here."""


class Placeholder:
    """Stands for an object that was not made: called and given a state, it does nothing."""

    def __new__(cls, *_args: Any, **_kwargs: Any) -> "Placeholder":
        return super().__new__(cls)

    def __init__(self, *_args: Any, **_kwargs: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


def read_state(path: Path) -> dict[str, Tensor]:
    """The state dict in a ``.safetensors`` or ``torch.save`` file.

    Raises: as `read_checkpoint`; ValueError if it holds anything but tensors under names.
    """
    state = _state(read_checkpoint(path))
    if not isinstance(state, Mapping):
        raise ValueError(f"{path}: got {_kind(state)}, allowed: {WANTED}")
    if others := [f"{name} ({_kind(value)})" for name, value in state.items() if _other(value)]:
        raise ValueError(f"{path}: got {', '.join(others[:5])}, allowed: {WANTED}")
    if not state:
        raise ValueError(f"{path}: got no tensors, allowed: {WANTED}")
    return dict(state)


def read_checkpoint(path: Path) -> Any:
    """All that a ``.safetensors`` or ``torch.save`` file holds: tensors and plain containers.

    Raises: FileNotFoundError; ValueError for a file that is damaged or needs pickled code, with
        the objects it needs.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such checkpoint")
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except SafetensorError as error:
            raise ValueError(f"{path}: not readable as safetensors: {error}") from error
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except BROKEN as error:
        names = _objects(path)
        problem = _reason(error)
        if names:
            problem = (
                f"it holds {', '.join(names)}, which only pickled code could make; none is run."
            )
        if names and not _calls_system(names):
            command = shlex.join([str(path), str(path.with_suffix(".safetensors"))])
            problem += f" Its tensors alone are written by\n  matpac convert {command}"
        raise ValueError(f"{path}: not readable as plain tensors: {problem}") from error


def refuse_misfits(
    expected: Mapping[str, Tensor],
    state: Mapping[str, Tensor],
    source: Path | str,
    *,
    called: Mapping[str, str] | None = None,
) -> None:
    """Compares names and shapes, so that a state dict is loaded whole or not at all.

    Args:
        expected: what the module has.
        state: what is to be loaded, under the same names.
        source: the file, for the message.
        called: what the file calls the tensors of ``state``, where that is something else.
    Raises: ValueError listing all tensors that are missing, unexpected or of another shape.
    """
    called = called or {}
    problems = [f"missing: {name}" for name in expected if name not in state]
    problems += [f"unexpected: {called.get(n, n)}" for n in state if n not in expected]
    problems += [
        f"shape of {called.get(name, name)}: got {tuple(tensor.shape)}, "
        f"allowed: {tuple(expected[name].shape)}"
        for name, tensor in state.items()
        if name in expected and tensor.shape != expected[name].shape
    ]
    if problems:
        raise ValueError(f"{source}: does not fit:\n  " + "\n  ".join(problems))


def convert(source: Path, target: Path) -> list[str]:
    """Writes the state dict of a ``torch.save`` file as safetensors, executing nothing of it.

    Returns: what was left out, as "name (type)".
    Raises: FileNotFoundError; ValueError for a target of another name, and for a source that is
        damaged, holds no tensors under names, or asks for functions of the operating system.
    """
    if target.suffix != ".safetensors":
        raise ValueError(f"{target}: allowed: a name that ends with .safetensors")
    if not source.exists():
        raise FileNotFoundError(f"{source}: no such checkpoint")
    content = _without_objects(source)
    state = _state(content)
    entries = state.items() if isinstance(state, Mapping) else ()
    # Own memory for each: safetensors takes neither views of one storage nor strided ones.
    tensors = {
        str(name): value.detach().contiguous().clone()
        for name, value in entries
        if not _other(value)
    }
    left_out = [f"{name} ({_kind(value)})" for name, value in entries if _other(value)]
    if state is not content:
        beside = [(name, value) for name, value in content.items() if value is not state]
        left_out += [f"{name} ({_kind(value)})" for name, value in beside]
    if not tensors:
        found = ", ".join(left_out) or _kind(content)
        raise ValueError(f"{source}: got {found}, allowed: {WANTED}")
    with files.replacing(target) as temporary:
        save_file(tensors, temporary, metadata={"format": "pt"})
    return left_out


def _without_objects(path: Path) -> Any:
    """A file's content with a `Placeholder` for every object that is not plain."""
    names = _objects(path)
    if calls := _calls_system(names):
        raise ValueError(
            f"{path}: not converted: it calls {', '.join(calls)}, which no checkpoint has to; "
            "do not use this file"
        )
    stubs = [
        (_dictionary if name == DEFAULTS else type(name, (Placeholder,), {}), name)
        for name in names
    ]
    try:
        with torch.serialization.safe_globals(stubs):
            return torch.load(path, map_location="cpu", weights_only=True)
    except BROKEN as error:
        raise ValueError(f"{path}: not converted: {_reason(error)}") from error


def _objects(path: Path) -> list[str]:
    """Classes and functions, sorted, that a file asks for beyond tensors and plain containers.

    None are found in damaged files and in those of torch before 1.6, which are no archives.
    """
    try:
        return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except BROKEN:
        return []


def _state(content: Any) -> Any:
    """The state dict that a checkpoint keeps under a name, otherwise the content itself."""
    if isinstance(content, Mapping):
        return next((content[n] for n in NESTED if isinstance(content.get(n), Mapping)), content)
    return content


def _other(value: Any) -> bool:
    return not isinstance(value, Tensor)


def _kind(value: Any) -> str:
    return type(value).__name__


def _dictionary(*_args: Any) -> dict[Any, Any]:
    return {}


def _calls_system(names: list[str]) -> list[str]:
    return [name for name in names if name.startswith(SYSTEM)]


def _reason(error: Exception) -> str:
    """What was wrong with the file, without torch's advice to run what lies in it."""
    lines = str(error).splitlines() or [type(error).__name__]
    reasons = [line for line in lines if "WeightsUnpickler error" in line]
    text = (reasons or lines)[0].strip().partition(". ")[0].partition(" Please use ")[0]
    return f"{text} (damaged, or holds objects that cannot be left out)"
