"""Log-mel patches become tokens with 2-D positions (MATPAC Sec. III, "Input of the model").

Shapes: B clips, F mel bins, T frames, P patch size, R = F/P rows, C = T/P columns, N = R*C patches,
V of them chosen, D width. Patches are frequency-major: patch r*C + c, row 0 the lowest band. The
class token is the released code's, not the paper's; nothing is read from it.
"""

import torch
from torch import Tensor, nn

from matpac.core.products import Linear
from matpac.method.config import ModelConfig


def patch_grid(num_mels: int, num_frames: int, patch_size: int) -> tuple[int, int]:
    """Rows and columns of the patch grid.

    Raises: ValueError if a size is not a positive multiple of ``patch_size``.
    """
    for name, size in (("num_mels", num_mels), ("num_frames", num_frames)):
        if size <= 0 or size % patch_size:
            raise ValueError(f"{name}: got {size}, allowed: positive multiples of {patch_size}")
    return num_mels // patch_size, num_frames // patch_size


def patchify(logmel: Tensor, patch_size: int) -> Tensor:
    """Flattened patches of log-mels (B, F, T): (B, N, P*P), mel-major inside each patch."""
    rows, columns = patch_grid(logmel.shape[1], logmel.shape[2], patch_size)
    tiles = logmel.reshape(-1, rows, patch_size, columns, patch_size)
    return tiles.permute(0, 1, 3, 2, 4).flatten(3).flatten(1, 2)  # (B, N, P*P)


def sincos_positions(rows: int, columns: int, width: int) -> Tensor:
    """Fixed 2-D table: per patch [sin(c*w), cos(c*w), sin(r*w), cos(r*w)], each width/4 long.

    The column (time) index fills the first half, the row (frequency) index the second, with
    w_i = 10000^(-i/(width/4)). The paper's text calls positions learned; the released model uses
    this table without gradient, in encoder and predictor.

    Args: width: a multiple of 4.
    Returns: (1 + rows*columns, width); row 0 belongs to the class token and is zero.
    """
    # float64: in float32 the angles of far columns would already differ in the sixth digit.
    index = torch.arange(width // 4, dtype=torch.float64)
    frequencies = 10000.0 ** (-index / (width // 4))
    row, column = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    parts = []
    for position in (column.flatten(), row.flatten()):
        angles = position[:, None].double() * frequencies  # (N, width/4)
        parts += [angles.sin(), angles.cos()]
    table = torch.cat(parts, dim=1).float()  # (N, width)
    return torch.cat([torch.zeros(1, width), table])


class PatchEmbedding(nn.Module):
    """Patches -> tokens: linear projection, 2-D position, class token in front.

    The grid is that of a training crop; shorter inputs use its left part.

    Args: config: sizes; num_mels: F.
    """

    def __init__(self, config: ModelConfig, num_mels: int) -> None:
        super().__init__()
        self.patch_size, width = config.patch_size, config.encoder_width
        self.rows, self.columns = patch_grid(num_mels, config.crop_frames, self.patch_size)
        self.proj = Linear(self.patch_size**2, width)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        table = sincos_positions(self.rows, self.columns, width)
        self.positions = nn.Parameter(table, requires_grad=config.positions == "learned")
        nn.init.normal_(self.cls_token, std=0.02)

    @property
    def num_patches(self) -> int:
        """N of a training crop."""
        return self.rows * self.columns

    def forward(self, logmel: Tensor, chosen: Tensor | None = None) -> Tensor:
        """Tokens of the chosen patches, in the order given.

        Args:
            logmel: normalised, (B, F, T) with T at most one crop.
            chosen: patch indices (B, V); None: all N, in order.
        Returns: (B, 1 + V, D), the class token first.
        """
        patches = patchify(logmel, self.patch_size)  # (B, N, P*P)
        # The grid is cut, then flattened: a flat slice would be of other patches.
        grid = self.positions[1:].unflatten(0, (self.rows, self.columns))  # (R, C, D)
        positions = grid[:, : logmel.shape[2] // self.patch_size].flatten(0, 1)  # (N, D)
        if chosen is None:
            tokens = self.proj(patches) + positions
        else:
            picked = patches.gather(1, chosen[..., None].expand(-1, -1, patches.shape[2]))
            tokens = self.proj(picked) + positions[chosen]  # (B, V, D)
        cls_token = (self.cls_token + self.positions[:1]).expand(tokens.shape[0], -1, -1)
        return torch.cat([cls_token, tokens], dim=1)
