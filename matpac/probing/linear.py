"""The linear probe: one fully connected layer on frozen clip embeddings (MATPAC Sec. IV-A).

It is trained with Adam in batches of 128, and the weights with the best validation loss are kept.
Every split is trained alone, at each learning rate; `choose` takes one of them per fold.

Shapes: D embedding size, C labels, B clips of a part or of a batch.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.optim.adam import adam

from matpac.core import threads
from matpac.probing.config import ProbeConfig
from matpac.probing.metrics import score
from matpac.probing.splits import Split
from matpac.probing.task import Inputs, Task, windows

WINDOW = 8
"""Batches that are read at once."""
SMALL = 2**16
"""Weights of a layer whose products are too short to be shared out."""


@dataclass(frozen=True)
class ProbeResult:
    """What one probe's best weights reach; ``score`` (test part) must not choose anything."""

    fold: int
    repeat: int
    score: float
    valid_score: float
    valid_loss: float
    best_epoch: int
    num_classes_scored: int
    learning_rate: float
    logits: np.ndarray = field(compare=False, repr=False)
    """Of the test part, (B, C)."""
    valid_logits: np.ndarray = field(compare=False, repr=False)
    """Of the validation part, (B, C)."""
    layer: dict[str, Tensor] = field(compare=False, repr=False)
    """``weight`` (C, D), ``bias`` (C,), and the ``mean`` and ``scale`` of the inputs, (D,) each."""


def row_of(result: ProbeResult) -> dict[str, Any]:
    """What a table says of a linear probe."""
    names = [field.name for field in fields(result) if field.compare]
    return {"probe": "linear"} | {name: getattr(result, name) for name in names}


class Layer:
    """A fully connected layer that starts as `torch.nn.Linear` does: uniform within ±1/sqrt(D)."""

    def __init__(self, dim: int, num_classes: int, *, seed: int, device: torch.device) -> None:
        drawn = torch.empty(num_classes, dim + 1)
        drawn.uniform_(-(dim**-0.5), dim**-0.5, generator=torch.Generator().manual_seed(seed))
        # Contiguous: the fused Adam ignores strides.
        self.weight = drawn[:, :-1].contiguous().to(device)
        self.bias = drawn[:, -1].contiguous().to(device)

    def logits(self, inputs: Tensor) -> Tensor:
        """(B, D) -> (B, C)."""
        return F.linear(inputs, self.weight, self.bias)

    def gradient(self, inputs: Tensor, wanted: Tensor, *, multilabel: bool) -> list[Tensor]:
        """Of the mean loss: what the layer says less what is wanted, times the inputs.

        Written down since autograd takes three times as long for a layer of this size.

        Args: wanted: 1, 0 or NaN (not observed), (B, C).
        """
        logits = self.logits(inputs)
        if multilabel:
            error = (logits.sigmoid() - wanted).nan_to_num_(0.0) / (~wanted.isnan()).sum().clamp(
                min=1
            )
        else:
            error = (logits.softmax(dim=1) - wanted) / len(wanted)
        return [error.T @ inputs, error.sum(dim=0)]


class Adam:
    """`torch.optim.Adam` of a layer in torch's functional form: the class takes seconds to import.

    Args: learning_rate: constant; weight_decay: L2 penalty.
    """

    def __init__(self, layer: Layer, *, learning_rate: float, weight_decay: float) -> None:
        self.tensors = [layer.weight, layer.bias]
        self.means, self.squares = ([torch.zeros_like(t) for t in self.tensors] for _ in range(2))
        self.steps = [torch.zeros((), device=layer.weight.device) for _ in self.tensors]
        self.options = {"lr": learning_rate, "weight_decay": weight_decay}
        self.options |= {"beta1": 0.9, "beta2": 0.999, "eps": 1e-8}
        self.options |= {"amsgrad": False, "maximize": False, "fused": True}

    def step(self, gradient: list[Tensor]) -> None:
        """Updates the layer in place."""
        adam(self.tensors, gradient, self.means, self.squares, [], self.steps, **self.options)


