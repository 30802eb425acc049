"""A frozen encoder on all clips of a data set: what `matpac.probing.extract` computes and keeps.

Our own encoders take the stored log-mels (`Stored`); encoders with a front end of their own take
the audio (`Recorded`). Shapes: N clips of a data set, D embedding size, S samples.
"""

import copy
import hashlib
import pickle
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from matpac.audio import logmel, reading
from matpac.core import files, paths
from matpac.core.fingerprints import code_digest, on_path
from matpac.encoders import pooling
from matpac.encoders.frozen import AudioEncoder
from matpac.encoders.interface import WaveEncoder
from matpac.features.store import Store
from matpac.probing.identity import identity, own_code

AHEAD = 64
"""Clips of `Recorded` that are read while others are encoded."""
BATCH = 64
"""Pieces of `Stored` that are encoded at once."""
DECIDING = ("clip", "path", "start_s", "duration_s", "sha256")
"""Columns of a manifest that decide which audio a clip is."""


class Stored:
    """Embeddings of stored log-mels.

    Args:
        encoder: None: mean and std over time of each mel band.
        layer: of the encoder.
    """

    def __init__(self, encoder: AudioEncoder | None, store: Store, *, layer: int = -1) -> None:
        self.encoder, self.store, self.layer = encoder, store, layer
        self.width = 2 * store.num_mels if encoder is None else encoder.width

    def __len__(self) -> int:
        return len(self.store)

    def origin(self) -> dict[str, str]:
        """What decides the embeddings: of the encoder, of the clips, of the code."""
        return {
            "identity": identity(self.encoder, self.layer),
            "clips": files.sha256(self.store.folder / "index.json"),
            "code": code_digest(
                "method", "encoders/frozen.py", "encoders/pooling.py", "probing/embedders.py"
            ),
        }

    def to(self, device: torch.device) -> "Stored":
        """A copy that computes on another device."""
        moved = self.encoder and copy.deepcopy(self.encoder).to(device)
        return Stored(moved, self.store, layer=self.layer)

    @torch.inference_mode()
    def embed(self, clips: range) -> np.ndarray:
        """Embeddings of some clips, (len(clips), D) float32."""
        # Opened anew: what was read of a mapped file counts as memory of this process until then.
        store = copy.copy(self.store)
        if self.encoder is None:
            return np.stack([_statistics(store.clip(clip)) for clip in clips])
        pieces = (self._pieces(store.clip(clip)) for clip in clips)
        found = pooling.encoded(pieces, self._encode, batch_size=BATCH)
        return np.stack([pooling.mean(each).numpy() for each in found])

    def _pieces(self, logmel: np.ndarray) -> Iterator[Tensor]:
        """(T, F) -> pieces (F, T), copied out of the store as they are needed."""
        crop = self.encoder.config.crop_frames
        for start in range(0, len(logmel), crop):
            yield torch.from_numpy(np.ascontiguousarray(logmel[start : start + crop].T))

    def _encode(self, pieces: Tensor) -> Tensor:
        device = self.encoder.patches.cls_token.device
        return self.encoder.columns(pieces.to(device, torch.float32), layer=self.layer)


class Recorded:
    """Embeddings of audio.

    Args:
        encoder: on the CPU.
        clips: rows of a manifest, see `matpac.data.manifests`.
        folder: what their paths are relative to.
        code: digest of the source that is not ours; "" if there is none.
        layer: of the encoder.
    """

    def __init__(
        self,
        encoder: WaveEncoder,
        clips: pd.DataFrame,
        folder: Path,
        *,
        code: str = "",
        layer: int = -1,
    ) -> None:
        self.encoder, self.clips, self.folder = encoder, clips, folder
        self.code, self.layer, self.width = code, layer, encoder.width

    def __len__(self) -> int:
        return len(self.clips)

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"encoder": pickle.dumps(self.encoder)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        with on_path(paths.root()):  # a user's module may be there, see `matpac.encoders.user`
            encoder = pickle.loads(state["encoder"])
        vars(self).update(state, encoder=encoder)

    def origin(self) -> dict[str, str]:
        """As `Stored.origin`."""
        rows = pd.util.hash_pandas_object(self.clips[list(DECIDING)], index=False)
        return {
            "identity": identity(self.encoder, self.layer),
            "clips": hashlib.sha256(rows.to_numpy().tobytes()).hexdigest(),
            "code": "-".join(filter(None, [own_code(self.encoder), self.code])),
        }

    def to(self, device: torch.device) -> "Recorded":
        """As `Stored.to`."""
        moved = copy.deepcopy(self.encoder).to(device)
        return Recorded(moved, self.clips, self.folder, code=self.code, layer=self.layer)

    def embed(self, clips: range) -> np.ndarray:
        """As `Stored.embed`; the next clips are read while some are encoded.

        Raises: ValueError naming a clip that cannot be read or is too short, or whose embedding
            is not finite or not as long as the encoder says.
        """
        waves = self._ahead(clips)
        rate, rows = self.encoder.sample_rate, []
        found = self.encoder.embed_each(waves, sample_rate=rate, layer=self.layer)
        for clip, embedding in zip(clips, found, strict=True):
            if isinstance(embedding, Exception):
                said = str(embedding).removeprefix("waveform: ")
                raise ValueError(f"{self._path(clip)}: {said}") from embedding
            rows.append(embedding.numpy())
        return np.stack(rows)

    def _ahead(self, clips: range) -> Iterator[Tensor]:
        with ThreadPoolExecutor() as pool:
            waiting = deque(pool.submit(self._wave, clip) for clip in clips[:AHEAD])
            for clip in [*clips[AHEAD:], *[None] * len(waiting)]:
                yield waiting.popleft().result()
                if clip is not None:
                    waiting.append(pool.submit(self._wave, clip))

    def _path(self, clip: int) -> Path:
        return self.folder / self.clips.iloc[clip]["path"]

    def _wave(self, clip: int) -> Tensor:
        """A clip at the encoder's rate, (S,)."""
        row = self.clips.iloc[clip]
        try:
            samples, rate = reading.read(
                self._path(clip), start_s=row["start_s"], duration_s=row["duration_s"]
            )
        except reading.UnusableAudioError as error:
            raise ValueError(f"{self._path(clip)}: {error}") from None
        return logmel.resample(torch.from_numpy(samples), rate, self.encoder.sample_rate)


Embedder = Stored | Recorded


def _statistics(logmel: np.ndarray) -> np.ndarray:
    """The untrained reference: mean and std over time of each mel band, (T, F) -> (2 * F,)."""
    values = logmel.astype(np.float32)
    return np.concatenate([values.mean(axis=0), values.std(axis=0)])
