"""A training state as a file: whole or not there, checked before it is used, never another run's.

``state-000000123.pt`` holds tensors, numbers and text only: reading it executes nothing. Beside it
``state-000000123.json`` holds its SHA-256 and what people want to know of it. Equal states are
equal byte for byte.
"""

import hashlib
import os
import platform
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import IO, Any, NamedTuple

import torch
from torch import Tensor

from matpac.core import files, fingerprints


@dataclass(frozen=True)
class Identity:
    """What decides a training run; a state of another identity belongs to another run."""

    config: dict[str, Any]
    """The resolved configuration, as far as it decides the result."""
    data: str
    """Digest of the pretraining index: which stores, their checksums, normalisation."""
    code: str
    """Digest of the library code that trains."""

    @property
    def fingerprint(self) -> str:
        """Digest of all that decides the result."""
        return fingerprints.digest(asdict(self))

    def differences(self, other: "Identity") -> list[str]:
        """Why ``other`` is another run, one line per differing key."""
        here, there = (_flat(each.config) for each in (self, other))
        lines = [
            f"{key}: {there.get(key, 'absent')} there, {here.get(key, 'absent')} here"
            for key in sorted({*here, *there})
            if key not in here or key not in there or here[key] != there[key]
        ]
        lines += ["the pretraining data differ"] if self.data != other.data else []
        return lines + (["the library's code differs"] if self.code != other.code else [])


class Snapshot:
    """A copy of a state in main memory that later updates leave alone.

    On a GPU the copy is only begun here, behind the updates before it; `content` waits for it.

    Args: state: nested dicts, lists and tuples of tensors, numbers and text.
    Raises: TypeError for anything else, which could not be read back safely.
    """

    def __init__(self, state: dict[str, Any]) -> None:
        self._copy = _copied(state)
        self._copied = torch.cuda.Event() if torch.cuda.is_initialized() else None
        if self._copied:
            self._copied.record()

    def content(self) -> dict[str, Any]:
        """The copy, complete."""
        if self._copied:
            self._copied.synchronize()
        return self._copy


def versions() -> dict[str, str]:
    """Of what a state depends on beyond its identity."""
    return {
        "matpac": metadata.version("matpac"),
        "torch": str(torch.__version__),
        "python": platform.python_version(),
    }


def random_state() -> dict[str, Tensor]:
    """This process's torch generators: of the CPU and of its GPU."""
    state = {"cpu": torch.get_rng_state()}
    return state | ({"cuda": torch.cuda.get_rng_state()} if torch.cuda.is_available() else {})


def set_random_state(state: dict[str, Tensor]) -> None:
    """Restores what `random_state` gave, as far as this process has such a device."""
    torch.set_rng_state(state["cpu"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


def write(path: Path, state: dict[str, Any], *, after: Iterable[Path] = ()) -> None:
    """Writes a state, which appears when it is on the disk with all that it refers to.

    Args:
        path: ``.../state-*.pt``.
        state: a `Snapshot`'s content; holds ``step``, ``order``, ``identity`` and ``versions``.
        after: files that have to be on the disk before, its logs.
    Raises: OSError naming the file and the cause; nothing is left of the state then.
    """
    described = path.with_suffix(".json")
    try:
        with files.replacing(path) as temporary:
            with temporary.open("wb") as file:
                sink = _Sink(file)
                torch.save(state, sink)
                sink.finish()
            for log in after:
                files.sync(log)
            shown = {name: state[name] for name in ("step", "order", "identity", "versions")}
            content = {"sha256": sink.sha256.hexdigest(), "bytes": sink.size} | shown
            files.write_json(described, content)
            files.sync(described)
            files.sync(path.parent)  # the names of the logs and of the description, too
    except OSError:
        described.unlink(missing_ok=True)
        raise
    files.sync(path.parent)


def read(path: Path) -> dict[str, Any]:
    """A state, if it is what was written.

    Raises: FileNotFoundError; ValueError naming the file and what is wrong with it.
    """
    described = describe(path)
    if (size := path.stat().st_size) != described.size:
        raise ValueError(f"{path}: {size} bytes, but {described.size} were written")
    if files.sha256(path) != described.sha256:
        raise ValueError(f"{path}: not what was written: its SHA-256 is another")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a file that is not its own
        raise ValueError(f"{path}: not a training state: {error}") from error


class Description(NamedTuple):
    """What lies beside a state."""

    sha256: str
    size: int
    """Bytes."""
    identity: Identity


def describe(path: Path) -> Description:
    """What `write` put beside a state, without reading that. Raises: as `read`."""
    described = path.with_suffix(".json")
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such training state")
    if not described.exists():
        raise ValueError(f"{path}: {described.name}, which vouches for it, is missing")
    try:
        content = files.read_json(described)
        return Description(content["sha256"], content["bytes"], Identity(**content["identity"]))
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: {described.name} describes no state: {error!r}") from None


class _Sink:
    """Where `torch.save` writes: a file, hashed on the way.

    An error is kept until torch is through: raised within its writer, it would be lost behind
    torch's own ("unexpected pos").
    """

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.sha256, self.size = file, hashlib.sha256(), 0
        self.error: OSError | None = None

    def write(self, data: memoryview) -> int:
        """Takes the next bytes."""
        self.sha256.update(data)
        self.size += len(data)
        if self.error is None:
            try:
                self.file.write(data)
            except OSError as error:
                self.error = error
        return len(data)

    def flush(self) -> None:
        """Left to `finish`."""

    def finish(self) -> None:
        """Waits until everything is on the disk. Raises: OSError if it is not."""
        if self.error is not None:
            raise self.error
        self.file.flush()
        os.fsync(self.file.fileno())


def _flat(sections: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """``section.key`` -> value."""
    return {
        f"{name}.{key}": value for name, keys in sections.items() for key, value in keys.items()
    }


def _copied(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().to("cpu", non_blocking=True, copy=True)
    if isinstance(value, dict):
        return {_copied(key): _copied(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return (list if isinstance(value, list) else tuple)(_copied(each) for each in value)
    if type(value) is str:
        return sys.intern(value)  # pickle writes equal text once only if it is one object
    if value is None or type(value) in (bool, int, float):
        return value
    raise TypeError(f"a training state holds tensors, numbers and text, got {type(value)}: {value}")
