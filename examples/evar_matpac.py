"""An EVAR adapter: linear evaluation of one of our encoders in NTT's evaluation package.

EVAR (https://github.com/nttcslab/eval-audio-repr) has a licence of its own that allows no copies,
so it is not part of this project. With it and matpac in one environment:

1. Copy this file to EVAR's ``evar/ar_matpac.py``.
2. Import it where EVAR's ``lineareval.py`` imports the other ``evar.ar_...`` modules:
   ``import evar.ar_matpac``.
3. Copy ``evar_matpac.yaml`` to EVAR's ``config/matpac.yaml``; set ``weight_file`` to your encoder
   and ``feature_d`` to its width.
4. Run, for example, ``python lineareval.py config/matpac.yaml esc50``.

Shapes: B clips of S samples, D embedding size, T time columns.
"""

from typing import Any

import torch
from evar.ar_base import BaseAudioRepr
from torch import Tensor
from torch.nn import functional as F

import matpac
from matpac.audio.chunking import shortest


class AR_MATPAC(BaseAudioRepr):  # noqa: N801 (EVAR's naming)
    """A frozen encoder with its own front end and normalisation: EVAR's mel settings are unused.

    Args: cfg: the YAML file's content.
    Raises: ValueError if ``feature_d`` or ``sample_rate`` are not the encoder's.
    """

    def __init__(self, cfg: Any) -> None:
        super().__init__(cfg)
        self.encoder = matpac.load(self.cfg["weight_file"], device="cpu")
        for name, ours in (
            ("feature_d", self.encoder.width),
            ("sample_rate", self.encoder.sample_rate),
        ):
            if self.cfg[name] != ours:
                raise ValueError(f"{name}: got {self.cfg[name]}, allowed: {ours}, the encoder's")

    def precompute(self, device: torch.device, data_loader: Any) -> None:
        """Nothing to measure: mean and std are kept with the weights."""

    def encode_frames(self, batch_audio: Tensor) -> Tensor:
        """(B, S) waveforms at the encoder's rate -> (B, D, T)."""
        found = self.encoder.embed(self._clips(batch_audio), **self._options(), frames=True)
        columns = torch.stack([each.embeddings for each in found])  # (B, T, D)
        return columns.transpose(1, 2).to(batch_audio.device)

    def forward(self, batch_audio: Tensor) -> Tensor:
        """(B, S) -> (B, D), the mean over time columns."""
        found = self.encoder.embed(self._clips(batch_audio), **self._options())
        return found.to(batch_audio.device)

    def _options(self) -> dict[str, int]:
        return {"sample_rate": self.encoder.sample_rate, "batch_size": 64}

    def _clips(self, batch_audio: Tensor) -> list[Tensor]:
        """Too short ones are filled up with silence."""
        missing = max(0, shortest(self.encoder) - batch_audio.shape[1])
        return list(F.pad(batch_audio, (0, missing)))
