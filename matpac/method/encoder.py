"""The ViT of student, teacher and predictor: pre-norm blocks and a final norm (MATPAC Sec. III).

Shapes: B clips, N tokens, D width, H heads.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from matpac.core.products import Linear

LAYER_NORM_EPS = 1e-6


class Attention(nn.Module):
    """Multi-head self-attention."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = Linear(width, 3 * width)
        self.proj = Linear(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, N, D) -> (B, N, D)."""
        parts = self.qkv(tokens).unflatten(2, (3, self.num_heads, -1))  # (B, N, 3, H, D/H)
        query, key, value = parts.permute(2, 0, 3, 1, 4)  # each (B, H, N, D/H)
        mixed = F.scaled_dot_product_attention(query, key, value)
        return self.proj(mixed.transpose(1, 2).flatten(2))  # (B, N, D)


class MLP(nn.Module):
    """Two linear layers with an exact (erf) GELU between them."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = Linear(width, hidden)
        self.fc2 = Linear(hidden, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, N, D) -> (B, N, D)."""
        return self.fc2(F.gelu(self.fc1(tokens)))


class Block(nn.Module):
    """Pre-norm transformer block: attention and MLP, each with a residual."""

    def __init__(self, width: int, num_heads: int, mlp_ratio: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.attn = Attention(width, num_heads)
        self.norm2 = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.mlp = MLP(width, int(width * mlp_ratio))

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, N, D) -> (B, N, D)."""
        tokens = tokens + self.attn(self.norm1(tokens))
        return tokens + self.mlp(self.norm2(tokens))


class Encoder(nn.Module):
    """A stack of blocks and a final norm; f of MATPAC Sec. III without the patch embedding.

    Args:
        width: D; depth: number of blocks; num_heads: of each block.
        mlp_ratio: hidden width of the MLPs over D.
    Attributes:
        recompute: True: in training, a block's inner activations are computed again in the backward
            pass instead of kept.
    """

    def __init__(self, width: int, depth: int, num_heads: int, mlp_ratio: float = 4.0) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(width, num_heads, mlp_ratio) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.recompute = False
        self.apply(xavier_linear)

    def forward(self, tokens: Tensor) -> Tensor:
        """Latents, (B, N, D) -> (B, N, D)."""
        recompute = self.recompute and torch.is_grad_enabled()
        for block in self.blocks:
            tokens = checkpoint(block, tokens, use_reentrant=False) if recompute else block(tokens)
        return self.norm(tokens)


def xavier_linear(module: nn.Module) -> None:
    """Xavier-uniform weights and zero biases for linear layers, as ViTs of this family start."""
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        nn.init.zeros_(module.bias)
