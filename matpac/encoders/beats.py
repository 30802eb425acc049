"""BEATs iter3 and iter3+ (Chen et al., ICML 2023), with the transformer of SpeechBrain.

A token is a patch of 16 frames and 16 of the 128 mel bins. A column's embedding is the mean over
its 8 patches, so that the mean over columns is the mean over all tokens, as in the linear
evaluations of EVAR; MATPAC's paper does not say how BEATs was pooled.

Shapes: B pieces, S samples, F mel bins, T frames, R patch rows, n patch columns, D width.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from matpac.encoders import needing, statedicts
from matpac.encoders.interface import WaveEncoder

ARCHITECTURE = {
    "input_patch_size": 16,
    "embed_dim": 512,
    "conv_bias": False,
    "encoder_layers": 12,
    "encoder_embed_dim": 768,
    "encoder_ffn_embed_dim": 3072,
    "encoder_attention_heads": 12,
    "activation_fn": "gelu",
    "layer_norm_first": False,
    "deep_norm": True,
    "conv_pos": 128,
    "conv_pos_groups": 16,
    "relative_position_embedding": True,
    "num_buckets": 320,
    "max_distance": 800,
    "gru_rel_pos": True,
}
"""Of the base model; a checkpoint's own ``cfg`` goes before it."""
NUM_MELS, WINDOW, HOP = 128, 400, 160
MEAN, STD = 15.41663, 6.55582
"""Of the Kaldi filter bank, as published; it is divided by twice the deviation."""
DROPPED = ("predictor.",)
"""The classifier of checkpoints that were fine-tuned on AudioSet."""


class Transformer(nn.Module):
    """Patch embedding and transformer, under the published names but for the weight norm.

    Args: sizes: as `ARCHITECTURE`.
    Raises: ImportError naming the extra to install.
    """

    def __init__(self, sizes: dict[str, Any]) -> None:
        super().__init__()
        with needing("beats", "speechbrain"):
            from speechbrain.lobes.models.beats import BEATsConfig, TransformerEncoder
        config = BEATsConfig(sizes)
        patch, narrow, width = config.input_patch_size, config.embed_dim, config.encoder_embed_dim
        self.patch_embedding = nn.Conv2d(1, narrow, patch, stride=patch, bias=config.conv_bias)
        self.layer_norm = nn.LayerNorm(narrow)
        self.post_extract_proj = nn.Linear(narrow, width) if narrow != width else nn.Identity()
        self.encoder = TransformerEncoder(config)

    def forward(self, fbank: Tensor, layer: int) -> Tensor:
        """Tokens after one layer, time-major: normalised (B, T, F) -> (B, n * R, D)."""
        patches = self.patch_embedding(fbank[:, None]).flatten(2).transpose(1, 2)  # (B, n*R, 512)
        tokens = self.post_extract_proj(self.layer_norm(patches))
        return self.encoder(tokens)[1][layer].transpose(0, 1)


class BEATsEncoder(WaveEncoder):
    """BEATs on pieces of 10 s, the length of its training clips.

    A piece of less than one patch, 0.175 s, is padded with silence to that; frames that do not fill
    a last patch are left out, as the published code does.

    Args: net: the transformer with its weights.
    """

    sample_rate = 16000
    piece_samples = 10 * sample_rate
    min_samples = WINDOW

    def __init__(self, net: Transformer) -> None:
        super().__init__()
        self.net = net
        self.patch = net.patch_embedding.kernel_size[0]
        self.num_layers, self.width = len(net.encoder.layers), net.encoder.embedding_dim
        self.requires_grad_(False).eval()

    def columns(self, waves: Tensor, *, layer: int = -1) -> Tensor:
        """As `WaveEncoder.columns`: (B, S) -> (B, n, D)."""
        self.check_piece(waves, layer)
        shortest = WINDOW + (self.patch - 1) * HOP
        padded = F.pad(waves, (0, max(0, shortest - waves.shape[1])))
        with torch.autocast(waves.device.type, enabled=False):
            fbank = torch.stack([_fbank(wave) for wave in padded])
        tokens = self.net(fbank, layer)
        return tokens.unflatten(1, (-1, NUM_MELS // self.patch)).mean(dim=2)

    def times(self, num_samples: int) -> Tensor:
        """As `WaveEncoder.times`: the middle of the frames that a column has."""
        num_frames = 1 + (num_samples - WINDOW) // HOP
        first = self.patch * torch.arange(max(1, num_frames // self.patch), dtype=torch.float64)
        middles = (first + (first + self.patch).clamp(max=num_frames) - 1) / 2
        return (middles * HOP + WINDOW / 2) / self.sample_rate


def make(weights: Path | None, **sizes: Any) -> BEATsEncoder:
    """A published encoder: a file with ``cfg`` and ``model``, or its tensors alone.

    Args:
        weights: the published file; None: random weights.
        sizes: those of `ARCHITECTURE` that differ where the file has no ``cfg``.
    Raises: FileNotFoundError; ImportError; ValueError naming every tensor that does not fit.
    """
    if weights is None:
        return BEATsEncoder(Transformer(ARCHITECTURE | sizes))
    checkpoint = statedicts.read_checkpoint(weights)
    stored = checkpoint.get("cfg") if isinstance(checkpoint, dict) else None
    net = Transformer(ARCHITECTURE | sizes | (stored if isinstance(stored, dict) else {}))
    # SpeechBrain has torch's newer weight norm.
    state = statedicts.with_new_weight_norm(statedicts.read_state(weights))
    kept = {name: tensor for name, tensor in state.items() if not name.startswith(DROPPED)}
    statedicts.load(net, kept, weights)
    return BEATsEncoder(net)


def _fbank(wave: Tensor) -> Tensor:
    """Normalised log-mels of Kaldi, of 16-bit samples: (S,) -> (T, F)."""
    from torchaudio.compliance import kaldi

    energies = kaldi.fbank(
        wave[None] * 2**15, num_mel_bins=NUM_MELS, sample_frequency=16000, frame_length=25
    )
    return (energies - MEAN) / (2 * STD)
