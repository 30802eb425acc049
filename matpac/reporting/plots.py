"""Fig. 2, scores by the number of prototypes K (MATPAC Sec. IV-C), and the learning curve.

All panels of Fig. 2 span the same number of percentage points around their own middle, so that a
step of a given height means the same in each; the paper's finding is that scores vary very little.
Dots are single pretraining seeds, where a run has several.
"""

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from matpac.core import files
from matpac.reporting.captions import (
    NAMES,
    Provenance,
    RowSpec,
    interval_note,
    said,
    steps_note,
    unique_by,
)
from matpac.reporting.comparisons import AVERAGE
from matpac.reporting.paper import GROUPS
from matpac.reporting.results import Results, of_probe
from matpac.reporting.statistics import average, summary

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

STYLE = Path(__file__).with_name("matpac.mplstyle")
LEAST_SPAN = 2.0  # percentage points
LOOKS = {
    "music": {"marker": "o", "color": "C0"},
    "sounds": {"marker": "s", "color": "C1"},
    "average": {"marker": "D", "color": "black"},
}
COLUMNS = ["encoder", "mean", "ci95", "n", "unit", "seeds"]


def figure2(results: Results, out: Path) -> None:
    """Draws Fig. 2 from the runs of the K series, to ``fig2.pdf``, ``.png``, ``.csv``, ``.md``.

    The CSV has what is drawn: ``panel, num_prototypes, encoder, mean, ci95, n, unit, seeds`` in
    percent, and ``source``.

    Args:
        results: rows with ``figure2`` are the series, the base among them.
        out: folder, made if needed. Rerunning writes the same bytes.
    Raises: ValueError if no row is in the series, one has no K or two have the same, or an encoder
        lacks a task.
    """
    points, rows = series(results), [row for row in results.rows if row.figure2]
    _write(
        _draw_panels(points, results.provenance),
        points,
        results.provenance,
        out / "fig2",
        "**Fig. 2.** Scores on each downstream task (accuracy or mAP, %) by the number of "
        "prototypes K of the classification head. All panels span the same number of percentage "
        "points.",
        interval_note(points, rows),
        steps_note(rows, results.provenance),
        results.provenance.line,
        results.provenance.warning,
        "The paper's Fig. 2 survives without its numbers, so none are shown beside ours.",
    )


def series(results: Results) -> pd.DataFrame:
    """Means and intervals in percent by panel (task, then the average) and K, ascending."""
    rows = [row for row in results.rows if row.figure2]
    if not rows:
        raise ValueError("figure2: got no row with figure2=True, needed: the K series")
    k_of = {row.encoder: k for k, row in unique_by(rows, "num_prototypes").items()}
    scores, tasks = results.probed(rows), results.averaged
    means = pd.concat([summary(scores), average(scores, tasks).assign(task=AVERAGE)])
    means = _percent(means.rename(columns={"task": "panel"}))
    means = means.assign(num_prototypes=means["encoder"].map(k_of))
    of_panels = [
        means[means["panel"] == panel].sort_values("num_prototypes") for panel in (*tasks, AVERAGE)
    ]
    return pd.concat(of_panels, ignore_index=True)[["panel", "num_prototypes", *COLUMNS]]


def learning_curve(results: Results, curve: pd.DataFrame, out: Path) -> None:
    """Draws the average over training, to ``curve.pdf``, ``.png``, ``.csv``, ``.md``.

    In the CSV untrained rows have no ``fraction``.

    Args:
        results: whose untrained rows stand beside the curve.
        curve: scores as in ``results`` with the ``fraction`` of its training that an encoder has
            behind it; the end is taken from ``results``. Empty: older files go.
        out: folder, made if needed.
    Raises: ValueError if a fraction lacks a task.
    """
    if curve.empty:
        for suffix in ("pdf", "png", "csv", "md"):
            (out / f"curve.{suffix}").unlink(missing_ok=True)
        return
    points, rows = course(results, curve)
    _write(
        _draw_course(points, rows, results.provenance),
        points,
        results.provenance,
        out / "curve",
        "**Learning curve.** Average over "
        f"{', '.join(NAMES.get(task, task) for task in results.averaged)} (%) of the linear probe "
        "on the encoder by the share of its training; lines across: encoders without one.",
        interval_note(points, rows),
        results.provenance.line,
        results.provenance.warning,
    )


