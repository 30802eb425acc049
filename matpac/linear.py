"""Linear probing: all folds and repeats of a task trained side by side (MATPAC Sec. IV-A).

A probe is one fully connected layer on frozen clip embeddings, trained with Adam in batches of 128;
the weights with the best validation loss are kept. Every problem keeps its own batches, its own
Adam state and its own step count, so training many at once is a matter of speed only: the results
are those of training them one after another.

Shapes: N clips of the task, D embedding size, C labels, P problems side by side, B batch size.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from matpac.metrics import accuracy, mean_average_precision
from matpac.problems import Problem
from matpac.stacked import ROWS_AT_ONCE, LinearProbes, StackedAdam, padded, stacked_loss

Setting = TypeVar("Setting")

KINDS = ("multiclass", "multilabel")
# Problems are stacked until one batch of all of them fills this much memory: on a CPU what stays in
# the cache between gathering and multiplying, on a GPU what makes large products.
STACK_BYTES = {"cpu": 4 << 20, "cuda": 1 << 30}


@dataclass(frozen=True)
class ProbeResult:
    """What one problem's best weights reach; ``score`` (test part) must not choose anything."""

    fold: int
    repeat: int
    score: float
    valid_score: float
    valid_loss: float
    best_epoch: int
    num_classes_scored: int


