"""The figures stage: which run belongs where, and what every table says of itself."""

import shutil
from pathlib import Path

import nbformat
import pandas as pd
import pytest
import yaml

from matpac.data import manifests
from matpac.params import Params, parse
from matpac.reporting import figures
from matpac.reporting.captions import RowSpec

import smoke

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
FLAGS = ("table2", "table3", "figure2")


def make(**runs: dict) -> Params:
    sections = smoke.sections(*smoke.TRAINED)
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
def test_what_a_run_changes_decides_where_it_stands(
    smoke_root: Path, monkeypatch: pytest.MonkeyPatch, run: str, expected: set
) -> None:
    monkeypatch.setattr(figures, "num_steps", lambda *_: 24)  # the last two are not trained
    assert where(figures.run_row(parse(Params, smoke.sections()), run)) == expected


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
        sections = smoke.sections(*smoke.TRAINED)
        sections[section] |= change
        changed = parse(Params, sections)
        return figures.make_provenance(changed, {}, steps=24).parameters

    now = figures.make_provenance(params, {}, steps=24).parameters
    assert of("logmel", workers=0, shard_mb=1) == of("pretrain", keep_checkpoints=9) == now
    assert of("runs", base={"label": "MATPAC", "pretrain": {"encoders_at": [0.1]}}) == now
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
    published = smoke.sections()
    published["encoders"] = {
        "released": {"kind": "matpac", "label": "released"},
        "plus": {"kind": "matpac_plus", "label": "plus", "reported": "M2D"},
    }
    released, plus = figures.encoder_rows(parse(Params, published))
    assert (released.reported, plus.reported) == ("MATPAC, ramp of 10 epochs", "M2D")


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


@pytest.fixture
def project(smoke_root: Path, tmp_path: Path, monkeypatch) -> Path:
    """A copy of the prepared root's results, to change: its folder of the profile."""
    shutil.copytree(smoke_root / "data", tmp_path / "data")
    monkeypatch.setenv("MATPAC_ROOT", str(tmp_path))
    return tmp_path / "data" / "smoke"


def test_encoders_are_compared_on_the_papers_own_data_sets(project: Path, monkeypatch) -> None:
    """The smoke tasks, said to be the real ones: their encoders are compared, their runs not."""
    load = manifests.load

    def as_official(params: Params, task: str) -> tuple:
        manifest, info = load(params, task)
        return manifest, info | {"source": task, "official_clips": info["num_clips"]}

    monkeypatch.setattr(manifests, "load", as_official)
    sections = smoke.sections("base", "alpha1")
    sections["runs"]["alpha1"]["reported"] = "MATPAC w/o classification"
    sections["encoders"]["random"]["reported"] = "MAE-AST"
    written = {path.name: path for path in figures.figures(parse(Params, sections))}
    for name, theirs in (("table2", (71.2, 41.1, 84.4)), ("table_plusplus", (73.5, 42.7, 84.6))):
        table = pd.read_csv(written[f"{name}_differences.csv"])
        (line,) = table[table["block"].str.startswith("Minus MATPAC")].to_dict("records")[-1:]
        assert (line["model"], line["minus"]) == ("Random initialisation", "MAE-AST")
        measured = pd.read_csv(written[f"{name}.csv"]).set_index("model")
        for task, reported in zip(("nsynth", "fsd50k", "esc50"), theirs, strict=True):
            assert measured.loc["MAE-AST", task] == reported
            expected = measured.loc["Random initialisation", task] - reported
            assert line[task] == pytest.approx(expected, abs=1e-3)
        assert pd.isna(line.get("average"))  # of three tasks; the paper's is of seven
    refused = "Not compared with MATPAC, Table II: MATPAC w/o classification; what the smoke"
    assert refused in written["table2.md"].read_text()


