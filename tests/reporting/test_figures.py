"""The figures stage: which run belongs where, and what every table says of itself."""

import csv
import shutil
from pathlib import Path

import pytest

from matpac.data import manifests
from matpac.params import Params, parse
from matpac.reporting import figures
from matpac.reporting.captions import RowSpec

import smoke

FLAGS = ("table2", "table3", "figure2")


def make(**runs: dict) -> Params:
    sections = smoke.sections()
    return parse(Params, sections | {"runs": sections["runs"] | runs})


@pytest.fixture
def params(smoke_root: Path) -> Params:
    return make()


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
    more = make(
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
        changed = parse(Params, sections)
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
    # What a row is compared with is behind no number.
    assert of("runs", base={"label": "MATPAC", "reported": "M2D"}) == now


def test_rows_name_what_they_are_compared_with(params) -> None:
    named = make(base={"label": "MATPAC", "reported": "M2D"})
    assert figures.run_row(named, "base").reported == "M2D"
    assert figures.run_row(params, "base").reported is None
    random, logmel = figures.encoder_rows(params)
    assert (random.reported, random.training_data) == (None, "—")
    assert (logmel.reported, logmel.training_data) == (None, "—")


def test_an_unknown_reported_row_is_refused_before_anything_is_read(params) -> None:
    runs = {"base": {"label": "MATPAC", "reported": "M3D"}, "new": {"reported": "MATPAC"}}
    named = r"(?s)runs\.base\.reported: got 'M3D'.*runs\.new\.reported: got 'MATPAC'.*'M2D'"
    with pytest.raises(ValueError, match=named):
        figures.figures(make(**runs))


def test_which_tasks_are_the_papers() -> None:
    def info(source: str, num_clips: int, official: int | None = None) -> dict:
        whole = {} if official is None else {"official_clips": official}
        return {"source": source, "num_clips": num_clips, "num_excluded": 2} | whole

    infos = {
        "us8k": info("us8k", 8730, 8732),  # two clips are there but cannot be used
        "esc50": info("esc50", 400, 2000),
        "nsynth": info("embedded", 1320),
        "gtzan": info("folder", 930),  # a table of the user's own
        "mtt": info("openmic", 20_000),
        "birds": info("folder", 100),
        "openmic": info("openmic", 19_998, 20_000),
    }
    assert figures.papers_tasks(infos) == ("openmic", "us8k")  # in the order of Table II


def test_encoders_are_compared_on_the_papers_own_data_sets(
    params, smoke_root: Path, tmp_path: Path, monkeypatch
) -> None:
    """The smoke tasks, said to be the real ones: their encoders are compared, their runs not."""
    shutil.copytree(smoke_root / "data", tmp_path / "data")
    monkeypatch.setenv("MATPAC_ROOT", str(tmp_path))
    load = manifests.load

    def as_official(params: Params, task: str) -> tuple:
        manifest, info = load(params, task)
        return manifest, info | {"source": task, "official_clips": info["num_clips"]}

    monkeypatch.setattr(manifests, "load", as_official)
    sections = smoke.sections()
    sections["runs"]["alpha1"]["reported"] = "MATPAC w/o classification"
    sections["encoders"]["random"]["reported"] = "MAE-AST"
    written = figures.figures(parse(Params, sections))
    assert {f"table2_differences.{kind}" for kind in ("md", "tex", "csv")} < {
        path.name for path in written
    }
    with (tmp_path / "figures" / "smoke" / "table2_differences.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [(line["model"], line["value"]) for line in lines[:3]] == [
        ("Random initialisation", "measured"),
        ("MAE-AST", "reported"),
        ("Random initialisation", "difference"),
    ]
    for task, reported in (("nsynth", 71.2), ("fsd50k", 41.1), ("esc50", 84.4)):
        measured, theirs, difference = (float(line[task]) for line in lines[:3])
        assert theirs == reported
        assert difference == pytest.approx(round(measured, 1) - reported, abs=1e-6)
    assert "average" not in lines[0]  # of three tasks; the paper's is of seven
    assert not [line for line in lines[3:] if line["value"] != "reported"]
    table = (tmp_path / "figures" / "smoke" / "table2.md").read_text()
    assert "Not compared with the paper: MATPAC w/o classification; what the smoke" in table
    # Without the names there is nothing to compare, and no file of before is left.
    assert not [p for p in figures.figures(params) if "differences" in p.name]


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
        figures.figures(make(new={"objective": {"alpha": 0.3}}))
