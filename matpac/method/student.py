"""The student: patch embedding, encoder, predictor, head, wired together (MATPAC Fig. 1).

Shapes: B clips, F mel bins, T frames, V visible and M masked patches, r hypotheses, D width, K
prototypes.
"""

from typing import NamedTuple

from torch import Tensor, nn

from matpac.method import losses
from matpac.method.config import ModelConfig
from matpac.method.encoder import Encoder, xavier_linear
from matpac.method.heads import Head
from matpac.method.masking import Mask
from matpac.method.patches import PatchEmbedding
from matpac.method.predictor import Predictor


class Prediction(NamedTuple):
    """What the student says of the masked patches."""

    latents: Tensor
    """Of each patch the hypothesis nearest to its target, (B, M, D)."""
    logits: Tensor
    """Of these, (B, M, K)."""
    distances: Tensor
    """From each hypothesis to the target (Eq. (1)), (B, M, r)."""


class Student(nn.Module):
    """The trained network; its `forward` is the student branch of Fig. 1 and changes nothing."""

    def __init__(self, config: ModelConfig, num_mels: int) -> None:
        super().__init__()
        self.config = config
        self.patches = PatchEmbedding(config, num_mels)
        self.encoder = make_encoder(config)
        self.predictor = Predictor(config, self.patches.rows, self.patches.columns)
        self.head = Head(config)
        # The released code starts the student's head from Xavier weights, its teacher's from
        # DINO's small normal ones; only the prototypes start equal.
        self.head.mlp.apply(xavier_linear)
        xavier_linear(self.patches.proj)

    def forward(self, logmel: Tensor, mask: Mask, target: Tensor) -> Prediction:
        """Predicts latents and prototype logits of the masked patches.

        Args:
            logmel: normalised crops, (B, F, T).
            mask: which patches are visible and which are masked.
            target: latents of the masked ones, (B, M, D), for Eq. (1), which also chooses between
                several hypotheses.
        """
        visible = self.patches(logmel, mask.visible)  # (B, 1 + V, D)
        hypotheses = self.predictor(self.encoder(visible), mask)  # (B, M, r, D)
        distances = losses.distances(hypotheses, target)
        latents = losses.best(hypotheses, distances)
        return Prediction(latents, self.head(latents), distances)


def make_encoder(config: ModelConfig) -> Encoder:
    """An encoder of the configured size, freshly initialised."""
    sizes = config.encoder_width, config.encoder_depth, config.encoder_heads
    return Encoder(*sizes, config.mlp_ratio)
