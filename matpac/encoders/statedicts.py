"""State dicts of published checkpoints: nothing is executed, and they load whole or not at all.

A ``torch.save`` file is a pickle, and a pickle can call any function. Here only tensors and plain
containers are read; a file that holds other objects is refused by name. Where such objects are
mere company (training arguments, paths, scores), the command

    matpac convert FILE FILE.safetensors

writes the tensors alone: the objects are replaced by placeholders, not made.
"""

import shlex
import tarfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from matpac.core import files

NESTED = ("model", "state_dict", "teacher")
"""Keys under which checkpoints keep their state dict beside other things."""
WANTED = f"a mapping name -> tensor, also under {' or '.join(map(repr, NESTED))}"
WEIGHT_NORM = {
    ".weight_g": ".parametrizations.weight.original0",
    ".weight_v": ".parametrizations.weight.original1",
}
"""How names end: with torch's older weight norm -> with its newer one."""
SYSTEM = ("os.", "posix.", "nt.", "sys.")
"""Where no checkpoint has to call anything: not even a placeholder is made for these."""
DEFAULTS = "collections.defaultdict"
"""Filled after it was made, which only real dictionaries can be here."""
GROWTH, FLOOR = 10, 1_000_000
"""Converted tensors take at most so many times their file, or so many bytes: a tensor may repeat
one number a milliard times."""


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
    others = [f"{name} ({_kind(value)})" for name, value in state.items() if not _plain(value)]
    if others or not state:
        found = ", ".join(others[:5]) or "no tensors"
        raise ValueError(f"{path}: got {found}, allowed: {WANTED}")
    return dict(state)


def read_checkpoint(path: Path) -> Any:
    """All that a ``.safetensors`` or ``torch.save`` file holds: tensors and plain containers.

    Raises: FileNotFoundError; ValueError for a file that is damaged, compressed, or needs pickled
        code, with the objects it needs.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such checkpoint")
    if path.suffix == ".safetensors":
        with _naming(path, "not readable as safetensors"):
            return load_file(path)
    with _naming(path, "not readable as plain tensors"):
        _refuse_compressed(path)
        if names := _objects(path):
            problem = (
                f"it holds {', '.join(names)}, which only pickled code could make; none is run"
            )
            if not _calls_system(names):
                command = shlex.join([str(path), str(path.with_suffix(".safetensors"))])
                problem += f". Its tensors alone are written by\n  matpac convert {command}"
            raise _RefusedError(problem)
        return torch.load(path, map_location="cpu", weights_only=True)


def load(
    module: nn.Module,
    state: Mapping[str, Tensor],
    source: Path | str,
    *,
    called: Mapping[str, str] | None = None,
) -> None:
    """Loads a state dict that has the module's own names. Args, raises: as `refuse_misfits`."""
    refuse_misfits(module.state_dict(), state, source, called=called)
    module.load_state_dict(dict(state))


