"""MATPAC, MATPAC++ and M2D, and our own checkpoints: all are one ViT with one front end.

Shapes: B pieces, S samples, F mel bins, T frames, R patch rows, n patch columns, D width of the
transformer; the embedding of a column is R * D long.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from matpac.encoders.interface import WaveEncoder
from matpac.frozen import AudioEncoder
from matpac.logmel import LogMel, normalise


class ViTEncoder(WaveEncoder):
    """Waveform -> log-mels -> the frozen encoder; the rows of a time column are concatenated.

    A piece is what gives exactly one training crop of frames. The next one starts a crop later, in
    frames, so that the pieces of a clip have the frames of the whole clip: nothing is lost between
    them, and only the last one is padded, to whole patches and with the mean.

    Args:
        net: the encoder with its weights, front end and normalisation.
        reflect: samples mirrored at both ends of a clip; half a window makes the STFT centred.
    """

    def __init__(self, net: AudioEncoder, *, reflect: int = 0) -> None:
        super().__init__()
        self.net = net
        self.front_end = LogMel(**net.front_end)
        self.sample_rate, self.width = self.front_end.sample_rate, net.width
        self.min_samples = self.front_end.window
        self.piece_hop = net.config.crop_frames * self.front_end.hop
        self.piece_samples = self.piece_hop - self.front_end.hop + self.front_end.window
        self.reflect, self.num_layers = reflect, net.config.encoder_depth
        self.requires_grad_(False)
        self.eval()

    def columns(self, waves: Tensor, *, layer: int = -1) -> Tensor:
        """Latents of one layer, as `WaveEncoder.columns`: (B, S) -> (B, n, R * D).

        Inner layers are the raw output of their block, the last one is after the final norm.

        Raises: ValueError for a layer or a length that there is not.
        """
        if not -self.num_layers <= layer < self.num_layers:
            allowed = f"{-self.num_layers} to {self.num_layers - 1}"
            raise ValueError(f"layer: got {layer}, allowed: {allowed}")
        if not self.min_samples <= waves.shape[1] <= self.piece_samples:
            allowed = f"{self.min_samples} to {self.piece_samples}"
            raise ValueError(f"samples of a piece: got {waves.shape[1]}, allowed: {allowed}")
        logmel = normalise(self.front_end(waves), self.net.mean, self.net.std)
        padded = F.pad(logmel, (0, -logmel.shape[2] % self.net.config.patch_size))
        tokens = self._layer(self.net.patches(padded), layer)[:, 1:]  # (B, R*n, D)
        rows = tokens.unflatten(1, (self.net.patches.rows, -1))  # (B, R, n, D)
        return rows.transpose(1, 2).flatten(2)

    def times(self, num_samples: int) -> Tensor:
        """Centres of the columns: the middle of a patch's frames, each at its window's middle."""
        front_end, patch = self.front_end, self.net.config.patch_size
        columns = -(-front_end.num_frames(num_samples) // patch)
        middles = patch * torch.arange(columns, dtype=torch.float64) + (patch - 1) / 2  # in frames
        return (middles * front_end.hop + front_end.window / 2) / front_end.sample_rate

    def _layer(self, tokens: Tensor, layer: int) -> Tensor:
        """Output of one layer; no block after it is computed. (B, N, D) -> (B, N, D)."""
        if layer % self.num_layers == self.num_layers - 1:
            return self.net.encoder(tokens)
        for block in self.net.encoder.blocks[: layer % self.num_layers + 1]:
            tokens = block(tokens)
        return tokens
