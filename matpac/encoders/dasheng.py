"""Dasheng (Dinkel et al., Interspeech 2024), of the package `dasheng` by its authors.

Network, front end and names of tensors are the package's. A token is 4 frames of all 64 mel bins,
40 ms.

Shapes: B pieces, S samples, F mel bins, T frames, n columns, D width.
"""

from pathlib import Path

import torch
from torch import Tensor, nn

from matpac.encoders import needing, statedicts
from matpac.encoders.interface import WaveEncoder, centres

RATE, HOP, WINDOW = 16_000, 160, 512
FRAMES = 4
"""Of a token."""
POSITIONS = 252
"""Tokens of 10.08 s, as trained; a file tells its own."""
SIZES = {
    "base": {"embed_dim": 768, "depth": 12, "num_heads": 12},
    "0.6b": {"embed_dim": 1280, "depth": 32, "num_heads": 16},
}


class DashengEncoder(WaveEncoder):
    """Waveform -> log-mels -> transformer without masks.

    The package frames a whole clip, mirrored at its ends, and cuts the frames into pieces; here the
    mirrored clip is cut so that the pieces have those frames. What fills no token is left out.

    Args:
        net: the package's network, not centring its frames.
    """

    sample_rate, reflect = RATE, WINDOW // 2
    min_samples = WINDOW + (FRAMES - 1) * HOP

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        self.width, self.num_layers = net.embed_dim, len(net.blocks)
        self.piece_hop = net.target_length * HOP
        self.piece_samples = self.piece_hop - HOP + WINDOW
        self.requires_grad_(False).eval()

    @torch.no_grad()
    def columns(self, waves: Tensor, *, layer: int = -1) -> Tensor:
        """Tokens of one layer, as `WaveEncoder.columns`: (B, S) -> (B, n, D).

        Inner layers are the raw output of their block, the last one is after the final norm.
        """
        self.check_piece(waves, layer)
        number, net = layer % self.num_layers, self.net
        with torch.autocast(waves.device.type, enabled=False):
            # As channels of their own: (B, T, F) would get one floor of 120 dB below the loudest.
            logmel = net.init_bn(net.front_end(waves[:, None]))  # (B, 1, F, T)
        patches = net.patch_embed(logmel)  # (B, D, 1, n)
        placed = patches + net.time_pos_embed[..., : patches.shape[3]] + net.freq_pos_embed
        tokens = net.blocks[: number + 1](placed.flatten(2).transpose(1, 2))  # (B, n, D)
        return net.norm(tokens) if number == self.num_layers - 1 else tokens

    def times(self, num_samples: int) -> Tensor:
        """As `WaveEncoder.times`."""
        return centres(num_samples, RATE, window=WINDOW, hop=HOP, frames=FRAMES)


def make(weights: Path | None, *, model: str) -> DashengEncoder:
    """Dasheng with published weights.

    Args:
        weights: the authors' checkpoint, or its state dict as safetensors; None: random, for tests.
        model: base or 0.6b.
    Raises: ImportError without `dasheng`; ValueError for an unknown ``model`` and for weights that
        do not fit; FileNotFoundError.
    """
    if model not in SIZES:
        raise ValueError(f"model: got {model!r}, allowed: {', '.join(map(repr, SIZES))}")
    with needing("dasheng", "dasheng"):
        from dasheng.pretrained.pretrained import Dasheng
    state = {} if weights is None else statedicts.read_state(weights)
    positions = state["time_pos_embed"].shape[-1:] if "time_pos_embed" in state else ()
    length = FRAMES * (positions[0] if positions else POSITIONS)
    net = Dasheng(**SIZES[model], target_length=length, center=False)
    if weights is not None:
        statedicts.load(net, state, weights)
    return DashengEncoder(net)