def train_probes(task: Task, probe: ProbeConfig) -> dict[float, list[ProbeResult]]:
    """Trains a linear probe per split and learning rate and scores it.

    Returns: per rate, one result per split, in order. Of equal validation losses the earliest is
        kept. The same device gives the same result each time.
    Raises: RuntimeError if a validation loss is not finite.
    """
    results: dict[float, list[ProbeResult]] = {rate: [] for rate in probe.learning_rates}
    # Several threads take three times the processor time for a small layer, and no less in all.
    small = task.features.shape[1] * task.num_classes < SMALL
    with threads.limited(1 if small else None):
        for split in task.splits:
            inputs = task.inputs(split, standardize=probe.standardize)
            for rate, found in results.items():
                found.append(_trained(task, inputs, split, probe, rate))
    return results


def choose(results: Mapping[float, Sequence[ProbeResult]]) -> list[ProbeResult]:
    """Takes one learning rate per fold: that of the lowest mean validation loss over its repeats.

    Per fold and not per task, since what is validation in one fold is test in another; over the
    repeats, since one drawn validation part is small. Ties: the first rate.

    Args: results: what `train_probes` returned.
    Returns: a result of each split, in the same order.
    """
    losses: dict[int, dict[float, list[float]]] = {}
    for rate, each in results.items():
        for r in each:
            losses.setdefault(r.fold, {}).setdefault(rate, []).append(r.valid_loss)
    best = {fold: min(rates, key=lambda r: np.mean(rates[r])) for fold, rates in losses.items()}
    return [
        next(r for r in each if r.learning_rate == best[r.fold])
        for each in zip(*results.values(), strict=True)
    ]


@torch.no_grad()
def _trained(
    task: Task, inputs: Inputs, split: Split, probe: ProbeConfig, learning_rate: float
) -> ProbeResult:
    """One probe with its best weights, scored."""
    layer = Layer(inputs.dim, task.num_classes, seed=split.seed, device=task.device)
    optimizer = Adam(layer, learning_rate=learning_rate, weight_decay=probe.weight_decay)
    best, best_loss, best_epoch = (layer.weight, layer.bias), float("inf"), 0
    for epoch in range(1, probe.epochs + 1):
        for batch, wanted in _batches(task, inputs, split, epoch, probe.batch_size):
            optimizer.step(layer.gradient(batch, wanted, multilabel=task.multilabel))
        loss = _loss(_logits(layer, inputs, split.valid), task.of(split.valid))
        if not np.isfinite(loss):
            raise RuntimeError(f"linear probe: validation loss {loss}, epoch {epoch}")
        if loss < best_loss:
            best, best_loss, best_epoch = (layer.weight.clone(), layer.bias.clone()), loss, epoch
        elif probe.patience is not None and epoch - best_epoch >= probe.patience:
            break
    layer.weight, layer.bias = best
    valid, test = (_logits(layer, inputs, part).cpu().numpy() for part in (split.valid, split.test))
    reached, num_classes = score(test, task.of(split.test).cpu().numpy())
    return ProbeResult(
        fold=split.fold,
        repeat=split.repeat,
        score=reached,
        valid_score=score(valid, task.of(split.valid).cpu().numpy())[0],
        valid_loss=best_loss,
        best_epoch=best_epoch,
        num_classes_scored=num_classes,
        learning_rate=learning_rate,
        logits=test,
        valid_logits=valid,
        layer={
            "weight": layer.weight.cpu(),
            "bias": layer.bias.cpu(),
            "mean": inputs.mean.cpu(),
            "scale": inputs.scale.cpu(),
        },
    )


def _batches(
    task: Task, inputs: Inputs, split: Split, epoch: int, batch_size: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Inputs and what is wanted, of the training part in the order of (the split's seed, epoch)."""
    order = np.random.default_rng([split.seed, epoch]).permutation(split.train)
    for first in range(0, len(order), WINDOW * batch_size):
        rows = order[first : first + WINDOW * batch_size]
        read = inputs[rows], task.wanted(rows)
        yield from zip(*(each.split(batch_size) for each in read), strict=True)


def _logits(layer: Layer, inputs: Inputs, part: np.ndarray) -> Tensor:
    """(B, C)."""
    return torch.cat([layer.logits(inputs[rows]) for rows in windows(part)])


def _loss(logits: Tensor, targets: Tensor) -> float:
    """Mean cross-entropy over clips, or binary cross-entropy over observed cells, in double."""
    if targets.ndim == 1:
        return float(F.cross_entropy(logits.double(), targets))
    seen = ~targets.isnan()
    observed = targets[seen].double()
    return float(F.binary_cross_entropy_with_logits(logits[seen].double(), observed))
