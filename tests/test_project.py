"""Contracts between the files of the repository: imports, stages, notebooks, lock, style."""

import ast
import importlib
import math
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pandas as pd
import pytest
import yaml

from matpac import config, provenance

import canonical
import smoke

ROOT = Path(__file__).parents[1]
ENTRY = {
    "fetch": ("01_fetch", "fetch", config.FetchParams),
    "logmel": ("02_logmel", "preprocess", config.LogmelParams),
    "pretrain": ("03_pretrain", "pretrain", config.PretrainParams),
    "probe": ("04_probe", "probe", config.ProbeParams),
    "probe_only": ("04_probe", "probe", config.ProbeParams),
    "figures": ("05_figures", "figures", config.Params),
}
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def stages() -> dict:
    return yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]


# ------------------------------------------------------------------------------------- imports


def reading_order() -> list[str]:
    """Module names as the package's docstring lists them, top to bottom."""
    docstring = ast.get_docstring(ast.parse((ROOT / "matpac" / "__init__.py").read_text()))
    return re.findall(r"^    (\w+)  ", docstring, re.MULTILINE)


def test_the_docstring_lists_every_module() -> None:
    files = {p.stem for p in (ROOT / "matpac").glob("*.py")} - {"__init__"}
    packages = {p.parent.name for p in (ROOT / "matpac").glob("*/__init__.py")}
    assert sorted(reading_order()) == sorted(files | packages)


def test_a_module_imports_only_from_modules_above_it() -> None:
    order = {name: i for i, name in enumerate(reading_order())}
    for name in order:
        # A package's own files may import each other; together they count as one module.
        source = ROOT / "matpac" / name
        for path in [source.with_suffix(".py")] if not source.is_dir() else source.glob("*.py"):
            for other in provenance.imports(path):
                above = other.relative_to(ROOT / "matpac").parts[0].removesuffix(".py")
                assert above == name or order[above] < order[name], f"{path.name} imports {above}"


def test_only_distributed_imports_torch_distributed() -> None:
    for path in (ROOT / "matpac").rglob("*.py"):
        if path.name != "distributed.py":
            assert not re.search(r"^\s*(import|from) torch\.distributed", path.read_text(), re.M), (
                path
            )


def test_importing_the_package_is_light() -> None:
    code = "import sys, matpac; print([m for m in ('torch', 'pandas', 'dvc') if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


# -------------------------------------------------------------------------------------- stages


@pytest.mark.parametrize("stage", ENTRY)
def test_a_stage_depends_on_its_import_closure(stage: str) -> None:
    """Every library file that can change the result, and no other, is a dependency."""
    _, module, _ = ENTRY[stage]
    listed = {d for d in stages()[stage]["deps"] if d.startswith("matpac/")}
    closure = {f"matpac/{name}" for name in provenance.import_closure(module)}
    closure = {"matpac/corpus" if n.startswith("matpac/corpus/") else n for n in closure}
    if stage == "probe_only":  # imports the row that is asked for by its name
        closure = {"matpac/encoders" if n.startswith("matpac/encoders/") else n for n in closure}
    extra = {name for name in listed - closure if not name.endswith(".mplstyle")}
    assert listed >= closure and not extra, f"{sorted(closure - listed)}, {sorted(extra)}"


@pytest.mark.parametrize("stage", ENTRY)
def test_a_stage_runs_its_notebook_after_validating_everything(stage: str) -> None:
    notebook, _, _ = ENTRY[stage]
    command = stages()[stage]["cmd"]
    assert command.startswith("${validate} && ")
    assert f"notebooks/{notebook}.ipynb data/${{item.profile}}/executed/{notebook}" in command


UNTRACKED = {
    # Where bulk data lies changes no result; the profile is in every path.
    "fetch": {"storage", "downloads"},
    "logmel": {"storage", "datasets"},  # data sets: through their manifests
    "pretrain": {"storage", "profile"},
    # An encoder's own parameters: through its file.
    # Data sets: through their manifests.
    "probe": {"storage", "profile", "model", "objective", "pretrain", "runs", "encoders"}
    | {"datasets", "downloads"},
    "probe_only": {"storage", "profile", "objective", "runs", "datasets", "downloads"},
    "figures": {"storage", "downloads"},
}


@pytest.mark.parametrize("stage", ENTRY)
def test_a_stage_tracks_every_parameter_that_its_entry_point_reads(stage: str) -> None:
    _, _, params = ENTRY[stage]
    tracked = {n.split(".")[0] for n in stages()[stage]["params"] if isinstance(n, str)}
    assert tracked == set(params.model_fields) - UNTRACKED[stage]


