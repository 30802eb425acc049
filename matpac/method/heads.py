"""Classification heads, and what keeps their distributions from collapsing (MATPAC Sec. III).

Shapes: B clips, M masked patches, D latent width, K prototypes.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from matpac.core.products import Linear, layer
from matpac.method.config import ModelConfig


class Head(nn.Module):
    """DINO's projection head: three linear layers, L2 norm, K prototypes; initialised as DINO's."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        hidden, bottleneck = config.head_hidden, config.head_bottleneck
        self.mlp = nn.Sequential(
            Linear(config.encoder_width, hidden),
            nn.GELU(),
            Linear(hidden, hidden),
            nn.GELU(),
            Linear(hidden, bottleneck),
        )
        norms = torch.ones(config.num_prototypes, 1)
        self.weight_g = nn.Parameter(norms, requires_grad=config.train_weight_g)
        prototypes = nn.Linear(bottleneck, config.num_prototypes, bias=False)
        self.weight_v = nn.Parameter(prototypes.weight.data)
        for linear in self.mlp[::2]:
            nn.init.trunc_normal_(linear.weight, std=0.02)
            nn.init.zeros_(linear.bias)

    def forward(self, latents: Tensor) -> Tensor:
        """Logits (..., K) of latents (..., D), which may have any norm."""
        direction = F.normalize(self.mlp(latents), dim=-1)
        prototypes = self.weight_g * F.normalize(self.weight_v, dim=-1)  # (K, bottleneck)
        return layer(direction, prototypes)


class Center(nn.Module):
    """C of MATPAC Eq. (2): an EMA of the mean over clips and patches of the teacher's output.

    What it averages is lost in the paper's text. The released code feeds it the teacher's
    *probabilities*, what Eq. (2) gives; DINO, which the paper cites for it, feeds raw logits. Both
    are offered.

    Args:
        num_prototypes: K.
        averages: ``probabilities`` (as released), ``logits`` (DINO) or ``none`` (C stays 0).
        momentum: of the average; 1 freezes the centre.
    """

    def __init__(self, num_prototypes: int, *, averages: str, momentum: float) -> None:
        super().__init__()
        self.averages, self.momentum = averages, momentum
        self.register_buffer("value", torch.zeros(num_prototypes))

    def batch_mean(self, logits: Tensor, probabilities: Tensor) -> Tensor:
        """This batch's part, (K,), from the teacher's (B, M, K) logits and probabilities."""
        source = logits if self.averages == "logits" else probabilities
        return source.float().mean(dim=(0, 1))

    @torch.no_grad()
    def update(self, mean: Tensor, *, active: Tensor | bool = True) -> None:
        """value <- momentum * value + (1 - momentum) * mean, unless not ``active``."""
        if self.averages != "none":
            new = self.momentum * self.value + (1 - self.momentum) * mean
            self.value.copy_(torch.where(torch.as_tensor(active), new, self.value))


def teacher_distribution(logits: Tensor, center: Tensor, temperature: float) -> Tensor:
    """Target distribution: centred and sharpened softmax (MATPAC Eq. (2)).

    Args:
        logits: (B, M, K); center: (K,); temperature: > 0, smaller is sharper.
    Returns: (B, M, K), each row sums to 1.
    """
    return F.softmax((logits.float() - center) / temperature, dim=-1)


def student_log_distribution(logits: Tensor, temperature: float) -> Tensor:
    """Log of the predicted distribution (MATPAC Eq. (3)): (B, M, K) -> (B, M, K)."""
    return F.log_softmax(logits.float() / temperature, dim=-1)
