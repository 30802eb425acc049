"""Measured rows beside the paper's: differences and verdicts by hand, and what is not compared."""

import csv
import dataclasses
import io
from pathlib import Path

import pandas as pd
import pytest

from matpac.reporting import compare, paper
from matpac.reporting.captions import Provenance, RowSpec
from matpac.reporting.report import table2, write_tables
from matpac.reporting.statistics import TASKS
from matpac.reporting.typeset import Block, Column, Difference, Score, Table

import latex

PAPER = Provenance("paper", "AudioSet", "3f9a1c20", 750, miniature=False, comparable=TASKS)
MINE = dataclasses.replace(PAPER, profile="mine")
MINIATURE = Provenance("mini", "embedded corpus", "3f9a1c20", 750)
PASST = RowSpec("passt", "PaSST 50 % off_set", "elsewhere", reported="PaSST")
ALPHA1 = RowSpec("alpha1", "w/o cls", "AudioSet", 1.0, 128, 375, reported=paper.TABLE2[2].name)

# Measured minus reported, in points, in the order of the columns. The paper's PaSST: 86.5 ± 0.1,
# 72.9 ± 0.5, 87.4 ± 2.0, 40.4 ± 0.1, 61.3 ± 0.2, 97.0 ± 0.1, 89.1 ± 0.1.
SHIFTS = (0.3, -0.7, 2.2, -0.4, 0.0, 0.3, -0.3)
# Five repeats at -0.2, -0.1, 0, 0.1, 0.2 points: s = 0.1 sqrt(2.5), and the half width is
# 2.776 s / sqrt(5) = 0.196, printed 0.2. Added to the paper's:
LIMITS = (0.3, 0.7, 2.2, 0.3, 0.4, 0.3, 0.3)
WITHIN = ("yes", "yes", "yes", "no", "yes", "yes", "yes")


def info(task: str) -> dict:
    metric = "map" if task in ("openmic", "mtt", "fsd50k") else "accuracy"
    kind = "multilabel" if metric == "map" else "multiclass"
    common = {"split_scheme": "tvt", "num_folds": 0, "classes": ["a", "b"], "num_clips": 100}
    return {"metric": metric, "kind": kind, **common}


DATASETS = {task: info(task) for task in reversed(TASKS)}


def scores(row: RowSpec, *, shift: float = 0.0, repeats: int = 5) -> pd.DataFrame:
    """The paper's means (a lost one: 50) plus ``SHIFTS`` and ``shift``; repeats around each."""
    cells = compare.MODELS[row.reported].cells
    return pd.DataFrame(
        [
            (row.encoder, task, 0, r, (cells[task].mean or 50.0) + by + shift + 0.1 * (r - 2))
            for task, by in zip(TASKS, SHIFTS, strict=True)
            for r in range(repeats)
        ],
        columns=["encoder", "task", "fold", "repeat", "score"],
    ).assign(score=lambda frame: frame["score"] / 100)


def made(row: RowSpec, provenance: Provenance = PAPER, **how: float) -> Table:
    table = compare.differences(scores(row, **how), DATASETS, [row], provenance)
    assert table is not None
    return table


def parsed(table: Table) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(table.csv())))


@pytest.mark.parametrize(
    ("measured", "reported", "expected"),
    [
        # Exactly on the boundary. In floats 40.7 - 40.4 > 0.2 + 0.1, by 4e-15.
        (Score(40.7, 0.2), Score(40.4, 0.1), Difference(0.3, 0.3, True)),
        (Score(40.1, 0.2), Score(40.4, 0.1), Difference(-0.3, 0.3, True)),
        (Score(40.8, 0.2), Score(40.4, 0.1), Difference(0.4, 0.3, False)),
        # As printed: 85.34 reads 85.3, which the paper's 85.3 ± 0.0 may be as well.
        (Score(85.34, 0.02), Score(85.3, 0.0), Difference(0.0, 0.0, True)),
        (Score(85.36, 0.02), Score(85.3, 0.0), Difference(0.1, 0.0, False)),
        (Score(85.36, 0.06), Score(85.3, 0.0), Difference(0.1, 0.1, True)),
        # Lost, not given, or from one repeat.
        (Score(60.0, 0.2), Score(None, 1.3), Difference()),
        (Score(60.0, 0.2), Score(), Difference()),
        (Score(76.6, 0.2), Score(76.4), Difference(0.2)),
        (Score(86.6, float("nan")), Score(86.5, 0.1), Difference(0.1)),
    ],
)
def test_differences_by_hand(measured: Score, reported: Score, expected: Difference) -> None:
    assert compare.difference(measured, reported) == expected