@pytest.mark.parametrize("stage", ["pretrain", "probe", "probe_only"])
def test_saving_a_notebook_retrains_nothing(stage: str) -> None:
    assert not [dep for dep in stages()[stage]["deps"] if dep.endswith(".ipynb")]


def test_pretraining_depends_on_no_task() -> None:
    data = [dep for dep in stages()["pretrain"]["deps"] if dep.startswith("data/")]
    assert data == ["data/${item.profile}/logmel/pretraining.json"]
    assert {p.split(".")[0] for p in stages()["pretrain"]["params"]} == {
        "model",
        "objective",
        "pretrain",
        "runs",
    }


@pytest.mark.parametrize("name", ["params.yaml", "params.paper.yaml", "params.esc10.yaml"])
def test_parameter_files_load_and_every_run_resolves(name: str) -> None:
    params = config.load(ROOT / name)
    for run in params.runs:
        config.resolve(params, run)


# ----------------------------------------------------------------------------------- notebooks


def notebook(path: Path) -> nbformat.NotebookNode:
    return nbformat.read(path, as_version=4)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebooks_are_in_canonical_form(path: Path) -> None:
    assert path.read_text() == canonical.text(notebook(path)), "run `make notebooks`"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebooks_are_short_and_define_nothing(path: Path) -> None:
    cells = [c for c in notebook(path).cells if c.cell_type == "code"]
    assert 0 < len(cells) <= 12
    for cell in cells:
        # The stage's call has one line per section.
        long = "parameters" in cell.metadata.get("tags", []) or "stage(" in cell.source
        assert long or len(cell.source.splitlines()) <= 10, cell.source
        assert not re.search(r"^\s*(def|class|!|%)", cell.source, re.MULTILINE), cell.source
        assert not re.search(r"[\"']/(home|tmp|usr|root|work)", cell.source), cell.source
        assert not [o for o in cell.outputs if o.get("name") == "stderr"], "stderr in an output"
        assert not [o for o in cell.outputs if o.output_type == "error"], "an error in an output"


@pytest.mark.parametrize("stage", ENTRY)
def test_stage_notebooks_hold_the_smoke_sections_and_make_one_call(stage: str) -> None:
    name, module, params = ENTRY[stage]
    cells = notebook(ROOT / "notebooks" / f"{name}.ipynb").cells
    (parameters,) = [c for c in cells if "parameters" in c.metadata.get("tags", [])]
    given: dict = {}
    exec(parameters.source, given)
    del given["__builtins__"]
    given.pop("run", None), given.pop("encoder", None)
    assert set(given) == set(params.model_fields)
    assert given == {key: smoke.sections()[key] for key in given}
    calls = [c.source for c in cells if c.cell_type == "code" and "stage(" in c.source]
    assert len(calls) == 1 and f"from matpac.{module} import {module} as stage" in calls[0]
    for key in given:
        assert re.search(rf"\b{key}={key}\b", calls[0]), f"{key} is not passed to the call"


def mini() -> config.Params:
    """The mini profile, whichever is active."""
    active = config.load(ROOT / "params.yaml")
    return active if active.profile == "mini" else config.load(ROOT / "params.mini.yaml")


def test_notebook_06_speaks_of_the_committed_runs() -> None:
    cells = notebook(ROOT / "notebooks" / "06_inspect_collapse.ipynb").cells
    text = " ".join(cell.source for cell in cells)
    prototypes, epochs = mini().model.num_prototypes, mini().pretrain.epochs
    assert f"K = {prototypes}, so ln K = {math.log(prototypes):.2f}" in text
    assert f"{ {10.0: 'ten', 20.0: 'twenty'}[epochs] } passes over the embedded corpus" in text
    curves = pd.read_csv(ROOT / "figures" / "mini" / "collapse.csv")
    final = (
        curves[curves["step"] > 0.9 * curves["step"].max()].groupby("run").mean(numeric_only=True)
    )
    # What the prose claims of the figure beside it.
    assert final.loc["base", "teacher_kl"] > 1
    assert final.loc["no_centering", "teacher_entropy_of_mean"] < 0.1
    assert final.loc[["no_sharpening", "neither"], "teacher_kl"].max() < 0.1
    assert 1.3 < final.loc["alpha0", "prediction_loss"] < 2
    assert 0.14 < final.loc["alpha0", "teacher_kl"] < final.loc["base", "teacher_kl"] / 7
    assert 17 < final.loc["base", "prototypes_in_use"] < 20
    assert final.drop("alpha0")["prediction_loss"].max() < 0.15


