"""Trains one stack of linear probes and keeps each one's best weights (MATPAC Sec. IV-A).

Every probe has its own batches, its own Adam state and step count, its own best epoch; a problem's
probes at several learning rates share its batches and its initial weights.

Shapes: N clips of the task, D embedding size, C labels, P problems side by side, R learning rates
per problem, B batch size.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from matpac.probing.splits import Problem
from matpac.probing.stacked import (
    ROWS_AT_ONCE,
    Inputs,
    LinearProbes,
    StackedAdam,
    padded,
    stacked_loss,
)


@dataclass(frozen=True)
class Fit:
    """How probes are trained; see ``linear.train_probes``."""

    learning_rates: Sequence[float]
    epochs: int
    batch_size: int
    weight_decay: float
    patience: int | None


class Best:
    """The lowest validation loss of each probe so far, its epoch and its weights, (R, P, ...).

    Of equal losses the earliest is kept. With ``patience``, a probe that went that many epochs
    without a better loss is stopped: what it reaches afterwards is not looked at.
    """

    def __init__(self, stacks: Sequence[Tensor], patience: int | None) -> None:
        self.stacks, self.patience = [stack.detach().clone() for stack in stacks], patience
        self.loss = torch.full(stacks[0].shape[:2], torch.inf, dtype=torch.float64)
        self.epoch = torch.zeros_like(self.loss, dtype=torch.long)

    def update(self, stacks: Sequence[Tensor], loss: Tensor, epoch: int) -> None:
        """Takes over the probes whose ``loss`` (R, P) after ``epoch`` is their best."""
        better = loss < self.loss
        if self.patience is not None:
            better &= epoch - self.epoch <= self.patience
        self.loss = torch.where(better, loss, self.loss)
        self.epoch = torch.where(better, epoch, self.epoch)
        keep = better.to(stacks[0].device)[..., None, None]
        self.stacks = [
            torch.where(keep, stack.detach(), kept)
            for stack, kept in zip(stacks, self.stacks, strict=True)
        ]

    def final(self, epoch: int) -> bool:
        """Whether every probe was stopped."""
        return self.patience is not None and bool((epoch - self.epoch >= self.patience).all())


def fit(
    probes: LinearProbes, inputs: Inputs, targets: Tensor, problems: Sequence[Problem], how: Fit
) -> tuple[Tensor, Tensor]:
    """Trains the stack; leaves the best weights in it.

    Args:
        problems: in ascending order of their steps per epoch.
    Returns: their validation losses, float64, and epochs, each (R, P) on the CPU.
    Raises: RuntimeError if a validation loss is not finite.
    """
    stacks = (probes.weight, probes.bias)
    optimizer = StackedAdam(
        stacks,
        [num_batches(problem, how.batch_size) for problem in problems],
        learning_rates=how.learning_rates,
        weight_decay=how.weight_decay,
    )
    best = Best(stacks, how.patience)
    for epoch in range(1, how.epochs + 1):
        batches = _batches(problems, epoch, how.batch_size, inputs.device)
        for step, (rows, real) in enumerate(batches):
            sums, counts = stacked_loss(probes.logits(inputs[rows]), targets[rows], real)
            # The probes share no weight, so the gradient of the sum is each one's own.
            grads = torch.autograd.grad((sums / counts.clamp(min=1)).sum(), stacks)
            optimizer.step(grads, step)
        loss = _validation_loss(probes, inputs, targets, problems)
        if not loss.isfinite().all():
            raise RuntimeError(
                f"linear probe: validation losses {loss.flatten().tolist()}, epoch {epoch}"
            )
        best.update(stacks, loss, epoch)
        if best.final(epoch):
            break
    probes.weight, probes.bias = best.stacks
    return best.loss, best.epoch


def num_batches(problem: Problem, batch_size: int) -> int:
    """Steps of one epoch, the last of them with what is left."""
    return -(-len(problem.train_idx) // batch_size)


@torch.no_grad()
def _validation_loss(
    probes: LinearProbes, inputs: Inputs, targets: Tensor, problems: Sequence[Problem]
) -> Tensor:
    """Loss of each probe over its whole validation part, (R, P), float64 on the CPU."""
    rows, real = padded([problem.valid_idx for problem in problems], inputs.device)
    total = torch.zeros(probes.weight.shape[:2], dtype=torch.float64)
    terms = torch.zeros(len(problems), dtype=torch.float64)
    for window, filled in zip(
        rows.split(ROWS_AT_ONCE, dim=1), real.split(ROWS_AT_ONCE, dim=1), strict=True
    ):
        sums, counts = stacked_loss(probes.logits(inputs[window]), targets[window], filled)
        total += sums.double().cpu()
        terms += counts.cpu()
    return total / terms


def _batches(
    problems: Sequence[Problem], epoch: int, batch_size: int, device: torch.device
) -> Iterator[tuple[Tensor, Tensor]]:
    """The batches of one epoch as row numbers (P, B) and which of them are real (P, B).

    Each problem's training part is shuffled by (its seed, epoch) and cut into batches; one with
    fewer batches than the longest has no real row in the last ones.
    """
    orders = [
        np.random.default_rng([problem.seed, epoch]).permutation(problem.train_idx)
        for problem in problems
    ]
    rows, real = padded(orders, device)
    yield from zip(rows.split(batch_size, dim=1), real.split(batch_size, dim=1), strict=True)
