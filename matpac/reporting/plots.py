"""Fig. 2: scores on each downstream task by the number of prototypes K (MATPAC Sec. IV-C).

All panels span the same number of percentage points around their own middle, so that a step of a
given height means the same in each; the paper's finding is that scores vary very little.
"""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from matpac.core import files
from matpac.reporting import paper
from matpac.reporting.captions import (
    Provenance,
    RowSpec,
    interval_note,
    select,
    steps_note,
    unique_by,
)
from matpac.reporting.statistics import ENVIRONMENT, MUSIC, average, summary

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

STYLE = Path(__file__).with_name("matpac.mplstyle")
AVERAGE = "average"
LEAST_SPAN = 2.0  # percentage points
MARKERS = {"Music": "o", "Environment": "s", "Average": "D"}


def figure2(
    scores: pd.DataFrame, rows: Sequence[RowSpec], provenance: Provenance, out: Path
) -> pd.DataFrame:
    """Draws Fig. 2 from the runs of the K series, to ``fig2.pdf``, ``.png``, ``.csv``, ``.md``.

    Args:
        scores: tidy scores, see `matpac.reporting.statistics`.
        rows: those with ``figure2`` are the series, the base among them.
        provenance: what made the scores; a line of it is part of the picture.
        out: folder, made if needed. Rerunning writes the same bytes.
    Returns: what is drawn, as in the CSV: ``panel, num_prototypes, encoder, mean, ci95, n`` in
        percent, and ``source``.
    Raises: ValueError if no row is in the series, one has no K or two have the same, or an encoder
        lacks a task.
    """
    points = series(scores, rows).assign(source=provenance.line)
    caption = _caption(points, rows, provenance)
    with files.replacing(out / "fig2.csv") as temporary:
        points.drop(columns="num_seeds").to_csv(
            temporary, index=False, float_format="%.4f", lineterminator="\n"
        )
    with files.replacing(out / "fig2.md") as temporary:
        text = f"![Fig. 2](fig2.png)\n\n**Fig. 2.** {caption}\n"
        temporary.write_text(text, encoding="utf-8", newline="\n")
    _draw(points, provenance, out)
    return points.drop(columns="num_seeds")


def series(scores: pd.DataFrame, rows: Sequence[RowSpec]) -> pd.DataFrame:
    """Means and intervals in percent by panel (task, then the average) and K, ascending."""
    rows = [row for row in rows if row.figure2]
    if not rows:
        raise ValueError("figure2: got no row with figure2=True, needed: the K series")
    by_k = unique_by(rows, "num_prototypes")
    scores = select(scores, rows)
    known = [task for task in paper.TABLE1 if task in set(scores["task"])]
    tasks = known or list(scores["task"].unique())  # or the profile has its own tasks only
    means = pd.concat([summary(scores), average(scores, tasks).assign(task=AVERAGE)])
    k_of = {row.encoder: k for k, row in by_k.items()}
    means = means[means["task"].isin([*tasks, AVERAGE])]
    means = means.assign(num_prototypes=means["encoder"].map(k_of), panel=means["task"])
    means[["mean", "ci95"]] *= 100
    order = {panel: i for i, panel in enumerate([*tasks, AVERAGE])}
    means = means.sort_values(
        ["panel", "num_prototypes"], key=lambda c: c.map(order) if c.name == "panel" else c
    )
    wanted = ["panel", "num_prototypes", "encoder", "mean", "ci95", "n", "num_seeds"]
    return means[wanted].reset_index(drop=True)


def _caption(points: pd.DataFrame, rows: Sequence[RowSpec], provenance: Provenance) -> str:
    rows = [row for row in rows if row.figure2]
    sentences = [
        "Scores on each downstream task (accuracy or mAP, %) by the number of prototypes K of the "
        "classification head. All panels span the same number of percentage points.",
        interval_note(points),
        steps_note(rows, provenance),
        provenance.line,
        provenance.warning,
        "The paper's Fig. 2 survives without its numbers, so none are shown beside ours.",
    ]
    return " ".join(filter(None, sentences))


