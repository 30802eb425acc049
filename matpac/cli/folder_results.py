"""What a training on one's own folder gave: a score where there are classes, and a picture.

Shapes: N clips, D embedding size.
"""

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from matpac.core import files, paths
from matpac.data import manifests
from matpac.encoders.frozen import load_encoder
from matpac.features.store import Store
from matpac.params import Params
from matpac.probing.embedders import Stored
from matpac.probing.extract import extract
from matpac.probing.knn import knn
from matpac.probing.linear import choose, train_probes
from matpac.probing.probe import load_task
from matpac.probing.rows import list_features
from matpac.reporting.embedding_space import flattened, scatter
from matpac.reporting.plots import STYLE
from matpac.reporting.statistics import interval

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TASK = "sounds"
FEWEST_POINTS, MOST_POINTS = 5, 3000
"""Clips in the picture; t-SNE of the most takes ten seconds on two cores."""


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

    Returns: of the trained encoder, the same before training, and log-mel statistics; and what
        naming the largest class each time gives, in %.
    """
    once = params.probe.model_copy(update={"repeats": 1})
    params = params.model_copy(update={"probe": once})
    names = {"base": "this encoder"} | {n: e.label.lower() for n, e in params.encoders.items()}
    found = []
    for name, what in names.items():
        (features,) = list_features(params, name)
        task, manifest, _ = load_task(params, features, TASK)
        near = 100 * np.array([row["score"] for row in knn(task)])
        linear = 100 * np.array([each.score for each in choose(train_probes(task, once))])
        pairs = [(float(each.mean()), interval(each)) for each in (near, linear)]
        found.append(Score(what, *pairs[0], *pairs[1]))
    guessing = 100 * float(manifest["label"].value_counts(normalize=True).max())
    return found, guessing


def told(scores: list[Score], guessing: float) -> list[str]:
    """The scores in lines."""
    lines = [
        "accuracy in %, over five folds with its 95 % interval:",
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


def picture(params: Params, classes: pd.Series, path: Path) -> int:
    """Draws the embeddings of the clips in two dimensions (t-SNE), to a PNG.

    Args: classes: file -> sub-folder or "", which colours its dot.
    Returns: how many clips are drawn.
    Raises: ImportError without matplotlib; ValueError if there are too few clips.
    """
    from matplotlib import style

    embeddings, names = embedded(params)
    if len(names) < FEWEST_POINTS:
        raise ValueError(f"got {len(names)} clips, needed: {FEWEST_POINTS}")
    if len(names) > MOST_POINTS:
        chosen = np.random.default_rng(0).choice(len(names), MOST_POINTS, replace=False)
        embeddings, names = embeddings[chosen], names[chosen]
    points = flattened(embeddings)
    colours = classes.reindex(names).fillna("").to_numpy(str)
    with style.context(STYLE):
        figure = draw(points, colours, f"{params.runs['base'].label}, t-SNE")
        with files.replacing(path) as temporary:
            figure.savefig(temporary, format="png", dpi=150, metadata={"Software": None})
    return len(names)


def embedded(params: Params) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings (N, D) of all clips that were trained on, and their files (N,)."""
    folder = paths.small(params) / "pretrain" / "base" / f"seed_{params.pretrain.seed}"
    encoder = load_encoder(folder)
    embeddings, names = [], []
    for corpus in params.corpora:
        store = Store(paths.bulk(params) / "logmel" / corpus)
        kept = paths.bulk(params) / "embeddings" / "base"
        embeddings.append(extract(Stored(encoder, store), kept, name="base"))
        manifest, _ = manifests.load(params, corpus, columns=["path"])
        names.append(manifest["path"].to_numpy(str)[store.rows])
    return np.concatenate(embeddings), np.concatenate(names)


def draw(points: np.ndarray, classes: np.ndarray, title: str) -> "Figure":
    """The clips in two dimensions, (N, 2), as `scatter` has them."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.0, 4.0))
    axes = figure.subplots()
    scatter(axes, points, classes)
    axes.set_title(title, parse_math=False)
    return figure