def course(results: Results, curve: pd.DataFrame) -> tuple[pd.DataFrame, list[RowSpec]]:
    """Averages in percent by encoder and fraction, and the rows that they are of."""
    trained = set(curve["encoder"])
    rows = [r for r in results.rows if r.encoder in trained or (r.table2 and r.steps is None)]
    ends = results.probed(rows)
    ends = ends.assign(fraction=[1.0 if name in trained else -1.0 for name in ends["encoder"]])
    on_the_way = of_probe(curve[curve["fraction"] < 1])
    every = pd.concat([on_the_way, ends])
    parts = [
        average(part, results.averaged).assign(fraction=fraction)
        for fraction, part in every.groupby("fraction")
    ]
    points = _percent(pd.concat(parts)).sort_values(["encoder", "fraction"], ignore_index=True)
    points["fraction"] = points["fraction"].where(points["fraction"] >= 0)
    return points[["fraction", *COLUMNS]], rows


def _percent(means: pd.DataFrame) -> pd.DataFrame:
    seeds = [tuple(100 * seed for seed in seeds) for seeds in means["seeds"]]
    return means.assign(mean=100 * means["mean"], ci95=100 * means["ci95"], seeds=seeds)


def _write(
    figure: "Figure", points: pd.DataFrame, provenance: Provenance, path: Path, *caption: str
) -> None:
    """Picture, numbers and caption under one name; two runs write the same bytes."""
    seeds = [" ".join(f"{seed:.4f}" for seed in seeds) for seeds in points["seeds"]]
    points = points.assign(seeds=seeds, source=provenance.line)
    with files.replacing(path.with_suffix(".csv")) as temporary:
        points.to_csv(temporary, index=False, float_format="%.4f", lineterminator="\n")
    with files.replacing(path.with_suffix(".md")) as temporary:
        text = f"![{path.name}]({path.name}.png)\n\n{' '.join(said(*caption))}\n"
        temporary.write_text(text, encoding="utf-8", newline="\n")
    save(figure, path)


def save(figure: "Figure", path: Path, **options: Any) -> None:
    """Writes ``.pdf`` and ``.png``: without dates and program names, so the same bytes each time.

    Args: options: of ``savefig``.
    """
    from matplotlib import style

    for kind, metadata in (("pdf", {"CreationDate": None}), ("png", {"Software": None})):
        with style.context(STYLE), files.replacing(path.with_suffix(f".{kind}")) as temporary:
            figure.savefig(temporary, format=kind, metadata=metadata, **options)


def _draw_panels(points: pd.DataFrame, provenance: Provenance) -> "Figure":
    """A panel per task and the average, down two columns: music left, environment right."""
    from matplotlib import style
    from matplotlib.figure import Figure

    panels = dict(list(points.groupby("panel", sort=False)))
    bounds = {panel: _bounds(of_panel) for panel, of_panel in panels.items()}
    span = max(LEAST_SPAN, *(1.15 * (high - low) for low, high in bounds.values()))
    num_rows = (len(panels) + 1) // 2
    with style.context(STYLE):
        figure = Figure(figsize=(3.5, 0.75 + num_rows))
        grid = figure.subplots(num_rows, 2, sharex=True, squeeze=False).T.flatten()
        for axes, (panel, of_panel) in zip(grid, panels.items(), strict=False):
            _panel(axes, of_panel, panel)
            middle = sum(bounds[panel]) / 2
            axes.set_ylim(middle - span / 2, middle + span / 2)
        for axes in grid[len(panels) :]:
            axes.set_visible(False)
        for last in (num_rows - 1, len(panels) - 1):
            grid[last].set_xlabel("number of prototypes K")
            grid[last].tick_params(labelbottom=True)
        figure.supylabel("accuracy or mAP (%)", fontsize=7)
        _note(figure, provenance)
    return figure