def test_predictions_and_states_on_the_way_are_shown(project: Path) -> None:
    """Every clip told right by base, none by the others; the base was at half of it halfway."""
    params = parse(Params, smoke.sections("base", "alpha1"))
    for name in [*params.runs, *params.encoders]:
        predictions, scores = [], pd.read_csv(project / "probe" / name / "scores.csv")
        for task in params.tasks:
            clips = manifests.load(params, task)[0]
            clips = clips[(clips["fold"] > 0) | (clips["split"] == "test")]
            found = clips[["clip", "fold", "group"]].assign(seed=0, task=task, repeat=1)
            if "label" in clips:
                right = clips["label"] + (name != "base")
                found = found.assign(label=clips["label"], predicted=right)
            else:
                labels = [(values >= 0.5).astype(float) for values in clips["labels"]]
                sign = 1 if name == "base" else -1
                found = found.assign(labels=labels, scores=[sign * x for x in labels])
            predictions.append(found)
        scores["score"] = float(name == "base")
        scores.to_csv(project / "probe" / name / "scores.csv", index=False)
        pd.concat(predictions).to_parquet(project / "probe" / name / "predictions.parquet")
    base = pd.read_csv(project / "probe/base/scores.csv").assign(score=0.5, fraction=0.5)
    base.to_csv(project / "probe/base/curve.csv", index=False)
    written = {path.name: path for path in figures.figures(params)}
    table = pd.read_csv(written["table2_differences.csv"]).set_index("model")
    assert (table[["nsynth", "fsd50k", "esc50", "average"]] == -100).all(axis=None)
    assert "base" not in table.index and (table["average_note"] == "*").all()
    curve = pd.read_csv(written["curve.csv"]).set_index("encoder")
    assert curve.loc["base", "mean"].tolist() == [50, 100]
    assert set(curve.index) == {"base", "random", "logmel"}


def test_notebook_05_works_with_tasks_that_no_paper_has(project: Path) -> None:
    for name in ("parquet", "json"):
        (project / f"manifests/esc50.{name}").rename(project / f"manifests/birds.{name}")
    for path in project.glob("probe/*/*.csv"):
        pd.read_csv(path).replace({"task": {"esc50": "birds"}}).to_csv(path, index=False)
    for path in project.glob("probe/*/*.parquet"):
        pd.read_parquet(path).replace({"task": {"esc50": "birds"}}).to_parquet(path)
    sections = smoke.sections("base", "alpha1")
    sections["datasets"]["birds"] = sections["datasets"]["esc50"]
    params = project / "birds.yaml"
    params.write_text(yaml.safe_dump(sections | {"tasks": ["birds"]}))
    cells = nbformat.read(NOTEBOOKS / "05_figures.ipynb", 4).cells
    code = "\n".join(cell.source for cell in cells if cell.cell_type == "code")
    exec(code.replace("smoke.yaml", str(params)), {})
    out = project.parents[1] / "figures/smoke"
    assert "birds" in (out / "table2.md").read_text() and not list(out.glob("table_plusplus.*"))


def test_tables_of_miniatures_say_so_and_carry_their_origin(params, smoke_root: Path) -> None:
    out = smoke_root / "figures" / "smoke"
    table = (out / "table2.md").read_text()
    assert "This run: miniature tasks of the smoke profile" in table
    assert "NOT comparable" in table and "miniature tasks made on this machine" in table
    infos = {task: manifests.load(params, task)[1] for task in params.tasks}
    line = figures.make_provenance(params, infos, steps=24).line
    assert "embedded (96 clips, 0.1 h)" in line
    for name in ("table1.md", "table2.md", "table3.md", "fig2.md"):
        assert line in (out / name).read_text(), name
    assert line.rstrip(".").split("; ")[-1].split()[-1] in (out / "collapse.csv").read_text()


def test_the_same_results_write_the_same_bytes(params, smoke_root: Path) -> None:
    out = smoke_root / "figures" / "smoke"
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    written = figures.figures(params)
    assert {path.name: path.read_bytes() for path in written} == before
    tables = ["table1", "table2", "table3", "table_plusplus"]
    if (smoke_root / "data/smoke/probe/base/predictions.parquet").exists():
        tables.append("table2_differences")
    assert set(before) == {
        *(f"{n}.{kind}" for n in tables for kind in ("md", "tex", "csv")),
        *(f"{n}.{kind}" for n in ("fig2", "curve") for kind in ("md", "png", "pdf", "csv")),
        *(f"collapse.{kind}" for kind in ("png", "pdf", "csv")),
        "measures.csv",
    }


def test_a_run_without_results_names_its_stage(params) -> None:
    with pytest.raises(FileNotFoundError, match="run the notebook 03_pretrain with run = 'new'"):
        figures.figures(make(new={"objective": {"alpha": 0.3}}))
