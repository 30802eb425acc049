"""Everything that the tables are made of, and what follows from it for more than one of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import pandas as pd

from matpac.reporting.captions import NAMES, Provenance, RowSpec
from matpac.reporting.comparisons import AVERAGE, Comparisons, Difference
from matpac.reporting.paper import TASKS
from matpac.reporting.statistics import average, summary
from matpac.reporting.table import Column

UNITS = {"map": "mAP", "accuracy": "Acc.(%)"}


@dataclass(frozen=True)
class Results:
    """Scores and who they are of.

    Attributes:
        scores: tidy scores, see `matpac.reporting.statistics`; others than ``rows`` are ignored. A
            column ``probe`` tells linear probes from other ones.
        infos: the info of each probed task's manifest, in any order.
        rows: runs and encoders to show.
        provenance: what made the scores.
        predictions: by encoder, see `matpac.reporting.comparisons`. Without those of every row
            of Table II and of the base, rows are not compared with each other.
    """

    scores: pd.DataFrame
    infos: Mapping[str, Mapping[str, Any]]
    rows: Sequence[RowSpec]
    provenance: Provenance
    predictions: Mapping[str, pd.DataFrame] = field(default_factory=dict)

    @cached_property
    def tasks(self) -> list[str]:
        """In the order of Table II, then those the paper does not have."""
        return [t for t in TASKS if t in self.infos] + [t for t in self.infos if t not in TASKS]

    @cached_property
    def papers(self) -> list[str]:
        """Those of them that the paper has, too."""
        return [task for task in self.tasks if task in TASKS]

    @cached_property
    def averaged(self) -> list[str]:
        """Tasks of the average: the paper's, if there are any."""
        return self.papers or self.tasks

    @cached_property
    def columns(self) -> list[str]:
        """Keys of the columns of Table II that hold scores."""
        return [*self.tasks, AVERAGE]

    @cached_property
    def shown(self) -> list[RowSpec]:
        """Rows of Table II."""
        return [row for row in self.rows if row.table2]

    def probed(self, rows: Sequence[RowSpec], probe: str = "linear") -> pd.DataFrame:
        """Scores of some rows by one kind of probe. Raises: ValueError if a row has none."""
        scores, names = of_probe(self.scores, probe), [row.encoder for row in rows]
        present = set(scores["encoder"])
        for name in names:
            if name not in present:
                raise ValueError(f"scores: none of {name}; run the stage probe for it")
        return scores[scores["encoder"].isin(names)]

    @cached_property
    def means(self) -> pd.DataFrame:
        """`summary` of the rows of Table II, by (encoder, column)."""
        scores = self.probed(self.shown)
        average(scores, self.tasks)  # for its complaints about tasks that the averages leave out
        averages = average(scores, self.averaged).assign(task=AVERAGE)
        return pd.concat([summary(scores), averages]).set_index(["encoder", "task"])

    @cached_property
    def comparisons(self) -> Comparisons | None:
        """Of the rows of Table II and the base, if all of them kept their predictions."""
        rows = [row for row in self.rows if row.table2 or row.encoder == "base"]
        if not {row.encoder for row in rows} <= set(self.predictions):
            return None
        return Comparisons(
            self.probed(rows),
            {row.encoder: self.predictions[row.encoder] for row in rows},
            {task: info["kind"] for task, info in self.infos.items()},
            frozenset(row.encoder for row in rows if row.steps is None),
        )

    @cached_property
    def best(self) -> set[tuple[str, str]]:
        """(encoder, column) of the best means, and of what is not shown to be worse."""
        best = self.means["mean"].unstack().idxmax()
        found = {(encoder, column) for column, encoder in best.items()}
        for row in self.shown if self.comparisons else ():
            others = {column: name for column, name in best.items() if name != row.encoder}
            tested = self.differences(row.encoder, others)
            for column in others:
                cell = tested.get(column)  # none without a common seed: nothing is shown
                if cell is None or cell.value >= 0 or not cell.significant:
                    found.add((row.encoder, column))
        return found

    @cached_property
    def lopsided(self) -> dict[str, float]:
        """Tasks of which one class is most, and the accuracy of always naming it."""
        found = {}
        for task in self.tasks:
            if self.infos[task]["metric"] == "accuracy":
                labels = [each["label"][each["task"] == task] for each in self.predictions.values()]
                share = pd.concat([pd.Series(dtype=int), *labels]).value_counts(normalize=True)
                found |= {task: share.iloc[0]} if len(share) and share.iloc[0] > 0.5 else {}
        return found

    def balanced(self, encoder: str, task: str) -> float:
        """Mean over the classes of the fraction that is recognised; then over repeats and seeds.

        The folds of a repeat count together: a class need not be in each.
        """
        table = self.predictions[encoder]
        table = table[table["task"] == task]
        right = table.assign(right=table["label"] == table["predicted"])
        recalls = right.groupby(["seed", "repeat", "label"])["right"].mean()
        return float(recalls.groupby(["seed", "repeat"]).mean().mean())

    def differences(self, encoder: str, other: Mapping[str, str]) -> dict[str, Difference]:
        """Minus what ``other`` names by column; the average has a test of its own."""
        tasks = {column: name for column, name in other.items() if column != AVERAGE}
        found = self.comparisons.by_task(encoder, tasks)
        if AVERAGE in other:
            average = self.comparisons.difference(encoder, other[AVERAGE], self.averaged)
            found |= {AVERAGE: average} if average else {}
        return found


def of_probe(scores: pd.DataFrame, probe: str = "linear") -> pd.DataFrame:
    """Scores by one kind of probe; without a column ``probe`` all are linear."""
    return scores[scores["probe"] == probe] if "probe" in scores else scores


def score_columns(results: Results) -> list[Column]:
    """A column for each task, headed as in Table II, and the average."""
    tasks = [
        Column(task, NAMES.get(task, task), UNITS[results.infos[task]["metric"]])
        for task in results.tasks
    ]
    return [*tasks, Column(AVERAGE, "Avg.")]
