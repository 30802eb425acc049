"""What the paper reports (MATPAC Tables I, II and III), as far as its text survives.

The text we work from lost some characters: whole cells of the two ATST rows, the means (not the
intervals) of four cells of the M2D row, and the two ramp lengths that tell the MATPAC rows apart.
What is lost is None here, never filled in. Where a row has fewer numbers than columns, a number is
placed only if one column alone can hold it; the reasons stand beside it. Of Fig. 2 no number
survives.

Scores in percent, as printed. The column keys are those of `matpac.reporting.statistics.TASKS`.
"""

from dataclasses import dataclass
from typing import NamedTuple

from matpac.reporting.statistics import TASKS


class Reported(NamedTuple):
    """A cell of Table II: mean and half width of its 95 % interval in percent; None if lost."""

    mean: float | None = None
    ci95: float | None = None


@dataclass(frozen=True)
class ReportedDataset:
    """A row of Table I. ``kind`` is ML (multi-label) or MCSL (multi-class single-label)."""

    name: str
    num_clips: int
    num_classes: int
    kind: str
    split: str
    metric: str


@dataclass(frozen=True)
class ReportedModel:
    """A row of Table II: cells by task (absent = lost) and the printed average."""

    name: str
    training_data: str
    supervised: bool
    cells: dict[str, Reported]
    average: float
    note: str = ""


def _complete(text: str) -> dict[str, Reported]:
    """Seven "mean interval" pairs in the order of the columns; ? for a lost number."""
    numbers = [None if word == "?" else float(word) for word in text.replace("|", "").split()]
    pairs = zip(numbers[::2], numbers[1::2], strict=True)
    return {task: Reported(*pair) for task, pair in zip(TASKS, pairs, strict=True)}


TABLE1 = {
    "openmic": ReportedDataset("OpenMIC", 20_000, 20, "ML", "TVT", "mAP"),
    "nsynth": ReportedDataset("NSynth", 305_979, 11, "MCSL", "TVT", "Acc."),
    "gtzan": ReportedDataset("GTZAN", 930, 10, "MCSL", "TVT", "Acc."),
    "mtt": ReportedDataset("MTT", 25_863, 50, "ML", "TVT", "mAP"),
    "fsd50k": ReportedDataset("FSD50K", 51_197, 200, "ML", "TVT", "mAP"),
    "esc50": ReportedDataset("ESC-50", 2_000, 50, "MCSL", "5-Fold", "Acc."),
    "us8k": ReportedDataset("US8K", 8_732, 10, "MCSL", "10-Fold", "Acc."),
}

# The ATST rows keep four of seven cells each, in the order of the columns.
# 39.1: MTT. No other column holds such values: every surviving FSD50K score
#   is 41.1 or more, and the text puts an ATST model above MATPAC's 55.2 there.
# The two numbers before it belong to two of OpenMIC, NSynth, GTZAN. NSynth would have to be 84.2,
#   83.1, 79.9 or 80.7, far above MATPAC's 74.6; but Sec. IV-B says that MATPAC is better than
#   previous self-supervised methods except on NSynth and FSD50K, where "respectively M2D and ATST"
#   are higher. So they are OpenMIC and GTZAN, whose surviving values include that range.
# ATST-Clip's 91.4 comes after MTT. FSD50K: no model is above 61.3. US8K: it would beat MATPAC's
#   89.4 against the same sentence. So it is ESC-50.
# ATST-Frame's 87.5 could be ESC-50 or US8K (both lie below MATPAC's 93.5 and 89.4, and the average
#   of 72.5 leaves three unknown cells either way), so it is not placed.
TABLE2 = (
    ReportedModel(
        "MATPAC, ramp length lost, first row",
        "AS",
        False,
        _complete("85.3 0.0 | 74.3 0.2 | 85.3 0.4 | 41.1 0.0 | 55.2 0.1 | 93.5 0.1 | 89.4 0.1"),
        74.9,
    ),
    ReportedModel(
        "MATPAC, ramp length lost, second row",
        "AS",
        False,
        _complete("85.4 0.0 | 74.6 0.5 | 85.9 0.3 | 41.0 0.0 | 54.8 0.1 | 93.2 0.1 | 88.0 0.0"),
        74.7,
    ),
    ReportedModel(
        "MATPAC w/o classification",
        "AS",
        False,
        _complete("85.1 0.0 | 73.7 1.1 | 84.2 0.4 | 40.8 0.0 | 54.4 0.2 | 92.5 0.1 | 87.5 0.1"),
        74.0,
    ),
    # All eight cells are there, four of them without their mean: their places are certain.
    ReportedModel(
        "M2D",
        "AS",
        False,
        _complete("84.8 0.1 | ? 1.3 | ? 1.4 | 40.6 0.1 | 52.8 0.8 | ? 0.3 | ? 0.3"),
        73.7,
    ),
    ReportedModel(
        "ATST-Clip",
        "AS",
        False,
        _complete("84.2 0.0 | ? ? | 79.9 0.2 | 39.1 0.0 | ? ? | 91.4 0.1 | ? ?"),
        73.6,
    ),
    ReportedModel(
        "ATST-Frame",
        "AS",
        False,
        _complete("83.1 0.1 | ? ? | 80.7 0.7 | 39.1 0.1 | ? ? | ? ? | ? ?"),
        72.5,
        note="87.5 ± 0.2 survives too, for either ESC-50 or US8K",
    ),
    ReportedModel(
        "BEATs iter3",
        "AS",
        False,
        _complete("82.7 0.1 | 72.4 0.7 | 80.0 0.3 | 38.3 0.0 | 46.7 0.1 | 87.5 0.1 | 85.4 0.1"),
        70.4,
    ),
    ReportedModel(
        "MAE-AST",
        "AS+LS",
        False,
        _complete("79.4 0.1 | 71.2 0.4 | 64.1 1.2 | 36.9 0.2 | 41.1 0.1 | 84.4 0.2 | 81.3 0.2"),
        65.5,
    ),
    ReportedModel(
        "PaSST",
        "AS",
        True,
        _complete("86.5 0.1 | 72.9 0.5 | 87.4 2.0 | 40.4 0.1 | 61.3 0.2 | 97.0 0.1 | 89.1 0.1"),
        76.4,
    ),
    ReportedModel(
        "HTS-AT",
        "AS",
        True,
        _complete("86.4 0.0 | 68.6 0.3 | 85.9 0.4 | 40.1 0.0 | 59.4 0.0 | 95.9 0.1 | 85.3 0.0"),
        74.5,
    ),
    ReportedModel(
        "BEATs iter3+",
        "AS",
        True,
        _complete("86.7 0.0 | 71.6 0.5 | 86.0 0.4 | 40.3 0.0 | 60.6 0.1 | 96.1 0.1 | 89.5 0.1"),
        75.8,
    ),
)

# By group of tasks, then by alpha; printed without intervals.
TABLE3 = {
    "Music": {0.25: 71.5, 0.5: 71.5, 0.75: 71.4, 1.0: 71.0},
    "Environment": {0.25: 78.5, 0.5: 79.3, 0.75: 78.5, 1.0: 78.1},
    "All": {0.25: 74.5, 0.5: 74.9, 0.75: 74.4, 1.0: 74.0},
}
