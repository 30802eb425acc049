"""From scores of single probes to means with confidence intervals (MATPAC Sec. IV-A).

The unit is the pretraining seed. Where a run has several, the probe's repeats are averaged within
each, and the interval is Student's t over the seeds: it covers another pretraining. With one seed
it is over the repeats, as in the paper, and covers what they vary (the probe's initial weights, the
order of its batches, a drawn validation part). Two seeds say little of their spread (Student's t is
12.7), so rows with two have that of all rows with several, pooled. A k-fold task's score is the
mean over its folds; an average over tasks is taken within the unit.

Scores are a tidy frame: one row per (encoder, task, fold, repeat) and, optionally, pretraining
``seed``; ``score`` in [0, 1].
"""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from matpac.reporting.paper import Reported

CONFIDENCE = 0.95
MARGIN = 0.01  # of what counts as the same score as the paper's
PAPERS_REPEATS = 5
ROUNDED = 0.0005  # half of the paper's last digit
FEWEST_SEEDS = 3  # that are judged by their own spread
KEY = ["encoder", "task", "seed", "fold", "repeat"]


def interval(values: Sequence[float] | np.ndarray | pd.Series) -> float:
    """Half width of the 95 % Student-t interval of a mean; NaN for a single value.

    For five values with sample standard deviation s: 2.776 s / sqrt(5).
    """
    from scipy.stats import sem

    n = len(values)
    return float(quantile(n - 1) * sem(values)) if n > 1 else float("nan")


def quantile(freedom: float) -> float:
    """Of Student's t with so many degrees of freedom: half widths in standard errors."""
    from scipy.stats import t

    return float(t.ppf((1 + CONFIDENCE) / 2, freedom))


def repeat_scores(scores: pd.DataFrame) -> pd.DataFrame:
    """One score per (encoder, task, seed, repeat): the unweighted mean over folds.

    Raises: ValueError if columns are missing, a score is missing, a row occurs twice, or the
        folds, repeats or seeds of an encoder are not the same throughout.
    """
    missing = {"encoder", "task", "fold", "repeat", "score"} - set(scores.columns)
    if missing:
        raise ValueError(f"scores: missing columns {', '.join(sorted(missing))}")
    scores = scores.assign(seed=scores.get("seed", 0))
    if scores["score"].isna().any():
        row = scores[scores["score"].isna()].iloc[0]
        raise ValueError(f"scores: no score for {row['encoder']} on {row['task']}")
    if scores.duplicated(KEY).any():
        row = scores[scores.duplicated(KEY)].iloc[0]
        where = ", ".join(f"{name} {row[name]}" for name in KEY)
        raise ValueError(f"scores: two rows for {where}")
    for (encoder, task), part in scores.groupby(["encoder", "task"], sort=False):
        cells = part["seed"].nunique() * part["fold"].nunique() * part["repeat"].nunique()
        if cells != len(part):
            raise ValueError(
                f"scores: {encoder} on {task} has {len(part)} rows, needed: {cells}, one for "
                "each seed, fold and repeat"
            )
    unit = ["encoder", "task", "seed", "repeat"]
    return scores.groupby(unit, sort=False)["score"].mean().reset_index()


def summary(scores: pd.DataFrame) -> pd.DataFrame:
    """Mean and interval per (encoder, task), in order of appearance.

    Returns: columns ``encoder, task, mean, ci95``, ``unit`` ("seeds" or "repeats"), ``n`` of them,
        ``freedom`` (degrees of it, of the standard deviation), and ``seeds``, the mean of each
        pretraining seed; scores in [0, 1].
    Raises: ValueError as ``repeat_scores``.
    """
    units = repeat_scores(scores)
    rows = pd.DataFrame(
        {"encoder": encoder, "task": task, **_describe(part)}
        for (encoder, task), part in units.groupby(["encoder", "task"], sort=False)
    )
    return _pooled(rows, rows["task"])