# ---------------------------------------------------------------------------------- repository


def test_the_committed_base_run_is_above_the_random_encoder_beyond_the_intervals() -> None:
    table = pd.read_csv(ROOT / "figures" / "mini" / "table2.csv").set_index("model")
    trained, random = table.loc["MATPAC"], table.loc["Random initialisation"]
    ends = [float(row[f"average{kind}"]) for row in (trained, random) for kind in ("", "_ci95")]
    assert ends[0] - ends[1] > ends[2] + ends[3]


def test_readme_shows_the_committed_tables() -> None:
    """Every row of ours in the README stands in the file that the pipeline wrote."""
    readme = (ROOT / "README.md").read_text()
    for name in ("figures/mini/table2.md", "figures/esc10/table2.md"):
        lines = (ROOT / name).read_text().splitlines()
        start = next(i for i, line in enumerate(lines) if "This run" in line)
        rows = [line for line in lines[start + 1 :] if line.startswith("| ")]
        ours = rows[: next((i for i, row in enumerate(rows) if "Reported" in row), len(rows))]
        assert len(ours) >= 3 and all(row in readme for row in ours), name


def test_readme_links_lead_somewhere() -> None:
    links = re.findall(r"\]\(([^)]+)\)", (ROOT / "README.md").read_text())
    local = [link for link in links if not link.startswith("http")]
    assert len(local) > 10 and [link for link in local if not (ROOT / link).exists()] == []


def lock() -> str:
    return (ROOT / "requirements.txt").read_text()


def test_the_lock_holds_every_direct_dependency_with_hashes() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    wanted = set(re.findall(r'^\s*"([a-z0-9_-]+)[><=!]', text, re.MULTILINE))
    pinned = {m.replace("_", "-") for m in re.findall(r"^([a-z0-9._-]+)==", lock(), re.MULTILINE)}
    assert {w.replace("_", "-") for w in wanted} <= pinned
    entries = re.split(r"^(?=[a-z0-9._-]+==)", lock(), flags=re.MULTILINE)[1:]
    assert all("--hash=sha256:" in entry for entry in entries)
    assert "torch==2.11." in lock() and "torchaudio==2.11." in lock()


def test_no_committed_file_names_an_index() -> None:
    for name in ("requirements.txt", "pyproject.toml", "environment.yml", "Makefile", ".ci/run"):
        text = (ROOT / name).read_text()
        # "--no-emit-index-url" in the Makefile keeps addresses out of the lock.
        assert not re.search(
            r"(?<!no-emit-)index-url|find-links|https?://\S*(simple|\.whl)", text
        ), name


def test_environment_yml_is_python_and_the_lock() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    python, pip, pinned = environment["dependencies"]
    version = python.removeprefix("python=")
    pyproject = (ROOT / "pyproject.toml").read_text()
    assert f"Python :: {version}" in pyproject and pip == "pip"
    assert pinned == {"pip": ["-r requirements.txt"]}


def test_ci_runs_the_test_command_of_the_readme() -> None:
    assert "\nmake test\n" in (ROOT / ".ci" / "run").read_text()
    assert "make test" in (ROOT / "README.md").read_text()
    assert "make repro" in (ROOT / "README.md").read_text()


def test_make_help_lists_every_command() -> None:
    commands = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)[1]
    # `make test` is a make already, and its make would say so.
    command = ["make", "--no-print-directory", "help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert {line.split()[0] for line in done.stdout.splitlines()} == set(commands.split())


@pytest.mark.parametrize("name", ["checkpoint", "config", "minutes", "plan", "sources", "stores"])
def test_asking_a_command_for_help_does_nothing_else(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """Of those that need no argument, and would begin."""
    (tmp_path / "params.yaml").write_text((ROOT / "tests/smoke.yaml").read_text())
    (tmp_path / "data/smoke/checkpoints").mkdir(parents=True)
    monkeypatch.setenv("MATPAC_ROOT", str(tmp_path))
    monkeypatch.delenv("MATPAC_DATA", raising=False)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(SystemExit) as stopped:
        importlib.import_module(f"matpac.{name}").main(["--help"])
    assert stopped.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: python -m matpac.{name} ")
    assert sorted(tmp_path.rglob("*")) == before


def test_dvc_sends_no_analytics() -> None:
    assert "analytics = false" in (ROOT / ".dvc" / "config").read_text()


@pytest.mark.parametrize("command", [["check"], ["format", "--check"]], ids=["lint", "format"])
def test_ruff(command: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ruff", *command, "."], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
