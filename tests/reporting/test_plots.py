"""Fig. 2 and the learning curve: what is drawn, and the files themselves."""

import dataclasses
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from made import MINI, ROWS, info, results, scores
from matplotlib.figure import Figure
from matplotlib.image import imread

from matpac.reporting.paper import GROUPS, TASKS
from matpac.reporting.plots import course, figure2, learning_curve, series

# Repeats spread by 0, ±1, ±2 points: s = sqrt(2.5), so 2.776 * sqrt(2.5) / sqrt(5).
CI95 = 2.7764 * 2.5**0.5 / 5**0.5


def test_figure_two_values_in_order_of_k() -> None:
    points = series(results())
    assert list(points["panel"].unique()) == [*TASKS, "average"]
    average = points[points["panel"] == "average"]
    assert average["num_prototypes"].tolist() == [32, 128, 512]
    assert average["encoder"].tolist() == ["k32", "base", "k512"]
    assert average["mean"].tolist() == pytest.approx([49, 45, 48])
    assert average["ci95"].tolist() == pytest.approx([CI95] * 3, abs=1e-3)


def test_every_seed_is_a_dot_of_figure_two(tmp_path: Path, monkeypatch: Any) -> None:
    grids = []
    subplots = Figure.subplots

    def kept(self: Figure, *args: Any, **kwargs: Any) -> Any:
        grids.append(subplots(self, *args, **kwargs))
        return grids[-1]

    monkeypatch.setattr(Figure, "subplots", kept)
    seeded = scores(seeds=3)
    seeded = seeded[seeded["task"].isin(GROUPS["Environment"])]
    infos = {task: info(task) for task in GROUPS["Environment"]}
    figure2(results(seeded, infos=infos), tmp_path)
    average = grids[-1][1, 1]
    dots = [line for line in average.lines if line.get_marker() == "."]
    drawn = {x: sorted(line.get_ydata()) for line in dots for x in set(line.get_xdata())}
    # Tasks 4 to 6: 55 on average; k32 is the fifth encoder; seeds are 2 points apart.
    assert drawn[32] == pytest.approx([59, 61, 63]) and set(drawn) == {32, 128, 512}
    low, high = average.get_ylim()
    assert low < 55 and high > 63
    table = pd.read_csv(tmp_path / "fig2.csv").set_index(["panel", "encoder"])
    assert table.loc[("average", "k32"), "seeds"] == "59.0000 61.0000 63.0000"
    assert table.loc[("average", "k32"), "unit"] == "seeds"


def test_the_series_must_be_one() -> None:
    with pytest.raises(ValueError, match="none of k32; run the stage probe"):
        series(results(scores()[lambda s: s["encoder"] != "k32"]))
    with pytest.raises(ValueError, match="num_prototypes of base: got None, needed"):
        series(results(rows=[dataclasses.replace(ROWS[0], num_prototypes=None)]))
    with pytest.raises(ValueError, match="no row with figure2=True"):
        series(results(rows=ROWS[1:3]))
    own = scores()[lambda s: s["task"] == "esc50"].assign(task="my_birds")
    alone = results(own, infos={"my_birds": info("my_birds")})
    assert set(series(alone)["panel"]) == {"my_birds", "average"}


def half_trained(seeds: int = 2) -> pd.DataFrame:
    """The base run before training, 20 points below its end, and halfway, 5 below."""
    base = scores(seeds=seeds)[lambda s: s["encoder"] == "base"]
    parts = [base.assign(fraction=f, score=base["score"] - x) for f, x in ((0.0, 0.2), (0.5, 0.05))]
    return pd.concat(parts)


def test_the_learning_curve_ends_in_the_tables_score() -> None:
    points, rows = course(results(scores(seeds=2)), half_trained())
    assert [row.encoder for row in rows] == ["base", "random"]
    base = points[points["encoder"] == "base"]
    assert base["fraction"].tolist() == [0.0, 0.5, 1.0]
    assert base["mean"].tolist() == pytest.approx([26, 41, 46])  # 45 and 47 at the end
    assert base["seeds"].tolist()[-1] == pytest.approx((45, 47))
    random = points[points["encoder"] == "random"]
    assert random["fraction"].isna().all() and random["mean"].item() == pytest.approx(51)
    # What a curve says of its end is not drawn twice.
    ended = pd.concat([half_trained(), half_trained().assign(fraction=1.0)])
    pd.testing.assert_frame_equal(course(results(scores(seeds=2)), ended)[0], points)
    lacking = half_trained()[lambda s: s["task"] != "mtt"]
    with pytest.raises(ValueError, match="encoder base has no score on mtt"):
        course(results(scores(seeds=2)), lacking)


def test_figures_are_the_same_bytes_and_say_what_they_are(tmp_path: Path) -> None:
    contents = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        figure2(results(), folder)
        learning_curve(results(), half_trained(seeds=1), folder)
        contents.append({path.name: path.read_bytes() for path in sorted(folder.iterdir())})
    first, second = contents
    suffixes = ("csv", "md", "pdf", "png")
    assert list(first) == [f"{name}.{s}" for name in ("curve", "fig2") for s in suffixes]
    assert first == second
    assert imread(tmp_path / "a" / "fig2.png").shape[1] == 1050  # 3.5 in at 300 dpi
    for name in ("fig2", "curve"):
        read = pd.read_csv(tmp_path / "a" / f"{name}.csv")
        assert read["source"].unique().tolist() == [MINI.line]
        caption = first[f"{name}.md"].decode()
        assert "cannot be compared" in caption and "five repeats of the probe" in caption
    learning_curve(results(), pd.DataFrame(), tmp_path / "a")
    assert not list((tmp_path / "a").glob("curve.*"))
