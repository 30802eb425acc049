"""From scores of single probes to means with confidence intervals (MATPAC Sec. IV-A).

The paper repeats each downstream experiment five times and reports averages with a 95 % interval.
Here one repeat is the unit: a k-fold task's score is the mean over its folds, an average over tasks
is taken within the repeat, and the interval is Student's t over the repeats (n - 1 degrees of
freedom). It therefore covers what repeats vary (the probe's initial weights, the order of its
batches, a drawn validation part), not another pretraining. Where a run was pretrained with several
seeds, each repeat is first averaged over them, and their spread stands in columns of its own.

Scores are a tidy frame: one row per (encoder, task, fold, repeat) and, optionally, pretraining
``seed``; ``score`` in [0, 1].
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

MUSIC = ("openmic", "nsynth", "gtzan", "mtt")
ENVIRONMENT = ("fsd50k", "esc50", "us8k")
TASKS = (*MUSIC, *ENVIRONMENT)  # the columns of Table II, in its order
GROUPS = {"Music": MUSIC, "Environment": ENVIRONMENT, "All": TASKS}  # the rows of Table III

CONFIDENCE = 0.95
KEY = ["encoder", "task", "seed", "fold", "repeat"]


def interval(values: Sequence[float] | np.ndarray) -> float:
    """Half width of the 95 % Student-t interval of a mean; NaN for a single value.

    For five values with sample standard deviation s: 2.776 s / sqrt(5).
    """
    from scipy.stats import t

    n = len(values)
    if n < 2:
        return float("nan")
    return float(t.ppf((1 + CONFIDENCE) / 2, n - 1) * np.std(values, ddof=1) / np.sqrt(n))


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

    Returns: columns ``encoder, task, mean, ci95, n`` (repeats) and ``num_seeds, seed_std`` (sample
        standard deviation of the seeds' means, NaN for one seed), scores in [0, 1].
    Raises: ValueError as ``repeat_scores``.
    """
    units = repeat_scores(scores)
    return pd.DataFrame(
        {"encoder": encoder, "task": task, **_describe(part)}
        for (encoder, task), part in units.groupby(["encoder", "task"], sort=False)
    )


def average(scores: pd.DataFrame, tasks: Sequence[str] = TASKS) -> pd.DataFrame:
    """Mean and interval per encoder of the unweighted mean over tasks, taken within each repeat.

    Returns: columns ``encoder, mean, ci95, n, num_seeds, seed_std``.
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
    return pd.DataFrame(rows)


def _describe(units: pd.DataFrame) -> dict[str, float | int]:
    """Statistics of the scores of one cell of a table: columns ``seed``, ``repeat``, ``score``."""
    repeats = units.groupby("repeat")["score"].mean()
    seeds = units.groupby("seed")["score"].mean()
    return {
        "mean": float(repeats.mean()),
        "ci95": interval(repeats.to_numpy()),
        "n": len(repeats),
        "num_seeds": len(seeds),
        "seed_std": float(seeds.std(ddof=1)),
    }
