"""The frozen encoder on log-mels, and its folder (MATPAC Sec. IV-A).

A clip longer than a training crop is cut into consecutive pieces of one crop, each encoded on its
own. Per time column the patches of all frequency rows are concatenated; a clip's embedding is the
mean over all columns of all its pieces. The last piece is padded to whole patches, with 0 after
normalisation.

Shapes: B clips, F mel bins, T frames, R patch rows, n patch columns of a clip, D width.
"""

import math
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import ConfigDict, Field
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.nn import functional as F

from matpac.core import files
from matpac.core.section import Natural, PositiveFloat, Section, parse
from matpac.method.config import ModelConfig
from matpac.method.patches import PatchEmbedding
from matpac.method.student import Student, make_encoder


class AudioEncoder(nn.Module):
    """Patch embedding and encoder with the front end and normalisation they were trained with.

    Args:
        config: sizes.
        front_end: the arguments of `matpac.audio.logmel.LogMel`, kept with the weights.
        mean, std: of the log-mels it was trained on.
    Raises: ValueError for a normalisation that cannot be.
    """

    def __init__(
        self, config: ModelConfig, front_end: dict[str, Any], *, mean: float, std: float
    ) -> None:
        super().__init__()
        if not (math.isfinite(mean) and 0 < std < math.inf):
            raise ValueError(f"normalisation: got mean {mean}, std {std}, allowed: std above 0")
        self.config, self.front_end, self.mean, self.std = config, front_end, mean, std
        self.patches = PatchEmbedding(config, front_end["num_mels"])
        self.encoder = make_encoder(config)
        self.requires_grad_(False).eval()

    @property
    def width(self) -> int:
        """Length of a clip's embedding, R * D."""
        return self.patches.rows * self.config.encoder_width

    @torch.inference_mode()
    def forward(self, logmel: Tensor) -> Tensor:
        """Latents of every patch, of the last layer.

        Args: logmel: before normalisation, (B, F, T), any T of at least one frame.
        Returns: (B, R, n, D); row 0 the lowest band, columns in chronological order.
        """
        columns = torch.cat([self.columns(piece) for piece in self.pieces(logmel)], dim=1)
        return columns.unflatten(2, (self.patches.rows, -1)).transpose(1, 2)

    def pieces(self, logmel: Tensor) -> tuple[Tensor, ...]:
        """A clip's log-mel in training crops, the last one as long as it is: (..., T)."""
        return logmel.split(self.config.crop_frames, dim=-1)

    def columns(self, piece: Tensor, *, layer: int = -1) -> Tensor:
        """Latents of one layer, the rows of a time column concatenated, of at most one crop.

        Inner layers are the raw output of their block, the last one is after the final norm; no
        block after it is computed.

        Args: piece: log-mels before normalisation, (B, F, T).
        Returns: (B, n, R * D), band 0 first.
        """
        normal = (piece - self.mean) / self.std
        padded = F.pad(normal, (0, -piece.shape[2] % self.config.patch_size))
        tokens, number = self.patches(padded), layer % self.config.encoder_depth  # (B, 1 + R*n, D)
        for block in self.encoder.blocks[: number + 1]:
            tokens = block(tokens)
        if number == self.config.encoder_depth - 1:
            tokens = self.encoder.norm(tokens)
        rows = tokens[:, 1:].unflatten(1, (self.patches.rows, -1))  # (B, R, n, D)
        return rows.transpose(1, 2).flatten(2)


def frozen(student: Student, front_end: dict[str, Any], *, mean: float, std: float) -> AudioEncoder:
    """The encoder part of a student, copied and frozen."""
    encoder = AudioEncoder(student.config, front_end, mean=mean, std=std)
    encoder.patches.load_state_dict(student.patches.state_dict())
    encoder.encoder.load_state_dict(student.encoder.state_dict())
    return encoder


WEIGHTS, CONFIG = "model.safetensors", "config.json"
"""Of an encoder's folder, as huggingface_hub's models have them."""


class Described(Section):
    """``config.json`` of an encoder's folder; more may stand there."""

    model_config = ConfigDict(extra="ignore")

    model: ModelConfig
    front_end: dict[str, Annotated[int | float, Field(ge=0, allow_inf_nan=False)]]
    """The arguments of `matpac.audio.logmel.LogMel`."""
    mean: Annotated[float, Field(allow_inf_nan=False)]
    std: PositiveFloat
    reflect: Natural = 0
    """As in `matpac.encoders.vit.ViTEncoder`."""
    weights_sha256: str | None = None
    """Of ``model.safetensors``, if known."""


def save_encoder(encoder: AudioEncoder, folder: Path, **more: Any) -> None:
    """Writes an encoder's folder: its weights, and its sizes, front end and normalisation.

    Args: more: kept in ``config.json``, too.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with files.replacing(folder / WEIGHTS) as temporary:
        temporary.write_bytes(save(encoder.state_dict()))  # save_file's is for its owner alone
    described = {
        "model": encoder.config.model_dump(),
        "front_end": encoder.front_end,
        "mean": encoder.mean,
        "std": encoder.std,
        "weights_sha256": files.sha256(folder / WEIGHTS),
    } | more
    files.write_json(folder / CONFIG, described)


def load_encoder(folder: Path) -> AudioEncoder:
    """Reads what `save_encoder` wrote.

    Raises: FileNotFoundError; ValueError naming the file and what is wrong in it: another checksum
        than was recorded, tensors that do not fit or are not finite, a normalisation that cannot
        be.
    """
    weights, config = folder / WEIGHTS, folder / CONFIG
    for path in (weights, config):
        if not path.exists():
            raise FileNotFoundError(f"{path}: no such encoder; the pretrain stage writes it")
    told = parse(Described, files.read_json(config), source=str(config))
    encoder = AudioEncoder(told.model, told.front_end, mean=told.mean, std=told.std)
    try:
        encoder.load_state_dict(state := load_file(weights))
    except (RuntimeError, SafetensorError) as error:
        raise ValueError(f"{weights}: does not fit {CONFIG}: {error}") from error
    if wrong := [name for name, tensor in state.items() if not tensor.isfinite().all()]:
        raise ValueError(f"{weights}: NaN or infinite numbers in {', '.join(wrong)}")
    if told.weights_sha256 not in (None, found := files.sha256(weights)):
        raise ValueError(
            f"{weights}: damaged, or another's: SHA-256 {found}, {config} has "
            f"weights_sha256 {told.weights_sha256}"
        )
    return encoder
