"""Linear probes: the stack equals one probe after another, written out with torch's parts."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.probe import report
from matpac.probing.linear import ProbeResult, choose, train_probes
from matpac.probing.metrics import mean_average_precision
from matpac.probing.splits import Problem, make_problems

NAN = float("nan")


def problem(train: range, valid: range, test: range, *, seed: int = 0, fold: int = 0) -> Problem:
    return Problem(np.array(train), np.array(valid), np.array(test), seed, fold, 1)


def uneven_problems() -> list[Problem]:
    """Training parts of 37, 24, 50 and 37 rows: 4, 3, 5 and 4 steps of 10, out of order."""
    return [
        problem(range(37), range(60, 70), range(70, 100), seed=1, fold=1),
        problem(range(10, 34), range(50, 58), range(80, 100), seed=2, fold=2),
        problem(range(50), range(50, 75), range(75, 100), seed=3, fold=3),
        problem(range(20, 57), range(60, 65), range(90, 100), seed=4, fold=4),
    ]


def clusters(num_classes: int = 3, dim: int = 7) -> tuple[torch.Tensor, torch.Tensor]:
    """100 overlapping clips with features of very different size, one of them constant."""
    generator = torch.Generator().manual_seed(5)
    labels = torch.randint(num_classes, (100,), generator=generator)
    centres = torch.randn(num_classes, dim, generator=generator)
    features = centres[labels] + torch.randn(100, dim, generator=generator)
    features = features * torch.logspace(-2, 2, dim) + 3.0
    features[:, 4] = 0.1
    return features, labels


def train_one_rate(
    features: torch.Tensor | np.ndarray,
    targets: torch.Tensor | np.ndarray,
    problems: list[Problem],
    *,
    learning_rate: float,
    **options: Any,
) -> list[ProbeResult]:
    rates = [learning_rate]
    return train_probes(features, targets, problems, learning_rates=rates, **options)[learning_rate]


def one_alone(
    features: torch.Tensor,
    targets: torch.Tensor,
    one: Problem,
    *,
    num_classes: int,
    epochs: int,
    weight_decay: float = 0.0,
) -> tuple[float, int, np.ndarray]:
    """The documented procedure for one problem with nn.Linear, torch.optim.Adam and no stacking.

    Returns: best validation loss, its epoch, and the logits of the test part.
    """
    mean, std = features[one.train_idx].mean(0), features[one.train_idx].std(0, correction=0)
    scale = torch.where(std > 1e-6 * mean.abs(), 1 / std, 0.0)
    x = (features - mean) * scale
    layer = nn.Linear(x.shape[1], num_classes)
    limit = x.shape[1] ** -0.5
    start = torch.empty(num_classes, x.shape[1] + 1)
    start.uniform_(-limit, limit, generator=torch.Generator().manual_seed(one.seed))
    layer.weight.data, layer.bias.data = start[:, :-1].clone(), start[:, -1].clone()
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.05, weight_decay=weight_decay)

    def loss_of(rows: np.ndarray) -> torch.Tensor:
        if targets.ndim == 1:
            return F.cross_entropy(layer(x[rows]), targets[rows])
        seen = ~targets[rows].isnan()
        total = F.binary_cross_entropy_with_logits(
            layer(x[rows])[seen], targets[rows][seen], reduction="sum"
        )
        return total / seen.sum().clamp(min=1)

    best = (float("inf"), 0, np.empty(0))
    for epoch in range(1, epochs + 1):
        order = np.random.default_rng([one.seed, epoch]).permutation(one.train_idx)
        for first in range(0, len(order), 10):
            optimizer.zero_grad()
            loss_of(order[first : first + 10]).backward()
            optimizer.step()
        with torch.no_grad():
            valid = float(loss_of(one.valid_idx))
            if valid < best[0]:
                best = (valid, epoch, layer(x[one.test_idx]).numpy())
    return best


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_stacked_equals_one_after_another_multiclass(weight_decay: float) -> None:
    features, labels = clusters()
    results = train_one_rate(
        features,
        labels,
        uneven_problems(),
        kind="multiclass",
        num_classes=3,
        learning_rate=0.05,
        batch_size=10,
        epochs=12,
        weight_decay=weight_decay,
    )
    for result, one in zip(results, uneven_problems(), strict=True):
        loss, epoch, logits = one_alone(
            features, labels, one, num_classes=3, epochs=12, weight_decay=weight_decay
        )
        # Same arithmetic in another order of summation: float32 rounding over some 50 steps.
        assert result.valid_loss == pytest.approx(loss, abs=1e-5)
        assert result.best_epoch == epoch
        assert result.score == np.mean(logits.argmax(1) == labels.numpy()[one.test_idx])
        assert result.fold == one.fold
    assert len({result.best_epoch for result in results}) > 1  # the best epoch is each one's own


def test_stacked_equals_one_after_another_multilabel_with_unobserved_cells() -> None:
    features, labels = clusters()
    targets = F.one_hot(labels, 3).float()
    targets[torch.rand(100, 3, generator=torch.Generator().manual_seed(0)) < 0.4] = NAN
    targets[10:31] = NAN  # problem 2 has three other rows: most of its batches have no target
    results = train_one_rate(
        features,
        targets,
        uneven_problems(),
        kind="multilabel",
        num_classes=3,
        learning_rate=0.05,
        batch_size=10,
        epochs=6,
    )
    for result, one in zip(results, uneven_problems(), strict=True):
        loss, epoch, logits = one_alone(features, targets, one, num_classes=3, epochs=6)
        assert result.valid_loss == pytest.approx(loss, abs=1e-5)
        assert result.best_epoch == epoch
        expected = mean_average_precision(logits, targets.numpy()[one.test_idx])
        assert (result.score, result.num_classes_scored) == pytest.approx(expected, abs=1e-6)


def test_an_unobserved_label_is_as_if_it_did_not_exist() -> None:
    features, labels = clusters()
    targets = F.one_hot(labels, 3).float()
    targets[:, 2] = NAN
    one = [problem(range(60), range(60, 80), range(80, 100), seed=9)]
    options = {"kind": "multilabel", "learning_rate": 0.05, "epochs": 4}
    masked = train_one_rate(features, targets, one, num_classes=3, **options)[0]
    without = train_one_rate(features, targets[:, :2], one, num_classes=2, **options)[0]
    assert masked.num_classes_scored == 2
    assert dataclasses.astuple(masked) == pytest.approx(dataclasses.astuple(without), abs=1e-6)


def test_the_rest_of_the_stack_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    features, labels = clusters()
    options = {
        "kind": "multiclass",
        "num_classes": 3,
        "learning_rate": 0.05,
        "batch_size": 10,
        "epochs": 5,
    }
    together = train_one_rate(features, labels, uneven_problems(), **options)
    monkeypatch.setattr("matpac.probing.linear.STACK_BYTES", {"cpu": 0, "cuda": 0})  # one per stack
    alone = train_one_rate(features, labels, uneven_problems(), **options)
    for a, b in zip(together, alone, strict=True):
        assert dataclasses.astuple(a) == pytest.approx(dataclasses.astuple(b), abs=1e-5)


def test_running_twice_is_identical() -> None:
    features, labels = clusters()
    options = {"kind": "multiclass", "num_classes": 3, "learning_rate": 0.05, "epochs": 5}
    first = train_one_rate(features, labels, uneven_problems(), **options)
    assert first == train_one_rate(features, labels, uneven_problems(), **options)


def test_the_test_part_chooses_nothing() -> None:
    """Spoiling the test labels moves the test score alone."""
    features, labels = clusters()
    one = [problem(range(60), range(60, 80), range(80, 100))]
    options = {"kind": "multiclass", "num_classes": 3, "learning_rate": 0.05, "epochs": 8}
    right = train_one_rate(features, labels, one, **options)[0]
    spoiled = labels.clone()
    spoiled[80:] = (spoiled[80:] + 1) % 3
    wrong = train_one_rate(features, spoiled, one, **options)[0]
    assert wrong.score < right.score
    assert dataclasses.replace(wrong, score=right.score) == right


def test_equal_validation_losses_keep_the_earliest_epoch() -> None:
    # Constant features are scaled to zero and with one class the loss is 0 from the start.
    result = train_one_rate(
        torch.ones(9, 2),
        torch.zeros(9, dtype=torch.long),
        [problem(range(3), range(3, 6), range(6, 9))],
        kind="multiclass",
        num_classes=1,
        learning_rate=0.1,
        epochs=5,
    )[0]
    assert result == ProbeResult(0, 1, 1.0, 1.0, 0.0, 1, 1, 0.1)


def test_patience_stops_one_problem_and_not_its_neighbour() -> None:
    features, labels = clusters()
    both = uneven_problems()[:2]
    options = {
        "kind": "multiclass",
        "num_classes": 3,
        "learning_rate": 0.3,
        "batch_size": 10,
        "epochs": 40,
    }
    alone = [train_one_rate(features, labels, [one], patience=2, **options)[0] for one in both]
    assert train_one_rate(features, labels, both, patience=2, **options) == [
        dataclasses.replace(a, valid_loss=pytest.approx(a.valid_loss, abs=1e-5)) for a in alone
    ]
    patient = train_one_rate(features, labels, both, **options)
    assert any(p.best_epoch > a.best_epoch for p, a in zip(patient, alone, strict=True))


def test_standardisation_uses_the_training_part_only() -> None:
    features, labels = clusters()
    one = [problem(range(60), range(60, 80), range(80, 100))]
    options = {"kind": "multiclass", "num_classes": 3, "learning_rate": 0.05, "epochs": 3}
    before = train_one_rate(features, labels, one, **options)[0]
    moved = features.clone()
    moved[80:] += 1000.0
    after = train_one_rate(moved, labels, one, **options)[0]
    assert (after.valid_loss, after.valid_score) == (before.valid_loss, before.valid_score)
    # and a shift or rescaling of everything is undone by it
    rescaled = train_one_rate(features * 8 + 16, labels, one, **options)[0]
    assert rescaled.valid_loss == pytest.approx(before.valid_loss, abs=1e-4)
    raw = train_one_rate(features * 8 + 16, labels, one, standardize=False, **options)[0]
    assert abs(raw.valid_loss - before.valid_loss) > 0.1


def test_separable_clips_are_learned() -> None:
    labels = torch.arange(90) % 3
    features = F.one_hot(labels, 3) + 0.05 * torch.randn(
        90, 3, generator=torch.Generator().manual_seed(0)
    )
    result = train_one_rate(
        features.numpy(),
        labels.numpy(),
        [problem(range(60), range(60, 75), range(75, 90))],
        kind="multiclass",
        num_classes=3,
        learning_rate=0.05,
        epochs=30,
    )[0]
    assert (result.score, result.valid_score, result.num_classes_scored) == (1.0, 1.0, 3)


@pytest.mark.parametrize("patience", [None, 2])
def test_rates_side_by_side_equal_each_alone(patience: int | None) -> None:
    features, labels = clusters()
    targets = F.one_hot(labels, 3).float()
    targets[torch.rand(100, 3, generator=torch.Generator().manual_seed(0)) < 0.3] = NAN
    rates = [0.2, 1e-3, 0.05]
    for kind, wanted in (("multiclass", labels), ("multilabel", targets)):
        options = {"kind": kind, "num_classes": 3, "batch_size": 10, "epochs": 15}
        options |= {"patience": patience, "weight_decay": 0.01}
        together = train_probes(
            features, wanted, uneven_problems(), learning_rates=rates, **options
        )
        assert list(together) == rates
        for rate in rates:
            alone = train_one_rate(
                features, wanted, uneven_problems(), learning_rate=rate, **options
            )
            for a, b in zip(together[rate], alone, strict=True):
                # Same arithmetic, but for the order of summation within a product.
                assert dataclasses.astuple(a) == pytest.approx(dataclasses.astuple(b), abs=1e-5)
    assert together[0.2] != together[1e-3]


def result(fold: int, repeat: int, rate: float, valid_loss: float, score: float) -> ProbeResult:
    return ProbeResult(fold, repeat, score, score, valid_loss, 1, 3, rate)


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
    with pytest.raises(ValueError, match="2 different sets of problems"):
        choose({1e-2: results[1e-2], 1e-3: results[1e-3][:2]})


def test_the_choice_of_a_fold_does_not_see_its_test_part() -> None:
    """Not even through the other folds, for which those clips are training and validation."""
    task = folds_task()
    generator = np.random.default_rng(0)
    features = 2 * np.eye(4, dtype=np.float32)[task["targets"]]
    features = features + generator.normal(size=features.shape).astype(np.float32)
    problems = make_problems(scheme="folds", **task, repeats=2, seed=0, valid_fraction=0.3)
    options = {"kind": "multiclass", "num_classes": 4, "epochs": 8}
    options["learning_rates"] = [1e-5, 1.0, 0.03]
    before = choose(train_probes(features, task["targets"], problems, **options))
    for fold in range(1, 6):
        spoiled = np.where(task["folds"] == fold, 3 - task["targets"], task["targets"])
        after = choose(train_probes(features, spoiled, problems, **options))
        for a, b in zip(after, before, strict=True):
            if a.fold == fold:
                assert dataclasses.replace(a, score=b.score) == b
                assert a.score < b.score


def test_features_of_other_types_are_computed_with_in_float32() -> None:
    features, labels = clusters()
    options = {"kind": "multiclass", "num_classes": 3, "learning_rate": 0.05, "epochs": 3}
    half = features.half()
    expected = train_one_rate(half.float(), labels, uneven_problems(), **options)
    assert train_one_rate(half, labels, uneven_problems(), **options) == expected
    assert train_one_rate(half.numpy(), labels.numpy(), uneven_problems(), **options) == expected


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU, or MATPAC_TEST_GPU is unset")
def test_on_a_gpu_as_on_the_cpu() -> None:
    features, labels = clusters()
    options = {"kind": "multiclass", "num_classes": 3, "batch_size": 10, "epochs": 5}
    options["learning_rates"] = [0.05, 1e-3]
    cpu = train_probes(features, labels, uneven_problems(), **options)
    gpu = train_probes(features, labels, uneven_problems(), device="cuda", **options)
    for rate in options["learning_rates"]:
        for a, b in zip(cpu[rate], gpu[rate], strict=True):
            assert a.valid_loss == pytest.approx(b.valid_loss, abs=1e-4)


def test_the_benchmark_trains_the_same_probes_both_ways() -> None:
    told = report(clips=120, dim=9, labels=4, folds=3, repeats=2, epochs=3, rates=[1e-2, 1e-3])
    assert told["settings"]["probes"] == 3 * 2 * 2
    figures = told["figures"]
    assert figures["largest_loss_difference"] < 1e-6 and figures["largest_score_difference"] == 0


def test_refuses_nonsense() -> None:
    features, labels = clusters()
    ok = [problem(range(60), range(60, 80), range(80, 100))]

    def train(x: torch.Tensor, y: torch.Tensor, problems: list[Problem], kind: str) -> None:
        train_one_rate(x, y, problems, kind=kind, num_classes=3, learning_rate=0.1, epochs=1)

    with pytest.raises(ValueError, match="kind: got 'regression', allowed: multiclass, multilabel"):
        train(features, labels, ok, "regression")
    with pytest.raises(ValueError, match=r"targets \(100,\), allowed: \(N, D\) and \(100, 3\)"):
        train(features, labels, ok, "multilabel")
    with pytest.raises(ValueError, match="targets: got 7, allowed: 0 to 2"):
        train(features, torch.full((100,), 7), ok, "multiclass")
    with pytest.raises(ValueError, match=r"targets: got 0.5, allowed: 0, 1 and NaN"):
        train(features, torch.full((100, 3), 0.5), ok, "multilabel")
    with pytest.raises(ValueError, match="not finite"):
        train(features / 0, labels, ok, "multiclass")
    with pytest.raises(ValueError, match="an empty part"):
        train(features, labels, [problem(range(60), range(0), range(80, 100))], "multiclass")
    nothing_observed = torch.ones(100, 3)
    nothing_observed[60:80] = NAN
    with pytest.raises(RuntimeError, match=r"validation losses \[nan\], epoch 1"):
        train(features, nothing_observed, ok, "multilabel")


def folds_task(num_folds: int = 5) -> dict[str, np.ndarray]:
    """40 recordings of 3 clips, 4 classes, 5 folds: 8 recordings per fold, 2 of each class."""
    recording = np.repeat(np.arange(40), 3)
    return {
        "splits": np.full(120, ""),
        "folds": recording % num_folds + 1,
        "groups": np.array([f"rec{r:02d}" for r in recording]),
        "targets": (recording // num_folds) % 4,
    }


def test_folds_each_test_once_per_repeat_and_parts_share_no_recording() -> None:
    task = folds_task()
    problems = make_problems(scheme="folds", **task, repeats=3, seed=0)
    assert [(p.repeat, p.fold) for p in problems] == [
        (r, f) for r in (1, 2, 3) for f in range(1, 6)
    ]
    assert len({p.seed for p in problems}) == 15
    drawn = set()
    for p in problems:
        assert set(task["folds"][p.test_idx]) == {p.fold}
        np.testing.assert_array_equal(
            np.sort(np.concatenate([p.train_idx, p.valid_idx, p.test_idx])), np.arange(120)
        )
        parts = [set(task["groups"][idx]) for idx in (p.train_idx, p.valid_idx, p.test_idx)]
        assert not (parts[0] & parts[1] or parts[0] & parts[2] or parts[1] & parts[2])
        assert len(parts[1]) == 3  # a tenth of 32 recordings
        assert len(set(task["targets"][p.valid_idx])) == 3  # of three different classes
        drawn.add(frozenset(parts[1]))
    assert len(drawn) > 10  # every repeat draws another part
    again = make_problems(scheme="folds", **task, repeats=3, seed=0)
    assert all((a.valid_idx == b.valid_idx).all() for a, b in zip(problems, again, strict=True))


def test_official_validation_part_is_used_in_all_repeats() -> None:
    problems = make_problems(
        scheme="tvt",
        splits=["train", "valid", "test", "train", ""],
        folds=[0] * 5,
        groups=list("abcde"),
        targets=np.array([0, 0, 0, 0, -1]),
        repeats=2,
        seed=3,
    )
    assert [(p.fold, p.repeat) for p in problems] == [(0, 1), (0, 2)]
    for p in problems:
        assert (p.train_idx.tolist(), p.valid_idx.tolist(), p.test_idx.tolist()) == (
            [0, 3],
            [1],
            [2],
        )


def test_drawn_validation_follows_masked_labels_and_leaves_every_class_in_training() -> None:
    rng = np.random.default_rng(0)
    targets = (rng.random((400, 5)) < 0.3).astype(float)
    targets[:, 4] = 0.0
    targets[7, 4] = 1.0  # one clip only: must stay in training
    targets[rng.random((400, 5)) < 0.3] = NAN
    targets[7, 4] = 1.0
    splits = np.array(["train"] * 300 + ["test"] * 100)
    problems = make_problems(
        scheme="tvt",
        splits=splits,
        folds=np.zeros(400, dtype=int),
        groups=np.array([f"track{i}" for i in range(400)]),
        targets=targets,
        repeats=4,
        seed=0,
    )
    for p in problems:
        assert len(p.valid_idx) == 30 and 7 in p.train_idx
        positives = np.nansum(targets[:300, :4], axis=0)
        share = np.nansum(targets[p.valid_idx, :4], axis=0) / positives
        # A plain random tenth would spread by about 0.035 per class.
        assert share.max() - share.min() < 0.05


def test_problems_refuse_leaks_and_unusable_tasks() -> None:
    task = folds_task()
    leaking = dict(task, groups=np.array(["same"] * 120))
    with pytest.raises(ValueError, match="got 'same' in folds 1, 2, 3, 4, 5, allowed: one fold"):
        make_problems(scheme="folds", **leaking, repeats=1, seed=0)
    with pytest.raises(ValueError, match="scheme: got 'kfold', allowed: tvt, folds"):
        make_problems(scheme="kfold", **task, repeats=1, seed=0)
    with pytest.raises(ValueError, match="needs training and test clips"):
        make_problems(scheme="tvt", **task, repeats=1, seed=0)
    with pytest.raises(ValueError, match="at least two training groups"):
        make_problems(
            scheme="tvt",
            splits=["train", "train", "test"],
            folds=[0] * 3,
            groups=["a", "b", "c"],
            targets=np.array([0, 1, 0]),
            repeats=1,
            seed=0,
        )
