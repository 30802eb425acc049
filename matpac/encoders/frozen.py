"""The frozen encoder, its embeddings of whole clips, and its folder (MATPAC Sec. IV-A).

A clip longer than a training crop is cut into consecutive pieces of one crop, each encoded on its
own. Per time column the patches of all frequency rows are concatenated; a clip's embedding is the
mean over all columns of all its pieces.

Shapes: B clips, F mel bins, T frames, R patch rows, n patch columns of a clip, D width, L layers.
"""

from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from matpac.core import files
from matpac.method.config import ModelConfig
from matpac.method.patches import PatchEmbedding, normalise
from matpac.method.student import Student, make_encoder

Mode = Literal["precise", "fast"]
"""precise: the last piece is padded to whole patches; fast: to a whole crop, so that all pieces
are alike (its all-padding columns count in the mean, as in the released code)."""


class AudioEncoder(nn.Module):
    """Patch embedding and encoder with the front end and normalisation they were trained with.

    Args:
        config: sizes.
        front_end: the arguments of `matpac.audio.logmel.LogMel`, kept with the weights.
        mean, std: of the log-mels it was trained on.
    """

    def __init__(
        self, config: ModelConfig, front_end: dict[str, Any], *, mean: float, std: float
    ) -> None:
        super().__init__()
        self.config, self.front_end, self.mean, self.std = config, front_end, mean, std
        self.patches = PatchEmbedding(
            front_end["num_mels"],
            config.crop_frames,
            patch_size=config.patch_size,
            width=config.encoder_width,
        )
        self.encoder = make_encoder(config)
        self.requires_grad_(False)
        self.eval()

    @property
    def width(self) -> int:
        """Length of a clip's embedding, R * D."""
        return self.patches.rows * self.config.encoder_width

    def columns(self, num_frames: int, mode: Mode = "precise") -> int:
        """Patch columns n of a clip of ``num_frames`` frames."""
        unit = self.config.patch_size if mode == "precise" else self.config.crop_frames
        return -(-num_frames // unit) * unit // self.config.patch_size

    @torch.inference_mode()
    def forward(self, logmel: Tensor, *, mode: Mode = "precise") -> Tensor:
        """Latents of every patch of every layer.

        Args:
            logmel: before normalisation, (B, F, T), any T of at least one frame.
            mode: how a last, shorter piece is padded. Padding is 0 *after* normalisation.
        Returns: (B, L, R, n, D); row 0 the lowest band, columns in chronological order.
        """
        normalised = normalise(logmel, self.mean, self.std)
        num_frames = self.columns(logmel.shape[2], mode) * self.config.patch_size
        padded = F.pad(normalised, (0, num_frames - logmel.shape[2]))
        pieces = padded.split(self.config.crop_frames, dim=2)
        return torch.cat([self._piece(piece) for piece in pieces], dim=3)

    def embed(self, logmel: Tensor, *, mode: Mode = "precise") -> Tensor:
        """Clip embeddings of the last layer: (B, F, T) log-mels -> (B, R * D)."""
        return frames(self(logmel, mode=mode))[:, -1].mean(dim=1)

    def column_sums(self, pieces: Tensor) -> Tensor:
        """Sum over time columns of the last layer: normalised (B, F, T) -> (B, R * D)."""
        tokens = self.encoder(self.patches(pieces))[:, 1:]  # (B, R*n, D)
        return tokens.unflatten(1, (self.patches.rows, -1)).sum(dim=2).flatten(1)

    def _piece(self, piece: Tensor) -> Tensor:
        layers = self.encoder.layers(self.patches(piece))[:, :, 1:]  # (B, L, R*n, D)
        return layers.unflatten(2, (self.patches.rows, -1))  # (B, L, R, n, D)


def frames(latents: Tensor) -> Tensor:
    """Frequency rows concatenated, band 0 first: (B, L, R, n, D) -> (B, L, n, R * D)."""
    return latents.transpose(2, 3).flatten(3)


def frozen(student: Student, front_end: dict[str, Any], *, mean: float, std: float) -> AudioEncoder:
    """The encoder part of a student, copied and frozen."""
    encoder = AudioEncoder(student.config, front_end, mean=mean, std=std)
    encoder.patches.load_state_dict(student.patches.state_dict())
    encoder.encoder.load_state_dict(student.encoder.state_dict())
    return encoder


WEIGHTS, CONFIG = "model.safetensors", "config.json"
"""Of an encoder's folder, as huggingface_hub's models have them."""


def save_encoder(encoder: AudioEncoder, folder: Path, **more: Any) -> None:
    """Writes an encoder's folder: its weights, and its sizes, front end and normalisation.

    Args: more: kept in ``config.json``, too.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with files.replacing(folder / WEIGHTS) as temporary:
        save_file(encoder.state_dict(), temporary)
    described = {
        "model": encoder.config.model_dump(),
        "front_end": encoder.front_end,
        "mean": encoder.mean,
        "std": encoder.std,
    } | more
    files.write_json(folder / CONFIG, described)
    # safetensors makes a file that only its owner can read.
    (folder / WEIGHTS).chmod((folder / CONFIG).stat().st_mode)


def load_encoder(folder: Path) -> AudioEncoder:
    """Reads what `save_encoder` wrote.

    Raises: FileNotFoundError; ValueError naming what is wrong in ``config.json``; RuntimeError
        listing tensors that do not fit.
    """
    for needed in (folder / WEIGHTS, folder / CONFIG):
        if not needed.exists():
            raise FileNotFoundError(f"{needed}: no such encoder; the pretrain stage writes it")
    described = files.read_json(folder / CONFIG)
    if missing := {"model", "front_end", "mean", "std"} - described.keys():
        raise ValueError(f"{folder / CONFIG}: no {', '.join(sorted(missing))}: not of an encoder")
    for name in ("mean", "std"):
        if not isinstance(described[name], int | float):
            raise ValueError(
                f"{folder / CONFIG}: {name}: got {described[name]!r}, allowed: numbers"
            )
    encoder = AudioEncoder(
        ModelConfig.model_validate(described["model"]),
        described["front_end"],
        mean=described["mean"],
        std=described["std"],
    )
    encoder.load_state_dict(load_file(folder / WEIGHTS))
    return encoder
