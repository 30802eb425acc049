"""Random masking: which patches the student sees and which the teacher encodes (MATPAC Sec. III).

Shapes: B clips, N patches = V visible + M masked.
"""

from typing import NamedTuple

from torch import Tensor


class Mask(NamedTuple):
    """A partition of the N patches of each clip."""

    visible: Tensor
    """Indices (B, V)."""
    masked: Tensor
    """Indices (B, M), in the order in which predictions and targets are compared."""


def num_visible(num_patches: int, mask_ratio: float) -> int:
    """V = int(N * (1 - mask_ratio)), in double arithmetic: int(190 * (1 - 0.8)) is 37, not 38."""
    return int(num_patches * (1 - mask_ratio))


def random_mask(noise: Tensor, mask_ratio: float) -> Mask:
    """Splits patches at random: those with the smallest noise stay visible.

    Args:
        noise: one uniform number per patch, (B, N).
        mask_ratio: fraction of patches hidden from the student, in (0, 1).
    Raises: ValueError if no patch would be visible, or none masked.
    """
    visible = num_visible(noise.shape[1], mask_ratio)
    if not 0 < visible < noise.shape[1]:
        raise ValueError(
            f"mask_ratio: got {mask_ratio}, which leaves {visible} of {noise.shape[1]} patches "
            "visible; allowed: at least one visible and one masked"
        )
    order = noise.argsort(dim=1, stable=True)  # (B, N)
    return Mask(visible=order[:, :visible], masked=order[:, visible:])