def with_new_weight_norm(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict under the names of torch's newer weight norm, where it has the older ones."""
    new = dict(state)
    for old, renamed in WEIGHT_NORM.items():
        for name in filter(lambda name, old=old: name.endswith(old), state):
            new[name.removesuffix(old) + renamed] = new.pop(name)
    return new


def refuse_misfits(
    expected: Mapping[str, Tensor],
    state: Mapping[str, Tensor],
    source: Path | str,
    *,
    called: Mapping[str, str] | None = None,
) -> None:
    """Compares names, shapes and numbers, so that a state dict is loaded whole or not at all.

    Args:
        expected: what the module has.
        state: what is to be loaded, under the same names.
        source: the file, for the message.
        called: what the file calls the tensors of ``state``, where that is something else.
    Raises: ValueError listing all tensors that are missing, unexpected, of another shape or not
        finite.
    """
    called = called or {}
    problems = [f"missing: {name}" for name in expected if name not in state]
    problems += [f"unexpected: {called.get(n, n)}" for n in state if n not in expected]
    for name in filter(expected.__contains__, state):
        if (got := tuple(state[name].shape)) != (allowed := tuple(expected[name].shape)):
            problems.append(f"shape of {called.get(name, name)}: got {got}, allowed: {allowed}")
        elif not state[name].float().isfinite().all():
            problems.append(f"NaN or infinite numbers: {called.get(name, name)}")
    if problems:
        raise ValueError(f"{source}: does not fit:\n  " + "\n  ".join(problems))


def convert(source: Path, target: Path) -> list[str]:
    """Writes the state dict of a ``torch.save`` file as safetensors, executing nothing of it.

    Returns: what was left out, as "name (type)".
    Raises: FileNotFoundError; ValueError for a target of another name, and for a source that is
        damaged, compressed or blown up, holds no tensors under names, or asks for functions of the
        operating system.
    """
    if target.suffix != ".safetensors":
        raise ValueError(f"{target}: allowed: a name that ends with .safetensors")
    if not source.exists():
        raise FileNotFoundError(f"{source}: no such checkpoint")
    with _naming(source, "not converted"):
        content = _without_objects(source)
    state = _state(content)
    entries = dict(state) if isinstance(state, Mapping) else {}
    tensors = {str(name): value for name, value in entries.items() if _plain(value)}
    left_out = [f"{name} ({_kind(value)})" for name, value in entries.items() if not _plain(value)]
    if state is not content:
        beside = [(name, value) for name, value in content.items() if value is not state]
        left_out += [f"{name} ({_kind(value)})" for name, value in beside]
    if not tensors:
        found = ", ".join(left_out) or _kind(content)
        raise ValueError(f"{source}: got {found}, allowed: {WANTED}")
    size = sum(tensor.nbytes for tensor in tensors.values())
    allowed = GROWTH * source.stat().st_size
    if size > max(allowed, FLOOR):
        raise ValueError(
            f"{source}: not converted: its tensors would take {size:,} bytes, allowed: "
            f"{GROWTH} times the file, {allowed:,}"
        )
    # Own memory for each: safetensors takes neither views of one storage nor strided ones.
    own = {name: value.detach().contiguous().clone() for name, value in tensors.items()}
    with files.replacing(target) as temporary:
        save_file(own, temporary, metadata={"format": "pt"})
    return left_out


class _RefusedError(ValueError):
    """What is wrong with a file, in words of ours."""


@contextmanager
def _naming(path: Path, problem: str) -> Iterator[None]:
    """Every failure of a block that opens a stranger's file is one error with its name."""
    try:
        yield
    except _RefusedError as error:
        raise ValueError(f"{path}: {problem}: {error}") from None
    except Exception as error:  # whatever a damaged file makes of torch
        raise ValueError(f"{path}: {problem}: {_reason(error)}") from error


def _without_objects(path: Path) -> Any:
    """A file's content with a `Placeholder` for every object that is not plain."""
    _refuse_compressed(path)
    names = _objects(path)
    if calls := _calls_system(names):
        raise _RefusedError(
            f"it calls {', '.join(calls)}, which no checkpoint has to; do not use this file"
        )
    stubs = [
        (_dictionary if name == DEFAULTS else type(name, (Placeholder,), {}), name)
        for name in names
    ]
    with torch.serialization.safe_globals(stubs):
        return torch.load(path, map_location="cpu", weights_only=True)


def _refuse_compressed(path: Path) -> None:
    """`torch.save` compresses nothing; what is compressed may be a thousand times its file."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
        if size > (there := path.stat().st_size):
            raise _RefusedError(
                f"{size:,} bytes are packed into {there:,}, which torch.save does not do"
            )
    elif tarfile.is_tarfile(path):
        raise _RefusedError("a tar, as torch wrote before 0.1.10")


def _objects(path: Path) -> list[str]:
    """Classes and functions, sorted, that a file asks for beyond tensors and plain containers.

    None are found in those of torch before 1.6, which are no archives.
    """
    if not zipfile.is_zipfile(path):
        return []
    return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))


def _state(content: Any) -> Any:
    """The state dict that a checkpoint keeps under a name, otherwise the content itself."""
    if isinstance(content, Mapping):
        return next((content[n] for n in NESTED if isinstance(content.get(n), Mapping)), content)
    return content


def _plain(value: Any) -> bool:
    """Whether it is a tensor with numbers in it: not sparse, quantised or without memory."""
    return (
        isinstance(value, Tensor)
        and value.layout == torch.strided
        and value.device.type == "cpu"
        and not value.is_quantized
    )


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
