"""Logs of runs: read, summarised, judged, drawn. All numbers are worked by hand."""

import json
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest

from matpac.reporting import collapse

import smoke

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
TWO = float(np.log(2))


def write_run(
    root: Path,
    run: str,
    *,
    seed: int = 0,
    entropy: float = 3.0,
    loss: float = 0.1,
    steps: int = 20,
) -> None:
    """A run that measured every fourth step and the last, with a loss of ``loss`` x step."""
    small = root / "data" / "tiny"
    logs = small / "logs" / run / f"seed_{seed}"
    logs.mkdir(parents=True)
    step = np.arange(steps)
    measured = np.unique([*range(0, steps, 4), steps - 1])
    log = {"step": step, "epoch": step / 10, "prediction_loss": loss * step}
    log |= {"classification_loss": 2.0, "total_loss": 1.0, "gradient_norm": 1.0}
    pd.DataFrame(log).to_csv(logs / "log.csv", index=False)
    found = {"step": measured, "teacher_entropy_of_mean": entropy, "mutual_information": 0.5}
    found |= {"teacher_mean_entropy": entropy - 0.5, "teacher_student_kl": 0.25, "agreement": 0.5}
    found |= {"prototypes_in_use": 6.0 + (measured == steps - 1), "teacher_temp": 0.05}
    found |= {"center_norm": 1.0, "target_std": 0.4, "target_effective_rank": 20.0}
    pd.DataFrame(found).to_csv(logs / "diagnostics.csv", index=False)
    encoder = small / "pretrain" / run / f"seed_{seed}" / "config.json"
    encoder.parent.mkdir(parents=True)
    encoder.write_text(json.dumps({"model": {"num_prototypes": 64}}))


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MATPAC_ROOT", str(tmp_path))
    return tmp_path


def test_load_joins_losses_with_the_steps_that_measured(root: Path) -> None:
    write_run(root, "base")
    write_run(root, "base", seed=10)
    write_run(root, "alpha0", seed=2)
    logs = collapse.load("tiny")
    runs = logs[["run", "seed"]].drop_duplicates().to_records(index=False).tolist()
    assert runs == [("alpha0", 2), ("base", 0), ("base", 10)]
    base = logs[(logs["run"] == "base") & (logs["seed"] == 0)]
    assert base["step"].tolist() == [0, 4, 8, 12, 16, 19]
    # 0.1 x the mean of steps {0}, {1..4}, {5..8}, {9..12}, {13..16}, {17..19}
    assert base["prediction_loss"].tolist() == pytest.approx([0, 0.25, 0.65, 1.05, 1.45, 1.8])
    assert base["epoch"].tolist() == pytest.approx([0, 0.4, 0.8, 1.2, 1.6, 1.9])
    assert set(logs["num_prototypes"]) == {64} and set(logs["profile"]) == {"tiny"}


def test_load_names_the_stage_to_run(root: Path) -> None:
    with pytest.raises(FileNotFoundError, match="run the notebook 03_pretrain with run = 'base'"):
        collapse.load("tiny")
    with pytest.raises(FileNotFoundError, match="no training logs; run the notebook 03_pretrain"):
        collapse.load()


def test_load_takes_the_active_profile_only_if_it_has_logs(root: Path) -> None:
    shipped = smoke.SMOKE_YAML.read_text()
    (root / "params.yaml").write_text(shipped.replace("profile: smoke", "profile: tiny"))
    with pytest.raises(FileNotFoundError, match="no training logs; run the notebook 03_pretrain"):
        collapse.load()
    write_run(root, "base")
    assert set(collapse.load()["profile"]) == {"tiny"}


def test_of_a_run_that_is_not_asked_for_nothing_is_read(root: Path) -> None:
    write_run(root, "base")
    write_run(root, "k32")
    (root / "data/tiny/pretrain/k32/seed_0/config.json").unlink()
    assert set(collapse.load("tiny", ["base"])["run"]) == {"base"}


def test_summary_is_the_last_tenth_averaged_over_seeds(root: Path) -> None:
    write_run(root, "own", entropy=1.0)
    write_run(root, "alpha0", entropy=2.0)
    write_run(root, "base", entropy=3.0)
    write_run(root, "base", seed=1, entropy=4.0, steps=5)
    table = collapse.summary(collapse.load("tiny"))
    assert table.index.tolist() == ["base", "alpha0", "own"]
    # seed 0 ends with step 19 alone (17.1 is the limit), seed 1 with step 4, mean of steps 1 to 4
    assert table.loc["alpha0", "prediction_loss"] == pytest.approx(1.8)
    assert table.loc["base", "prediction_loss"] == pytest.approx((1.8 + 0.25) / 2)
    assert table.loc["base", "entropy_of_mean"] == pytest.approx(3.5)
    assert table.loc["own", "prototypes_in_use"] == 7
    assert table.loc["own", ["mutual_information", "teacher_student_kl"]].tolist() == [0.5, 0.25]
    assert table.loc["own", "classification_loss"] == 2.0 and table["rankme"].isna().all()


