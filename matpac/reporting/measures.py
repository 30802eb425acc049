"""Do measures that train no probe tell how well an encoder will be probed? (notebook 09)

The unit is a run: its seeds are drawn together. Within each task the ranks of all encoders by a
measure are compared with those by the linear probe's score, and the tasks averaged.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from matpac.core import files
from matpac.reporting.plots import STYLE
from matpac.reporting.results import of_probe
from matpac.reporting.statistics import CONFIDENCE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BETTER = {
    "rankme": ("RankMe", lambda value: value),
    "alpha_req": ("α-ReQ", lambda value: -abs(value - 1)),
    "uniformity": ("uniformity", lambda value: -value),
    "alignment": ("alignment of labels", lambda value: -value),
    "knn": ("kNN score", lambda value: value),
}
"""Column -> its name, and what grows with what its authors call better.

All but the last are of `matpac.probing.measures`; the nearest neighbours' score, the cheapest look
at the labels, is what they have to beat.
"""
DRAWS = 999


def table(scores: pd.DataFrame) -> pd.DataFrame:
    """Measures beside scores. Args: scores: tidy ones, see `Results`; other probes but kNN go.

    Returns: one row per (encoder, seed, task) whose measures are known, columns those of `BETTER`
        and ``score``, the linear probe's, mean over folds and repeats.
    """
    key = ["encoder", "seed", "task"]
    known = [name for name in BETTER if name in scores]
    found = of_probe(scores).groupby(key, sort=False)[[*known, "score"]].mean()
    if "probe" in scores:
        nearest = of_probe(scores, "knn").groupby(key)["score"].mean()
        found = found.join(nearest.rename("knn"))
    found = found.reindex(columns=[*BETTER, "score"]).dropna(subset=["rankme"])
    return found.reset_index()


def write(scores: pd.DataFrame, out: Path) -> None:
    """Writes `table` to ``measures.csv``."""
    with files.replacing(out / "measures.csv") as temporary:
        table(scores).to_csv(temporary, index=False, float_format="%.5f", lineterminator="\n")


def correlations(measured: pd.DataFrame) -> pd.DataFrame:
    """Spearman's rank correlation of each measure with the score, mean over the tasks.

    Args: measured: as of `table`, of at least three encoders.
    Returns: by measure, ``correlation``, positive where better by the measure's authors scores
        better, ``low`` and ``high``, its 95 % interval (percentiles over draws of whole runs), and
        ``cost``: points of the average that the first encoder by the measure's mean over the tasks
        lacks to the best one. NaN for a measure that is missing somewhere.
    """
    encoders = measured["encoder"].unique()
    if len(encoders) < 3:
        raise ValueError(f"measures: got {len(encoders)} encoders, needed: at least 3")
    known = [column for column in BETTER if measured[column].notna().all()]
    graded = measured.assign(**{column: BETTER[column][1](measured[column]) for column in known})
    tasks = [
        [part.loc[part["encoder"] == name, [*known, "score"]].to_numpy() for name in encoders]
        for _, part in graded.groupby("task", sort=False)
    ]
    rng, every = np.random.default_rng(0), len(encoders)
    draws = [_correlated(tasks, rng.integers(every, size=every)) for _ in range(DRAWS)]
    edges = 50 * (1 - CONFIDENCE), 50 * (1 + CONFIDENCE)
    low, high = np.nanpercentile(draws, edges, axis=0)  # one encoder many times has no ranks
    means = graded.groupby("encoder")[[*known, "score"]].mean()
    firsts = [means["score"][means[column].idxmax()] for column in known]
    found = {
        "correlation": _correlated(tasks, range(every)),
        "low": low,
        "high": high,
        "cost": 100 * (means["score"].max() - np.array(firsts)),
    }
    return pd.DataFrame(found, index=known).reindex(list(BETTER))


def _correlated(tasks: Sequence[Sequence[np.ndarray]], drawn: Iterable[int]) -> np.ndarray:
    """Of each column with the last one, for some encoders, mean over the tasks.

    Args: tasks: of each, per encoder, a row per seed.
    """
    from scipy.stats import rankdata

    drawn = list(drawn)
    ranks = [rankdata(np.concatenate([task[each] for each in drawn]), axis=0) for task in tasks]
    with np.errstate(invalid="ignore"):
        return np.mean([np.corrcoef(each.T)[-1, :-1] for each in ranks], axis=0)


def plot(measured: pd.DataFrame, *, apart: Sequence[str] = ()) -> "Figure":
    """A panel per measure, a dot per encoder and seed: means over the tasks.

    Args: apart: encoders in another colour, with their names.
    """
    import matplotlib.pyplot as plt
    import seaborn

    columns = [column for column in BETTER if measured[column].notna().all()]
    means = measured.groupby(["encoder", "seed"])[[*columns, "score"]].mean().reset_index()
    means["average"] = 100 * means["score"]
    means["of"] = means["encoder"].where(means["encoder"].isin(apart), "trained here")
    with plt.style.context(STYLE):
        figure, panels = plt.subplots(
            1, len(columns), figsize=(7.16, 2.0), layout="constrained", sharey=True
        )
        for axes, column in zip(panels, columns, strict=True):
            seaborn.scatterplot(
                means, x=column, y="average", hue="of", hue_order=["trained here", *apart],
                s=12, legend=axes is panels[0], ax=axes,
            )  # fmt: skip
            axes.set(xlabel=BETTER[column][0], ylabel="linear probe, average (%)")
        panels[0].get_legend().set_title(None)
        plt.close(figure)  # a notebook shows what is returned, and only once
    return figure
