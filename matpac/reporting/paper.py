"""What the authors report: Tables I to III of MATPAC and Table 1 of MATPAC++, from ``paper.yaml``.

Importing this costs milliseconds: parameters are checked against the names of its rows. Scores are
in percent, as printed; of Fig. 2 no number survives.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import yaml

_PAPER = yaml.safe_load(Path(__file__).with_name("paper.yaml").read_text("utf-8"))
TABLE1: dict[str, dict[str, str | int]] = _PAPER["table1"]
TABLE3: dict[str, dict[float, float]] = _PAPER["table3"]
GROUPS: dict[str, list[str]] = _PAPER["groups"]  # the rows of Table III
TASKS = tuple(TABLE1)  # the columns of Table II, in its order


class Reported(NamedTuple):
    """A cell: mean and half width of its 95 % interval in percent; None: not given.

    ``elsewhere``: † there, from the system's own paper and so of another protocol.
    """

    mean: float
    ci95: float | None = None
    elsewhere: bool = False


@dataclass(frozen=True)
class System:
    """A row: its cells by task, and the average that is printed without an interval."""

    name: str
    training_data: str
    supervised: bool
    cells: dict[str, Reported]
    average: float
    kind: str | None
    """The published row of ``encoders`` in ``params.yaml`` that is this system."""
    same_as: str
    """What ``reported`` in ``params.yaml`` calls it: its name in Table II if it stands there."""


@dataclass(frozen=True)
class Source:
    """A table of one paper. Its cells are of one probing and never mixed with another's."""

    name: str
    title: str
    systems: tuple[System, ...]

    def find(self, reported: str | None) -> System | None:
        """The row that ``reported`` names, if it is in this table."""
        return next((s for s in self.systems if s.same_as == reported), None)


def _source(table: dict) -> Source:
    def system(row: dict) -> System:
        return System(
            name=row["name"],
            training_data=row.get("data", table["data"]),
            supervised=row.get("supervised", False),
            cells=dict(zip(TASKS, map(_cell, row["cells"].split("|")), strict=True)),
            average=row["average"],
            kind=row.get("kind"),
            same_as=row.get("of", row["name"]),
        )

    return Source(table["source"], table["title"], tuple(map(system, table["rows"])))


def _cell(text: str) -> Reported:
    mean, *ci95 = text.split()
    return Reported(float(mean.strip("†")), *map(float, ci95))._replace(elsewhere="†" in mean)


TABLE2 = _source(_PAPER["table2"])
PLUSPLUS = _source(_PAPER["plusplus"])
NAMES = tuple(dict.fromkeys(s.same_as for s in (*TABLE2.systems, *PLUSPLUS.systems)))
"""What ``reported`` may be."""


def reported_for(kind: str) -> str | None:
    """What ``reported`` is for a published encoder unless ``params.yaml`` says otherwise."""
    systems = (*TABLE2.systems, *PLUSPLUS.systems)
    return next((s.same_as for s in systems if s.kind == kind), None)
