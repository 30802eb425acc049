"""What several hypotheses do in training (MATPAC++): who wins, and what choosing gains."""

from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from matpac.core import files
from matpac.reporting.collapse import FINAL
from matpac.reporting.plots import STYLE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MEASURED = ["choice_temp", "effective_hypotheses", "choice_gain"]
"""Columns of the logs; ``wins_0`` and so on come on top."""
TITLES = {
    "effective_hypotheses": "hypotheses that share the wins",
    "choice_gain": "distance of the mean hypothesis\nminus the best one's",
}


def select(logs: pd.DataFrame) -> pd.DataFrame:
    """The rows of runs with several hypotheses, with what is known of these.

    Args: logs: as `matpac.reporting.collapse.load` returns them.
    Returns: columns ``run, seed, step, epoch``, those of `MEASURED` and the wins; maybe no row.
    """
    wins = sorted(column for column in logs if column.startswith("wins_"))
    if not wins:
        return pd.DataFrame(columns=["run", "seed", "step", "epoch", *MEASURED])
    found = logs.dropna(subset=["effective_hypotheses"])
    return found[["run", "seed", "step", "epoch", *MEASURED, *wins]].reset_index(drop=True)


def summary(found: pd.DataFrame) -> pd.DataFrame:
    """Means over the last tenth of training, a row per run and seed. Args: found: of `select`."""
    last = found.groupby(["run", "seed"])["step"].transform("max")
    end = found[found["step"] >= (1 - FINAL) * last]
    return end.groupby(["run", "seed"]).mean().drop(columns=["step", "epoch"])


def plot(found: pd.DataFrame) -> "Figure":
    """Both measures over training, a line per seed. Args: found: of `select`."""
    import matplotlib.pyplot as plt
    import seaborn

    with plt.style.context(STYLE):
        figure, panels = plt.subplots(1, len(TITLES), figsize=(7.16, 2.2), layout="constrained")
        for axes, (column, title) in zip(panels, TITLES.items(), strict=True):
            seaborn.lineplot(
                found, x="epoch", y=column, hue="run", units="seed", estimator=None,
                linewidth=1.1, legend=axes is panels[0], ax=axes,
            )  # fmt: skip
            axes.set(title=title, ylabel="", xlim=(0, None), ylim=(0, None))
        plt.close(figure)  # a notebook shows what is returned, and only once
    return figure


def write(logs: pd.DataFrame, out: Path) -> None:
    """Writes ``hypotheses.csv``, or removes an old one if no run has several."""
    found = select(logs)
    path = out / "hypotheses.csv"
    if found.empty:
        path.unlink(missing_ok=True)
        return
    with files.replacing(path) as temporary:
        found.to_csv(temporary, index=False, float_format="%.4g", lineterminator="\n")
