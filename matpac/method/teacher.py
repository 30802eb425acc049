"""The teacher: an EMA of the student's encoder and head (MATPAC Sec. III).

Shapes: B clips, M masked patches, D width, K prototypes.
"""

from itertools import accumulate

import torch
from torch import Tensor, nn

from matpac.method.config import ModelConfig
from matpac.method.student import Prediction, Student, make_encoder, make_head


class Teacher(nn.Module):
    """Encodes the masked patches and gives the targets; never trained, always in eval mode.

    It has no patch embedding of its own: class token, projection and positions are the student's.

    Args:
        student: whose sizes it takes.
        config: the same model section.
        copy_student: False: its encoder starts from its own random draw and its head differs from
            the student's in all but the prototypes (as released); True: all equal (DINO).
    """

    def __init__(self, student: Student, config: ModelConfig, *, copy_student: bool) -> None:
        super().__init__()
        self.encoder = make_encoder(config)
        self.head = make_head(config)
        if copy_student:
            self.encoder.load_state_dict(student.encoder.state_dict())
            self.head.load_state_dict(student.head.state_dict())
        self.head.weight_v.data.copy_(student.head.weight_v.data)
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> "Teacher":
        """Stays in eval mode whatever is asked."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, tokens: Tensor) -> Prediction:
        """Targets for the masked patches.

        Args:
            tokens: class token and masked patches from the student's embedding, (B, 1 + M, D).
        Returns: latents (B, M, D) after the final norm, class token dropped, and logits (B, M, K).
        """
        latents = self.encoder(tokens, tokens.shape[1] - 1)
        return Prediction(latents, self.head(latents))

    @torch.no_grad()
    def update(
        self,
        student: Student,
        *,
        encoder_decay: float,
        head_decay: float,
        active: Tensor | float = 1.0,
    ) -> None:
        """new = decay * old + (1 - decay) * student: one kernel for the encoder, one for the head.

        Args:
            active: 1, or 0 to leave everything as it is; on the device, so that nobody waits.
        """
        for own, other, decay in (
            (self.encoder, student.encoder, encoder_decay),
            (self.head, student.head, head_decay),
        ):
            # old + weight * (new - old): decay and 1 - decay, both rounded, need not add up to 1.
            weight = torch.as_tensor((1 - decay) * active)
            side_by_side(own).lerp_(side_by_side(other), weight)


ALIGNED = 16
"""Entries to whose multiples a parameter's place is rounded: 64 bytes of float32, as torch's own
memory is, which matrix products want."""


@torch.no_grad()
def side_by_side(module: nn.Module) -> Tensor:
    """A module's parameters as one tensor, (entries,), in whose memory they lie from now on.

    What moves the module takes them out of it again; the next call lays them out anew.
    """
    parameters = list(module.parameters())
    sizes = [-(-parameter.numel() // ALIGNED) * ALIGNED for parameter in parameters]
    total, places = sum(sizes), accumulate(sizes, initial=0)
    first = parameters[0].detach()
    memory = first.untyped_storage()
    if memory.nbytes() == total * first.element_size() and all(
        parameter.untyped_storage() is memory and parameter.storage_offset() == place
        for parameter, place in zip(parameters, places, strict=False)
    ):
        return first.as_strided((total,), (1,), 0)
    whole = first.new_zeros(total)
    for parameter, part in zip(parameters, whole.split(sizes), strict=True):
        parameter.data = part[: parameter.numel()].view_as(parameter).copy_(parameter)
    return whole
