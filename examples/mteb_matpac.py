"""An encoder for MTEB's audio tasks (https://github.com/embeddings-benchmark/mteb), version 2.

    import mteb
    from mteb_matpac import MatpacEncoder

    model = MatpacEncoder("data/mini/pretrain/base/seed_0")
    mteb.evaluate(model, mteb.get_tasks(tasks=["BeijingOpera"]))

Shapes: N clips, D embedding size.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from mteb._create_dataloaders import AudioCollator
from mteb.models import ModelMeta
from mteb.models.abs_encoder import AbsEncoder
from torch.utils.data import DataLoader

import matpac
from matpac.audio.chunking import shortest


class MatpacEncoder(AbsEncoder):
    """One embedding per clip, the mean over its time columns.

    Args:
        model_name: what `matpac.load` takes.
        revision, device: as of `matpac.load`.
    """

    def __init__(
        self, model_name: str, revision: str | None = None, device: str | None = None, **_: Any
    ) -> None:
        self.encoder = matpac.load(model_name, revision=revision, device=device)
        told = {"name": f"matpac/{model_name.strip('/').split('/')[-1]}", "modalities": ["audio"]}
        told |= {"embed_dim": self.encoder.width, "framework": ["PyTorch"]}
        self.mteb_model_meta = ModelMeta.create_empty(told)

    def encode(self, inputs: DataLoader, **_: Any) -> np.ndarray:
        """Batches of MTEB's, sounds of any rate -> (N, D)."""
        inputs.collate_fn = AudioCollator(self.encoder.sample_rate)
        embeddings = self.encoder.embed(self._clips(inputs), sample_rate=self.encoder.sample_rate)
        return embeddings.numpy()

    def _clips(self, inputs: DataLoader) -> Iterator[np.ndarray]:
        """Mono; too short ones are filled up with silence."""
        for batch in inputs:
            for audio in batch["audio"]:
                clip = np.array(audio["array"], dtype=np.float32).ravel()
                yield np.pad(clip, (0, max(0, shortest(self.encoder) - len(clip))))
