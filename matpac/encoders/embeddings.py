"""Embeddings of stored clips, many at once (MATPAC Sec. IV-A, "Linear probing evaluation").

Apart from `matpac.encoders.frozen`, so that a faster way to embed makes no pretraining stale.

Shapes: b pieces of a batch, F mel bins, T frames, R patch rows, D width.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from matpac.encoders.frozen import AudioEncoder
from matpac.method.patches import normalise


class Clips(Protocol):
    """What `embed_clips` reads: `matpac.features.store.Store`."""

    num_frames: np.ndarray

    def clip(self, index: int) -> np.ndarray:
        """Log-mel of one clip, (T, F), half precision."""


@torch.inference_mode()
def embed_clips(
    encoder: AudioEncoder, clips: Clips, indices: Sequence[int], *, batch_size: int = 64
) -> np.ndarray:
    """Embeddings of stored clips, pieces of equal length batched over clips of any lengths.

    Returns: (len(indices), R * D) float32; equal to one `AudioEncoder.embed` per clip.
    """
    device = encoder.patches.cls_token.device
    sums = torch.zeros(len(indices), encoder.width, device=device)
    for rows, batch in _equal_pieces(encoder, clips, indices, batch_size):
        pieces = normalise(batch.to(device, torch.float32), encoder.mean, encoder.std)
        width = encoder.columns(pieces.shape[2]) * encoder.config.patch_size
        part = encoder.column_sums(F.pad(pieces, (0, width - pieces.shape[2])))
        sums.index_add_(0, torch.tensor(rows, device=device), part)
    counts = torch.tensor([encoder.columns(int(clips.num_frames[i])) for i in indices])
    return (sums.cpu() / counts[:, None]).numpy()


def _equal_pieces(
    encoder: AudioEncoder, clips: Clips, indices: Sequence[int], batch_size: int
) -> Iterator[tuple[list[int], Tensor]]:
    """Batches of pieces of the same length: (rows of the result, (b, F, T) half precision)."""
    waiting: dict[int, list[tuple[int, np.ndarray]]] = defaultdict(list)
    for row, index in enumerate(indices):
        logmel = clips.clip(index)
        for start in range(0, len(logmel), encoder.config.crop_frames):
            piece = logmel[start : start + encoder.config.crop_frames]
            waiting[len(piece)].append((row, piece))
            if len(waiting[len(piece)]) == batch_size:
                yield _stack(waiting.pop(len(piece)))
    for group in waiting.values():
        yield _stack(group)


def _stack(group: list[tuple[int, np.ndarray]]) -> tuple[list[int], Tensor]:
    stacked = np.stack([piece for _, piece in group])  # (b, T, F)
    return [row for row, _ in group], torch.from_numpy(stacked).transpose(1, 2)


def logmel_statistics(clips: Clips, indices: Sequence[int]) -> np.ndarray:
    """The untrained reference: mean and std over time of each mel band, (len(indices), 2 * F)."""
    rows = []
    for index in indices:
        logmel = clips.clip(index).astype(np.float32)
        rows.append(np.concatenate([logmel.mean(axis=0), logmel.std(axis=0)]))
    return np.stack(rows)
