"""Which clips train, choose and test: folds, official parts, drawn validation parts."""

import numpy as np
import pytest

from matpac.probing.splits import make_splits

from probes import NAN, folds_task


def test_folds_each_test_once_per_repeat_and_parts_share_no_recording() -> None:
    task = folds_task()
    made = make_splits(scheme="folds", **task, repeats=3, seed=0)
    assert [(p.repeat, p.fold) for p in made] == [(r, f) for r in (1, 2, 3) for f in range(1, 6)]
    assert len({p.seed for p in made}) == 15
    drawn = set()
    for p in made:
        assert set(task["folds"][p.test]) == {p.fold}
        np.testing.assert_array_equal(
            np.sort(np.concatenate([p.train, p.valid, p.test])), np.arange(120)
        )
        parts = [set(task["groups"][idx]) for idx in (p.train, p.valid, p.test)]
        assert not (parts[0] & parts[1] or parts[0] & parts[2] or parts[1] & parts[2])
        assert len(parts[1]) == 3  # a tenth of 32 recordings
        assert len(set(task["targets"][p.valid])) == 3  # of three different classes
        drawn.add(frozenset(parts[1]))
    assert len(drawn) > 10  # every repeat draws another part
    again = make_splits(scheme="folds", **task, repeats=3, seed=0)
    assert all((a.valid == b.valid).all() for a, b in zip(made, again, strict=True))


def test_official_validation_part_is_used_in_all_repeats() -> None:
    made = make_splits(
        scheme="tvt",
        splits=["train", "valid", "test", "train", ""],
        folds=[0] * 5,
        groups=list("abcde"),
        targets=np.array([0, 0, 0, 0, -1]),
        repeats=2,
        seed=3,
    )
    assert [(p.fold, p.repeat) for p in made] == [(0, 1), (0, 2)]
    for p in made:
        assert [part.tolist() for part in (p.train, p.valid, p.test)] == [[0, 3], [1], [2]]


def test_drawn_validation_follows_masked_labels_and_leaves_every_class_in_training() -> None:
    rng = np.random.default_rng(0)
    targets = (rng.random((400, 5)) < 0.3).astype(float)
    targets[:, 4] = 0.0
    targets[7, 4] = 1.0  # one clip only: must stay in training
    targets[rng.random((400, 5)) < 0.3] = NAN
    targets[7, 4] = 1.0
    splits = np.array(["train"] * 300 + ["test"] * 100)
    made = make_splits(
        scheme="tvt",
        splits=splits,
        folds=np.zeros(400, dtype=int),
        groups=np.array([f"track{i}" for i in range(400)]),
        targets=targets,
        repeats=4,
        seed=0,
    )
    for p in made:
        assert len(p.valid) == 30 and 7 in p.train
        positives = np.nansum(targets[:300, :4], axis=0)
        share = np.nansum(targets[p.valid, :4], axis=0) / positives
        # A plain random tenth would spread by about 0.035 per class.
        assert share.max() - share.min() < 0.05


def test_it_refuses_leaks_and_unusable_tasks() -> None:
    task = folds_task()
    three = {"splits": ["train", "train", "test"], "folds": [0] * 3, "groups": ["a", "b", "c"]}
    for scheme, changes, match in (
        ("folds", {"groups": np.array(["same"] * 120)}, "got 'same' in folds 1, 2, 3, 4, 5, al"),
        ("kfold", {}, "scheme: got 'kfold', allowed: tvt, folds"),
        ("tvt", {}, "needs training and test clips"),
        ("tvt", three | {"targets": np.array([0, 1, 0])}, "at least two training groups"),
    ):
        with pytest.raises(ValueError, match=match):
            make_splits(scheme=scheme, **task | changes, repeats=1, seed=0)