def test_a_row_stands_beside_the_papers() -> None:
    measured, reported, difference, *others = parsed(made(PASST))
    assert [line["value"] for line in (measured, reported, difference)] == [
        "measured",
        "reported",
        "difference",
    ]
    assert {line["block"] for line in (measured, reported, difference)} == {
        "Measured here beside the paper's PaSST"
    }
    assert (measured["source"], reported["source"]) == (PAPER.line, "paper, Table II")
    assert (measured["training_data"], reported["training_data"]) == ("elsewhere", "AS")
    cells = compare.MODELS["PaSST"].cells
    for task, shift, limit, within in zip(TASKS, SHIFTS, LIMITS, WITHIN, strict=True):
        assert float(measured[task]) == pytest.approx(cells[task].mean + shift, abs=1e-4)
        assert float(measured[f"{task}_ci95"]) == pytest.approx(0.1963, abs=1e-4)
        assert float(reported[task]) == cells[task].mean
        assert float(difference[task]) == shift
        assert float(difference[f"{task}_ci95"]) == limit
        assert (difference[f"{task}_within"], measured[f"{task}_within"]) == (within, "")
    # 536.0 / 7 = 76.57 reads 76.6; the paper's 76.4 has no interval, so there is no verdict.
    assert (difference["average"], difference["average_within"]) == ("0.2", "")
    names = [model.name for model in paper.TABLE2 if model.name != "PaSST"]
    assert [line["model"] for line in others] == names
    assert {line["value"] for line in others} == {"reported"}


def test_markdown_and_latex_say_it_in_words() -> None:
    markdown, latex = made(PASST).markdown(), made(PASST).latex()
    line = next(line for line in markdown.splitlines() if "| difference |" in line)
    assert line == (
        r"| PaSST 50 % off\_set | difference |  | +0.3 within | −0.7 within | +2.2 within | "
        "−0.4 outside | 0.0 within | +0.3 within | −0.3 within | +0.2 |"
    )
    assert r"PaSST 50 \% off\_set & difference &  & +0.3 {\scriptsize within} & $-$0.7" in latex
    # One heading and one rule for the three lines of different origin.
    assert markdown.count("Measured here beside") == latex.count("Measured here beside") == 1
    assert latex.count(r"\midrule") == 2
    assert "Profile paper; corpus: AudioSet; parameters 3f9a1c20." in markdown
    assert "five repeats of the probe (Student t, 4 degrees of freedom)" in markdown


def test_several_seeds_are_averaged_before_they_are_compared() -> None:
    """Seeds 0.2 points apart: the mean moves by 0.1, the repeats' interval stays as it is."""
    both = pd.concat([scores(PASST).assign(seed=0), scores(PASST, shift=0.2).assign(seed=1)])
    table = compare.differences(both, DATASETS, [PASST], PAPER)
    difference = parsed(table)[2]
    assert (difference["openmic"], difference["openmic_ci95"]) == ("0.4", "0.3")
    assert (difference["openmic_within"], difference["mtt_within"]) == ("no", "yes")
    assert "averaged over them within each repeat" in table.markdown()


def test_one_repeat_gets_no_verdict() -> None:
    difference = parsed(made(PASST, repeats=1))[2]
    # The first repeat lies 0.2 points below the mean.
    assert (difference["openmic"], difference["openmic_ci95"]) == ("0.1", "")
    assert {value for key, value in difference.items() if key.endswith("_within")} == {""}


def test_lost_cells_show_what_survives() -> None:
    row = RowSpec("m2d", "M2D", "elsewhere", reported="M2D")
    _, reported, difference, *_ = parsed(made(row))
    assert (reported["nsynth"], reported["nsynth_ci95"]) == ("", "1.3")
    for task in ("nsynth", "gtzan", "esc50", "us8k"):
        assert [difference[f"{task}{end}"] for end in ("", "_ci95", "_within")] == [""] * 3
    # FSD50K, 52.8 ± 0.8: no shift, limit 0.2 + 0.8.
    assert [difference[f"fsd50k{e}"] for e in ("", "_ci95", "_within")] == ["0.0", "1.0", "yes"]
    lines = made(row).markdown().splitlines()
    assert "| ? ± 1.3 | ? ± 1.4 |" in next(line for line in lines if "| M2D | reported" in line)
    assert "| +0.3 within | — | — | −0.4 outside |" in next(x for x in lines if "| difference" in x)
    assert "?: lost in the text of the paper that was available." in lines


def test_two_rows_may_stand_for_the_same_one() -> None:
    again = dataclasses.replace(PASST, encoder="passt_avex", label="PaSST, second")
    both = pd.concat([scores(PASST), scores(again, shift=0.1)])
    lines = parsed(compare.differences(both, DATASETS, [PASST, again], PAPER))
    assert [line["model"] for line in lines[:6:3]] == [PASST.label, again.label]
    assert [lines[i]["openmic_within"] for i in (2, 5)] == ["yes", "no"]
    assert [line["model"] for line in lines].count("PaSST") == 2  # once beside each


