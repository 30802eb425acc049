"""Is one row better than another? Paired by pretraining seed and by test clip.

The difference of two rows varies for two reasons: another pretraining (with one seed: another
repeat of the probe) and other test recordings. How much each clip changes a score is known, so that
what a bootstrap over recordings and seeds would draw is had in closed form, as in an analysis of
variance of the two: nothing is drawn, and a few seeds are judged by Student's t. (Drawing three or
five seeds with replacement gives intervals that are too narrow: docs/tables.md.) Two seeds say
little of their spread, so rows with two share what neither row nor seed explains of all such rows.
Tests of one row on several tasks are adjusted by Holm's method.

Shapes: N test clips, C labels, P clips with a label, R recordings, U seeds or repeats.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np
import pandas as pd

from matpac.reporting.statistics import CONFIDENCE, FEWEST_SEEDS, quantile, repeat_scores

AVERAGE = "average"


class Difference(NamedTuple):
    """Of two scores in [0, 1]: half width of its 95 % interval, and p of its being 0."""

    value: float
    ci95: float
    p: float

    @property
    def significant(self) -> bool:
        """At 5 %."""
        return self.p < 1 - CONFIDENCE


@dataclass(frozen=True)
class Comparisons:
    """Rows on the same test clips.

    Attributes:
        scores: tidy scores, see `matpac.reporting.statistics`.
        predictions: of the encoders, a row per (seed, task, fold, repeat, clip): ``group`` is the
            clip's recording; multi-class tasks have ``label`` and ``predicted``, multi-label ones
            ``labels`` (1, 0, NaN: not observed) and ``scores``, both (C,).
        kinds: "multiclass" or "multilabel" by task.
        fixed: encoders that were not trained here. One with a single set of weights stands beside
            every seed of another row.
    """

    scores: pd.DataFrame
    predictions: Mapping[str, pd.DataFrame]
    kinds: Mapping[str, str]
    fixed: frozenset[str] = frozenset()
    _changes: dict[tuple[str, str], pd.DataFrame] = field(default_factory=dict)

    def difference(self, encoder: str, other: str, tasks: Sequence[str]) -> Difference | None:
        """First minus second on the mean over tasks; None without a common seed.

        Raises: ValueError if the two were not tested on the same clips.
        """
        own, theirs = (self._repeats(name, tasks) for name in (encoder, other))
        if encoder in self.fixed and len(own) == 1:
            own = _repeated(own, theirs.index)
        if other in self.fixed and len(theirs) == 1:
            theirs = _repeated(theirs, own.index)
        apart = (own - theirs).dropna(how="all")
        if apart.empty:
            return None
        several = len(apart) > 1
        changes = [self._apart(encoder, other, task, apart.index) for task in tasks]
        changes = pd.concat([of_task / len(tasks) for of_task in changes])
        if several:
            pair = encoder, other
            spread = self._shared(pair, apart.index, tasks) if len(apart) < FEWEST_SEEDS else None
            return crossed(apart.mean(axis=1), changes.T.groupby("seed").mean().T, spread)
        return crossed(apart.iloc[0], changes)

    def by_task(self, encoder: str, other: Mapping[str, str]) -> dict[str, Difference]:
        """First minus ``other`` on each task, p adjusted by Holm's method over the tasks.

        Args: other: by task, what it is compared with there.
        """
        from statsmodels.stats.multitest import multipletests

        every = {task: self.difference(encoder, name, [task]) for task, name in other.items()}
        found = {task: cell for task, cell in every.items() if cell}
        if not found:
            return {}
        adjusted = multipletests([cell.p for cell in found.values()], method="holm")[1]
        pairs = zip(found.items(), adjusted, strict=True)
        return {task: cell._replace(p=float(p)) for (task, cell), p in pairs}

    @cached_property
    def _of_repeats(self) -> pd.DataFrame:
        return repeat_scores(self.scores)

    def _repeats(self, encoder: str, tasks: Sequence[str]) -> pd.DataFrame:
        """Mean over tasks by seed (rows) and repeat."""
        scores = self._of_repeats
        own = scores[(scores["encoder"] == encoder) & scores["task"].isin(tasks)]
        return own.pivot_table(index="seed", columns="repeat", values="score", aggfunc="mean")

    def _shared(
        self, pair: Sequence[str], seeds: pd.Index, tasks: Sequence[str]
    ) -> tuple[float, int]:
        """Variance of the difference of two rows with one seed each, and its degrees of freedom.

        Of the pair and all rows of few seeds, as the residual of a two-way analysis, row and seed:
        what a seed does to all rows, such as its initial weights, is in no difference. Beside a
        single set of weights nothing cancels: there it is the variance between the seeds of a row.
        """
        of_rows = {name: self._repeats(name, tasks).mean(axis=1) for name in self.predictions}
        if any(len(of_rows[name]) == 1 for name in pair):
            between = [each - each.mean() for each in of_rows.values() if len(each) > 1]
            freedom = sum(len(each) - 1 for each in between)
            return sum((each**2).sum() for each in between) / freedom, freedom
        few = [name for name, each in of_rows.items() if len(each) < FEWEST_SEEDS or name in pair]
        table = pd.DataFrame({name: of_rows[name].reindex(seeds) for name in few}).dropna(axis=1)
        residual = table - table.mean()
        residual = residual.sub(residual.mean(axis=1), axis=0)
        freedom = (table.shape[0] - 1) * (table.shape[1] - 1)
        return 2 * (residual**2).sum().sum() / freedom, freedom

    def _apart(self, encoder: str, other: str, task: str, seeds: pd.Index) -> pd.DataFrame:
        """What each recording of a task adds to the difference: (R, seeds and repeats)."""
        own, theirs = (self._of_clips(name, task) for name in (encoder, other))
        if not own.index.equals(theirs.index):
            raise ValueError(
                f"predictions: {encoder} and {other} were tested on other clips of {task}; run "
                "their stages probe again"
            )
        own, theirs = (
            pd.concat({s: frame[s if s in frame else frame.columns[0][0]] for s in seeds}, axis=1)
            for frame in (own, theirs)
        )
        apart = (own - theirs).rename_axis(columns=["seed", "repeat"])
        return apart.groupby(["fold", "group"]).sum()

    def _of_clips(self, encoder: str, task: str) -> pd.DataFrame:
        """By how much each test clip changes the score: (fold, group, clip) by (seed, repeat)."""
        if (encoder, task) not in self._changes:
            table = self.predictions[encoder]
            table = table[table["task"] == task]
            keys = ["fold", "group", "clip", "seed", "repeat"]
            parts = [
                part[keys].assign(change=changes(part, self.kinds[task]))
                for _, part in table.groupby(["seed", "fold", "repeat"])
            ]
            every = pd.concat(parts).set_index(keys)["change"] / table["fold"].nunique()
            self._changes[encoder, task] = every.unstack(["seed", "repeat"]).sort_index(axis=1)
        return self._changes[encoder, task]


def changes(part: pd.DataFrame, kind: str) -> np.ndarray:
    """Derivative of one probe's score by the weight of each test clip, (N,); sums to 0."""
    if kind == "multiclass":
        right = (part["label"] == part["predicted"]).to_numpy(float)
        return (right - right.mean()) / len(right)
    labels, scores = (np.stack(part[name].to_list()).astype(float) for name in ("labels", "scores"))
    of_classes = [
        precision_changes(label, score)
        for label, score in zip(labels.T, scores.T, strict=True)
        if (label == 1).any()
    ]
    return np.mean(of_classes, axis=0)


