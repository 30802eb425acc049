"""Linear probing: all folds, repeats and rates of a task trained side by side (MATPAC Sec. IV-A).

A probe is one fully connected layer on frozen clip embeddings, trained with Adam in batches of 128;
the weights with the best validation loss are kept. Every probe has its own batches, its own Adam
state and its own step count, so training many at once is a matter of speed only: the results are
those of training them one after another.

Shapes: N clips of the task, D embedding size, C labels, P problems side by side, R learning rates
per problem, B batch size.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from matpac.probing.fitting import Fit, fit, num_batches
from matpac.probing.metrics import accuracy, mean_average_precision
from matpac.probing.splits import Problem
from matpac.probing.stacked import ROWS_AT_ONCE, Inputs, LinearProbes, padded

KINDS = ("multiclass", "multilabel")
# Problems are stacked until one batch of all of them fills this much memory: on a CPU what stays in
# the cache between gathering and multiplying, on a GPU what makes large products.
STACK_BYTES = {"cpu": 4 << 20, "cuda": 1 << 30}


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


def train_probes(
    features: Tensor | np.ndarray,
    targets: Tensor | np.ndarray,
    problems: Sequence[Problem],
    *,
    kind: str,
    num_classes: int,
    learning_rates: Sequence[float],
    epochs: int,
    batch_size: int = 128,
    weight_decay: float = 0.0,
    standardize: bool = True,
    patience: int | None = None,
    device: str | torch.device = "cpu",
) -> dict[float, list[ProbeResult]]:
    """Trains a linear probe per problem and rate and scores it on its validation and test parts.

    On a CPU the features are read a batch at a time and never copied as a whole, so an array that
    is mapped from a file needs no memory of its own. What is needed beyond it: ``STACK_BYTES`` for
    the inputs of a training step and eight times that where 1,024 clips are evaluated at once, and
    the probes of one stack six times (weights, gradients, Adam's moments, best, a copy), R * P * C
    * D floats each. A GPU holds all features besides.

    Args:
        features: clip embeddings, (N, D), of any floating type; computed with in float32.
        targets: class indices (N,) for "multiclass"; 1, 0 or NaN (not observed: left out of loss
            and metric) per label, (N, C), for "multilabel".
        problems: which rows train, choose and test each probe, see ``problems.make_problems``.
        kind: "multiclass" (cross-entropy, accuracy) or "multilabel" (binary cross-entropy averaged
            over observed cells, macro mAP).
        num_classes: C, outputs of the layer.
        learning_rates: of Adam, constant, (R,); a probe is trained at each.
        epochs: most passes over the training part; the validation loss is taken after each.
        batch_size: clips per step; the last batch of an epoch holds what is left.
        weight_decay: Adam's L2 penalty; the paper names none.
        standardize: subtract the mean and divide by the std of that problem's training part.
        patience: stop a probe after this many epochs without a better validation loss.
        device: where to train; the same device gives the same result each time.
    Returns: per rate, one result per problem, in order. Of equal validation losses the earliest is
        kept. `choose` takes one rate.
    Raises: ValueError for bad features, targets or parts; RuntimeError if a validation loss is not
        finite.
    """
    features, targets = (torch.as_tensor(data, device=device) for data in (features, targets))
    _check(features, targets, problems, kind=kind, num_classes=num_classes)
    targets = targets.long() if kind == "multiclass" else targets.float()
    how = Fit(tuple(learning_rates), epochs, batch_size, weight_decay, patience)
    room = STACK_BYTES["cuda" if features.is_cuda else "cpu"]
    stacked = max(1, room // (batch_size * features.shape[1] * torch.float32.itemsize))
    # Ascending, so that problems with equally many steps per epoch are neighbours in a stack.
    order = sorted(range(len(problems)), key=lambda i: num_batches(problems[i], batch_size))
    results: dict[float, dict[int, ProbeResult]] = {rate: {} for rate in how.learning_rates}
    for first in range(0, len(order), stacked):
        chosen = order[first : first + stacked]
        group = [problems[i] for i in chosen]
        inputs = Inputs(features, group, standardize=standardize)
        for rate, each in _results(inputs, targets, group, num_classes, how).items():
            results[rate].update(zip(chosen, each, strict=True))
    return {rate: [each[i] for i in range(len(problems))] for rate, each in results.items()}


def choose(results: Mapping[float, Sequence[ProbeResult]]) -> list[ProbeResult]:
    """Takes one learning rate per fold: that of the lowest mean validation loss over its repeats.

    Per fold and not per task, since what is validation in one fold is test in another; over the
    repeats, since one drawn validation part is small. Ties: the first rate.

    Args: results: what ``train_probes`` returned: per rate, a result of each problem.
    Returns: a result of each problem, in the same order.
    Raises: ValueError if there is no rate or they were not run on the same folds and repeats.
    """
    runs = {tuple((r.fold, r.repeat) for r in each) for each in results.values()}
    if len(runs) != 1:
        raise ValueError(f"choose: got {len(runs)} different sets of problems, needed: one")
    losses: dict[int, dict[float, list[float]]] = {}
    for rate, each in results.items():
        for r in each:
            losses.setdefault(r.fold, {}).setdefault(rate, []).append(r.valid_loss)
    best = {fold: min(rates, key=lambda r: np.mean(rates[r])) for fold, rates in losses.items()}
    return [results[best[fold]][i] for i, (fold, _) in enumerate(runs.pop())]


def _results(
    inputs: Inputs, targets: Tensor, problems: Sequence[Problem], num_classes: int, how: Fit
) -> dict[float, list[ProbeResult]]:
    """Trains and scores one stack."""
    dim, rates = inputs.features.shape[1], how.learning_rates
    probes = LinearProbes(problems, dim, num_classes, len(rates), inputs.device)
    losses, epochs = fit(probes, inputs, targets, problems, how)
    valid = _scores(probes, inputs, targets, [problem.valid_idx for problem in problems])
    test = _scores(probes, inputs, targets, [problem.test_idx for problem in problems])
    return {
        rate: [
            ProbeResult(
                fold=problem.fold,
                repeat=problem.repeat,
                score=test[p][r][0],
                valid_score=valid[p][r][0],
                valid_loss=losses[r, p].item(),
                best_epoch=int(epochs[r, p]),
                num_classes_scored=test[p][r][1],
                learning_rate=rate,
            )
            for p, problem in enumerate(problems)
        ]
        for r, rate in enumerate(rates)
    }


@torch.no_grad()
def _scores(
    probes: LinearProbes, inputs: Inputs, targets: Tensor, parts: Sequence[np.ndarray]
) -> list[list[tuple[float, int]]]:
    """Per problem and rate, the metric on its part of the rows, and over how many classes."""
    rows, _ = padded(parts, inputs.device)
    num_rates, num_problems, num_classes, _ = probes.weight.shape
    logits = torch.empty(num_problems, num_rates, num_classes, rows.shape[1])
    for first in range(0, rows.shape[1], ROWS_AT_ONCE):
        window = slice(first, first + ROWS_AT_ONCE)
        logits[..., window] = probes.logits(inputs[rows[:, window]])
    truth = targets.cpu().numpy()
    return [
        [_score(of_rate[: len(part)], truth[part]) for of_rate in of_problem]
        for part, of_problem in zip(parts, logits.mT.numpy(), strict=True)  # (P, R, B, C)
    ]


def _score(logits: np.ndarray, wanted: np.ndarray) -> tuple[float, int]:
    """Macro mAP or accuracy, and the number of classes with something to find."""
    if wanted.ndim == 2:
        return tuple(mean_average_precision(logits, wanted))
    return accuracy(logits, wanted), len(np.unique(wanted))


def _check(
    features: Tensor, targets: Tensor, problems: Sequence[Problem], *, kind: str, num_classes: int
) -> None:
    """Raises ValueError for what would otherwise train silently on nonsense."""
    if kind not in KINDS:
        raise ValueError(f"kind: got {kind!r}, allowed: {', '.join(KINDS)}")
    expected = (len(features), num_classes)[: 1 if kind == "multiclass" else 2]
    if features.ndim != 2 or tuple(targets.shape) != expected:
        raise ValueError(
            f"{kind} probe: got features {tuple(features.shape)} and targets "
            f"{tuple(targets.shape)}, allowed: (N, D) and {expected}"
        )
    if not all(part.isfinite().all() for part in features.split(ROWS_AT_ONCE)):
        raise ValueError("features: got a value that is not finite")
    parts = [part for p in problems for part in (p.train_idx, p.valid_idx, p.test_idx)]
    if not parts or min(len(part) for part in parts) == 0:
        raise ValueError("problems: got none or an empty part, needed: train, valid and test rows")
    used = targets[torch.from_numpy(np.unique(np.concatenate(parts))).to(targets.device)]
    if kind == "multiclass":
        bad, allowed = (used < 0) | (used >= num_classes), f"0 to {num_classes - 1}"
    else:
        bad, allowed = (used != 0) & (used != 1) & ~used.isnan(), "0, 1 and NaN (not observed)"
    if bad.any():
        raise ValueError(f"targets: got {used[bad][0].item()}, allowed: {allowed}")
