"""Many small linear problems as one: their inputs, layers, loss and optimiser, stacked.

The arithmetic below ``linear.train_probes``. Nothing here mixes two probes: each slice along the
axes P and R holds what it would hold alone. The R rates of a problem see the same batches, so their
layers are multiplied with one copy of the inputs.

Shapes: N clips of the task, D embedding size, C labels, P problems side by side, R learning rates
per problem, B batch size.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim.adam import adam

from matpac.probing.splits import Problem

ROWS_AT_ONCE = 1024  # rows evaluated or measured at once, to bound memory
CONSTANT = 1e-6  # std / |mean| below which a float32 feature shows rounding noise only


class Inputs:
    """Batches of clip embeddings, with the standardisation of each problem's training part.

    Only the rows of a batch are read and copied, so ``features`` may be mapped from a file larger
    than memory.

    Args:
        features: (N, D), any floating type; batches are float32.
        standardize: False leaves the features as they are.
    """

    def __init__(self, features: Tensor, problems: Sequence[Problem], *, standardize: bool) -> None:
        self.features, self.device, dim = features, features.device, features.shape[1]
        self.mean = torch.zeros(len(problems), 1, dim, device=self.device)
        self.scale = torch.ones(len(problems), 1, dim, device=self.device)
        if standardize:
            for p, problem in enumerate(problems):
                self.mean[p, 0], self.scale[p, 0] = _mean_and_scale(features, problem.train_idx)

    def __getitem__(self, rows: Tensor) -> Tensor:
        """Each problem's own ``rows`` (P, B), as (P, B, D)."""
        inputs = self.features.index_select(0, rows.flatten()).float()
        return inputs.view(*rows.shape, -1).sub_(self.mean).mul_(self.scale)


class LinearProbes:
    """Fully connected layers of P problems, R of each: ``weight`` (R, P, C, D), ``bias`` (..., 1).

    They start as ``nn.Linear`` does, uniform within ±1/sqrt(D), from a generator seeded by the
    problem, alike at all rates.
    """

    def __init__(
        self,
        problems: Sequence[Problem],
        dim: int,
        num_classes: int,
        num_rates: int,
        device: torch.device,
    ) -> None:
        initial = torch.empty(len(problems), num_classes, dim + 1)
        for p, problem in enumerate(problems):
            generator = torch.Generator().manual_seed(problem.seed)
            initial[p].uniform_(-(dim**-0.5), dim**-0.5, generator=generator)
        initial = initial.repeat(num_rates, 1, 1, 1)
        self.weight = initial[..., :dim].contiguous().to(device).requires_grad_()
        self.bias = initial[..., dim:].contiguous().to(device).requires_grad_()

    def logits(self, inputs: Tensor) -> Tensor:
        """Logits of each probe: (P, B, D) -> (P, R, C, B).

        Labels before clips: with few labels, products and softmax in this layout take a quarter of
        the time of (P, B, C), and the gradient comes out in the layout of the weights.
        """
        weight, bias = (t.transpose(0, 1).flatten(1, 2) for t in (self.weight, self.bias))
        logits = torch.baddbmm(bias, weight, inputs.mT)  # (P, R*C, B)
        return logits.unflatten(1, (len(self.weight), -1))


class StackedAdam:
    """Adam on stacked weights, where a problem that has no batch left takes no step.

    One whole stack under one step count would go on decaying the moments of such a problem. So the
    stack of each rate is cut into pieces of neighbouring problems with equally many steps per
    epoch. Adam is elementwise, hence each probe is updated as it would be alone. This is the
    functional form of ``torch.optim.Adam``: constructing the class imports torch's compiler, which
    takes seconds.

    Args:
        stacks: tensors (R, P, ...), updated in place.
        steps: steps per epoch of each problem, (P,), in ascending order.
        learning_rates: (R,), constant.
        weight_decay: L2 penalty.
    """

    def __init__(
        self,
        stacks: Sequence[Tensor],
        steps: Sequence[int],
        *,
        learning_rates: Sequence[float],
        weight_decay: float,
    ) -> None:
        unique, sizes = np.unique(steps, return_counts=True)
        if (np.diff(steps) < 0).any():
            raise ValueError(f"steps: got {list(steps)}, needed: ascending order")
        self.learning_rates, self.weight_decay = learning_rates, weight_decay
        self.sizes, self.ends = sizes.tolist(), unique.tolist() * len(stacks)
        self.pieces = self._cut([stack.detach() for stack in stacks])
        self.means, self.squares = (
            [[torch.zeros_like(piece) for piece in pieces] for pieces in self.pieces]
            for _ in range(2)
        )
        self.counts = [
            [torch.zeros((), device=piece.device) for piece in pieces] for pieces in self.pieces
        ]

    def _cut(self, stacks: Sequence[Tensor]) -> list[list[Tensor]]:
        """The pieces of each rate."""
        return [
            [piece for stack in stacks for piece in stack[r].split(self.sizes)]
            for r in range(len(self.learning_rates))
        ]

    @torch.no_grad()
    def step(self, grads: Sequence[Tensor], number: int) -> None:
        """Step ``number`` (from 0) of an epoch, for the problems that have that many batches."""
        # Contiguous: the fused CPU kernel ignores the strides of a gradient.
        pieces = self._cut([grad.contiguous() for grad in grads])
        active = [i for i, end in enumerate(self.ends) if number < end]
        for r, learning_rate in enumerate(self.learning_rates):
            adam(
                *(
                    [column[r][i] for i in active]
                    for column in (self.pieces, pieces, self.means, self.squares)
                ),
                [],
                [self.counts[r][i] for i in active],
                fused=True,
                amsgrad=False,
                beta1=0.9,
                beta2=0.999,
                lr=learning_rate,
                weight_decay=self.weight_decay,
                eps=1e-8,
                maximize=False,
            )


def stacked_loss(logits: Tensor, targets: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
    """Summed loss of each probe, and how many terms were summed.

    Args:
        logits: (P, R, C, B).
        targets: class indices (P, B), or 1/0/NaN (P, B, C): NaN cells are not summed.
        real: (P, B), False for rows that only fill up a shorter batch.
    Returns: (R, P) and (P,): cross-entropy over clips, or binary cross-entropy over cells.
    """
    if targets.ndim == 2:
        wanted = targets[:, None].expand(-1, logits.shape[1], -1)  # (P, R, B)
        losses = F.cross_entropy(logits.flatten(0, 1), wanted.flatten(0, 1), reduction="none")
        return (losses.view_as(wanted) * real[:, None]).sum(dim=2).T, real.sum(dim=1)
    targets = targets.mT  # (P, C, B)
    observed = ~targets.isnan() & real[:, None]  # (P, C, B)
    wanted = targets.nan_to_num()[:, None].expand_as(logits)
    losses = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
    return (losses * observed[:, None]).sum(dim=(2, 3)).T, observed.sum(dim=(1, 2))


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
