"""PaSST (Koutini et al., Interspeech 2022), of the package `hear21passt` by its authors.

Its front end, network and names of tensors are the package's; the weights are a file of the
project's releases, such as ``passt-s-f128-p16-s10-ap.476-swa.pt``, which the package uses for HEAR.

Shapes: B pieces, S samples, T frames, R patch rows, n patch columns, D width.
"""

import contextlib
import io
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from matpac.encoders import needing, statedicts
from matpac.encoders.interface import WaveEncoder

Pool = Literal["class", "patches"]
"""class: the mean of the class and distillation tokens, as in HEAR; patches: per time column, the
mean of its patches."""

ARCH = "passt_s_swa_p16_128_ap476"
"""The package's name of the model that HEAR got: patches of 16 x 16, every 10."""
RATE, HOP = 32_000, 320
PATCH, STRIDE = 16, 10
"""Frames."""
LONGEST = 10 * RATE
"""The time positions are of 10 s."""


class PaSST(WaveEncoder):
    """Waveform -> log-mels -> transformer without patchout.

    With ``pool="class"`` all columns of a piece are the piece's one embedding, so that in a clip's
    mean a shorter last piece counts by its length. A piece of less than one patch, 150 ms, is
    filled up with silence.

    Args:
        mel, net: the package's front end and network.
        pool: what a column is.
    """

    def __init__(self, mel: nn.Module, net: nn.Module, *, pool: Pool = "class") -> None:
        super().__init__()
        self.mel, self.net, self.pool = mel, net, pool
        self.sample_rate, self.width = RATE, net.embed_dim
        self.piece_samples, self.min_samples = LONGEST, mel.win_length
        self.num_layers = len(net.blocks)
        self.requires_grad_(False).eval()

    @torch.no_grad()
    def columns(self, waves: Tensor, *, layer: int = -1) -> Tensor:
        """Embeddings of one layer, as `WaveEncoder.columns`: (B, S) -> (B, n, D).

        Inner layers are the raw output of their block, the last one is after the final norm.
        """
        self.check_piece(waves, layer)
        num_columns = len(self.times(waves.shape[1]))
        tokens = self._tokens(waves, layer)  # (B, 2 + R*n, D)
        if self.pool == "class":
            return tokens[:, :2].mean(dim=1, keepdim=True).repeat(1, num_columns, 1)
        return tokens[:, 2:].unflatten(1, (-1, num_columns)).mean(dim=1)

    def times(self, num_samples: int) -> Tensor:
        """Centres of the patch columns; frame t is centred at sample t * 320."""
        frames = 1 + (max(num_samples, _shortest()) - 1) // HOP
        firsts = torch.arange((frames - PATCH) // STRIDE + 1, dtype=torch.float64) * STRIDE
        seconds = (firsts + (PATCH - 1) / 2) * HOP / RATE
        return seconds.clamp(max=num_samples / 2 / RATE) if len(seconds) == 1 else seconds

    def _tokens(self, waves: Tensor, layer: int) -> Tensor:
        """All tokens of a layer, caught where they leave the block or the final norm."""
        last = layer % self.num_layers == self.num_layers - 1
        caught: list[Tensor] = []
        source = self.net.norm if last else self.net.blocks[layer]
        hook = source.register_forward_hook(lambda _module, _inputs, out: caught.append(out))
        padded = F.pad(waves, (0, max(_shortest() - waves.shape[1], 0)))
        try:
            # The package draws from the global generator in eval mode, too, and drops the number.
            with _quiet(), torch.random.fork_rng(devices=[]):
                with torch.autocast(waves.device.type, enabled=False):
                    logmel = self.mel(padded)
                self.net(logmel[:, None])  # (B, 1, F, T)
        finally:
            hook.remove()
        return caught[0]


def make(weights: Path | None, *, pool: Pool = "class") -> WaveEncoder:
    """PaSST with published weights.

    Args:
        weights: a file of the project's releases, of PaSST-S for 10 s; None: random, for tests.
        pool: what a column is.
    Raises: ImportError without `hear21passt`; ValueError for an unknown ``pool`` and for weights
        that do not fit; FileNotFoundError.
    """
    if pool not in ("class", "patches"):
        raise ValueError(f"pool: got {pool!r}, allowed: 'class', 'patches'")
    with _quiet():
        mel, net = _built()
    if weights is not None:
        statedicts.load(net, statedicts.read_state(weights), weights)
    return PaSST(mel, net, pool=pool)


def _built() -> tuple[nn.Module, nn.Module]:
    """The package's front end as it sets it up for HEAR, and its network with random weights."""
    with needing("passt", "hear21passt"):
        from hear21passt.models import passt
        from hear21passt.models.preprocess import AugmentMelSTFT
    passt.first_RUN = False  # otherwise the first call prints every shape
    # The ranges that only training draws from also set the upper edge: 15 kHz.
    mel = AugmentMelSTFT(n_mels=128, sr=RATE, hopsize=HOP, fmin_aug_range=10, fmax_aug_range=2000)
    return mel, passt.get_model(arch=ARCH, pretrained=False)


def _shortest() -> int:
    """Samples that give one patch: pre-emphasis takes one, and frames are centred."""
    return (PATCH - 1) * HOP + 1 + 1


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the package's prints, and its warnings of lengths and of its use of old torch."""
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"hear21passt|torch\.functional")
        yield
