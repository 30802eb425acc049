"""A frozen encoder on all clips of a data set: what `matpac.probing.extract` computes and keeps.

Our own encoders take the stored log-mels (`Stored`); encoders with a front end of their own take
the audio (`Recorded`). Shapes: N clips of a data set, D embedding size, S samples.
"""

import copy
import hashlib
import json
import os
import pickle
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import packages_distributions, version
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from matpac.audio import logmel, reading
from matpac.audio.chunking import shortest
from matpac.core import files, paths
from matpac.core.fingerprints import code_digest, on_path
from matpac.encoders.embeddings import embed_clips, logmel_statistics
from matpac.encoders.frozen import AudioEncoder
from matpac.encoders.interface import WaveEncoder
from matpac.features.store import Store
from matpac.method.config import ModelConfig

BATCH = 32
"""Clips of `Recorded` that are read while the ones before them are encoded."""
DECIDING = ("clip", "path", "start_s", "duration_s", "sha256")
"""Columns of a manifest that decide which audio a clip is."""
SAID = ("sample_rate", "piece_samples", "piece_hop", "min_samples", "reflect", "precision")
"""Attributes of a `WaveEncoder` that decide what its embeddings are; a class may have them."""
ROUNDING = {"torch", "torchaudio", "matpac"}
"""Packages whose versions are no part of an identity: our code is, and torch's rounds only."""


class Embedder(Protocol):
    """What computes the embeddings of a data set, part by part."""

    width: int
    """D."""

    def __len__(self) -> int:
        """N."""

    def origin(self) -> dict[str, str]:
        """What decides the embeddings: of the encoder, of the clips, of the code."""

    def to(self, device: torch.device) -> Self:
        """A copy that computes on another device."""

    def embed(self, clips: range) -> np.ndarray:
        """Embeddings of some clips, (len(clips), D) float32."""


class Stored:
    """Embeddings of stored log-mels.

    Args: encoder: None: mean and std over time of each mel band.
    """

    def __init__(self, encoder: AudioEncoder | None, store: Store) -> None:
        self.encoder, self.store = encoder, store
        self.width = 2 * store.num_mels if encoder is None else encoder.width

    def __len__(self) -> int:
        return len(self.store)

    def origin(self) -> dict[str, str]:
        """As `Embedder.origin`."""
        return {
            "identity": identity(self.encoder),
            "clips": files.sha256(self.store.folder / "index.json"),
            "code": code_digest("method", "encoders/frozen.py", "encoders/embeddings.py"),
        }

    def to(self, device: torch.device) -> "Stored":
        """As `Embedder.to`."""
        moved = self.encoder and copy.deepcopy(self.encoder).to(device)
        return Stored(moved, self.store)

    def embed(self, clips: range) -> np.ndarray:
        """As `Embedder.embed`."""
        # Opened anew: what was read of a mapped file counts as memory of this process until then.
        store = copy.copy(self.store)
        if self.encoder is None:
            return logmel_statistics(store, clips)
        return embed_clips(self.encoder, store, clips)


