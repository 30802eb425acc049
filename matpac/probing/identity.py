"""What decides an encoder's embeddings, as digests: kept ones are taken for those of no other."""

import hashlib
import json
from collections.abc import Mapping
from importlib.metadata import packages_distributions, version
from typing import Any

import torch
from torch import Tensor, nn

from matpac.core.fingerprints import code_digest
from matpac.method.config import ModelConfig

SAID = ("sample_rate", "piece_samples", "piece_hop", "min_samples", "reflect", "precision")
"""Attributes of a `WaveEncoder` that decide what its embeddings are; a class may have them."""
ROUNDING = {"torch", "torchaudio", "matpac"}
"""Packages whose versions are no part of an identity: our code is, and torch's rounds only."""


def identity(encoder: nn.Module | None, layer: int = -1) -> str:
    """SHA-256 of an encoder's weights and of all that they do not say.

    Args: encoder: not used yet; in some packages modules note what they saw last.
    """
    if encoder is None:
        return "logmel_statistics"
    said = [_settings(encoder), _packages(encoder)] + [layer] * (layer != -1)
    digest = hashlib.sha256(json.dumps(said, sort_keys=True).encode())
    # Not all that decides is kept with a state: windows of a front end are not, for example.
    tensors: Mapping[str, Any] = encoder.state_dict() | dict(encoder.named_buffers())
    for name, tensor in sorted(tensors.items()):
        if isinstance(tensor, Tensor):  # a module may keep anything in its state
            flat = tensor.detach().cpu().flatten()  # of a single number there would be no bytes
            digest.update(name.encode() + flat.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _settings(encoder: nn.Module) -> list[Any]:
    """What an encoder's tensors do not say: class and options of every module in it."""
    said: list[Any] = [getattr(encoder, name, None) for name in SAID]
    for name, module in encoder.named_modules():
        # Private attributes may be drawn anew each time, such as s3prl's ids.
        public = {k: _plain(v) for k, v in vars(module).items() if not k.startswith("_")}
        said.append([name, type(module).__module__, type(module).__qualname__, public])
    return said


def _plain(value: Any) -> Any:
    """A value as JSON has it; None for what JSON has not."""
    if isinstance(value, ModelConfig):
        return value.model_dump()
    if isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, dict):
        return {str(name): _plain(each) for name, each in value.items()}
    return None


def _packages(encoder: nn.Module) -> list[str]:
    """Name and version of the packages that an encoder's modules come from."""
    names = {type(module).__module__.partition(".")[0] for module in encoder.modules()} - ROUNDING
    sources = packages_distributions() if names else {}
    found = {source for name in names for source in sources.get(name, ())}
    return [f"{source} {version(source)}" for source in sorted(found)]


def own_code(encoder: nn.Module) -> str:
    """Digest of this library's code behind an encoder, also where only a part of it is ours."""
    classes = {each for module in encoder.modules() for each in type(module).__mro__}
    ours = {each.__module__ for each in classes if each.__module__.startswith("matpac.")}
    names = sorted(f"{module.removeprefix('matpac.').replace('.', '/')}.py" for module in ours)
    return code_digest("audio", "method", "encoders/pooling.py", "probing/embedders.py", *names)