def _draw_course(points: pd.DataFrame, rows: list[RowSpec], provenance: Provenance) -> "Figure":
    """A line per trained encoder, a band across per untrained one."""
    from matplotlib import style
    from matplotlib.figure import Figure

    with style.context(STYLE):
        figure = Figure(figsize=(3.5, 2.6))
        axes = figure.subplots()
        for index, row in enumerate(rows):
            own = points[points["encoder"] == row.encoder]
            if own["fraction"].isna().all():
                mean, half = own["mean"].item(), own["ci95"].fillna(0.0).item()
                axes.axhline(mean, color=f"C{index}", ls="--", label=row.label)
                axes.axhspan(mean - half, mean + half, color=f"C{index}", alpha=0.12, lw=0)
            else:
                _line(axes, 100 * own["fraction"], own, color=f"C{index}", label=row.label)
        axes.dataLim.update_from_data_y([seed for seeds in points["seeds"] for seed in seeds])
        axes.autoscale_view()  # dots beside the bars do not count by themselves
        axes.set(xlabel="share of training (%)", ylabel="average (%)")
        axes.legend()
        _note(figure, provenance)
    return figure


def _line(axes: "Axes", x: pd.Series, points: pd.DataFrame, **look: str) -> None:
    """Means with their intervals as bars; beside them a dot per seed, where there are several."""
    from matplotlib.transforms import offset_copy

    axes.errorbar(x, points["mean"], yerr=points["ci95"].fillna(0.0), elinewidth=0.8, **look)
    beside = offset_copy(axes.transData, axes.figure, x=4.5, units="points")
    for at, seeds in zip(x, points["seeds"], strict=True):
        if len(seeds) > 1:
            dots = {"marker": ".", "ls": "", "ms": 3, "color": look["color"], "alpha": 0.6}
            axes.plot([at] * len(seeds), seeds, transform=beside, **dots)


def _panel(axes: "Axes", points: pd.DataFrame, panel: str) -> None:
    """Scores over log2 K."""
    from matplotlib.ticker import MaxNLocator, NullLocator

    kind = "music" if panel in GROUPS["Music"] else "average" if panel == AVERAGE else "sounds"
    axes.set_xscale("log", base=2)
    _line(axes, points["num_prototypes"], points, **LOOKS[kind])
    ticks = sorted(set(points["num_prototypes"]))
    axes.set_xticks(ticks, [str(k) for k in ticks])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.margins(x=0.08)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 5, 10]))
    axes.set_title(NAMES.get(panel, panel), loc="left")


def _note(figure: "Figure", provenance: Provenance) -> None:
    """Small print below the panels, so that the picture alone says where it comes from."""
    lines = [*textwrap.wrap(provenance.line, 84), *textwrap.wrap(provenance.warning, 84)]
    height = (len(lines) * 0.083 + 0.05) / figure.get_size_inches()[1]
    figure.get_layout_engine().set(rect=(0, height, 1, 1 - height))
    text = "\n".join(lines)
    figure.text(0.5, 0.02 / 4, text, ha="center", va="bottom", fontsize=5, color="0.3")


def _bounds(points: pd.DataFrame) -> tuple[float, float]:
    """Lowest and highest of intervals and seeds."""
    half = points["ci95"].fillna(0.0)
    of_seeds = points["seeds"][points["seeds"].map(len) > 1].explode().astype(float)
    ends = pd.concat([points["mean"] - half, points["mean"] + half, of_seeds])
    return ends.min(), ends.max()
