"""Tables I to III and Fig. 2: numbers, what stands beside them, and the files themselves."""

import csv
import dataclasses
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from matplotlib.figure import Figure

from matpac.reporting import paper
from matpac.reporting.captions import Provenance, RowSpec
from matpac.reporting.plots import figure2, series
from matpac.reporting.report import table1, table2, table3, write_tables
from matpac.reporting.statistics import ENVIRONMENT, MUSIC, TASKS
from matpac.reporting.typeset import Block, Column, Score, Table

import latex

FOLDS = {"esc50": 5, "us8k": 10}
MULTILABEL = ("openmic", "mtt", "fsd50k")
MINI = Provenance("mini", "embedded corpus, 2,400 clips", "3f9a1c20", steps=750)

ROWS = [
    RowSpec("base", "MATPAC", "embedded", 0.5, 128, 750, table3=True, figure2=True),
    RowSpec("alpha1", "w/o classification", "embedded", 1.0, 128, 750, table3=True),
    RowSpec("alpha025", "α 0.25", "embedded", 0.25, 128, 375, table2=False, table3=True),
    RowSpec("k512", "K 512", "embedded", 0.5, 512, 750, table2=False, figure2=True),
    RowSpec("k32", "K 32", "embedded", 0.5, 32, 750, table2=False, figure2=True),
    RowSpec("random", "Random & 100 % new_start"),
]


def info(task: str) -> dict:
    return {
        "kind": "multilabel" if task in MULTILABEL else "multiclass",
        "metric": "map" if task in MULTILABEL else "accuracy",
        "split_scheme": "folds" if task in FOLDS else "tvt",
        "num_folds": FOLDS.get(task, 0),
        "classes": ["a", "b", "c"],
        "num_clips": 1320,
    }


DATASETS = {task: info(task) for task in reversed(TASKS)}


def scores(repeats: int = 5) -> pd.DataFrame:
    """Encoder e on task t scores 0.3 + 0.05 t + 0.01 e, plus 0.01 (r - 3) in repeat r."""
    return pd.DataFrame(
        [
            (row.encoder, 0, task, fold, r, 0.3 + 0.05 * t + 0.01 * e + 0.01 * (r - 3))
            for e, row in enumerate(ROWS)
            for t, task in enumerate(TASKS)
            for r in range(1, repeats + 1)
            for fold in (range(1, FOLDS[task] + 1) if task in FOLDS else [0])
        ],
        columns=["encoder", "seed", "task", "fold", "repeat", "score"],
    )


def parsed(table: Table) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(table.csv())))


# Repeats spread by 0, ±1, ±2 points: s = sqrt(2.5), so 2.776 * sqrt(2.5) / sqrt(5).
CI95 = 2.7764 * 2.5**0.5 / 5**0.5


def test_table_two_by_hand() -> None:
    lines = parsed(table2(scores(), DATASETS, ROWS, MINI))
    base = lines[0]
    assert base["model"] == "MATPAC" and base["training_data"] == "embedded"
    for t, task in enumerate(TASKS):
        assert float(base[task]) == pytest.approx(30 + 5 * t)
        assert float(base[f"{task}_ci95"]) == pytest.approx(CI95, abs=1e-3)
    assert float(base["average"]) == pytest.approx(45)
    # All tasks move together here, so averaging over them narrows nothing.
    assert float(base["average_ci95"]) == pytest.approx(CI95, abs=1e-3)
    assert [line["model"] for line in lines[:3]] == [ROWS[0].label, ROWS[1].label, ROWS[5].label]


def test_best_is_bold_among_our_rows_only() -> None:
    table = table2(scores(), DATASETS, ROWS, MINI)
    ours, *reported = table.blocks
    best = [[cell.best for cell in row if isinstance(cell, Score)] for row in ours.rows]
    assert best == [[False] * 8, [False] * 8, [True] * 8]  # the last encoder scores highest
    assert not any(c.best for b in reported for r in b.rows for c in r if isinstance(c, Score))
    tied = scores()
    tied.loc[tied["encoder"] == "alpha1", "score"] += 0.0398  # 34.98 reads 35.0
    best = [row[2].best for row in table2(tied, DATASETS, ROWS, MINI).blocks[0].rows]
    assert best == [False, True, True]