def _draw(points: pd.DataFrame, provenance: Provenance, out: Path) -> None:
    """One panel per task, music left and environment right, the average last."""
    from matplotlib import style
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    present = list(dict.fromkeys(points["panel"]))
    columns = [[t for t in MUSIC if t in present], [t for t in ENVIRONMENT if t in present]]
    columns[1] += [panel for panel in present if panel not in (*MUSIC, *ENVIRONMENT)]
    groups = {name: c for name, c in zip(("Music", "Environment"), columns, strict=True) if c}
    num_rows = max(map(len, groups.values()))
    low, high = _bounds(points)
    span = max(LEAST_SPAN, 1.15 * float((high - low).max()))
    with style.context(STYLE):
        figure = Figure(figsize=(3.5, 0.75 + 1.0 * num_rows))
        FigureCanvasAgg(figure)
        grid = figure.subplots(num_rows, len(groups), sharex=True, squeeze=False)
        for c, (group, column) in enumerate(groups.items()):
            for r in range(num_rows):
                axes = grid[r, c]
                if r >= len(column):
                    axes.set_visible(False)
                    continue
                panel = column[r]
                kind = "Average" if panel == AVERAGE else group
                middle = (low[panel] + high[panel]) / 2
                _panel(axes, points[points["panel"] == panel], kind)
                axes.set_ylim(middle - span / 2, middle + span / 2)
                if r == len(column) - 1:
                    axes.set_xlabel("number of prototypes K")
                    axes.tick_params(labelbottom=True)
        figure.supylabel("accuracy or mAP (%)", fontsize=7)
        _note(figure, provenance)
        # Without dates and program names two runs write the same bytes.
        for suffix, metadata in (("pdf", {"CreationDate": None}), ("png", {"Software": None})):
            with files.replacing(out / f"fig2.{suffix}") as temporary:
                figure.savefig(temporary, format=suffix, metadata=metadata)


def _note(figure: "Figure", provenance: Provenance) -> None:
    """Small print below the panels, so that the picture alone says where it comes from."""
    lines = [*textwrap.wrap(provenance.line, 84), *textwrap.wrap(provenance.warning, 84)]
    height = (len(lines) * 0.083 + 0.05) / figure.get_size_inches()[1]
    figure.get_layout_engine().set(rect=(0, height, 1, 1 - height))
    text = "\n".join(lines)
    figure.text(0.5, 0.02 / 4, text, ha="center", va="bottom", fontsize=5, color="0.3")


def _panel(axes: "Axes", points: pd.DataFrame, kind: str) -> None:
    """Means over log2 K with their intervals as bars."""
    from matplotlib.ticker import MaxNLocator, NullLocator

    index = list(MARKERS).index(kind)
    panel = points["panel"].iloc[0]
    axes.errorbar(
        points["num_prototypes"],
        points["mean"],
        yerr=points["ci95"].fillna(0.0),
        marker=MARKERS[kind],
        color=f"C{index}" if kind != "Average" else "black",
        elinewidth=0.8,
    )
    axes.set_xscale("log", base=2)
    ticks = sorted(set(points["num_prototypes"]))
    axes.set_xticks(ticks, [str(k) for k in ticks])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.margins(x=0.08)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 5, 10]))
    own = "Average" if panel == AVERAGE else panel
    axes.set_title(paper.TABLE1[panel].name if panel in paper.TABLE1 else own, loc="left")


def _bounds(points: pd.DataFrame) -> tuple[pd.Series, pd.Series]:
    """Lowest and highest end of the intervals of each panel."""
    half = points["ci95"].fillna(0.0)
    ends = points.assign(low=points["mean"] - half, high=points["mean"] + half).groupby("panel")
    return ends["low"].min(), ends["high"].max()
