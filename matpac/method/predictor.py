"""The predictor: latents of the visible patches -> latents of the masked ones (MATPAC Sec. III).

MATPAC++ predicts several hypotheses of each: r last layers side by side on the same output.

Shapes: B clips, N patches = V visible + M masked, D encoder width, E predictor width, r hypotheses
(1: MATPAC).
"""

import torch
from torch import Tensor, nn

from matpac.core.products import Linear
from matpac.method.config import ModelConfig
from matpac.method.encoder import Encoder, xavier_linear
from matpac.method.masking import Mask
from matpac.method.patches import sincos_positions


class Predictor(nn.Module):
    """A shallow ViT over the visible latents and a shared, learned token at masked positions.

    Args: config: sizes; rows, columns: of the patch grid.
    """

    def __init__(self, config: ModelConfig, rows: int, columns: int) -> None:
        super().__init__()
        self.hypotheses, width = config.hypotheses, config.predictor_width
        self.embed = Linear(config.encoder_width, width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        table = sincos_positions(rows, columns, width)
        self.positions = nn.Parameter(table, requires_grad=config.positions == "learned")
        self.encoder = Encoder(
            width, config.predictor_depth, config.predictor_heads, config.mlp_ratio
        )
        # One product for all hypotheses, each drawn as the layer of its own that it is.
        self.project = Linear(width, self.hypotheses * config.encoder_width)
        xavier_linear(self.embed)
        for weight in self.project.weight.data.chunk(self.hypotheses):
            nn.init.xavier_uniform_(weight)
        nn.init.zeros_(self.project.bias)
        nn.init.normal_(self.mask_token, std=0.02)

    def forward(self, latents: Tensor, mask: Mask) -> Tensor:
        """Predicted latents of the masked patches.

        Args:
            latents: class token and visible patches, (B, 1 + V, D), visible ones in mask order.
            mask: the partition that made them.
        Returns: (B, M, r, D), in the order of ``mask.masked``.
        """
        # Attention does not depend on the order of tokens, only on their positions: the masked
        # ones are appended instead of being shuffled back and forth.
        known = self.embed(latents)  # (B, 1 + V, E)
        classes = known[:, :1] + self.positions[0]
        visible = known[:, 1:] + self.positions[1 + mask.visible]  # (B, V, E)
        masked = self.mask_token + self.positions[1 + mask.masked]  # (B, M, E)
        tokens = torch.cat([classes, visible, masked.to(visible.dtype)], dim=1)
        found = self.encoder(tokens)[:, -masked.shape[1] :]  # (B, M, E)
        return self.project(found).unflatten(2, (self.hypotheses, -1))  # (B, M, r, D)
