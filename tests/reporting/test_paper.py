"""What is reported, against the transcripts of the papers where they lie beside the project."""

import re
from pathlib import Path

import pytest

from matpac.reporting import paper
from matpac.reporting.paper import GROUPS, PLUSPLUS, TABLE1, TABLE2, TABLE3, TASKS, Source

SHARED = Path(__file__).parents[3] / "shared"


def lines_of(name: str) -> list[str]:
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"needs the transcript {name}")
    return path.read_text().splitlines()


def printed(cells: dict[str, paper.Reported]) -> list[str]:
    """As the transcripts have them."""
    texts = []
    for cell in cells.values():
        half = "" if cell.ci95 is None else f" {cell.ci95:.1f}"
        texts.append(f"{cell.mean:.1f}{'†' * cell.elsewhere}{half}")
    return texts


@pytest.mark.parametrize("source", [TABLE2, PLUSPLUS], ids=lambda source: source.name)
def test_averages_fit_the_cells(source: Source) -> None:
    for system in source.systems:
        assert list(system.cells) == list(TASKS)
        mean = sum(cell.mean for cell in system.cells.values()) / 7
        # Half a digit of the average, and half a digit of each cell: PaSST's 76.61 reads 76.7.
        assert mean == pytest.approx(system.average, abs=0.1), system.name


def test_tables_two_and_three_agree() -> None:
    """alpha 0.5 is the first MATPAC row, alpha 1 the row without classification."""
    for row, alpha in ((TABLE2.systems[0], 0.5), (TABLE2.systems[2], 1.0)):
        for group, tasks in GROUPS.items():
            mean = sum(row.cells[task].mean for task in tasks) / len(tasks)
            # 0.07: the paper prints 79.3 for 79.37.
            assert TABLE3[group][alpha] == pytest.approx(mean, abs=0.07)


@pytest.mark.parametrize(
    ("name", "source", "alias"),
    [
        (
            "table2.md",
            TABLE2,
            {
                "MATPAC, n_tau,epoch = 10": "MATPAC, ramp of 10 epochs",
                "MATPAC, n_tau,epoch = 20": "MATPAC, ramp of 20 epochs",
                "MATPAC w/o Classification": "MATPAC w/o classification",
                "M2D, ratio = 0.7": "M2D",
            },
        ),
        ("matpac_plusplus.md", PLUSPLUS, {}),
    ],
)
def test_every_cell_is_the_transcripts(name: str, source: Source, alias: dict[str, str]) -> None:
    systems = {system.name: system for system in source.systems}
    seen = set()
    for line in lines_of(name):
        words = [word.strip() for word in line.strip("|").split("|")]
        label = re.sub(r" \((SL|supervised)\)", "", words[0])
        system = systems.get(alias.get(label, label))
        if system and len(words) > 8:
            seen.add(system.name)
            assert words[-8:] == [*printed(system.cells), f"{system.average:.1f}"]
            assert system.supervised == (label != words[0])
            assert len(words) == 9 or words[1] == system.training_data
    assert seen == set(systems)


def test_tables_one_and_three_stand_in_the_text() -> None:
    lines = lines_of("paper.txt")
    for group, row in TABLE3.items():
        found = next(line for line in lines if line.startswith(f"{group} |"))
        assert [float(x) for x in found.split("|")[1:5]] == list(row.values())
    for dataset in TABLE1.values():
        name, clips, *rest = dataset.values()
        found = next(line for line in lines if line.startswith(f"{name} | {clips:,}"))
        assert [w.strip() for w in found.split("|")[2:6]] == [str(value) for value in rest]


def test_a_name_finds_the_same_encoder_in_both_papers() -> None:
    ten = "MATPAC, ramp of 10 epochs"
    assert (TABLE2.find(ten).name, PLUSPLUS.find(ten).name) == (ten, "MATPAC")
    assert TABLE2.find("MATPAC++") is None and PLUSPLUS.find("MATPAC++").average == 75.7
    assert paper.reported_for("matpac") == ten and paper.reported_for("m2d") == "M2D"
    assert paper.reported_for("matpac_plus") == "MATPAC++" and paper.reported_for("hear") is None
    assert TABLE2.find(None) is None and len(set(paper.NAMES)) == len(paper.NAMES)
