"""Linear probes: the documented procedure, written out with torch's own parts."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from matpac.probing.linear import ProbeResult, choose, train_probes
from matpac.probing.metrics import score
from matpac.probing.splits import Split, make_splits
from matpac.probing.task import Task

from probes import NAN, ONE, clusters, folds_task, settings, split, uneven_splits


def train(
    features: Any, targets: Any, splits: list[Split], *, classes: int = 3, **changes: Any
) -> list[ProbeResult]:
    """At one rate."""
    task = Task(features, targets, splits, num_classes=classes)
    (found,) = train_probes(task, settings(**changes)).values()
    return found


def alone(
    features: Tensor,
    targets: Tensor,
    one: Split,
    *,
    epochs: int,
    rate: float = 0.05,
    weight_decay: float = 0.0,
) -> tuple[float, int, np.ndarray]:
    """The documented procedure for one split with nn.Linear, autograd and torch.optim.Adam.

    Returns: best validation loss, its epoch, and the logits of the test part.
    """
    mean, std = features[one.train].mean(0), features[one.train].std(0, correction=0)
    scale = torch.where(std > 1e-6 * mean.abs(), 1 / std, 0.0)
    x = (features - mean) * scale
    layer = nn.Linear(x.shape[1], 3)
    limit = x.shape[1] ** -0.5
    start = torch.empty(3, x.shape[1] + 1)
    start.uniform_(-limit, limit, generator=torch.Generator().manual_seed(one.seed))
    layer.weight.data, layer.bias.data = start[:, :-1].clone(), start[:, -1].clone()
    optimizer = torch.optim.Adam(layer.parameters(), lr=rate, weight_decay=weight_decay)

    def loss_of(rows: np.ndarray) -> Tensor:
        if targets.ndim == 1:
            return F.cross_entropy(layer(x[rows]), targets[rows])
        seen = ~targets[rows].isnan()
        total = F.binary_cross_entropy_with_logits(
            layer(x[rows])[seen], targets[rows][seen], reduction="sum"
        )
        return total / seen.sum().clamp(min=1)

    best = (float("inf"), 0, np.empty(0))
    for epoch in range(1, epochs + 1):
        order = np.random.default_rng([one.seed, epoch]).permutation(one.train)
        for first in range(0, len(order), 10):
            optimizer.zero_grad()
            loss_of(order[first : first + 10]).backward()
            optimizer.step()
        with torch.no_grad():
            valid = float(loss_of(one.valid))
            if valid < best[0]:
                best = (valid, epoch, layer(x[one.test]).numpy())
    return best


def unobserved(labels: Tensor) -> Tensor:
    """One label per clip of three, 40 % of the cells not observed, and most of split 2."""
    targets = F.one_hot(labels, 3).float()
    targets[torch.rand(100, 3, generator=torch.Generator().manual_seed(0)) < 0.4] = NAN
    targets[10:31] = NAN  # most of its batches have no target
    return targets


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("multilabel", [False, True])
def test_probes_are_those_of_the_documented_procedure(
    multilabel: bool, weight_decay: float
) -> None:
    features, labels = clusters()
    targets = unobserved(labels) if multilabel else labels
    changes = {"epochs": 12, "weight_decay": weight_decay}
    task = Task(features, targets, uneven_splits(), num_classes=3)
    results = train_probes(task, settings(learning_rate=[0.05, 1e-3], **changes))
    for rate, found in results.items():
        for result, one in zip(found, uneven_splits(), strict=True):
            loss, epoch, logits = alone(features, targets, one, rate=rate, **changes)
            # Same arithmetic in another order of summation: float32 rounding over some 50 steps.
            assert result.valid_loss == pytest.approx(loss, abs=1e-5)
            assert (result.best_epoch, result.fold) == (epoch, one.fold)
            np.testing.assert_allclose(result.logits, logits, rtol=0, atol=1e-4)
            expected = score(logits, targets.numpy()[one.test])
            assert (result.score, result.num_classes_scored) == pytest.approx(expected, abs=1e-6)
    assert len({result.best_epoch for result in results[0.05]}) > 1  # each one's own


def numbers(result: ProbeResult) -> tuple:
    """What two results are compared by."""
    return tuple(getattr(result, f.name) for f in dataclasses.fields(result) if f.compare)


def test_an_unobserved_label_is_as_if_it_did_not_exist() -> None:
    features, labels = clusters()
    targets = F.one_hot(labels, 3).float()
    targets[:, 2] = NAN
    (masked,) = train(features, targets, ONE)
    (without,) = train(features, targets[:, :2], ONE, classes=2)
    assert masked.num_classes_scored == 2
    assert numbers(masked) == pytest.approx(numbers(without), abs=1e-6)


def test_running_twice_is_identical() -> None:
    features, labels = clusters()
    first = train(features, labels, uneven_splits())
    assert first == train(features, labels, uneven_splits())


def test_the_test_part_chooses_nothing() -> None:
    """Spoiling the test labels moves the test score alone."""
    features, labels = clusters()
    (right,) = train(features, labels, ONE, epochs=8)
    spoiled = labels.clone()
    spoiled[80:] = (spoiled[80:] + 1) % 3
    (wrong,) = train(features, spoiled, ONE, epochs=8)
    assert wrong.score < right.score
    assert dataclasses.replace(wrong, score=right.score) == right


def test_equal_validation_losses_keep_the_earliest_epoch() -> None:
    # Constant features are scaled to zero and with one class the loss is 0 from the start.
    three = [split(range(3), range(3, 6), range(6, 9))]
    (result,) = train(torch.ones(9, 2), torch.zeros(9, dtype=torch.long), three, classes=1)
    assert numbers(result) == (0, 1, 1.0, 1.0, 0.0, 1, 1, 0.05)


def test_patience_ends_a_probe_that_gets_no_better() -> None:
    features, labels = clusters()
    changes = {"learning_rate": 0.3, "epochs": 40}
    hasty = train(features, labels, uneven_splits(), patience=2, **changes)
    patient = train(features, labels, uneven_splits(), **changes)
    for one, until in zip(hasty, patient, strict=True):
        assert one.best_epoch <= until.best_epoch and one.valid_loss >= until.valid_loss
        # What it had reached when it ended is the best of so many epochs and of two more.
        (short,) = train(
            features, labels, [uneven_splits()[one.fold - 1]],
            learning_rate=0.3, epochs=one.best_epoch + 2,
        )  # fmt: skip
        assert one == short
    assert any(until.best_epoch > one.best_epoch for one, until in zip(hasty, patient, strict=True))


def test_standardisation_uses_the_training_part_only() -> None:
    features, labels = clusters()
    (before,) = train(features, labels, ONE)
    moved = features.clone()
    moved[80:] += 1000.0
    (after,) = train(moved, labels, ONE)
    assert (after.valid_loss, after.valid_score) == (before.valid_loss, before.valid_score)
    # and a shift or rescaling of everything is undone by it
    (rescaled,) = train(features * 8 + 16, labels, ONE)
    assert rescaled.valid_loss == pytest.approx(before.valid_loss, abs=1e-4)
    (raw,) = train(features * 8 + 16, labels, ONE, standardize=False)
    assert abs(raw.valid_loss - before.valid_loss) > 0.1


def result(fold: int, repeat: int, rate: float, valid_loss: float, score: float) -> ProbeResult:
    logits = np.zeros((1, 3))
    return ProbeResult(fold, repeat, score, score, valid_loss, 1, 3, rate, logits, logits, {})


def test_choose_takes_the_lowest_mean_validation_loss_of_each_fold() -> None:
    # Fold 1: means 0.5 and 0.45; fold 2: 0.3 and 0.35. The better scores are never taken.
    losses = {1e-2: [0.2, 0.3, 0.8, 0.3], 1e-3: [0.5, 0.1, 0.4, 0.6]}
    scores = {1e-2: [0.9, 0.1, 0.9, 0.1], 1e-3: [0.2, 0.8, 0.2, 0.8]}
    order = [(1, 1), (2, 1), (1, 2), (2, 2)]  # (fold, repeat)
    results = {
        rate: [result(*order[i], rate, losses[rate][i], scores[rate][i]) for i in range(4)]
        for rate in losses
    }
    chosen = choose(results)
    assert [(r.fold, r.repeat) for r in chosen] == order
    assert [r.learning_rate for r in chosen] == [1e-3, 1e-2, 1e-3, 1e-2]
    tied = {rate: [result(0, 1, rate, 0.5, rate)] for rate in (1e-3, 1e-2)}
    assert choose(tied)[0].learning_rate == 1e-3
    assert choose({1e-2: results[1e-2]}) == results[1e-2]


def test_the_choice_of_a_fold_does_not_see_its_test_part() -> None:
    """Not even through the other folds, for which those clips are training and validation."""
    task = folds_task()
    generator = np.random.default_rng(0)
    features = 2 * np.eye(4, dtype=np.float32)[task["targets"]]
    features = features + generator.normal(size=features.shape).astype(np.float32)
    splits = make_splits(scheme="folds", **task, repeats=2, seed=0, valid_fraction=0.3)

    def chosen(targets: np.ndarray) -> list[ProbeResult]:
        several = settings(epochs=8, learning_rate=[1e-5, 1.0, 0.03], batch_size=128)
        return choose(train_probes(Task(features, targets, splits, num_classes=4), several))

    before = chosen(task["targets"])
    for fold in range(1, 6):
        after = chosen(np.where(task["folds"] == fold, 3 - task["targets"], task["targets"]))
        for a, b in zip(after, before, strict=True):
            if a.fold == fold:
                assert dataclasses.replace(a, score=b.score) == b
                assert a.score < b.score


def test_features_of_other_types_are_computed_with_in_float32() -> None:
    features, labels = clusters()
    half = features.half()
    expected = train(half.float(), labels, uneven_splits())
    assert train(half, labels, uneven_splits()) == expected
    assert train(half.numpy(), labels.numpy(), uneven_splits()) == expected


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU, or MATPAC_TEST_GPU is unset")
@pytest.mark.parametrize("multilabel", [False, True])
def test_on_a_gpu_as_on_the_cpu(multilabel: bool) -> None:
    features, labels = clusters()
    targets = unobserved(labels) if multilabel else labels
    results = [
        train_probes(Task(features, targets, uneven_splits(), num_classes=3, device=d), settings())
        for d in ("cpu", "cuda")
    ]
    for a, b in zip(*(found[0.05] for found in results), strict=True):
        assert a.valid_loss == pytest.approx(b.valid_loss, abs=1e-4)


def test_refuses_nonsense() -> None:
    features, labels = clusters()
    with pytest.raises(ValueError, match=r"targets \(99,\), allowed: \(N, D\) and \(100,\) or "):
        train(features, labels[1:], ONE)
    with pytest.raises(ValueError, match="targets: got 7, allowed: 0 to 2"):
        train(features, torch.full((100,), 7), ONE)
    with pytest.raises(ValueError, match=r"targets: got 0.5, allowed: 0, 1 and NaN"):
        train(features, torch.full((100, 3), 0.5), ONE)
    with pytest.raises(ValueError, match="not finite"):
        train(features / 0, labels, ONE)
    with pytest.raises(ValueError, match="an empty part"):
        train(features, labels, [split(range(60), range(0), range(80, 100))])
    nothing_observed = torch.ones(100, 3)
    nothing_observed[60:80] = NAN
    with pytest.raises(RuntimeError, match=r"validation loss nan, epoch 1"):
        train(features, nothing_observed, ONE)
