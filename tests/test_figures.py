"""The figures stage: which run belongs where, and what every table says of itself."""

from pathlib import Path

import pytest

from matpac import config, figures
from matpac.captions import RowSpec

import smoke

FLAGS = ("table2", "table3", "figure2")


def parse(**runs: dict) -> config.Params:
    sections = smoke.sections()
    return config.parse(config.Params, sections | {"runs": sections["runs"] | runs})


@pytest.fixture
def params(smoke_root: Path) -> config.Params:
    return parse()


def where(row: RowSpec) -> set[str]:
    return {flag for flag in FLAGS if getattr(row, flag)}


@pytest.mark.parametrize(
    ("run", "expected"),
    [
        ("base", {"table2", "table3", "figure2"}),
        ("alpha1", {"table2", "table3"}),
        ("k8", {"figure2"}),  # it has no label
        ("alpha0", {"table2"}),  # the paper has no column for it
        ("no_centering", {"table2"}),
    ],
)
def test_what_a_run_changes_decides_where_it_stands(params, run: str, expected: set) -> None:
    assert where(figures.run_row(params, run)) == expected


def test_a_longer_or_repeated_base_is_no_second_point(params, monkeypatch) -> None:
    more = parse(
        longer={"label": "longer", "pretrain": {"epochs": 8.0}},
        again={"seeds": [1, 2]},
        alpha1_longer={"objective": {"alpha": 1.0}, "pretrain": {"epochs": 8.0}},
    )
    steps = {"longer": 48, "alpha1_longer": 48}
    monkeypatch.setattr(figures, "num_steps", lambda _, run: steps.get(run, 24))
    rows = [figures.run_row(more, run) for run in more.runs]
    shown = {row.encoder: where(row) for row in figures.one_per_value(rows, 24)}
    assert shown["longer"] == {"table2"} and shown["again"] == set()
    assert shown["alpha1"] == {"table2", "table3"} and shown["alpha1_longer"] == set()


def test_the_hash_covers_every_parameter_that_decides(params) -> None:
    def of(section: str, **change: object) -> str:
        sections = smoke.sections()
        sections[section] |= change
        changed = config.parse(config.Params, sections)
        return figures.make_provenance(changed, steps=24, miniature=True).parameters

    now = figures.make_provenance(params, steps=24, miniature=True).parameters
    assert of("logmel", workers=0, shard_mb=1) == of("pretrain", keep_checkpoints=9) == now
    nsynth = smoke.sections()["datasets"]["nsynth"]
    changed = [
        of("datasets", nsynth=nsynth | {"seed": 3}),
        of("corpora", embedded=2.0),
        of("logmel", fmin_hz=60.0),
        of("probe", epochs=6),
        of("objective", alpha=0.4),
    ]
    assert len({now, *changed}) == 6


def test_tables_of_miniatures_say_so_and_carry_their_origin(params, smoke_root: Path) -> None:
    out = smoke_root / "figures" / "smoke"
    table = (out / "table2.md").read_text()
    assert "This run: miniature tasks of the smoke profile" in table
    assert "NOT comparable" in table and "miniature tasks made on this machine" in table
    line = figures.make_provenance(params, steps=24, miniature=True).line
    assert "embedded (96 clips, 0.1 h)" in line
    for name in ("table1.md", "table2.md", "table3.md", "fig2.md"):
        assert line in (out / name).read_text(), name
    assert line.rstrip(".").split("; ")[-1].split()[-1] in (out / "collapse.csv").read_text()


def test_the_same_results_write_the_same_bytes(params, smoke_root: Path) -> None:
    out = smoke_root / "figures" / "smoke"
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    written = figures.figures(params)
    assert {path.name: path.read_bytes() for path in written} == before
    assert set(before) == {
        *(f"table{n}.{kind}" for n in "123" for kind in ("md", "tex", "csv")),
        *(f"fig2.{kind}" for kind in ("md", "png", "pdf", "csv")),
        *(f"collapse.{kind}" for kind in ("png", "pdf", "csv")),
    }


def test_a_run_without_results_names_its_stage(params) -> None:
    with pytest.raises(FileNotFoundError, match="run the stage pretrain@smoke-new"):
        figures.figures(parse(new={"objective": {"alpha": 0.3}}))
