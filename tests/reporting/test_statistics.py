"""Confidence intervals: worked by hand, against scipy, and the order in which means are taken."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from matpac.reporting.paper import TASKS, Reported
from matpac.reporting.statistics import average, interval, repeat_scores, summary, verdict


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
    assert (row["mean"], row["n"], row["unit"]) == (pytest.approx(0.55), 2, "repeats")
    assert row["ci95"] == pytest.approx(12.706 * 0.05, rel=1e-4)


def test_two_seeds_have_the_spread_of_all_rows_with_several() -> None:
    of_seeds = {"base": [0.4, 0.5, 0.6], "two": [0.40, 0.44], "one": [0.7]}
    scores = pd.concat(
        frame([(name, "a", 0, r, score + 0.01 * r) for r in (-1, 1)]).assign(seed=seed)
        for name, each in of_seeds.items()
        for seed, score in enumerate(each)
    )
    for found in (summary(scores), average(scores, ["a"])):
        rows = found.set_index("encoder")
        # Sums of squares 0.02 and 0.0008, 2 + 1 degrees of freedom, of which t is 3.182.
        pooled = math.sqrt(0.0208 / 3)
        assert rows.loc["two", "ci95"] == pytest.approx(3.182 * pooled / math.sqrt(2), rel=1e-3)
        assert rows.loc["base", "ci95"] == pytest.approx(4.303 * 0.1 / math.sqrt(3), rel=1e-3)
        assert rows.loc["one", "unit"] == "repeats" and rows.loc["one", "freedom"] == 1
        assert rows["freedom"].to_list() == [2, 3, 1]
    # Alone there is nothing to pool with.
    (alone,) = average(scores[scores["encoder"] == "two"], ["a"])["ci95"]
    assert alone == pytest.approx(12.706 * 0.02, rel=1e-3)


def test_average_is_taken_within_each_repeat() -> None:
    # Two tasks that move against each other: the average does not move at all.
    scores = frame(
        [("base", "a", 0, r, 0.5 + 0.1 * r) for r in range(3)]
        + [("base", "b", 0, r, 0.5 - 0.1 * r) for r in range(3)]
    )
    row = average(scores, ["a", "b"]).iloc[0]
    assert (row["mean"], row["ci95"]) == (pytest.approx(0.5), pytest.approx(0.0))
    assert (summary(scores)["ci95"] > 0.2).all()


def seeded(*scores: tuple[float, ...]) -> pd.DataFrame:
    """Scores of a task: one tuple of repeats for each seed."""
    rows = [
        ("base", "a", 0, r, score, s) for s, of in enumerate(scores) for r, score in enumerate(of)
    ]
    return pd.DataFrame(rows, columns=["encoder", "task", "fold", "repeat", "score", "seed"])


def test_the_unit_is_the_seed_where_there_are_several() -> None:
    row = summary(seeded((0.4, 0.5), (0.6, 0.7))).iloc[0]
    assert (row["mean"], row["n"], row["unit"]) == (pytest.approx(0.55), 2, "seeds")
    assert row["ci95"] == pytest.approx(12.706 * 0.1, rel=1e-4)  # of 0.45 and 0.65
    assert row["seeds"] == pytest.approx((0.45, 0.65))
    one = summary(seeded((0.4, 0.5))).iloc[0]
    assert (one["n"], one["unit"]) == (2, "repeats")
    assert one["ci95"] == pytest.approx(12.706 * 0.05, rel=1e-4)


@pytest.mark.parametrize(
    ("mean", "ci95", "n", "reported", "expected"),
    [
        (0.853, 0.002, 5, Reported(85.3, 0.1), "equivalent"),
        # Away from 0 beyond doubt, and within a point beyond doubt.
        (0.858, 0.002, 5, Reported(85.3, 0.1), "equivalent"),
        (0.868, 0.002, 5, Reported(85.3, 0.1), "different"),
        (0.853, 0.020, 3, Reported(85.3, 0.1), "open"),  # as near, but nobody knows
        (0.853, 0.002, 5, Reported(85.3, 2.0), "open"),
        (0.853, 0.0, 5, Reported(85.3, 0.0), "equivalent"),  # 0.0 is below 0.05, not nothing
        (0.853, float("nan"), 1, Reported(85.3, 0.1), ""),
        (0.853, 0.002, 5, Reported(85.3), ""),
    ],
)
def test_is_it_the_papers_score(
    mean: float, ci95: float, n: int, reported: Reported, expected: str
) -> None:
    assert (
        verdict(pd.Series({"mean": mean, "ci95": ci95, "n": n, "freedom": n - 1}), reported)
        == expected
    )


def test_equivalence_is_two_one_sided_welch_tests() -> None:
    """Against statsmodels on values that have these means and intervals."""
    from statsmodels.stats.weightstats import CompareMeans, DescrStatsW

    spread = np.array([-2.0, -1.0, 0.0, 1.0, 2.0]) / np.sqrt(2.5)  # standard deviation 1
    half = 2.7764 / np.sqrt(5)
    found = set()
    for apart in np.linspace(0.0, 1.5, 31):
        ours, theirs = 85.3 + apart + 0.6 * spread, 85.3 + 0.3 * spread
        both = CompareMeans(DescrStatsW(ours), DescrStatsW(theirs))
        tost = both.ttost_ind(-1.0, 1.0, usevar="unequal")[0]
        welch = both.ttest_ind(usevar="unequal")[1]
        expected = "equivalent" if tost < 0.05 else "different" if welch < 0.05 else "open"
        row = pd.Series({"mean": ours.mean() / 100, "ci95": 0.6 * half / 100, "n": 5})
        row["freedom"] = 4
        assert verdict(row, Reported(85.3, 0.3 * half)) == expected
        found.add(expected)
    assert found == {"equivalent", "open", "different"}


def test_order_of_rows_is_irrelevant_and_order_of_encoders_kept() -> None:
    scores = pd.concat([seven_tasks("zeta"), seven_tasks("alpha")])
    assert average(scores, TASKS)["encoder"].tolist() == ["zeta", "alpha"]
    shuffled = scores[scores["encoder"] == "zeta"].sample(frac=1, random_state=0)
    pd.testing.assert_frame_equal(average(shuffled, TASKS), average(seven_tasks("zeta"), TASKS))


def test_refuses_gaps() -> None:
    scores = seven_tasks()
    with pytest.raises(ValueError, match="encoder base has no score on mtt, us8k"):
        average(scores[~scores["task"].isin(["mtt", "us8k"])], TASKS)
    short = scores[(scores["task"] != "mtt") | (scores["repeat"] < 3)]
    with pytest.raises(ValueError, match="openmic 3, nsynth 3, gtzan 3, mtt 2, fsd50k 3"):
        average(short, TASKS)
    folds = frame([("base", "a", 1, 1, 0.1), ("base", "a", 2, 1, 0.1), ("base", "a", 1, 2, 0.1)])
    with pytest.raises(ValueError, match="base on a has 3 rows, needed: 4"):
        summary(folds)
    with pytest.raises(ValueError, match="two rows for encoder base, task openmic, seed 0, fold 0"):
        summary(pd.concat([scores, scores.head(1)]))
    with pytest.raises(ValueError, match="missing columns fold, score"):
        summary(scores.drop(columns=["fold", "score"]))
    with pytest.raises(ValueError, match="no score for base on openmic"):
        summary(scores.assign(score=[float("nan")] + [0.5] * (len(scores) - 1)))
