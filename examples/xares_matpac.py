"""An X-ARES encoder: Xiaomi's audio evaluation package (https://github.com/jimbozhang/xares).

With it and matpac in one environment, and this file where the command is called from:

    MATPAC_ENCODER=data/mini/pretrain/base/seed_0 \\
        python -m xares.run xares_matpac.py src/tasks/esc50/esc50_task.py --max-jobs 0

MATPAC_ENCODER says which encoder: whatever `matpac.load` takes.

Shapes: B clips of S samples, T time columns, D embedding size.
"""

import torch
from torch import Tensor

from matpac import hear


class MatpacEncoder(torch.nn.Module):
    """The encoder that MATPAC_ENCODER names, its columns at even times as HEAR has them."""

    def __init__(self) -> None:
        super().__init__()
        self.model = hear.load_model()
        self.sampling_rate = self.model.sample_rate
        self.output_dim = self.model.timestamp_embedding_size
        two_pieces = torch.zeros(1, 2 * self.model.encoder.piece_samples)
        _, stamps = hear.get_timestamp_embeddings(two_pieces, self.model)
        self.hop_size_in_ms = float(stamps[0, 1] - stamps[0, 0])

    def forward(self, audio: Tensor) -> Tensor:
        """(B, S) waveforms at ``sampling_rate`` -> (B, T, D)."""
        return hear.get_timestamp_embeddings(audio, self.model)[0]
