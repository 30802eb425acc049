"""The study of probe settings on the smoke tasks."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from matpac.params import Params, parse
from matpac.probing import probe, study
from matpac.probing.linear import choose, train_probes
from matpac.probing.rows import list_features

import command
import smoke


@pytest.fixture
def params(smoke_root: Path) -> Params:
    sections = smoke.sections() | {"tasks": ["nsynth", "esc50"]}
    return parse(Params, sections)


def test_it_reports_what_the_probes_of_each_setting_reach(params) -> None:
    rows = study.study("logmel", params, learning_rates=[1e-2, 1e-4], epochs=[2, 3])
    assert len(rows) == 2 * 2 * 2 * 3  # tasks, standardised or not, epochs, two rates and chosen
    task = probe.load_task(params, list_features(params, "logmel")[0], "esc50")[0]
    changes = {"standardize": False, "epochs": 3, "learning_rate": [1e-2, 1e-4]}
    settings = params.probe.model_copy(update=changes)
    results = train_probes(task, settings)
    ours = rows[(rows["task"] == "esc50") & ~rows["standardize"] & (rows["epochs"] == 3)]
    for name, each in [*results.items(), ("chosen", choose(results))]:
        row = ours[ours["learning_rate"] == name].iloc[0]
        assert row["valid_loss"] == np.mean([r.valid_loss for r in each])
        assert row["valid_score"] == np.mean([r.valid_score for r in each])
        assert row["test_score"] == np.mean([r.score for r in each])
        assert row["unfinished"] == np.mean([r.best_epoch == 3 for r in each])


def test_the_table_marks_the_lowest_validation_loss_and_what_was_still_learning() -> None:
    columns = [*study.SETTING, "valid_loss", "valid_score", "test_score", "unfinished"]
    rows = pd.DataFrame(
        [
            ["esc50", True, 100, 3e-5, 0.9, 0.6, 0.99, 0.5],
            ["esc50", True, 100, 1e-2, 0.8, 0.5, 0.25, 0.4],
            ["esc50", True, 100, "chosen", 0.8, 0.5, 0.25, 0.0],
        ],
        columns=columns,
    )
    assert study.table(rows).splitlines() == [
        "| task | standardised | epochs | 3e-05 | 0.01 | chosen |",
        "| --- | --- | --- | ---: | ---: | ---: |",
        "| esc50 | yes | 100 | 60.0 / 99.0† | **50.0 / 25.0** | 50.0 / 25.0 |",
    ]


def test_the_command(params, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    table = tmp_path / "new/rows.csv"
    file = ["--params", str(smoke.SMOKE_YAML), "--csv", str(table)]
    assert command.matpac("study", "logmel", *file, "--rate", 0.001, "--epochs", 1) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "| task | standardised | epochs | 0.001 | chosen |"
    assert len(printed) == 2 + 2 * 3 and len(pd.read_csv(table)) == 2 * 3 * 2
    for wrong in (["--csv", tmp_path], ["--rate", -0.01], ["--epochs", -3]):
        assert command.matpac("study", "logmel", *wrong) == 2, "before it computes"
