"""ATST-Clip and ATST-Frame (Li et al., TASLP 2024): their blocks are those of our own ViT.

A token is 4 frames of all 64 mel bins, 40 ms. ATST-Clip adds a class token, which goes into the
embedding beside the columns; ATST-Frame has none. Of both, the last blocks can be concatenated,
each after the final norm: their authors use all twelve. MATPAC's paper does not say how many it
took; by default one of ATST-Clip and twelve of ATST-Frame, as in EVAR's configurations.

Shapes: B pieces, S samples, F mel bins, T frames, n columns of P frames, D width, K blocks.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
import torchaudio
from torch import Tensor, nn

from matpac.core.products import Linear
from matpac.encoders import statedicts
from matpac.encoders.interface import WaveEncoder, centres
from matpac.method.encoder import Encoder

NUM_MELS, WINDOW, HOP = 64, 1024, 160
FRAMES = 4
"""P, of a token."""
POSITIONS = 251
"""Row 0 is the class token's; ATST-Frame leaves it unused."""
LOWEST_DB, HIGHEST_DB = -79.6482, 50.6842
"""Of the training data's log-mels; they become -1 and 1."""
RANGE_DB = 80
"""What lies further below the loudest bin of a piece is raised to that."""
PIECES = {"clip": 600, "frame": 1000}
"""Frames: the 6 s ATST-Clip was trained on, the 10 s of ATST-Frame."""
BLOCKS = {"clip": 1, "frame": 12}
TEACHERS = ("model.teacher.encoder.", "module.backbone.")
"""What the names of the encoder's tensors begin with, in Lightning's files and in DINO's."""
DROPPED = (
    "model.student.",
    "model.teacher.projector.",
    "model.teacher.predictor.",
    "module.head.",
    "mask_embed",
)


class ATSTEncoder(WaveEncoder):
    """Front end, patches and blocks of either model, under the published names.

    Args:
        model: clip or frame.
        blocks: K, how many of the last are concatenated.
        width, depth, heads: sizes of the transformer.
    Raises: ValueError for a model or a number of blocks that there is not.
    """

    sample_rate = 16000
    min_samples = WINDOW + (FRAMES - 1) * HOP
    reflect = WINDOW // 2

    def __init__(
        self, model: str, *, blocks: int, width: int = 768, depth: int = 12, heads: int = 12
    ) -> None:
        super().__init__()
        if model not in PIECES:
            raise ValueError(f"model: got {model!r}, allowed: {', '.join(PIECES)}")
        if not 1 <= blocks <= depth:
            raise ValueError(f"blocks: got {blocks}, allowed: 1 to {depth}")
        self.mel = torchaudio.transforms.MelSpectrogram(
            self.sample_rate,
            n_fft=WINDOW,
            hop_length=HOP,
            f_min=60,
            f_max=7800,
            n_mels=NUM_MELS,
            center=False,  # the clip is mirrored before it is cut
        )
        self.patch_embed = nn.ModuleDict({"patch_embed": Linear(NUM_MELS * FRAMES, width)})
        self.pos_embed = nn.Parameter(0.02 * torch.randn(1, POSITIONS, width))
        encoder = Encoder(width, depth, heads)
        self.blocks, self.num_blocks = encoder.blocks, blocks
        if model == "clip":
            self.cls_token, self.norm = nn.Parameter(0.02 * torch.randn(1, 1, width)), encoder.norm
        else:
            self.cls_token, self.norm_frame = None, encoder.norm
        self.num_layers = depth - blocks + 1
        self.width = blocks * width * (2 if model == "clip" else 1)
        self.piece_hop = PIECES[model] * HOP
        self.piece_samples = self.piece_hop - HOP + WINDOW
        self.requires_grad_(False).eval()

    def columns(self, waves: Tensor, *, layer: int = -1) -> Tensor:
        """As `WaveEncoder.columns`; ATST-Clip's class token comes first in every column.

        Args: layer: the first of the blocks that are concatenated, or from the end the last one.
        Returns: (B, n, K * D), of ATST-Clip (B, n, 2 * K * D).
        """
        self.check_piece(waves, layer)
        first = layer % self.num_layers
        norm = self.norm_frame if self.cls_token is None else self.norm
        tokens, outputs = self._tokens(self._logmel(waves)), []
        for number, block in enumerate(self.blocks[: first + self.num_blocks]):
            tokens = block(tokens)
            if number >= first:
                outputs.append(norm(tokens))
        joined = torch.cat(outputs, dim=2)
        if self.cls_token is None:
            return joined
        clip, patches = joined[:, :1], joined[:, 1:]
        return torch.cat([clip.expand_as(patches), patches], dim=2)

    def times(self, num_samples: int) -> Tensor:
        """As `WaveEncoder.times`; frames that do not fill a column are left out."""
        return centres(num_samples, self.sample_rate, window=WINDOW, hop=HOP, frames=FRAMES)

    def _logmel(self, waves: Tensor) -> Tensor:
        """Decibels from -1 to 1, about: (B, S) -> (B, F, T)."""
        with torch.autocast(waves.device.type, enabled=False):
            decibels = 10 * self.mel(waves).clamp(min=1e-10).log10()
        floor = decibels.amax(dim=(1, 2), keepdim=True) - RANGE_DB
        scaled = (decibels.maximum(floor) - LOWEST_DB) / (HIGHEST_DB - LOWEST_DB)
        return 2 * scaled - 1

    def _tokens(self, logmel: Tensor) -> Tensor:
        """(B, F, T) -> (B, n, D), with the class token (B, 1 + n, D)."""
        num_columns = logmel.shape[2] // FRAMES
        tiles = logmel[:, :, : num_columns * FRAMES].unflatten(2, (num_columns, FRAMES))
        patches = self.patch_embed["patch_embed"](
            tiles.transpose(1, 2).flatten(2)
        )  # (B, n, F*P) -> (B, n, D)
        tokens = patches + self.pos_embed[:, 1 : 1 + num_columns]
        if self.cls_token is None:
            return tokens
        cls_token = (self.cls_token + self.pos_embed[:, :1]).expand(len(tokens), -1, -1)
        return torch.cat([cls_token, tokens], dim=1)


