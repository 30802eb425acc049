"""MAE-AST (Baade et al., Interspeech 2022), of the package `s3prl`.

The network, its names of tensors and its front end, Kaldi's filter bank, are those of s3prl's
upstream ``mae_ast``; the sizes are those of the authors' configuration.

Shapes: B pieces, S samples, T frames, F mel bins, R patch rows, n patch columns, D width of the
transformer; the embedding of a column is R * D long.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchaudio.compliance import kaldi

from matpac.encoders import needing, statedicts
from matpac.encoders.interface import WaveEncoder

Model = Literal["patch", "frame"]
"""patch: 16 x 16 patches, masked in chunks (``chunk_patch_75_12LayerEncoder.pt``); frame: 2 frames
of all 128 bins, masked at random (``random_frame_75_12LayerEncoder.pt``)."""

RATE, HOP, WINDOW = 16_000, 160, 400
NUM_MELS = 128
LONGEST = 1552
"""Frames of a piece: whole patches in the longest training crop, 15.6 s."""


class MAEAST(WaveEncoder):
    """Waveform -> log-mels -> transformer without masks; rows of a time column are concatenated.

    The next piece starts a piece later in frames, so that the pieces of a clip have the frames of
    the whole clip. Frames at the end that do not fill a patch are left out, as the package does;
    a piece of less than one patch is filled up with silence.

    Args:
        net: the package's network.
        patch_frames, rows: what its patches are.
    """

    def __init__(self, net: nn.Module, *, patch_frames: int, rows: int) -> None:
        super().__init__()
        self.net, self.patch_frames, self.rows = net, patch_frames, rows
        self.sample_rate, self.width = RATE, rows * net.encoder.embedding_dim
        self.min_samples = WINDOW
        self.piece_hop = LONGEST * HOP
        self.piece_samples = _samples(LONGEST)
        self.num_layers = len(net.encoder.layers)
        self.requires_grad_(False).eval()

    @torch.no_grad()
    def columns(self, waves: Tensor, *, layer: int = -1) -> Tensor:
        """Embeddings of one layer, as `WaveEncoder.columns`: (B, S) -> (B, n, R * D)."""
        self.check_piece(waves, layer)
        logmel = self.logmel(waves)
        none = torch.zeros(logmel.shape[:2], dtype=torch.bool, device=waves.device)  # (B, T)
        found = self.net(logmel, padding_mask=none, mask=False, features_only=True)
        tokens = found["hidden_states"][layer]  # (B, n*R, D), the rows of a column together
        return tokens.unflatten(1, (-1, self.rows)).flatten(2)

    def logmel(self, waves: Tensor) -> Tensor:
        """Kaldi's log filter bank, before the network's own normalisation: (B, S) -> (B, T, F)."""
        padded = F.pad(waves, (0, max(_samples(self.patch_frames) - waves.shape[1], 0)))
        options = {"sample_frequency": RATE, "num_mel_bins": NUM_MELS, "use_energy": False}
        with torch.autocast(waves.device.type, enabled=False):
            return torch.stack([kaldi.fbank(wave[None], **options) for wave in padded])

    def times(self, num_samples: int) -> Tensor:
        """Centres of the columns; frame t is centred at sample t * 160 + 200."""
        num_columns = max(1 + (num_samples - WINDOW) // HOP, 0) // self.patch_frames
        firsts = torch.arange(max(num_columns, 1), dtype=torch.float64) * self.patch_frames
        seconds = ((firsts + (self.patch_frames - 1) / 2) * HOP + WINDOW / 2) / RATE
        return seconds.clamp(max=num_samples / 2 / RATE) if num_columns < 1 else seconds


def make(weights: Path | None, *, model: Model = "patch") -> WaveEncoder:
    """MAE-AST with published weights.

    Args:
        weights: the authors' checkpoint, or its state dict as safetensors; None: random, for tests.
        model: which of the two 12-layer models.
    Raises: ImportError without `s3prl`; ValueError for an unknown ``model`` and for weights that
        do not fit; FileNotFoundError.
    """
    if model not in ("patch", "frame"):
        raise ValueError(f"model: got {model!r}, allowed: 'patch', 'frame'")
    frames, mels = (16, 16) if model == "patch" else (2, NUM_MELS)
    net = _built(frames, mels)
    if weights is not None:
        _check_model(weights, model, frames)
        statedicts.load(net, statedicts.read_state(weights), weights)
    return MAEAST(net, patch_frames=frames, rows=NUM_MELS // mels)


def _built(frames: int, mels: int) -> nn.Module:
    """The package's network with random weights, sizes as in the authors' configuration."""
    with needing("mae-ast", "s3prl"):
        from s3prl.upstream.mae_ast.load_model import MAE_AST_Pretraining_Config
        from s3prl.upstream.mae_ast.mae_ast import MAE_AST, MAE_AST_Config
    config = MAE_AST_Config(
        ast_kernel_size_time=frames,
        ast_kernel_stride_time=frames,
        ast_kernel_size_chan=mels,
        ast_kernel_stride_chan=mels,
        enc_sine_pos=True,
        dec_sine_pos=True,
    )
    task = MAE_AST_Pretraining_Config(data="", feature_type="fbank", feature_dim=NUM_MELS)
    return MAE_AST(config, task)


def _check_model(path: Path, model: Model, frames: int) -> None:
    """Raises: ValueError if the configuration in the file is of the other model.

    The tensors of both have the same shapes, since 16 x 16 = 2 x 128, and as safetensors they come
    without a configuration: then nothing can tell.
    """
    content = statedicts.read_checkpoint(path)
    for part in ("cfg", "model"):
        content = content.get(part) if isinstance(content, Mapping) else None
    found = content.get("ast_kernel_size_time") if isinstance(content, Mapping) else None
    if isinstance(found, int) and found != frames:
        raise ValueError(f"{path}: patches of {found} frames; model: {model!r} has {frames}")


def _samples(num_frames: int) -> int:
    """Samples that give so many frames."""
    return WINDOW + (num_frames - 1) * HOP