def test_reported_rows_stand_apart_and_say_so() -> None:
    mini = table2(scores(), DATASETS, ROWS, MINI)
    assert [block.heading for block in mini.blocks] == [
        "This run: miniature tasks of the mini profile",
        "Reported in the paper, self-supervised (AudioSet): NOT comparable",
        "Reported in the paper, supervised (AudioSet): NOT comparable",
    ]
    assert [block.source for block in mini.blocks][1:] == ["paper, Table II"] * 2
    names = [row[0] for block in mini.blocks[1:] for row in block.rows]
    assert names == [model.name for model in paper.TABLE2]
    full = table2(scores(), DATASETS, ROWS, dataclasses.replace(MINI, profile="paper"))
    assert full.blocks[0].heading == "This run"
    assert not any("comparable" in text for text in [*full.notes, full.caption])


@pytest.mark.parametrize("make", [table2, table3])
def test_captions_carry_provenance_and_what_the_interval_covers(make: Callable[..., Table]) -> None:
    for text in (lambda t: t.markdown(), lambda t: t.latex()):
        got = text(make(scores(), DATASETS, ROWS, MINI)).replace("\\", "")
        assert "five repeats of the probe (Student t, 4 degrees of freedom)" in got
        assert "probe noise only, not another pretraining" in got
        assert "Profile mini; corpus: embedded corpus, 2,400 clips; parameters 3f9a1c20." in got
        assert "cannot be compared with the paper's" in got


def test_one_repeat_shows_no_interval() -> None:
    table = table2(scores(repeats=1), DATASETS, ROWS, MINI)
    assert "28.0 ± —" in table.markdown()  # repeat 1 lies two points below
    assert any("One repeat of the probe" in note for note in table.notes)
    assert parsed(table)[0]["openmic_ci95"] == ""


def test_several_seeds_are_counted_and_their_spread_shown() -> None:
    first, second = scores(), scores().assign(seed=1)
    second["score"] += 0.02
    both = pd.concat([first, second[second["encoder"] == "base"]])
    table = table2(both, DATASETS, ROWS, MINI)
    column = [row[-1] for row in table.blocks[0].rows]
    assert column == ["2, 1.4", "1", "1"]  # 2 points apart: SD 2 / sqrt(2)
    assert {len(row) for block in table.blocks for row in block.rows} == {len(table.columns)}


def test_table_three_by_hand() -> None:
    lines = parsed(table3(scores(), DATASETS, ROWS, MINI))
    assert [line["group"] for line in lines] == ["Music", "Environment", "All"] * 2
    # Groups of tasks 0-3, 4-6 and 0-6; encoders 0, 1 and 2 are alpha 0.5, 1 and 0.25.
    for line, middle in zip(lines[:3], (37.5, 55.0, 45.0), strict=True):
        assert float(line["alpha_0.5"]) == pytest.approx(middle)
        assert float(line["alpha_1"]) == pytest.approx(middle + 1)
        assert float(line["alpha_0.25"]) == pytest.approx(middle + 2)
        assert (line["alpha_0.75"], line["alpha_0.75_ci95"]) == ("", "")  # not run
    assert [float(lines[5][f"alpha_{a:g}"]) for a in (0.25, 0.5, 0.75, 1)] == [
        74.5,
        74.9,
        74.4,
        74.0,
    ]
    table = table3(scores(), DATASETS, ROWS, MINI)
    assert [column.heading for column in table.columns] == ["α", "0.25†", "0.5", "0.75", "1"]
    assert "† pretrained for another number of updates than 750: α 0.25: 375." in table.notes


def test_table_one_sets_ours_beside_the_papers() -> None:
    lines = parsed(table1({**DATASETS, "my_birds": info("my_birds")}, MINI))
    assert [line["task"] for line in lines[:7]] == [d.name for d in paper.TABLE1.values()]
    nsynth, esc = lines[1], lines[5]
    assert (nsynth["samples"], nsynth["samples_paper"]) == ("1,320", "305,979")
    assert (nsynth["type"], nsynth["metric_paper"]) == ("MCSL", "Acc.")
    assert (esc["split"], esc["split_paper"]) == ("5-Fold", "5-Fold")
    assert (lines[7]["task"], lines[7]["samples_paper"]) == ("my_birds", "—")


def test_classes_without_a_positive_are_counted_under_the_table() -> None:
    counted = scores().assign(num_classes_scored=20)
    counted.loc[counted["task"] == "mtt", "num_classes_scored"] = 18
    classes = {task: {**info(task), "classes": list(range(20))} for task in DATASETS}
    notes = " ".join(table2(counted, classes, ROWS, MINI).notes)
    assert "mAP of MTT over 18 of 20 classes: the others have no positive to test." in notes
    assert "OpenMIC over" not in notes