def make(
    weights: Path | None, *, model: str, blocks: int | None = None, **sizes: int
) -> ATSTEncoder:
    """A published encoder: the teacher of a checkpoint.

    Args:
        weights: the published file, or what `matpac.encoders.statedicts` made of it; None: random.
        model: clip or frame.
        blocks: as `ATSTEncoder`; None: as `BLOCKS`.
        sizes: width, depth and heads, where they are not those of the base models.
    Raises: FileNotFoundError; ValueError naming every tensor that does not fit.
    """
    encoder = ATSTEncoder(model, blocks=BLOCKS.get(model, 1) if blocks is None else blocks, **sizes)
    if weights is not None:
        encoder.load_state_dict(_fitting(encoder, statedicts.read_state(weights), weights))
    return encoder


def _fitting(
    encoder: ATSTEncoder, checkpoint: Mapping[str, Tensor], path: Path
) -> dict[str, Tensor]:
    """An encoder's whole state, with the tensors of a checkpoint.

    Raises: ValueError, as `statedicts.refuse_misfits`.
    """
    prefixes = [each for each in TEACHERS if any(name.startswith(each) for name in checkpoint)]
    prefix = prefixes[0] if prefixes else ""
    own = encoder.state_dict()
    # The published blocks have no bias here; the front end is not stored.
    expected = {
        f"{prefix}{name}": tensor
        for name, tensor in own.items()
        if not name.endswith("attn.qkv.bias") and not name.startswith("mel.")
    }
    state = {
        name: tensor
        for name, tensor in checkpoint.items()
        if not name.removeprefix(prefix).startswith(DROPPED)
    }
    statedicts.refuse_misfits(expected, state, path)
    biases = {name: torch.zeros_like(t) for name, t in own.items() if name.endswith("qkv.bias")}
    return own | biases | {name.removeprefix(prefix): t for name, t in state.items()}
