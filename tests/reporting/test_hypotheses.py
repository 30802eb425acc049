"""What several hypotheses do, from logs with known numbers."""

from pathlib import Path

import pandas as pd
import pytest

from matpac.reporting import hypotheses


def logs() -> pd.DataFrame:
    several = [
        {"run": "plusplus", "seed": seed, "step": step, "epoch": step / 10, "choice_temp": 0.1,
         "effective_hypotheses": 3 - seed, "choice_gain": step / 100, "wins_0": 0.5, "wins_1": 0.5}
        for seed in (0, 1)
        for step in range(0, 101, 10)
    ]  # fmt: skip
    return pd.concat([pd.DataFrame([{"run": "base", "seed": 0, "step": 5}]), pd.DataFrame(several)])


def test_only_runs_with_several_are_taken_and_their_ends_averaged(tmp_path: Path) -> None:
    found = hypotheses.select(logs())
    assert set(found["run"]) == {"plusplus"} and len(found) == 22
    end = hypotheses.summary(found)
    assert end.loc[("plusplus", 1), "effective_hypotheses"] == 2
    assert end.loc[("plusplus", 0), "choice_gain"] == pytest.approx(0.95)  # of steps 90 and 100
    hypotheses.write(logs(), tmp_path)
    pd.testing.assert_frame_equal(
        pd.read_csv(tmp_path / "hypotheses.csv"), found, check_dtype=False
    )


def test_without_such_runs_nothing_is_left(tmp_path: Path) -> None:
    (tmp_path / "hypotheses.csv").write_text("old")
    hypotheses.write(logs()[["run", "seed", "step"]].iloc[:1], tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_figure_has_a_line_per_seed() -> None:
    figure = hypotheses.plot(hypotheses.select(logs()))
    for axes in figure.axes:
        drawn = [line for line in axes.lines if len(line.get_xdata())]
        assert len(drawn) == 2
