"""Confidence intervals: worked by hand, against scipy, and the order in which means are taken."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from matpac.reporting.statistics import (
    ENVIRONMENT,
    GROUPS,
    MUSIC,
    TASKS,
    average,
    interval,
    repeat_scores,
    summary,
)


def frame(rows: list[tuple[str, str, int, int, float]]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["encoder", "task", "fold", "repeat", "score"])


def seven_tasks(encoder: str = "base", repeats: int = 3) -> pd.DataFrame:
    return frame(
        [
            (encoder, task, 0, r, 0.1 * i + 0.01 * r * (i + 1))
            for i, task in enumerate(TASKS)
            for r in range(1, repeats + 1)
        ]
    )


def test_interval_by_hand() -> None:
    # s = 1, n = 5, and the tabulated t(0.975, 4 degrees of freedom) = 2.776.
    values = np.array([-1.0, -1.0, 0.0, 1.0, 1.0])
    assert interval(values) == pytest.approx(2.776 / math.sqrt(5), abs=2e-4)
    low, high = stats.t.interval(0.95, 4, loc=0.0, scale=stats.sem(values))
    assert interval(values) == pytest.approx((high - low) / 2)
    assert math.isnan(interval([0.5]))


def test_folds_are_averaged_within_a_repeat_before_the_interval() -> None:
    scores = frame(
        [
            ("base", "esc50", 1, 1, 0.2),
            ("base", "esc50", 2, 1, 0.8),
            ("base", "esc50", 1, 2, 0.4),
            ("base", "esc50", 2, 2, 0.8),
        ]
    )
    assert repeat_scores(scores)["score"].tolist() == pytest.approx([0.5, 0.6])
    row = summary(scores).iloc[0]
    # Repeats 0.5 and 0.6; t(0.975, 1) = 12.706. Over the four folds it would be another number.
    assert (row["mean"], row["n"], row["num_seeds"]) == (pytest.approx(0.55), 2, 1)
    assert row["ci95"] == pytest.approx(12.706 * 0.05, rel=1e-4)
    assert math.isnan(row["seed_std"])


def test_average_is_taken_within_each_repeat() -> None:
    # Two tasks that move against each other: the average does not move at all.
    scores = frame(
        [("base", "a", 0, r, 0.5 + 0.1 * r) for r in range(3)]
        + [("base", "b", 0, r, 0.5 - 0.1 * r) for r in range(3)]
    )
    row = average(scores, ["a", "b"]).iloc[0]
    assert (row["mean"], row["ci95"]) == (pytest.approx(0.5), pytest.approx(0.0))
    assert (summary(scores)["ci95"] > 0.2).all()


def test_groups_of_table_three() -> None:
    assert MUSIC == ("openmic", "nsynth", "gtzan", "mtt")
    assert ENVIRONMENT == ("fsd50k", "esc50", "us8k")
    means = {name: average(seven_tasks(), tasks)["mean"].item() for name, tasks in GROUPS.items()}
    # Task i scores 0.1 i + 0.02 (i + 1) on average: 0.12 i + 0.02.
    assert means["Music"] == pytest.approx(0.12 * 1.5 + 0.02)
    assert means["Environment"] == pytest.approx(0.12 * 5 + 0.02)
    assert means["All"] == pytest.approx(0.12 * 3 + 0.02)
    assert list(means) == ["Music", "Environment", "All"]


def test_one_repeat_has_no_interval() -> None:
    one = seven_tasks(repeats=1)
    assert summary(one)["ci95"].isna().all()
    assert average(one)["ci95"].isna().all() and (average(one)["n"] == 1).all()


def test_seeds_are_averaged_within_a_repeat_and_their_spread_reported_apart() -> None:
    first = frame([("base", "a", 0, 1, 0.4), ("base", "a", 0, 2, 0.5)]).assign(seed=1)
    second = frame([("base", "a", 0, 1, 0.6), ("base", "a", 0, 2, 0.7)]).assign(seed=2)
    row = summary(pd.concat([first, second])).iloc[0]
    assert (row["mean"], row["n"], row["num_seeds"]) == (pytest.approx(0.55), 2, 2)
    assert row["ci95"] == pytest.approx(12.706 * 0.05, rel=1e-4)  # of 0.5 and 0.6
    assert row["seed_std"] == pytest.approx(0.2 / math.sqrt(2))  # of 0.45 and 0.65


def test_order_of_rows_is_irrelevant_and_order_of_encoders_kept() -> None:
    scores = pd.concat([seven_tasks("zeta"), seven_tasks("alpha")])
    assert average(scores)["encoder"].tolist() == ["zeta", "alpha"]
    shuffled = scores[scores["encoder"] == "zeta"].sample(frac=1, random_state=0)
    pd.testing.assert_frame_equal(average(shuffled), average(seven_tasks("zeta")))


def test_refuses_gaps() -> None:
    scores = seven_tasks()
    with pytest.raises(ValueError, match="encoder base has no score on mtt, us8k"):
        average(scores[~scores["task"].isin(["mtt", "us8k"])])
    short = scores[(scores["task"] != "mtt") | (scores["repeat"] < 3)]
    with pytest.raises(ValueError, match="openmic 3, nsynth 3, gtzan 3, mtt 2, fsd50k 3"):
        average(short)
    folds = frame([("base", "a", 1, 1, 0.1), ("base", "a", 2, 1, 0.1), ("base", "a", 1, 2, 0.1)])
    with pytest.raises(ValueError, match="base on a has 3 rows, needed: 4"):
        summary(folds)
    with pytest.raises(ValueError, match="two rows for encoder base, task openmic, seed 0, fold 0"):
        summary(pd.concat([scores, scores.head(1)]))
    with pytest.raises(ValueError, match="missing columns fold, score"):
        summary(scores.drop(columns=["fold", "score"]))
    with pytest.raises(ValueError, match="no score for base on openmic"):
        summary(scores.assign(score=[float("nan")] + [0.5] * (len(scores) - 1)))
