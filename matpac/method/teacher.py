"""The teacher: an EMA of the student's encoder and head (MATPAC Sec. III).

Shapes: B clips, M masked patches, D width, K prototypes.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from matpac.method.heads import Head
from matpac.method.student import Student, make_encoder


class Target(NamedTuple):
    """What the student is to predict of the masked patches."""

    latents: Tensor
    """After the encoder's final norm, class token dropped, (B, M, D)."""
    logits: Tensor
    """(B, M, K)."""


class Teacher(nn.Module):
    """Encodes the masked patches and gives the targets; never trained.

    It has no patch embedding of its own: class token, projection and positions are the student's.

    Args:
        student: whose sizes it takes.
        copy_student: False: its encoder starts from its own random draw and its head differs from
            the student's in all but the prototypes (as released); True: all equal (DINO).
    """

    def __init__(self, student: Student, *, copy_student: bool) -> None:
        super().__init__()
        self.encoder = make_encoder(student.config)
        self.head = Head(student.config)
        if copy_student:
            self.encoder.load_state_dict(student.encoder.state_dict())
            self.head.load_state_dict(student.head.state_dict())
        self.head.weight_v.data.copy_(student.head.weight_v.data)
        self.requires_grad_(False).eval()

    @torch.no_grad()
    def forward(self, tokens: Tensor) -> Target:
        """Targets for the masked patches.

        Args: tokens: class token and masked patches from the student's embedding, (B, 1 + M, D).
        """
        latents = self.encoder(tokens)[:, 1:]  # (B, M, D)
        return Target(latents, self.head(latents))

    @torch.no_grad()
    def update(
        self,
        student: Student,
        *,
        encoder_decay: float,
        head_decay: float,
        active: Tensor | float = 1.0,
    ) -> None:
        """new = decay * old + (1 - decay) * student, for every tensor of encoder and head.

        Args: active: 1, or 0 to leave everything as it is; on the device, so that nobody waits.
        """
        for own, other, decay in (
            (self.encoder, student.encoder, encoder_decay),
            (self.head, student.head, head_decay),
        ):
            old, new = list(own.parameters()), list(other.parameters())
            # old + weight * (new - old): decay and 1 - decay, both rounded, need not add up to 1.
            weight = torch.as_tensor((1 - decay) * active, dtype=old[0].dtype, device=old[0].device)
            torch._foreach_lerp_(old, new, [weight] * len(old))
