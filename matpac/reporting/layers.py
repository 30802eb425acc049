"""Which layer serves best, as a picture of `matpac.probing.layers`."""

from typing import TYPE_CHECKING

import pandas as pd

from matpac.reporting.captions import NAMES
from matpac.reporting.plots import STYLE
from matpac.reporting.statistics import interval

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw(rows: pd.DataFrame) -> "Figure":
    """Test scores by layer, a line per task and a dashed one for their mean.

    Bars are 95 % intervals over the probe's repeats, folds averaged; the encoder is a single one.

    Args: rows: as of `matpac.probing.layers.probe_layers`.
    """
    import matplotlib.pyplot as plt

    repeats = 100 * rows.groupby(["task", "layer", "repeat"], sort=False)["score"].mean()
    average = repeats.groupby(["layer", "repeat"]).mean()
    lines = {NAMES.get(task, task): repeats[task] for task in rows["task"].drop_duplicates()}
    with plt.style.context(STYLE):
        figure, axes = plt.subplots(figsize=(3.5, 2.6), layout="constrained")
        for name, values in [*lines.items(), ("mean", average)]:
            by_layer = values.groupby("layer").agg(["mean", interval])
            look = {"linewidth": 0.8}
            if name == "mean":
                look = {"linewidth": 2.0, "color": "0.4", "linestyle": "--"}
            layers = by_layer.index + 1
            axes.errorbar(layers, by_layer["mean"], by_layer["interval"], label=name, **look)
        axes.set(xlabel="encoder block", ylabel="linear probe, test (%)", xticks=layers)
        axes.set_title(f"{rows['encoder'].iloc[0]}, seed {rows['seed'].iloc[0]}", parse_math=False)
        figure.legend(loc="outside right center", fontsize=5.5)
        plt.close(figure)  # a notebook shows what is returned, and only once
    return figure