def test_own_tasks_alone_leave_the_papers_rows_out() -> None:
    own = scores()[scores()["task"] == "esc50"].assign(task="my_birds")
    real = dataclasses.replace(MINI, profile="mine", miniature=False)
    table = table2(own, {"my_birds": info("my_birds")}, ROWS, real)
    assert [block.heading for block in table.blocks] == ["This run: tasks of the mine profile"]
    assert "cannot be compared with the paper's" in " ".join(table.notes)
    (_, _, everything) = table3(own, {"my_birds": info("my_birds")}, ROWS, real).blocks[0].rows
    assert everything[0] == "All" and isinstance(everything[2], Score)
    assert set(series(own, ROWS)["panel"]) == {"my_birds", "average"}


def test_own_task_gets_a_column_and_stays_out_of_the_average() -> None:
    own = scores()
    own = pd.concat([own, own[own["task"] == "gtzan"].assign(task="my_birds", score=0.99)])
    table = table2(own, {**DATASETS, "my_birds": info("my_birds")}, ROWS, MINI)
    assert float(parsed(table)[0]["my_birds"]) == pytest.approx(99)
    assert float(parsed(table)[0]["average"]) == pytest.approx(45)
    with pytest.raises(ValueError, match="encoder base has no score on my_birds"):
        table2(scores(), {**DATASETS, "my_birds": info("my_birds")}, ROWS, MINI)


def test_errors_name_what_is_missing() -> None:
    with pytest.raises(ValueError, match="none of k32; run the stage probe"):
        figure2(scores()[lambda s: s["encoder"] != "k32"], ROWS, MINI, Path("unused"))
    with pytest.raises(ValueError, match="encoder random has no score on mtt"):
        part = scores()[lambda s: (s["encoder"] != "random") | (s["task"] != "mtt")]
        table2(part, DATASETS, ROWS, MINI)
    twice = [*ROWS, dataclasses.replace(ROWS[1], encoder="k32")]
    with pytest.raises(ValueError, match=r"alpha of k32: got 1\.0, as alpha1, needed: one each"):
        table3(scores(), DATASETS, twice, MINI)
    with pytest.raises(ValueError, match="num_prototypes of base: got None, needed"):
        series(scores(), [dataclasses.replace(ROWS[0], num_prototypes=None)])
    with pytest.raises(ValueError, match="no row with figure2=True"):
        series(scores(), ROWS[1:3])


def test_rows_that_were_removed_disappear() -> None:
    table = table2(scores(), DATASETS, ROWS[:1], MINI)
    assert [row[0] for row in table.blocks[0].rows] == ["MATPAC"]


def test_figure_two_values_in_order_of_k() -> None:
    points = series(scores(), ROWS)
    assert list(points["panel"].unique()) == [*TASKS, "average"]
    average = points[points["panel"] == "average"]
    assert average["num_prototypes"].tolist() == [32, 128, 512]
    assert average["encoder"].tolist() == ["k32", "base", "k512"]
    assert average["mean"].tolist() == pytest.approx([49, 45, 48])
    assert average["ci95"].tolist() == pytest.approx([CI95] * 3, abs=1e-3)