def train_probes(
    features: Tensor | np.ndarray,
    targets: Tensor | np.ndarray,
    problems: Sequence[Problem],
    *,
    kind: str,
    num_classes: int,
    learning_rate: float,
    epochs: int,
    batch_size: int = 128,
    weight_decay: float = 0.0,
    standardize: bool = True,
    patience: int | None = None,
    device: str | torch.device = "cpu",
) -> list[ProbeResult]:
    """Trains one linear probe per problem and scores it on its validation and test parts.

    Args:
        features: clip embeddings, (N, D), float.
        targets: class indices (N,) for "multiclass"; 1, 0 or NaN (not observed: left out of loss
            and metric) per label, (N, C), for "multilabel".
        problems: which rows train, choose and test each probe, see ``problems.make_problems``.
        kind: "multiclass" (cross-entropy, accuracy) or "multilabel" (binary cross-entropy averaged
            over observed cells, macro mAP).
        num_classes: C, outputs of the layer.
        learning_rate: of Adam, constant.
        epochs: most passes over the training part; the validation loss is taken after each.
        batch_size: clips per step; the last batch of an epoch holds what is left.
        weight_decay: Adam's L2 penalty; the paper names none.
        standardize: subtract the mean and divide by the std of that problem's training part.
        patience: stop a problem after this many epochs without a better validation loss.
        device: where to train; the same device gives the same result each time.
    Returns: one result per problem, in order. Of equal validation losses the earliest is kept.
    Raises: ValueError for bad features, targets or parts; RuntimeError if a validation loss is not
        finite.
    """
    features = torch.as_tensor(features, dtype=torch.float32, device=device)
    targets = torch.as_tensor(targets, device=device)
    _check(features, targets, problems, kind=kind, num_classes=num_classes)
    targets = targets.long() if kind == "multiclass" else targets.float()
    clip_bytes = features.shape[1] * features.element_size()
    room = STACK_BYTES["cuda" if features.is_cuda else "cpu"]
    stacked = max(1, room // (batch_size * clip_bytes))
    # Ascending, so that problems with equally many steps per epoch are neighbours in a stack.
    order = sorted(range(len(problems)), key=lambda i: _num_batches(problems[i], batch_size))
    results: dict[int, ProbeResult] = {}
    for first in range(0, len(order), stacked):
        chosen = order[first : first + stacked]
        group = [problems[i] for i in chosen]
        probes = LinearProbes(features, group, num_classes, standardize=standardize)
        losses, best_epochs = _train(
            probes,
            features,
            targets,
            group,
            learning_rate=learning_rate,
            epochs=epochs,
            batch_size=batch_size,
            weight_decay=weight_decay,
            patience=patience,
        )
        valid = _scores(probes, features, targets, [problem.valid_idx for problem in group])
        test = _scores(probes, features, targets, [problem.test_idx for problem in group])
        for p, (i, problem) in enumerate(zip(chosen, group, strict=True)):
            results[i] = ProbeResult(
                fold=problem.fold,
                repeat=problem.repeat,
                score=test[p][0],
                valid_score=valid[p][0],
                valid_loss=losses[p],
                best_epoch=best_epochs[p],
                num_classes_scored=test[p][1],
            )
    return [results[i] for i in range(len(problems))]


def choose(results: Mapping[Setting, Sequence[ProbeResult]]) -> Setting:
    """The setting (e.g. learning rate) with the lowest mean validation loss; ties: the first.

    Args:
        results: what ``train_probes`` returned on the same problems under each setting.
    Raises: ValueError if there is no setting or they were not run on the same folds and repeats.
    """
    runs = {tuple((r.fold, r.repeat) for r in each) for each in results.values()}
    if len(runs) != 1:
        raise ValueError(f"choose: got {len(runs)} different sets of problems, needed: one")
    return min(results, key=lambda setting: np.mean([r.valid_loss for r in results[setting]]))


def _train(
    probes: LinearProbes,
    features: Tensor,
    targets: Tensor,
    problems: Sequence[Problem],
    *,
    learning_rate: float,
    epochs: int,
    batch_size: int,
    weight_decay: float,
    patience: int | None,
) -> tuple[list[float], list[int]]:
    """Trains the stack; leaves the best weights in it, returns their validation losses, epochs."""
    stacks = (probes.weight, probes.bias)
    optimizer = StackedAdam(
        stacks,
        [_num_batches(problem, batch_size) for problem in problems],
        learning_rate=learning_rate,
        weight_decay=weight_decay,
    )
    best = [stack.detach().clone() for stack in stacks]
    best_loss = torch.full((len(problems),), torch.inf, dtype=torch.float64)
    best_epoch = torch.zeros(len(problems), dtype=torch.long)
    for epoch in range(1, epochs + 1):
        batches = _batches(problems, epoch, batch_size, features.device)
        for step, (rows, real) in enumerate(batches):
            sums, counts = stacked_loss(probes.logits(features, rows), targets[rows], real)
            # The problems share no weight, so the gradient of the sum is each one's own.
            grads = torch.autograd.grad((sums / counts.clamp(min=1)).sum(), stacks)
            optimizer.step(grads, step)
        loss = _validation_loss(probes, features, targets, problems)
        if not loss.isfinite().all():
            raise RuntimeError(f"linear probe: validation losses {loss.tolist()}, epoch {epoch}")
        better = loss < best_loss
        if patience is not None:
            better &= epoch - best_epoch <= patience
        best_loss = torch.where(better, loss, best_loss)
        best_epoch = torch.where(better, epoch, best_epoch)
        keep = better.to(features.device)
        best = [
            torch.where(keep[:, None, None], stack.detach(), kept)
            for stack, kept in zip(stacks, best, strict=True)
        ]
        if patience is not None and (epoch - best_epoch >= patience).all():
            break
    probes.weight, probes.bias = best
    return best_loss.tolist(), best_epoch.tolist()


@torch.no_grad()
def _validation_loss(
    probes: LinearProbes, features: Tensor, targets: Tensor, problems: Sequence[Problem]
) -> Tensor:
    """Loss per problem over its whole validation part, (P,), float64 on the CPU."""
    rows, real = padded([problem.valid_idx for problem in problems], features.device)
    total = torch.zeros(len(problems), dtype=torch.float64)
    terms = torch.zeros_like(total)
    for part in range(0, rows.shape[1], ROWS_AT_ONCE):
        window = slice(part, part + ROWS_AT_ONCE)
        sums, counts = stacked_loss(
            probes.logits(features, rows[:, window]), targets[rows[:, window]], real[:, window]
        )
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


def _num_batches(problem: Problem, batch_size: int) -> int:
    """Steps of one epoch, the last of them with what is left."""
    return -(-len(problem.train_idx) // batch_size)


@torch.no_grad()
def _scores(
    probes: LinearProbes, features: Tensor, targets: Tensor, parts: Sequence[np.ndarray]
) -> list[tuple[float, int]]:
    """Each probe's metric on its part of the rows, and over how many classes it was taken."""
    rows, _ = padded(parts, features.device)
    logits = [probes.logits(features, window).cpu() for window in rows.split(ROWS_AT_ONCE, dim=1)]
    stacked = torch.cat(logits, dim=2).mT.numpy()  # (P, B, C)
    truth = targets.cpu().numpy()
    scores = []
    for part, with_filler in zip(parts, stacked, strict=True):
        wanted, got = truth[part], with_filler[: len(part)]
        if truth.ndim == 2:
            scores.append(tuple(mean_average_precision(got, wanted)))
        else:
            scores.append((accuracy(got, wanted), len(np.unique(wanted))))
    return scores


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
