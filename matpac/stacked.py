"""Many small linear problems as one: their layers, their loss and their optimiser, stacked.

The arithmetic below ``linear.train_probes``. Nothing here mixes two problems: every tensor has a
leading axis P, and each problem's slice holds what it would hold alone.

Shapes: N clips of the task, D embedding size, C labels, P problems side by side, B batch size.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim.adam import adam

from matpac.problems import Problem

ROWS_AT_ONCE = 1024  # rows evaluated or measured at once, to bound memory
CONSTANT = 1e-6  # std / |mean| below which a float32 feature shows rounding noise only


class LinearProbes:
    """P fully connected layers side by side, each with the standardisation of its training part.

    ``weight`` (P, C, D) and ``bias`` (P, C, 1) start as ``nn.Linear`` does, uniform within
    ±1/sqrt(D), from a generator seeded by the problem.
    """

    def __init__(
        self,
        features: Tensor,
        problems: Sequence[Problem],
        num_classes: int,
        *,
        standardize: bool,
    ) -> None:
        dim, device = features.shape[1], features.device
        initial = torch.empty(len(problems), num_classes, dim + 1)
        for p, problem in enumerate(problems):
            generator = torch.Generator().manual_seed(problem.seed)
            initial[p].uniform_(-(dim**-0.5), dim**-0.5, generator=generator)
        self.weight = initial[..., :dim].contiguous().to(device).requires_grad_()  # (P, C, D)
        self.bias = initial[..., dim:].contiguous().to(device).requires_grad_()  # (P, C, 1)
        self.mean = torch.zeros(len(problems), 1, dim, device=device)
        self.scale = torch.ones(len(problems), 1, dim, device=device)
        if standardize:
            for p, problem in enumerate(problems):
                self.mean[p, 0], self.scale[p, 0] = _mean_and_scale(features, problem.train_idx)

    def logits(self, features: Tensor, rows: Tensor) -> Tensor:
        """Each probe's logits of its own ``rows`` (P, B) of features (N, D), as (P, C, B).

        Labels before clips: with few labels, products and softmax in this layout take a quarter of
        the time of (P, B, C), and the gradient comes out in the layout of the weights.
        """
        inputs = features.index_select(0, rows.flatten()).view(*rows.shape, -1)  # (P, B, D)
        inputs.sub_(self.mean).mul_(self.scale)
        return torch.baddbmm(self.bias, self.weight, inputs.mT)


class StackedAdam:
    """Adam on stacked weights, where a problem that has no batch left takes no step.

    One whole stack under one step count would go on decaying the moments of such a problem. So the
    stack is cut into pieces of neighbouring problems with equally many steps per epoch. Adam is
    elementwise, hence each problem is updated as it would be alone. This is the functional form
    of ``torch.optim.Adam``: constructing the class imports torch's compiler, which takes seconds.

    Args:
        stacks: tensors (P, ...), updated in place.
        steps: steps per epoch of each problem, (P,), in ascending order.
        learning_rate: constant.
        weight_decay: L2 penalty.
    """

    def __init__(
        self,
        stacks: Sequence[Tensor],
        steps: Sequence[int],
        *,
        learning_rate: float,
        weight_decay: float,
    ) -> None:
        unique, sizes = np.unique(steps, return_counts=True)
        if (np.diff(steps) < 0).any():
            raise ValueError(f"steps: got {list(steps)}, needed: ascending order")
        self.sizes, self.ends = sizes.tolist(), [*unique.tolist()] * len(stacks)
        self.pieces = self._cut([stack.detach() for stack in stacks])
        self.means = [torch.zeros_like(piece) for piece in self.pieces]
        self.squares = [torch.zeros_like(piece) for piece in self.pieces]
        self.counts = [torch.zeros((), device=piece.device) for piece in self.pieces]
        self.learning_rate, self.weight_decay = learning_rate, weight_decay

    def _cut(self, stacks: Sequence[Tensor]) -> list[Tensor]:
        return [piece for stack in stacks for piece in stack.split(self.sizes)]

    @torch.no_grad()
    def step(self, grads: Sequence[Tensor], number: int) -> None:
        """Step ``number`` (from 0) of an epoch, for the problems that have that many batches."""
        # Contiguous: the fused CPU kernel ignores the strides of a gradient.
        pieces = self._cut([grad.contiguous() for grad in grads])
        active = [i for i, end in enumerate(self.ends) if number < end]
        adam(
            *(
                [column[i] for i in active]
                for column in (self.pieces, pieces, self.means, self.squares)
            ),
            [],
            [self.counts[i] for i in active],
            fused=True,
            amsgrad=False,
            beta1=0.9,
            beta2=0.999,
            lr=self.learning_rate,
            weight_decay=self.weight_decay,
            eps=1e-8,
            maximize=False,
        )


def stacked_loss(logits: Tensor, targets: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
    """Summed loss and number of summed terms of each problem.

    Args:
        logits: (P, C, B).
        targets: class indices (P, B), or 1/0/NaN (P, B, C): NaN cells are not summed.
        real: (P, B), False for rows that only fill up a shorter batch.
    Returns: two (P,) tensors: cross-entropy over clips, or binary cross-entropy over cells.
    """
    if targets.ndim == 2:
        losses = F.cross_entropy(logits, targets, reduction="none")  # (P, B)
        return (losses * real).sum(dim=1), real.sum(dim=1)
    targets = targets.mT  # (P, C, B)
    observed = ~targets.isnan() & real[:, None]  # (P, C, B)
    losses = F.binary_cross_entropy_with_logits(logits, targets.nan_to_num(), reduction="none")
    return (losses * observed).sum(dim=(1, 2)), observed.sum(dim=(1, 2))


def padded(parts: Sequence[np.ndarray], device: torch.device) -> tuple[Tensor, Tensor]:
    """Row numbers of different length as one (P, longest) tensor, and where it is not filler."""
    longest = max(len(part) for part in parts)
    rows = np.stack([np.pad(part, (0, longest - len(part)), mode="edge") for part in parts])
    real = np.stack([np.arange(longest) < len(part) for part in parts])
    return torch.from_numpy(rows).to(device), torch.from_numpy(real).to(device)


def _mean_and_scale(features: Tensor, rows: np.ndarray) -> tuple[Tensor, Tensor]:
    """Mean and 1/std (population) of the given rows, each (D,); a constant feature's scale is 0.

    Zero, because a weight that training never moves would otherwise pass on whatever that feature
    does in other parts.
    """
    total = torch.zeros(features.shape[1], dtype=torch.float64, device=features.device)
    squares = torch.zeros_like(total)
    for part in torch.from_numpy(rows).to(features.device).split(ROWS_AT_ONCE):
        values = features[part].double()
        total += values.sum(dim=0)
        squares += values.square().sum(dim=0)
    mean = total / len(rows)
    std = (squares / len(rows) - mean.square()).clamp(min=0).sqrt()
    varies = std > CONSTANT * mean.abs()
    return mean.float(), torch.where(varies, 1 / std, 0.0).float()
