"""A frozen encoder on all clips of a data set: what `matpac.extract` computes and keeps.

Our own encoders take the stored log-mels (`Stored`); encoders with a front end of their own take
the audio (`Recorded`). Shapes: N clips of a data set, D embedding size, S samples.
"""

import copy
import hashlib
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from matpac import audio, files, logmel
from matpac.clips import Store
from matpac.embeddings import embed_clips, logmel_statistics
from matpac.encoders.interface import WaveEncoder
from matpac.frozen import AudioEncoder
from matpac.provenance import code_digest

BATCH = 32
"""Clips of `Recorded` that are read while the ones before them are encoded."""
DECIDING = ("clip", "path", "start_s", "duration_s", "sha256")
"""Columns of a manifest that decide which audio a clip is."""


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
            "code": code_digest("embeddings"),
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
        clips: rows of a manifest, see `matpac.datasets`.
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

    def origin(self) -> dict[str, str]:
        """As `Embedder.origin`."""
        rows = pd.util.hash_pandas_object(self.clips[list(DECIDING)], index=False)
        kind = type(self.encoder).__module__
        own = code_digest(kind.removeprefix("matpac.")) if kind.startswith("matpac.") else ""
        return {
            "identity": _weights(self.encoder, [kind, *_settings(self.encoder)]),
            "clips": hashlib.sha256(rows.to_numpy().tobytes()).hexdigest(),
            "code": "-".join(filter(None, [code_digest("embedders"), own, self.code])),
        }

    def to(self, device: torch.device) -> "Recorded":
        """As `Embedder.to`."""
        moved = copy.deepcopy(self.encoder).to(device)
        return Recorded(moved, self.clips, self.folder, code=self.code)

    def embed(self, clips: range) -> np.ndarray:
        """As `Embedder.embed`; the next clips are read while some are encoded.

        Raises: ValueError naming a clip that cannot be read.
        """
        batches = [clips[first : first + BATCH] for first in range(0, len(clips), BATCH)]
        found = []
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            ahead = [pool.submit(self._wave, clip) for clip in batches[0]] if batches else []
            for batch in [*batches[1:], range(0)]:
                waves = [each.result() for each in ahead]
                ahead = [pool.submit(self._wave, clip) for clip in batch]
                found.append(self._embed(waves).numpy())
        return np.concatenate(found) if found else np.zeros((0, self.width), np.float32)

    def _wave(self, clip: int) -> Tensor:
        """A clip at the encoder's rate, (S,)."""
        row = self.clips.iloc[clip]
        try:
            samples, rate = audio.read(
                self.folder / row["path"], start_s=row["start_s"], duration_s=row["duration_s"]
            )
        except audio.UnusableAudioError as error:
            raise ValueError(f"{self.folder / row['path']}: {error}") from None
        return logmel.resample(torch.from_numpy(samples), rate, self.encoder.sample_rate)

    def _embed(self, waves: Sequence[Tensor]) -> Tensor:
        return self.encoder.embed(waves, sample_rate=self.encoder.sample_rate)


def identity(encoder: AudioEncoder | None) -> str:
    """SHA-256 of an encoder's weights, sizes, front end and normalisation."""
    if encoder is None:
        return "logmel_statistics"
    settings = [encoder.config.model_dump(), encoder.front_end, encoder.mean, encoder.std]
    return _weights(encoder, settings)


def _weights(module: nn.Module, settings: list[Any]) -> str:
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(name.encode() + tensor.cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _settings(encoder: WaveEncoder) -> list[Any]:
    """What an encoder says of itself, and of a ViT what its state does not hold."""
    names = ("sample_rate", "piece_samples", "piece_hop", "min_samples", "reflect", "precision")
    said: list[Any] = [getattr(encoder, name) for name in names]
    if isinstance(net := getattr(encoder, "net", None), AudioEncoder):
        said.append([net.config.model_dump(), net.front_end, net.mean, net.std])
    return said
