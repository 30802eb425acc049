"""What would run now: DVC's answer, summed up with hours."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import test_cost

from matpac.cli import cost, plan
from matpac.core import paths

STAGES = ["fetch@smoke", "pretrain@smoke-base", "pretrain@smoke-k8", "pretrain@paper-base"]
STAGES += ["probe@smoke-base", "sources@smoke"]


def executed(folder: Path, name: str, seconds: float | None) -> None:
    """A notebook as papermill leaves it."""
    record = {"start_time": name, "duration": seconds}
    (folder / f"{name}.ipynb").write_text(json.dumps({"metadata": {"papermill": record}}))


def test_hours_are_calculated_or_those_of_the_last_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MATPAC_ROOT", str(tmp_path))
    params = test_cost.make_params()
    folder = paths.small(params) / "executed"
    folder.mkdir(parents=True)
    executed(folder, "01_fetch", 1800.0)
    kinds = plan.by_kind(STAGES, "smoke") | {"pretrain": ["base"]}
    _, *rows = test_cost.cells(plan.stages_table(params, kinds, training=26.67))
    assert rows == [
        ["fetch", "1", "0.5", ""],
        ["pretrain", "1", "26.7", "base"],
        ["probe", "1", "?", "base"],  # never ran
        ["sources", "1", "0", ""],
    ]


def test_the_whole_plan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("MATPAC_ROOT", str(tmp_path))
    params = test_cost.make_params()
    monkeypatch.setattr(plan, "load", lambda: params)
    monkeypatch.setattr(cost, "rate", lambda params: (0.01, "measured on card"))
    monkeypatch.setattr(plan, "stale", lambda root: ["pretrain@smoke-k8"])
    plan.main()
    out = capsys.readouterr().out
    hours = sum(t.hours for t in cost.trainings(params, clips_per_s=0.01) if t.run == "k8")
    told = f"pretrain: {cost.number(hours)} h from scratch on 1 x 0.01 clips/s (measured on card), "
    told += f"{cost.number(hours)} device-hours; an epoch of 96 clips (embedded as params.yaml asks"
    assert told in out
    assert f"disk when all is done: {cost.disk(params)}; " in out and "are free at" in out
    monkeypatch.setattr(plan, "stale", lambda root: [])
    plan.main()
    assert capsys.readouterr().out == "profile smoke: everything is up to date\n"


def test_minutes_are_those_that_papermill_recorded(tmp_path: Path) -> None:
    executed(tmp_path, "b", 90)
    executed(tmp_path, "a", 30)
    executed(tmp_path, "c", None)
    executed(tmp_path, "of_another_run", 30)
    assert plan.minutes(tmp_path, "bacd") == {"a": 0.5, "b": 1.5}


@pytest.mark.slow
def test_dvc_says_which_stages_are_stale(tmp_path: Path) -> None:
    with pytest.raises(ChildProcessError, match=r"dvc status failed:\n.*not inside of a DVC"):
        plan.stale(tmp_path)
    dvc = [sys.executable, "-m", "dvc"]
    subprocess.run([*dvc, "init", "-q", "--no-scm"], cwd=tmp_path, check=True)
    (tmp_path / "dvc.yaml").write_text("stages: {one: {cmd: echo 1 > one, outs: [one]}}\n")
    subprocess.run([*dvc, "repro", "-q"], cwd=tmp_path, check=True)
    more = "stages: {one: {cmd: echo 1 > one, outs: [one]}, two: {cmd: 'true', deps: [one]}}\n"
    (tmp_path / "dvc.yaml").write_text(more)
    assert plan.stale(tmp_path) == ["two"]