def test_only_the_papers_whole_data_sets_are_compared() -> None:
    some = dataclasses.replace(PAPER, comparable=("openmic", "us8k"))
    table = made(PASST, some)
    assert [column.key for column in table.columns[3:]] == ["openmic", "us8k"]
    assert (
        "Left out, not known to be the paper's whole data set: NSynth, GTZAN, MTT, FSD50K, ESC-50."
    ) in table.notes
    # ATST-Clip's US8K is lost; without it no question mark needs a note.
    assert any(note.startswith("?: lost") for note in table.notes)
    only = made(PASST, dataclasses.replace(PAPER, comparable=("openmic",)))
    assert not any(note.startswith("?: lost") for note in only.notes)


def test_nothing_is_compared_with_miniatures() -> None:
    assert compare.differences(scores(PASST), DATASETS, [PASST], MINIATURE) is None
    shown = table2(scores(PASST), DATASETS, [PASST], MINIATURE)
    assert (
        "Not compared with the paper: PaSST 50 % off_set; no task here is known to be a whole data "
        "set of the paper's Table I."
    ) in shown.notes
    silent = dataclasses.replace(PASST, reported=None)
    assert compare.differences(scores(PASST), DATASETS, [silent], PAPER) is None
    notes = table2(scores(PASST), DATASETS, [silent], MINIATURE).notes
    assert not any("Not compared" in note for note in notes)


def test_what_another_profile_trains_is_not_the_papers() -> None:
    both = pd.concat([scores(PASST), scores(ALPHA1)])
    table = compare.differences(both, DATASETS, [PASST, ALPHA1], MINE)
    lines = parsed(table)
    assert [line["model"] for line in lines if line["value"] == "difference"] == [PASST.label]
    refusal = "Not compared with the paper: w/o cls; what the mine profile trains is not the paper"
    for notes in (table.notes, table2(both, DATASETS, [PASST, ALPHA1], MINE).notes):
        assert any(note.startswith(refusal) for note in notes)
    headings = [b.heading for b in table2(both, DATASETS, [PASST, ALPHA1], MINE).blocks[1:]]
    assert all(h.endswith("(AudioSet): NOT comparable with runs of this profile") for h in headings)
    full = compare.differences(both, DATASETS, [PASST, ALPHA1], PAPER)
    shown = [line["model"] for line in parsed(full) if line["value"] == "difference"]
    assert shown == [PASST.label, "w/o cls†"]  # pretrained for half of the updates
    assert "† pretrained for another number of updates than 750: w/o cls: 375." in full.notes


def test_unknown_names_are_all_listed() -> None:
    compare.check({"runs.a.reported": None, "runs.b.reported": "M2D"})
    with pytest.raises(ValueError) as error:
        compare.check({"runs.a.reported": "m2d", "encoders.b.reported": "PaSST2"})
    lines = str(error.value).splitlines()
    assert lines[:2] == ["runs.a.reported: got 'm2d'", "encoders.b.reported: got 'PaSST2'"]
    assert lines[2].startswith("allowed: ") and all(repr(m.name) in lines[2] for m in paper.TABLE2)
    with pytest.raises(ValueError, match="passt: got 'M3D'"):
        wrong = dataclasses.replace(PASST, reported="M3D")
        compare.differences(scores(PASST), DATASETS, [wrong], PAPER)


def test_the_files_come_and_go_with_the_comparison(tmp_path: Path) -> None:
    names = {f"table2_differences.{suffix}" for suffix in ("md", "tex", "csv")}
    write_tables(scores(PASST), DATASETS, [PASST], PAPER, tmp_path)
    first = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert names < set(first)
    write_tables(scores(PASST), DATASETS, [PASST], PAPER, tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == first
    write_tables(scores(PASST), DATASETS, [PASST], MINIATURE, tmp_path)
    assert set(first) - {path.name for path in tmp_path.iterdir()} == names


def test_a_joined_block_keeps_its_heading_and_source_in_the_csv() -> None:
    rows = (("a", Score(1.0, 0.5)),), (("b", Difference(-0.04, 0.5, True)),)
    blocks = Block("H", "here", rows[0]), Block("H", "there", rows[1], joined=True)
    table = Table("t", "T", "c", (Column("m", "M"), Column("x", "X")), blocks)
    assert table.csv().splitlines() == [
        "block,source,m,x,x_ci95,x_within",
        "H,here,a,1.0,0.5,",
        "H,there,b,-0.04,0.5,yes",
    ]
    assert "| b | 0.0 within |" in table.markdown()  # no sign before a zero
    assert table.markdown().count("***H***") == 1


@latex.needed
def test_latex_compiles(tmp_path: Path) -> None:
    write_tables(scores(PASST), DATASETS, [PASST], PAPER, tmp_path)
    latex.assert_compiles(tmp_path, "table2_differences")
