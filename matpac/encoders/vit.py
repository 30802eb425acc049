"""MATPAC, MATPAC++ and M2D, and our own checkpoints: all are one ViT with one front end.

M2D (Niizumi et al., ICASSP 2023 and TASLP 2024) differs from matpac in its centred STFT, in its
normalisation, and in the names of its checkpoints.

Shapes: B pieces, S samples, F mel bins, T frames, R patch rows, n patch columns, D width of the
transformer; the embedding of a column is R * D long.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from matpac.audio.logmel import LogMel
from matpac.encoders import heads, released, statedicts
from matpac.encoders.frozen import AudioEncoder
from matpac.encoders.interface import WaveEncoder
from matpac.method.config import ModelConfig

SIZES = {
    "crop_frames": 608,
    "patch_size": 16,
    "mask_ratio": 0.7,
    "positions": "sincos",
    "encoder_width": 768,
    "encoder_depth": 12,
    "encoder_heads": 12,
    "predictor_width": 512,
    "predictor_depth": 8,
    "predictor_heads": 16,
    "mlp_ratio": 4.0,
    "head_hidden": 2048,
    "head_bottleneck": 256,
    "num_prototypes": 2048,
    "train_weight_g": True,
}
"""Of the published encoders, ViT-Base; predictor and head are MATPAC's and not made here."""
FRONT_END = {"sample_rate": 16000, "window_ms": 25, "hop_ms": 10, "num_mels": 80}
FRONT_END |= {"fmin_hz": 50, "fmax_hz": 8000}


class Release(NamedTuple):
    """How the checkpoints of one project differ from those of another."""

    mean: float
    std: float
    dropped: tuple[str, ...]
    """Names, by their first letters, of what is trained with an encoder but is not part of it."""
    reflect: int = 0


RELEASES = {
    "matpac": Release(
        -7.056, 4.193, ("decoder.", "cls_student_head.", "head.", "head_norm.", "probe.")
    ),
    # A centred STFT is an uncentred one of the clip mirrored by half a window at both ends.
    "m2d": Release(-7.1, 4.2, ("decoder", "target", "mask_token"), reflect=200),
}
STATISTICS = "norm_stats"
"""Mean and standard deviation, in M2D's newer checkpoints."""


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
        self.requires_grad_(False).eval()

    def columns(self, waves: Tensor, *, layer: int = -1) -> Tensor:
        """Latents of one layer, as `WaveEncoder.columns`: (B, S) -> (B, n, R * D).

        Inner layers are the raw output of their block, the last one is after the final norm.
        """
        self.check_piece(waves, layer)
        with torch.autocast(waves.device.type, enabled=False):
            logmel = self.front_end(waves)
        return self.net.columns(logmel, layer=layer)

    def is_fed_by(self, front_end: dict[str, Any]) -> bool:
        """Whether log-mels of these `LogMel` arguments are what it computes itself."""
        return not self.reflect and self.net.front_end == front_end

    def times(self, num_samples: int) -> Tensor:
        """Centres of the columns: the middle of a patch's frames, each at its window's middle.

        Of a last, partly padded column the frames that there are count.
        """
        front_end, patch = self.front_end, self.net.config.patch_size
        num_frames = front_end.num_frames(num_samples)
        first = torch.arange(0, num_frames, patch, dtype=torch.float64)  # (n,), in frames
        middles = (first + (first + patch).clamp(max=num_frames) - 1) / 2
        return (middles * front_end.hop + front_end.window / 2) / front_end.sample_rate


def make(
    weights: Path | None, *, release: str = "matpac", head: bool = False, **sizes: int
) -> ViTEncoder:
    """A published encoder.

    Args:
        weights: the published file, or what `matpac.encoders.statedicts` made of it; None: random.
        release: whose checkpoint it is, matpac (MATPAC++ too) or m2d.
        head: with the AudioSet head that the file holds, for `WaveEncoder.label`.
        sizes: those of `SIZES` that differ; crop_frames is 992 after fine-tuning on AudioSet.
    Raises: FileNotFoundError; ValueError naming every tensor that does not fit.
    """
    if release not in RELEASES:
        raise ValueError(f"release: got {release!r}, allowed: {', '.join(RELEASES)}")
    state = {} if weights is None else statedicts.read_state(weights)
    return _made(state, weights, release, head=head, **sizes)


def of_tensors(weights: Path) -> ViTEncoder:
    """An encoder in the released naming, whatever its size, under whatever prefix.

    So are the authors' models on the Hugging Face Hub, whose code is not run: what the tensors are
    called tells what they are, their shapes the sizes. Heads of the transformer are 64 wide.

    Raises: as `make`.
    """
    state = _unprefixed(statedicts.read_state(weights))
    try:
        width, _, patch, _ = state["patch_embed.proj.weight"].shape
        rows = FRONT_END["num_mels"] // patch
        sizes = {
            "encoder_width": width,
            "patch_size": patch,
            "crop_frames": (state["pos_embed"].shape[-2] - 1) // rows * patch,
            "encoder_heads": max(1, width // 64),
        }
    except (KeyError, ValueError) as error:
        raise ValueError(f"{weights}: no tensors of an encoder of the authors': {error}") from None
    blocks = {int(name.split("blocks.")[1].split(".")[0]) for name in state if "blocks." in name}
    sizes["encoder_depth"] = len(blocks)
    return _made(state, weights, "matpac", head="head_norm.running_mean" in state, **sizes)


def _unprefixed(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Without what wrappers put before the names of the encoder and of its head."""
    marks = ("patch_embed.proj.weight", "head_norm.running_mean")
    prefixes = {name.removesuffix(mark) for name in state for mark in marks if name.endswith(mark)}
    return {
        name.removeprefix(max(filter(name.startswith, prefixes), key=len, default="")): tensor
        for name, tensor in state.items()
    }


def _made(
    whole: Mapping[str, Tensor], weights: Path | None, release: str, *, head: bool, **sizes: int
) -> ViTEncoder:
    """The encoder with the tensors of a file; without a file as it was drawn."""
    known = RELEASES[release]
    state = {name: t for name, t in whole.items() if not name.startswith(known.dropped)}
    mean, std = known.mean, known.std
    if release == "m2d" and STATISTICS in state:
        found = state.pop(STATISTICS).flatten().tolist()
        if len(found) != 2 or not (math.isfinite(found[0]) and 0 < found[1] < math.inf):
            raise ValueError(f"{weights}: {STATISTICS}: got {found}, allowed: mean, std above 0")
        mean, std = found
    net = AudioEncoder(
        ModelConfig.model_validate(SIZES | sizes), dict(FRONT_END), mean=mean, std=std
    )
    encoder = ViTEncoder(net, reflect=known.reflect)
    if weights is not None:
        released.load_released(net, state, weights)
        if head:
            encoder.add_head("audioset", heads.of_audioset(whole, net.patches.rows, str(weights)))
    return encoder
