"""The collapse alarm rings for the ablations of the paper and for nothing healthy."""

import math
from pathlib import Path

import pandas as pd
import pytest
import tiny

from matpac.pretraining.alarm import RULES, Alarm

HEALTHY = {
    "teacher_entropy_of_mean": 2.0,
    "mutual_information": 1.0,
    "target_effective_rank": 9.0,
    "predicted_effective_rank": 9.0,
    "effective_hypotheses": 2.0,
}
MEASURED = [rule.measured for rule in RULES]
COLLAPSE = Path(__file__).parents[2] / "figures" / "mini" / "collapse.csv"


def values(**changes: float) -> dict[str, float]:
    return HEALTHY | changes


@pytest.mark.parametrize(
    ("name", "threshold", "text"),
    [  # K is 12
        ("teacher_entropy_of_mean", 0.1 * math.log(12), "one prototype takes all"),
        ("mutual_information", 0.02 * math.log(12), "distributions ignore the input"),
        ("target_effective_rank", 2.0, "targets share one direction"),
        ("predicted_effective_rank", 2.0, "predictions share one direction"),
        ("effective_hypotheses", 1.1, "one hypothesis wins all"),
    ],
)
def test_each_rule_at_its_threshold(name: str, threshold: float, text: str) -> None:
    several = {"model": {"hypotheses": 3}, "objective": {"choice_temp": [0.1, 0.01]}}
    several["objective"] |= {"choice_temp_fraction": 0.5}
    alarm = Alarm(tiny.run(**several), warmup_steps=0)
    below, above = (values(**{name: threshold * factor}) for factor in (0.999, 1.001))
    said = [alarm.look(step, row) for step, row in enumerate([below, below, above, below, below])]
    assert said == [[]] * 5 and alarm.ringing == []
    (line,) = alarm.look(5, below)
    assert line.startswith(f"step 5: collapse: {text} ({name} ")
    assert alarm.ringing == [text]
    assert alarm.look(6, below) == [] and alarm.ringing == [text]  # said once
    assert alarm.look(7, above) == [] and alarm.ringing == []


def test_nothing_is_judged_during_warm_up() -> None:
    alarm = Alarm(tiny.run(), warmup_steps=10)
    for step in range(10):
        assert alarm.look(step, values(mutual_information=0.0)) == []
    lines = [alarm.look(step, values(mutual_information=0.0)) for step in (10, 11, 12)]
    assert [len(line) for line in lines] == [0, 0, 1]


def test_without_classification_its_rules_do_not_apply() -> None:
    alarm = Alarm(tiny.run(objective={"alpha": 1.0}), warmup_steps=0)
    for step in range(5):
        assert alarm.look(step, values(mutual_information=0.0, teacher_entropy_of_mean=0.0)) == []
    for step in range(2):
        alarm.look(step, values(target_effective_rank=1.0))
    assert alarm.look(9, values(target_effective_rank=1.0)) != []


def test_the_committed_runs() -> None:
    """No seed of the base run rings; every one without sharpening does; one without centering."""
    measured = pd.read_csv(COLLAPSE)
    rang: dict[str, list[list[str]]] = {}
    for (name, _), rows in measured.groupby(["run", "seed"]):
        model = {"num_prototypes": int(rows["num_prototypes"].iloc[0])}
        alarm = Alarm(tiny.run(model=model), warmup_steps=0.1 * rows["step"].max())
        for row in rows.to_dict("records"):
            alarm.look(row["step"], values(**{n: row[n] for n in MEASURED if n in rows}))
        rang.setdefault(name, []).append(alarm.ringing)
    assert rang["base"] == [[]] * 5
    assert ["one prototype takes all" in seed for seed in rang["no_centering"]] == [True, False]
    assert rang["no_sharpening"] == rang["neither"] == [["distributions ignore the input"]] * 2