def test_rankme_comes_from_the_probe(root: Path) -> None:
    """The mean over tasks, of the seed alone; every row of a task says the same."""
    write_run(root, "base")
    write_run(root, "base", seed=1)
    scores = pd.DataFrame({"seed": [0, 0, 0, 1], "task": list("aaba"), "rankme": [10, 10, 20, 40]})
    (root / "data/tiny/probe/base").mkdir(parents=True)
    scores.to_csv(root / "data/tiny/probe/base/scores.csv", index=False)
    logs = collapse.load("tiny")
    assert logs.groupby("seed")["rankme"].unique().tolist() == [[15], [40]]
    assert collapse.summary(logs).loc["base", "rankme"] == pytest.approx(27.5)


@pytest.mark.parametrize(
    ("entropy_of_mean", "information", "loss", "expected"),
    [
        (3.0, 0.7, 0.1, (False, False, False)),
        (TWO, 0.3, 0.1, (True, False, False)),  # two prototypes share everything
        (1.39, 0.3, 0.1, (False, False, False)),  # ln 4 = 1.386
        (4.8, 0.01, 0.1, (False, True, False)),  # flat whatever the patch
        (3.0, 0.1, 1.6, (False, True, True)),
    ],
)
def test_symptoms(
    entropy_of_mean: float, information: float, loss: float, expected: tuple[bool, ...]
) -> None:
    values = {"entropy_of_mean": entropy_of_mean, "mutual_information": information}
    table = pd.DataFrame(values | {"prediction_loss": loss}, index=["run"])
    assert tuple(collapse.symptoms(table).loc["run"]) == expected


def test_figure_draws_the_inspected_runs_and_rewrites_the_same_bytes(
    root: Path, tmp_path: Path
) -> None:
    for run in ("base", "alpha0", "k32"):
        write_run(root, run)
    logs = collapse.load("tiny")
    written = []
    for _ in range(2):
        collapse.figure(logs, tmp_path / "out", {"profile": "tiny", "parameters": "0a1b"})
        written.append({path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()})
    assert set(written[0]) == {f"collapse.{kind}" for kind in ("csv", "pdf", "png")}
    assert written[0] == written[1]
    curves = pd.read_csv(tmp_path / "out" / "collapse.csv")
    assert set(curves["run"]) == {"base", "alpha0"}  # others are not part of the inspection
    assert set(curves["profile"]) == {"tiny"} and len(curves) == 12
    assert curves["prediction_loss"].iloc[-1] == pytest.approx(1.8)


def test_plot_has_one_panel_per_run_and_three_comparisons(root: Path) -> None:
    write_run(root, "neither")
    write_run(root, "base")
    write_run(root, "base", seed=1)
    drawn = collapse.plot(collapse.load("tiny"), note="profile tiny")
    titles = [axes.get_title() for axes in drawn.axes]
    assert titles == ["both (MATPAC)", "neither", *collapse.TITLES.values()]
    # both entropies of two seeds, and ln K
    base, difference = drawn.axes[0], drawn.axes[2]
    assert len(base.lines) == 5 and base.lines[-1].get_ydata()[0] == pytest.approx(np.log(64))
    assert len(difference.lines) == 3  # two seeds and the other run


def test_plot_needs_a_run(root: Path) -> None:
    write_run(root, "base")
    with pytest.raises(ValueError, match="got typo, allowed: base"):
        collapse.plot(collapse.load("tiny"), ["typo"])


@pytest.mark.parametrize("runs", [["base"], ["base", "alpha1"], ["no_centering"]])
def test_notebook_06_works_with_whatever_runs_there_are(
    root: Path, monkeypatch: pytest.MonkeyPatch, runs: list[str], capsys: pytest.CaptureFixture
) -> None:
    for run in runs:
        write_run(root, run)
    (root / "params.yaml").write_text("profile: tiny\n")
    monkeypatch.chdir(NOTEBOOKS)
    cells = nbformat.read("06_inspect_collapse.ipynb", 4).cells
    exec("\n".join(cell.source for cell in cells if cell.cell_type == "code"), {})
    said = capsys.readouterr().out
    assert f"runs: {runs[0]}\nnot trained: " in said and "no_sharpening, " in said
    assert "without sharpening" not in said
