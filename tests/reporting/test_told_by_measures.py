"""Whether measures tell what a probe will say, from made tables whose answer is known."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from matpac.reporting import measures

TASKS = ("esc50", "us8k")


def made(runs: int = 8, seeds: int = 2) -> pd.DataFrame:
    """Run r scores r / 10, and better than another seed by less than another run."""
    rows = [
        {"encoder": f"run{r}", "seed": s, "task": task, "fold": f, "repeat": 1, "probe": "linear",
         "score": r / 10 + s / 100 + f / 1000, "rankme": 10 + r, "alpha_req": 1 - r,
         "uniformity": -r - s, "alignment": float(np.cos(7 * r))}
        for r in range(runs)
        for s in range(seeds)
        for task in TASKS
        for f in (1, 2)
    ]  # fmt: skip
    linear = pd.DataFrame(rows)
    return pd.concat(
        [linear, linear.assign(probe="knn", score=linear["score"].round(1))], ignore_index=True
    )


def test_a_row_per_encoder_seed_and_task_with_the_measures_beside_the_score(tmp_path: Path) -> None:
    table = measures.table(made())
    assert len(table) == 8 * 2 * 2 and list(table)[3:] == [*measures.BETTER, "score"]
    row = table.set_index(["encoder", "seed", "task"]).loc[("run3", 1, "us8k")]
    assert row["score"] == pytest.approx(0.3115) and row["knn"] == pytest.approx(0.3)
    assert row["rankme"] == 13 and row["uniformity"] == -4
    measures.write(made(), tmp_path)
    assert len(pd.read_csv(tmp_path / "measures.csv")) == len(table)


def test_scores_without_measures_or_other_probes_leave_nothing() -> None:
    scores = made()[["encoder", "seed", "task", "fold", "repeat", "score"]].drop_duplicates()
    assert measures.table(scores).empty


def test_ranks_are_compared_in_the_direction_that_is_called_better() -> None:
    found = measures.correlations(measures.table(made()).assign(knn=lambda t: -t["score"]))
    assert found.loc["rankme", "correlation"] > 0.95  # ties of the seeds
    assert found.loc["uniformity", "correlation"] > 0.95
    assert found.loc["alpha_req", "correlation"] < -0.95  # farther and farther from 1
    assert found.loc["knn", "correlation"] == pytest.approx(-1)
    luck = found.loc["alignment"]
    assert luck["low"] < luck["correlation"] < luck["high"]
    assert luck["low"] < 0 < luck["high"]  # of eight runs, chance says nothing
    # The best by RankMe is the best; the first by alpha is the worst, seven tenths below.
    assert found["cost"]["rankme"] == 0 and found["cost"]["alpha_req"] == pytest.approx(70)


def test_what_was_not_measured_of_every_encoder_is_not_judged_and_two_are_too_few() -> None:
    table = measures.table(made())
    table.loc[0, "alpha_req"] = np.nan
    assert measures.correlations(table).loc["alpha_req"].isna().all()
    with pytest.raises(ValueError, match="got 2 encoders, needed: at least 3"):
        measures.correlations(measures.table(made(runs=2)))


def test_the_picture_has_a_dot_per_encoder_and_seed_and_a_panel_per_measure() -> None:
    panels = measures.plot(measures.table(made()), apart=["run0"]).axes
    assert len(panels) == len(measures.BETTER)
    assert all(len(axes.collections[0].get_offsets()) == 16 for axes in panels)
    said = [text.get_text() for text in panels[0].get_legend().get_texts()]
    assert said == ["trained here", "run0"]
