"""Made results for the tests of tables and figures: everything about them is known."""

import dataclasses

import numpy as np
import pandas as pd

from matpac.reporting.captions import Provenance, RowSpec
from matpac.reporting.paper import TASKS
from matpac.reporting.results import Results

FOLDS = {"esc50": 5, "us8k": 10}
MULTILABEL = ("openmic", "mtt", "fsd50k")
MINI = Provenance("mini", "embedded corpus, 2,400 clips", "3f9a1c20", steps=750)
PAPER = dataclasses.replace(MINI, profile="paper", miniature=False, comparable=TASKS)

ROWS = [
    RowSpec("base", "MATPAC", "embedded", 0.5, 128, 750, table3=True, figure2=True),
    RowSpec("alpha1", "w/o classification", "embedded", 1.0, 128, 750, table3=True),
    RowSpec("alpha025", "α 0.25", "embedded", 0.25, 128, 375, table2=False, table3=True),
    RowSpec("k512", "K 512", "embedded", 0.5, 512, 750, table2=False, figure2=True),
    RowSpec("k32", "K 32", "embedded", 0.5, 32, 750, table2=False, figure2=True),
    RowSpec("random", "Random & 100 % new_start"),
]


def info(task: str) -> dict:
    return {
        "kind": "multilabel" if task in MULTILABEL else "multiclass",
        "metric": "map" if task in MULTILABEL else "accuracy",
        "split_scheme": "folds" if task in FOLDS else "tvt",
        "num_folds": FOLDS.get(task, 0),
        "classes": ["a", "b", "c"],
        "num_clips": 1320,
    }


INFOS = {task: info(task) for task in reversed(TASKS)}


def scores(repeats: int = 5, seeds: int = 1) -> pd.DataFrame:
    """Encoder e on task t scores 0.3 + 0.05 t + 0.01 e, plus 0.01 (r - 3) in repeat r.

    Seed s adds 0.02 s.
    """
    return pd.DataFrame(
        [
            (row.encoder, s, task, fold, r, 0.3 + 0.05 * t + 0.01 * (e + r - 3) + 0.02 * s)
            for e, row in enumerate(ROWS)
            for s in range(seeds)
            for t, task in enumerate(TASKS)
            for r in range(1, repeats + 1)
            for fold in (range(1, FOLDS[task] + 1) if task in FOLDS else [0])
        ],
        columns=["encoder", "seed", "task", "fold", "repeat", "score"],
    )


def results(table: pd.DataFrame | None = None, **changes: object) -> Results:
    made = Results(scores() if table is None else table, INFOS, ROWS, MINI)
    return dataclasses.replace(made, **changes)


def predicted(chance: dict[str, float], num_clips: int = 200, repeats: int = 1) -> Results:
    """Encoders that are right on so large a share of the clips of two multi-class tasks.

    Who is right on a clip is so for every encoder with a larger share, but for one clip in ten.
    """
    tables, found = {}, []
    for number, (encoder, share) in enumerate(chance.items()):
        parts = []
        for task, repeat in ((task, r) for task in ("nsynth", "gtzan") for r in range(repeats)):
            common = np.random.default_rng(len(task)).random(num_clips)
            own = np.random.default_rng([number, repeat, len(task)]).random(num_clips)
            right = np.where(own < 0.1, own < 0.1 * share, common < share)
            clips = np.arange(num_clips)
            part = {"clip": clips, "group": clips // 2, "label": 1, "predicted": right.astype(int)}
            key = {"seed": 0, "task": task, "fold": 0, "repeat": repeat}
            parts.append(pd.DataFrame(part | key))
            found.append(key | {"encoder": encoder, "score": right.mean()})
        tables[encoder] = pd.concat(parts)
    rows = [RowSpec(name, name.title(), "x", 0.5, 8, 750, reported=None) for name in chance]
    infos = {task: info(task) for task in ("nsynth", "gtzan")}
    return Results(pd.DataFrame(found), infos, rows, MINI, tables)