class Recorded:
    """Embeddings of audio.

    Args:
        encoder: on the CPU.
        clips: rows of a manifest, see `matpac.data.manifests`.
        folder: what their paths are relative to.
        code: digest of the source that is not ours; "" if there is none.
    """

    def __init__(
        self, encoder: WaveEncoder, clips: pd.DataFrame, folder: Path, *, code: str = ""
    ) -> None:
        self.encoder, self.clips, self.folder, self.code = encoder, clips, folder, code
        self.width = encoder.width

    def __len__(self) -> int:
        return len(self.clips)

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"encoder": pickle.dumps(self.encoder)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        with on_path(paths.root()):  # a user's module may be there, see `matpac.encoders.user`
            encoder = pickle.loads(state["encoder"])
        vars(self).update(state, encoder=encoder)

    def origin(self) -> dict[str, str]:
        """As `Embedder.origin`."""
        rows = pd.util.hash_pandas_object(self.clips[list(DECIDING)], index=False)
        # Not all that decides is kept with a state: windows of a front end are not, for example.
        tensors = self.encoder.state_dict() | dict(self.encoder.named_buffers())
        return {
            "identity": _digest(tensors, [_settings(self.encoder), _packages(self.encoder)]),
            "clips": hashlib.sha256(rows.to_numpy().tobytes()).hexdigest(),
            "code": "-".join(filter(None, [_own_code(self.encoder), self.code])),
        }

    def to(self, device: torch.device) -> "Recorded":
        """As `Embedder.to`."""
        moved = copy.deepcopy(self.encoder).to(device)
        return Recorded(moved, self.clips, self.folder, code=self.code)

    def embed(self, clips: range) -> np.ndarray:
        """As `Embedder.embed`; the next clips are read while some are encoded.

        Raises: ValueError naming a clip that cannot be read or is too short, or whose embedding
            is not finite or not as long as the encoder says.
        """
        batches = [clips[first : first + BATCH] for first in range(0, len(clips), BATCH)]
        found = []
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            ahead = [pool.submit(self._wave, clip) for clip in batches[0]] if batches else []
            for batch, following in zip(batches, [*batches[1:], range(0)], strict=True):
                waves = [each.result() for each in ahead]
                ahead = [pool.submit(self._wave, clip) for clip in following]
                found.append(self._embed(waves, batch))
        return np.concatenate(found) if found else np.zeros((0, self.width), np.float32)

    def _wave(self, clip: int) -> Tensor:
        """A clip at the encoder's rate, (S,)."""
        row = self.clips.iloc[clip]
        try:
            samples, rate = reading.read(
                self.folder / row["path"], start_s=row["start_s"], duration_s=row["duration_s"]
            )
        except reading.UnusableAudioError as error:
            raise ValueError(f"{self.folder / row['path']}: {error}") from None
        wave = logmel.resample(torch.from_numpy(samples), rate, self.encoder.sample_rate)
        if len(wave) < (least := shortest(self.encoder)):
            got, needed = (n / self.encoder.sample_rate for n in (len(wave), least))
            raise ValueError(
                f"{self.folder / row['path']}: got {got:g} s, allowed: at least {needed:g} s"
            )
        return wave

    def _embed(self, waves: Sequence[Tensor], clips: range) -> np.ndarray:
        found = self.encoder.embed(waves, sample_rate=self.encoder.sample_rate)
        for clip, embedding in zip(clips, found, strict=True):
            if not embedding.isfinite().all():
                path = self.folder / self.clips.iloc[clip]["path"]
                raise ValueError(f"{path}: got NaN or infinite numbers in its embedding")
        return found.numpy()


def identity(encoder: AudioEncoder | None) -> str:
    """SHA-256 of an encoder's weights, sizes, front end and normalisation."""
    if encoder is None:
        return "logmel_statistics"
    settings = [encoder.config.model_dump(), encoder.front_end, encoder.mean, encoder.std]
    return _digest(encoder.state_dict(), settings)


def _digest(tensors: Mapping[str, Any], settings: list[Any]) -> str:
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        if isinstance(tensor, Tensor):  # a module may keep anything in its state
            flat = tensor.detach().cpu().flatten()  # of a single number there would be no bytes
            digest.update(name.encode() + flat.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _settings(encoder: WaveEncoder) -> list[Any]:
    """What an encoder's tensors do not say: class and options of every module in it.

    Args: encoder: not used yet; in some packages modules note what they saw last.
    """
    said: list[Any] = [getattr(encoder, name) for name in SAID]
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


def _packages(encoder: WaveEncoder) -> list[str]:
    """Name and version of the packages that an encoder's modules come from."""
    names = {type(module).__module__.partition(".")[0] for module in encoder.modules()} - ROUNDING
    sources = packages_distributions() if names else {}
    found = {source for name in names for source in sources.get(name, ())}
    return [f"{source} {version(source)}" for source in sorted(found)]


def _own_code(encoder: WaveEncoder) -> str:
    """Digest of this library's code behind an encoder, also where only a part of it is ours."""
    classes = {each for module in encoder.modules() for each in type(module).__mro__}
    modules = {each.__module__.removeprefix("matpac.") for each in classes if _is_ours(each)}
    files = sorted(f"{module.replace('.', '/')}.py" for module in modules)
    return code_digest("audio", "method", "probing/embedders.py", *files)


def _is_ours(each: type) -> bool:
    return each.__module__.startswith("matpac.")