def test_figure_two_has_no_empty_column(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Environmental tasks alone, as in the profile esc10."""
    grids = []
    subplots = Figure.subplots

    def kept(self: Figure, *args: Any, **kwargs: Any) -> Any:
        grids.append(subplots(self, *args, **kwargs))
        return grids[-1]

    monkeypatch.setattr(Figure, "subplots", kept)
    figure2(scores()[lambda s: s["task"].isin(ENVIRONMENT)], ROWS, MINI, tmp_path)
    assert grids[-1].shape == (len(ENVIRONMENT) + 1, 1)
    assert all(axes.get_visible() for axes in grids[-1].flat)


def test_same_bytes_on_rerun(tmp_path: Path) -> None:
    contents = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        write_tables(scores(), DATASETS, ROWS, MINI, folder)
        figure2(scores(), ROWS, MINI, folder)
        contents.append({path.name: path.read_bytes() for path in sorted(folder.iterdir())})
    first, second = contents
    assert sorted(first) == sorted(
        [f"table{i}.{s}" for i in (1, 2, 3) for s in ("md", "tex", "csv")]
        + [f"fig2.{s}" for s in ("pdf", "png", "csv", "md")]
    )
    assert first == second
    assert b"CreationDate" not in first["fig2.pdf"] and b"Software" not in first["fig2.png"]
    assert first["fig2.png"][16:20] == (1050).to_bytes(4, "big")  # 3.5 in at 300 dpi
    read = pd.read_csv(tmp_path / "a" / "fig2.csv")
    assert read["source"].unique().tolist() == [MINI.line]
    assert "cannot be compared" in first["fig2.md"].decode()


def test_markdown_and_latex_escape_labels() -> None:
    table = Table(
        "t",
        "T",
        "c",
        (Column("a", "A_b"), Column("x", "X")),
        (Block("50 % & more", "here", (("a|b_c", Score(1.25, 0.04, True)), ("d", Score()))),),
    )
    assert r"| a\|b\_c | **1.2** ± 0.0 |" in table.markdown()
    assert "| d | ? |" in table.markdown()
    assert r"\emph{50 \% \& more}" in table.latex()
    assert r"a|b\_c & \textbf{1.2} {\scriptsize$\pm$\,0.0} \\" in table.latex()
    assert table.csv().splitlines()[1:] == [
        "50 % & more,here,a|b_c,1.25,0.04",
        "50 % & more,here,d,,",
    ]


@latex.needed
def test_latex_compiles(tmp_path: Path) -> None:
    write_tables(scores(), DATASETS, ROWS, MINI, tmp_path)
    latex.assert_compiles(tmp_path, "table1", "table2", "table3")


def test_paper_averages_fit_the_cells_that_survive() -> None:
    complete = [m for m in paper.TABLE2 if all(c.mean is not None for c in m.cells.values())]
    assert len(complete) == 8
    for model in complete:
        mean = sum(cell.mean for cell in model.cells.values()) / 7
        assert mean == pytest.approx(model.average, abs=0.05), model.name
    # The M2D and ATST rows lost cells; nothing is filled in.
    lost = {m.name: [t for t in TASKS if m.cells[t].mean is None] for m in paper.TABLE2}
    assert {name: tasks for name, tasks in lost.items() if tasks} == {
        "M2D": ["nsynth", "gtzan", "esc50", "us8k"],
        "ATST-Clip": ["nsynth", "fsd50k", "us8k"],
        "ATST-Frame": ["nsynth", "fsd50k", "esc50", "us8k"],
    }
    assert paper.TABLE2[3].cells["gtzan"] == (None, 1.4)


def test_paper_tables_two_and_three_agree() -> None:
    """alpha 0.5 is the first MATPAC row, alpha 1 the row without classification."""
    for row, alpha in ((paper.TABLE2[0], 0.5), (paper.TABLE2[2], 1.0)):
        for group, tasks in (("Music", MUSIC), ("Environment", ENVIRONMENT)):
            mean = sum(row.cells[task].mean for task in tasks) / len(tasks)
            # 0.07: the paper prints 79.3 for 79.37.
            assert paper.TABLE3[group][alpha] == pytest.approx(mean, abs=0.07)
        assert paper.TABLE3["All"][alpha] == row.average


def test_every_reported_number_stands_in_the_paper() -> None:
    """Against the paper's text, where a copy of it lies beside the project."""
    text = Path(__file__).parents[3] / "shared" / "paper.txt"
    if not text.exists():
        pytest.skip("needs the paper's text")
    lines = text.read_text().splitlines()
    starts = {"MATPAC, ramp length lost, first row": 0, "MATPAC, ramp length lost, second row": 1}
    for model in paper.TABLE2:
        name = model.name.replace("classification", "Classification")
        key = "MATPAC - " if model.name in starts else name
        found = [line for line in lines if "|" in line and key in line.split("|")[0]]
        if name == "BEATs iter3":
            found = [line for line in found if "+" not in line]
        numbers = found[starts.get(model.name, 0)].split("|", 2)[2].replace("|", " ").split()
        ours = [f"{x:.1f}" for cell in model.cells.values() for x in cell if x is not None]
        extra = ["87.5", "0.2"] if model.note else []
        assert [*ours, *extra, f"{model.average:.1f}"] == numbers, model.name
    for group, row in paper.TABLE3.items():
        printed = next(line for line in lines if line.startswith(f"{group} |"))
        assert [float(x) for x in printed.split("|")[1:5]] == list(row.values())
    for dataset in paper.TABLE1.values():
        printed = next(
            line for line in lines if line.startswith(f"{dataset.name} | {dataset.num_clips:,}")
        )
        rest = [word.strip() for word in printed.split("|")[1:6]]
        assert rest == [
            f"{dataset.num_clips:,}",
            str(dataset.num_classes),
            dataset.kind,
            dataset.split,
            dataset.metric,
        ]
