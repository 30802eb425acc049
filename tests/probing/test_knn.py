"""k nearest neighbours and prototypes: against plain loops, and what chooses."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from matpac.probing import knn
from matpac.probing.fewshot import DRAWS, SHOTS, few_shot
from matpac.probing.knn import NEIGHBOURS, TEMPERATURE
from matpac.probing.metrics import score
from matpac.probing.splits import Split
from matpac.probing.task import Task

from probes import NAN, ONE, clusters, split, uneven_splits


def unit(features: np.ndarray, one: Split) -> np.ndarray:
    """Standardised by the training part, of unit length."""
    features = features.astype(np.float64)
    mean, std = features[one.train].mean(axis=0), features[one.train].std(axis=0)
    varies = std > 1e-6 * np.abs(mean)
    scaled = np.where(varies, (features - mean) / np.where(varies, std, 1), 0)
    return scaled / np.linalg.norm(scaled, axis=1, keepdims=True)


def unobserved(labels: torch.Tensor) -> torch.Tensor:
    """Two labels per clip at times, a quarter of the cells not observed."""
    targets = F.one_hot(labels, 3).float()
    generator = torch.Generator().manual_seed(1)
    targets[torch.rand(100, 3, generator=generator) < 0.2] = 1
    targets[torch.rand(100, 3, generator=generator) < 0.25] = NAN
    return targets


def voted(points: np.ndarray, targets: np.ndarray, train: np.ndarray, clip: int, k: int) -> list:
    """A clip's score for each label, by its definition."""
    cosines = points[train] @ points[clip]
    nearest = np.argsort(-cosines)[:k]
    scores = []
    for wanted in targets[train][nearest].T:
        seen = ~np.isnan(wanted)
        weights = np.exp(cosines[nearest][seen] / TEMPERATURE)
        scores.append((weights * wanted[seen]).sum() / weights.sum() if seen.any() else 0.0)
    return scores


@pytest.mark.parametrize("multilabel", [False, True])
def test_neighbours_vote_as_in_a_plain_loop(multilabel: bool, monkeypatch) -> None:
    monkeypatch.setattr("matpac.probing.task.ROWS_AT_ONCE", 16)  # several windows
    features, labels = clusters()
    targets = unobserved(labels) if multilabel else labels
    wanted = (targets if multilabel else F.one_hot(labels, 3)).numpy().astype(float)
    rows = knn.knn(Task(features, targets, uneven_splits(), num_classes=3))
    assert len(rows) == 3
    for row, one in zip(rows, uneven_splits(), strict=True):
        points = unit(features.numpy(), one)
        reached = {
            k: [
                score(
                    np.array([voted(points, wanted, one.train, clip, k) for clip in part]),
                    targets.numpy()[part],
                )
                for part in (one.valid, one.test)
            ]
            for k in NEIGHBOURS
        }
        best = max(NEIGHBOURS, key=lambda k: (reached[k][0][0], -k))  # validation; the smaller k
        assert (row["fold"], row["repeat"], row["setting"]) == (one.fold, one.repeat, best)
        # A mean of some 20 clips' correctness or precision; votes are apart by more than rounding.
        assert row["valid_score"] == pytest.approx(reached[best][0][0], abs=1e-6)
        assert row["score"] == pytest.approx(reached[best][1][0], abs=1e-6)


def test_the_test_part_does_not_choose_k() -> None:
    features, labels = clusters()
    (before,) = knn.knn(Task(features, labels, ONE, num_classes=3))
    spoiled = labels.clone()
    spoiled[80:] = (spoiled[80:] + 1) % 3
    (after,) = knn.knn(Task(features, spoiled, ONE, num_classes=3))
    assert after["score"] < before["score"]
    assert after | {"score": before["score"]} == before


def test_repeats_that_train_on_the_same_clips_count_once() -> None:
    features, labels = clusters()
    one = ONE[0]
    again = Split(one.train, one.valid, one.test, 1, 0, 2)
    assert len(knn.knn(Task(features, labels, [one, again], num_classes=3))) == 1


@pytest.mark.parametrize("multilabel", [False, True])
def test_prototypes_are_those_of_a_plain_loop(multilabel: bool) -> None:
    features, labels = clusters()
    targets = unobserved(labels) if multilabel else labels
    wanted = (targets if multilabel else F.one_hot(labels, 3)).numpy().astype(float)
    rows = few_shot(Task(features, targets, uneven_splits(), num_classes=3), seed=5)
    assert [(row["fold"], row["repeat"]) for row in rows] == [
        (fold, draw) for fold in (1, 2, 3) for draw in range(1, DRAWS + 1)
    ]
    for row in rows:
        one = uneven_splits()[row["fold"] - 1]
        points = unit(features.numpy(), one)
        rng = np.random.default_rng([5, row["repeat"], row["fold"]])
        drawn = set()
        for label in range(3):
            having = [clip for clip in one.train if wanted[clip, label] == 1]
            drawn |= set(rng.permutation(having)[:SHOTS])
        drawn = np.array(sorted(drawn))
        prototypes = [
            points[drawn[column == 1]].mean(axis=0) - points[drawn[column == 0]].mean(axis=0)
            for column in wanted[drawn].T
        ]
        found = score(points[one.test] @ np.array(prototypes).T, targets.numpy()[one.test])
        assert (row["score"], row["num_classes_scored"]) == pytest.approx(found, abs=1e-6)
        assert row["setting"] == SHOTS and np.isnan(row["valid_score"])
    assert len({row["score"] for row in rows if row["fold"] == 1}) > 1, "draws differ"


def test_draws_take_their_seed_and_nothing_of_the_test_part() -> None:
    features, labels = clusters()
    task = Task(features, labels, ONE, num_classes=3)
    scores = [[row["score"] for row in few_shot(task, seed=seed)] for seed in (0, 0, 1)]
    assert scores[0] == scores[1] != scores[2]


def test_a_label_that_no_training_clip_has_is_never_predicted() -> None:
    """Class 2 is in the test part only: its clips are wrong, the others as without it."""
    labels = torch.arange(100) % 2
    noise = torch.randn(100, 3, generator=torch.Generator().manual_seed(0))
    features = F.one_hot(labels, 3) + 0.05 * noise
    labels[90:] = 2
    task = Task(features, labels, [split(range(60), range(60, 80), range(80, 100))], num_classes=3)
    assert {row["score"] for row in few_shot(task, seed=0)} == {0.5}
    assert {row["score"] for row in knn.knn(task)} == {0.5}