def precision_changes(label: np.ndarray, score: np.ndarray) -> np.ndarray:
    """Derivative of a class's average precision by the weight of each clip.

    Args:
        label: 1, at least once, 0 or NaN (not observed), (N,).
        score: (N,).
    """
    positive = label == 1
    above = (score[:, None] >= score[positive]) & ~np.isnan(label)[:, None]  # (N, P)
    ranked = above.sum(axis=0)  # clips at least as high as each positive
    precision = above[positive].sum(axis=0) / ranked
    found = positive * (above @ (1 / ranked)) - above @ (precision / ranked)
    found[positive] += precision - precision.mean()
    return found / positive.sum()


def _repeated(scores: pd.DataFrame, seeds: pd.Index) -> pd.DataFrame:
    """The only row of ``scores`` for each seed."""
    return pd.DataFrame(np.repeat(scores.to_numpy(), len(seeds), 0), seeds, scores.columns)


def crossed(
    units: pd.Series, changes: pd.DataFrame, spread: tuple[float, int] | None = None
) -> Difference:
    """Mean difference whose interval covers other units and other recordings.

    Its variance is that of a two-way analysis: between units, plus between recordings, minus what
    is in both, each at least 0; the degrees of freedom are Welch and Satterthwaite's.

    Args:
        units: the difference of each seed or repeat, (U,).
        changes: what each recording adds to it, (R, U); columns sum to 0.
        spread: variance of a unit and its degrees of freedom, if better known than from ``units``.
    """
    from scipy.stats import t

    apart = changes.to_numpy() * len(changes)
    num_recordings, num_units = apart.shape
    value = float(units.mean())
    of_recordings = apart.mean(axis=1, keepdims=True)
    free = np.array([num_units - 1, num_recordings - 1, (num_units - 1) * (num_recordings - 1)])
    variance, free[0] = spread or (
        units.var(ddof=0) * num_units / max(num_units - 1, 1),
        num_units - 1,
    )
    squares = np.array(
        [
            num_recordings * free[0] * variance,
            num_units * np.square(of_recordings).sum(),
            np.square(apart - of_recordings).sum(),
        ]
    )
    shares = squares / np.maximum(free, 1) / apart.size
    total = max(shares[0], shares[2]) + max(shares[1], shares[2]) - shares[2]
    if not total > 0:
        return Difference(value, 0.0, float(value == 0))
    freedom = total**2 / np.sum(shares[free > 0] ** 2 / free[free > 0])
    p = 2 * t.sf(abs(value) / total**0.5, freedom)
    return Difference(value, quantile(freedom) * total**0.5, float(p))
