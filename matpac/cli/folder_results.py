"""What a training on one's own folder gave: a score and a head where there are classes, a picture.

Shapes: N clips, D embedding size.
"""

from pathlib import Path, PurePath
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from matpac.core import files
from matpac.params import Params
from matpac.probing.kept import keep_head
from matpac.probing.knn import knn
from matpac.probing.linear import choose, train_probes
from matpac.probing.probe import load_task
from matpac.probing.rows import list_features
from matpac.reporting.embedding_space import flattened, label, scatter
from matpac.reporting.plots import STYLE
from matpac.reporting.statistics import interval

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TASK = "sounds"
FEWEST_POINTS, MOST_POINTS = 5, 3000
"""Clips in the picture; t-SNE of the most takes ten seconds on two cores."""
NAMED = 12
"""Files named in a picture without classes; their share of it where some have one."""


class Score(NamedTuple):
    """Accuracies in %, means over the folds, with half of their 95 % intervals."""

    what: str
    knn: float
    knn_ci95: float
    linear: float
    linear_ci95: float


def score(params: Params) -> tuple[list[Score], float]:
    """k nearest neighbours and a linear probe on the classes: each fold is asked once.

    k, and when a probe stops, are chosen on a validation part of the other folds
    (`matpac.probing.knn`, `matpac.probing.linear`).

    The best probe on the trained encoder is kept as its head.

    Returns: of the trained encoder, the same before training, and log-mel statistics; and what
        naming the largest class each time gives, in %.
    """
    once = params.probe.model_copy(update={"repeats": 1})
    params = params.model_copy(update={"probe": once})
    names = {"base": "this encoder"} | {n: e.label.lower() for n, e in params.encoders.items()}
    found = []
    for name, what in names.items():
        (features,) = list_features(params, name)
        task, manifest, info = load_task(params, features, TASK)
        near = 100 * np.array([row["score"] for row in knn(task)])
        probes = choose(train_probes(task, once))
        if name == "base":
            keep_head(params, features, TASK, task, probes, info["classes"])
        linear = 100 * np.array([each.score for each in probes])
        pairs = [(float(each.mean()), interval(each)) for each in (near, linear)]
        found.append(Score(what, *pairs[0], *pairs[1]))
    guessing = 100 * float(manifest["label"].value_counts(normalize=True).max())
    return found, guessing


def told(scores: list[Score], guessing: float) -> list[str]:
    """The scores in lines."""
    lines = [
        "accuracy in %, one probe on each of five folds, with its 95 % interval:",
        f"  {'':<22}{'k nearest neighbours':>20}{'linear probe':>16}",
    ]
    for what, *pairs in scores:
        near, linear = (f"{mean:.1f} ± {half:.1f}" for mean, half in (pairs[:2], pairs[2:]))
        lines.append(f"  {what:<22}{near:>20}{linear:>16}")
    lines.append(f"  guessing: {guessing:.1f}, the largest class each time")
    own, *others = scores
    for probe, name in (("knn", "neighbours"), ("linear", "the linear probe")):
        best = max(others, key=lambda each: getattr(each, probe))
        if getattr(own, probe) <= getattr(best, probe):
            lines.append(f"  By {name} no better than {best.what}.")
    return lines


def picture(table: Path, classes: pd.Series, path: Path, title: str) -> int:
    """Draws embeddings of clips in two dimensions (t-SNE), to a PNG.

    Args:
        table: of `matpac.cli.embed`.
        classes: file -> sub-folder or "", which colours its dot.
    Returns: how many clips are drawn.
    Raises: ImportError without matplotlib; ValueError if there are too few clips.
    """
    from matplotlib import style

    rows = pd.read_parquet(table).dropna(subset=["embedding"])
    if len(rows) < FEWEST_POINTS:
        raise ValueError(f"got {len(rows)} clips, needed: {FEWEST_POINTS}")
    if len(rows) > MOST_POINTS:
        rows = rows.sample(MOST_POINTS, random_state=0)
    points, names = flattened(np.stack(rows["embedding"])), rows["path"].to_numpy(str)
    colours = classes.reindex(names).fillna("").to_numpy(str)
    with style.context(STYLE):
        figure = draw(points, names, colours, title)
        with files.replacing(path) as temporary:
            figure.savefig(temporary, format="png", dpi=150, metadata={"Software": None})
    return len(rows)


def draw(points: np.ndarray, names: np.ndarray, classes: np.ndarray, title: str) -> "Figure":
    """The clips in two dimensions, (N, 2), as `scatter` has them.

    Of what has no class, some files far from each other say what lies where.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.0, 5.6))
    axes = figure.subplots()
    scatter(axes, points, classes)
    bare = np.flatnonzero(classes == "")
    if number := min(len(bare), round(NAMED * len(bare) / len(points))):
        from sklearn.cluster import kmeans_plusplus

        _, apart = kmeans_plusplus(points[bare], number, random_state=0)
        for row in bare[apart]:
            label(axes, points[row], PurePath(names[row]).stem[:24])
    axes.set_title(title, parse_math=False)
    axes.set_xlabel("t-SNE: dots close to each other sound alike to the encoder", fontsize=6)
    return figure