def average(scores: pd.DataFrame, tasks: Sequence[str]) -> pd.DataFrame:
    """Mean and interval per encoder of the unweighted mean over tasks, taken within each unit.

    Returns: columns as of ``summary``, without ``task``.
    Raises: ValueError as ``repeat_scores``, and if an encoder lacks a task or its tasks were not
        repeated equally often.
    """
    units = repeat_scores(scores)
    rows = []
    for encoder, part in units.groupby("encoder", sort=False):
        lacking = [task for task in tasks if task not in set(part["task"])]
        if lacking:
            raise ValueError(f"scores: encoder {encoder} has no score on {', '.join(lacking)}")
        part = part[part["task"].isin(tasks)]
        per_unit = part.groupby(["seed", "repeat"])["score"].agg(["mean", "size"])
        if (per_unit["size"] != len(tasks)).any():
            counts = part.groupby("task", sort=False)["repeat"].nunique()
            found = ", ".join(f"{task} {count}" for task, count in counts.items())
            raise ValueError(
                f"scores: encoder {encoder} needs the same repeats and seeds on every task, got "
                f"repeats: {found}"
            )
        per_unit = per_unit["mean"].rename("score").reset_index()
        rows.append({"encoder": encoder, **_describe(per_unit)})
    found = pd.DataFrame(rows)
    return _pooled(found, np.zeros(len(found)))


def _describe(units: pd.DataFrame) -> dict[str, object]:
    """Statistics of the scores of one cell of a table: columns ``seed``, ``repeat``, ``score``."""
    seeds = units.groupby("seed")["score"].mean()
    several = len(seeds) > 1
    values = seeds if several else units["score"]
    return {
        "mean": float(values.mean()),
        "ci95": interval(values),
        "unit": "seeds" if several else "repeats",
        "n": len(values),
        "freedom": len(values) - 1,
        "seeds": tuple(seeds),
    }


def _pooled(rows: pd.DataFrame, by: Sequence[object] | np.ndarray | pd.Series) -> pd.DataFrame:
    """Gives rows of few seeds the spread of all rows with several, as an analysis of variance does.

    Args: by: what has a spread of its own, such as the task, of each row.
    """
    several = rows[rows["unit"] == "seeds"]
    for _, part in several.groupby(np.asarray(by)[several.index]):
        squares = part["seeds"].map(lambda seeds: float(np.square(seeds - np.mean(seeds)).sum()))
        freedom = int(part["freedom"].sum())
        few = part.index[part["n"] < FEWEST_SEEDS]
        error = math.sqrt(squares.sum() / freedom) / np.sqrt(rows.loc[few, "n"])
        rows.loc[few, "ci95"] = quantile(freedom) * error
        rows.loc[few, "freedom"] = freedom
    return rows


def verdict(measured: pd.Series, reported: Reported) -> str:
    """Is a measured score the paper's? Welch's t-test and two one-sided ones against the margin.

    Args:
        measured: a row of `summary`, in [0, 1].
        reported: in percent, of the paper's five repeats.
    Returns: "equivalent" if the difference lies within the margin of one point (TOST, 5 %); else
        "different" if it is not 0 (5 %); else "open"; "" where an interval is missing.
    """
    from scipy.stats import ttest_ind_from_stats

    if measured["n"] < 2 or reported.ci95 is None:
        return ""
    # What reads 0.0 may be just below 0.05.
    half = max(reported.ci95 / 100, ROUNDED)
    paper = reported.mean / 100, _deviation(half, PAPERS_REPEATS), PAPERS_REPEATS
    n = measured["n"]
    deviation = _deviation(measured["ci95"], n, measured["freedom"])

    def p_value(shift: float, side: str) -> float:
        ours = measured["mean"] + shift, deviation, n
        return ttest_ind_from_stats(*ours, *paper, equal_var=False, alternative=side).pvalue

    level = 1 - CONFIDENCE
    if max(p_value(MARGIN, "greater"), p_value(-MARGIN, "less")) < level:
        return "equivalent"
    return "different" if p_value(0.0, "two-sided") < level else "open"


def _deviation(half_width: float, n: int, freedom: int | None = None) -> float:
    """Standard deviation of n values whose mean has this interval. Args: freedom: None: n - 1."""
    return half_width * math.sqrt(n) / quantile(freedom or n - 1)
