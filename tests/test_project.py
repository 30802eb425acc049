"""Contracts between the files of the repository: imports, stages, notebooks, lock, style."""

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pandas as pd
import pytest
import yaml

from matpac.cli.main import main
from matpac.core import paths
from matpac.data.config import FetchParams, LogmelParams
from matpac.params import Params, load
from matpac.pretraining import config
from matpac.pretraining.config import PretrainParams
from matpac.probing.config import ProbeParams

import canonical
import command
import smoke
from closure import import_closure

ROOT = Path(__file__).parents[1]
ENTRY = {
    "sources": "data.sources",
    "fetch": "data.fetch",
    "logmel": "features.preprocess",
    "pretrain": "pretraining.pretrain",
    "probe": "probing.probe",
    "probe_only": "probing.probe",
    "figures": "reporting.figures",
}
"""Stage -> the module whose function its notebook calls."""
READS = {
    "fetch": FetchParams,
    "logmel": LogmelParams,
    "pretrain": PretrainParams,
    "probe": ProbeParams,
    "probe_only": ProbeParams,
    "figures": Params,
}
"""Stage -> the sections that it reads."""
TESTS = ROOT / "tests"
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def stages() -> dict:
    return yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]


# ------------------------------------------------------------------------------------- imports


def test_the_floors_hold() -> None:
    """A package imports only from lower ones: the contracts in pyproject.toml."""
    done = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout


def test_the_library_is_a_dozen_rooms() -> None:
    rooms = {p.name for p in (ROOT / "matpac").iterdir() if p.name != "__pycache__"}
    docstring = ast.get_docstring(ast.parse((ROOT / "matpac" / "__init__.py").read_text()))
    listed = re.findall(r"^    (\w+)  ", docstring, re.MULTILINE)
    assert {room.removesuffix(".py") for room in rooms} - {"__init__"} == set(listed)
    assert len(rooms) <= 14


def test_only_distributed_imports_torch_distributed() -> None:
    for path in (ROOT / "matpac").rglob("*.py"):
        if path.name != "distributed.py":
            assert not re.search(r"^\s*(import|from) torch\.distributed", path.read_text(), re.M), (
                path
            )


def test_importing_the_package_is_light() -> None:
    code = "import sys, matpac; print([m for m in ('torch', 'pandas', 'dvc') if m in sys.modules])"
    assert command.code(code) == "[]\n"


# -------------------------------------------------------------------------------------- stages


DECIDE_NOTHING = ("core/", "params/", "cli/")
"""What no stage depends on: messages, progress, checks; `matpac.core.version` tells the rest."""
FETCHING = [
    f"data/{name}.py" for name in ("archives", "catalogue", "download", "members", "transfer")
]
"""How weights arrive decides no score: they are compared with the checksums beside the encoders."""


def missing(stage: str, deps: list[str]) -> list[str]:
    """Library files that a stage imports, however late, and that its dependencies leave out."""
    listed = [dep.removeprefix("matpac/") for dep in deps if dep.startswith("matpac/")]
    return [
        file
        for file in import_closure(ENTRY[stage])
        if not any(file == dep or file.startswith(f"{dep}/") for dep in listed)
        # The class of a section decides nothing: its values are parameters of the stage.
        and not file.startswith(DECIDE_NOTHING)
        and not file.endswith(("config.py", "__init__.py"))
        and not (stage.startswith("probe") and file in FETCHING)
    ]


@pytest.mark.parametrize("stage", ENTRY)
def test_a_stage_depends_on_every_package_that_it_runs(stage: str) -> None:
    deps = stages()[stage]["deps"]
    assert missing(stage, deps) == []
    own = [dep for dep in deps if dep.startswith("matpac/")]
    told = [dep for dep in own if dep[7:].startswith(DECIDE_NOTHING)]
    assert told == ([] if stage in ("sources", "figures") else ["matpac/core/version.py"])
    assert len(own) - len(told) <= 7
    assert not [dep for dep in own if not (ROOT / dep).exists()]


@pytest.mark.parametrize("stage", sorted(set(ENTRY) - {"sources"}))
def test_a_stage_runs_its_notebook(stage: str) -> None:
    name, _, of = stages()[stage]["cmd"].removeprefix("matpac run ").partition(" ")
    source = notebook(ROOT / "notebooks" / f"{name}.ipynb")
    function = ENTRY[stage].rpartition(".")[2]
    calls = [c.source for c in source.cells if f"{function}(" in c.source]
    assert len(calls) == 1 and f"from matpac.{ENTRY[stage]} import {function}" in calls[0]
    assert bool(of) == (stage in ("pretrain", "probe", "probe_only"))


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


@pytest.mark.parametrize("stage", READS)
def test_a_stage_tracks_every_parameter_that_its_entry_point_reads(stage: str) -> None:
    tracked = {n.split(".")[0] for n in stages()[stage]["params"] if isinstance(n, str)}
    assert tracked == set(READS[stage].model_fields) - UNTRACKED[stage]


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


@pytest.mark.parametrize("name", sorted(p.name for p in ROOT.glob("params*.yaml")))
def test_parameter_files_load_and_every_run_resolves(name: str) -> None:
    params = load(ROOT / name)
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
    assert 0 < len(cells) <= 13
    for cell in cells:
        assert len(cell.source.splitlines()) <= 10, cell.source
        assert not re.search(r"^\s*(def|class|!|%)", cell.source, re.MULTILINE), cell.source
        assert not re.search(r"[\"']/(home|tmp|usr|root|work)", cell.source), cell.source
        assert not [o for o in cell.outputs if o.get("name") == "stderr"], "stderr in an output"
        assert not [o for o in cell.outputs if o.output_type == "error"], "an error in an output"


@pytest.mark.parametrize("path", NOTEBOOKS[:5], ids=lambda p: p.stem)
def test_stage_notebooks_take_a_parameter_file_and_a_run(path: Path) -> None:
    (parameters,) = [c for c in notebook(path).cells if "parameters" in c.metadata.get("tags", [])]
    given: dict = {}
    exec(parameters.source, given)
    del given["__builtins__"]
    expected = {"params": smoke.SMOKE_YAML.name}
    assert given == expected | ({"run": "base"} if path.stem[:2] in ("03", "04") else {})
    assert smoke.SMOKE_YAML.parent == path.parent


# ---------------------------------------------------------------------------------- repository


def test_the_committed_base_run_is_above_the_random_encoder_beyond_the_intervals() -> None:
    table = pd.read_csv(ROOT / "figures" / "mini" / "table2.csv").set_index("model")
    trained, random = table.loc["MATPAC"], table.loc["Random initialisation"]
    ends = [float(row[f"average{kind}"]) for row in (trained, random) for kind in ("", "_ci95")]
    assert ends[0] - ends[1] > ends[2] + ends[3]


SHOWN = {"mini": "README.md", **dict.fromkeys(("real", "best", "esc10"), "docs/real.md")}


@pytest.mark.parametrize("profile", SHOWN)
def test_pages_show_the_committed_tables(profile: str) -> None:
    """Every row of ours on the page stands in the file that the pipeline wrote."""
    page = (ROOT / SHOWN[profile]).read_text()
    lines = (ROOT / f"figures/{profile}/table2.md").read_text().splitlines()
    start = next(i for i, line in enumerate(lines) if "This run" in line)
    rows = [line for line in lines[start + 1 :] if line.startswith("| ")]
    ours = rows[: next((i for i, row in enumerate(rows) if "Reported" in row), len(rows))]
    assert len(ours) >= 3 and all(row in page for row in ours)


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


def test_make_soak_runs_every_test_that_is_longer_there() -> None:
    soak = re.search(r"^soak:(.*\n)+?\n", (ROOT / "Makefile").read_text(), re.MULTILINE)[0]
    others = set(TESTS.rglob("test_*.py")) - {Path(__file__)}
    longer = [path for path in others if "MATPAC_SOAK" in path.read_text()]
    assert len(longer) > 2
    assert [path for path in longer if str(path.relative_to(ROOT)) not in soak] == []


@pytest.mark.parametrize("name", main.commands)
def test_asking_a_command_for_help_does_nothing_else(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "params.yaml").write_text(smoke.SMOKE_YAML.read_text())
    (tmp_path / "data/smoke/checkpoints").mkdir(parents=True)
    monkeypatch.setenv("MATPAC_ROOT", str(tmp_path))
    before = sorted(tmp_path.rglob("*"))
    assert command.matpac(name, "--help") == 0
    assert capsys.readouterr().out.startswith("Usage: ")
    assert sorted(tmp_path.rglob("*")) == before


def test_asking_for_help_loads_neither_torch_nor_pandas() -> None:
    code = "import sys\nfrom matpac.cli.main import main\n"
    code += "main(['--help'], standalone_mode=False)\n"
    code += "print(sorted({'torch', 'pandas', 'numpy', 'dvc'} & set(sys.modules)))"
    assert command.code(code).splitlines()[-1] == "[]"


def test_dvc_sends_no_analytics() -> None:
    assert "analytics = false" in (ROOT / ".dvc" / "config").read_text()


@pytest.mark.parametrize("verb", [["check"], ["format", "--check"]], ids=["lint", "format"])
def test_ruff(verb: list[str]) -> None:
    done = command.python("-m", "ruff", *verb, ".", cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


# -------------------------------------------------------------------------- people's machines


def test_a_clone_has_the_same_bytes_where_git_would_write_crlf(tmp_path: Path) -> None:
    origin = tmp_path / "origin"
    origin.mkdir()
    (origin / "run").write_bytes(b"#!/bin/sh\necho yes\n")
    (origin / ".gitattributes").write_bytes((ROOT / ".gitattributes").read_bytes())
    git = ["git", "-c", "user.name=x", "-c", "user.email=x"]
    for arguments in (["init", "-q"], ["add", "."], ["commit", "-qm", "x"]):
        subprocess.run([*git, *arguments], cwd=origin, check=True)
    clone = ["clone", "-q", "-c", "core.autocrlf=true", origin, tmp_path / "clone"]
    subprocess.run([*git, *clone], check=True)
    assert (tmp_path / "clone/run").read_bytes() == b"#!/bin/sh\necho yes\n"


@pytest.fixture
def stubs(tmp_path: Path) -> Path:
    """A project of a name that shells trip over, whose tools only say how they are called."""
    project = tmp_path / "pro ject's é"
    said = '#!/bin/sh\necho "$(basename "$0") $* in $(pwd), ESC10=$ESC10; 1 passed"\n'
    tools = [project / ".venv/bin" / name for name in ("python", "matpac", "dvc", "uv", "ruff")]
    others = ["passt", "book", *(path.stem for path in (ROOT / "tests/kits").glob("*.txt"))]
    tools += [project / ".venv-encoders" / name / "bin/python" for name in others]
    for tool in tools:
        tool.parent.mkdir(parents=True, exist_ok=True)
        tool.write_text(said)
        tool.chmod(0o755)
    for name in ("Makefile", "requirements.txt", "pyproject.toml"):
        shutil.copyfile(ROOT / name, project / name)
    (project / ".venv/.ready").touch()
    return project


def make(project: Path, *arguments: str) -> str:
    """What a target prints. Raises: CalledProcessError."""
    command = ["make", "--no-print-directory", *arguments]
    environment = {k: v for k, v in os.environ.items() if k != "ESC10"}
    done = subprocess.run(
        command, cwd=project, env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout


def test_every_target_takes_a_project_of_any_name(stubs: Path) -> None:
    subprocess.run(["git", "init", "-q"], cwd=stubs, check=True)
    (stubs / "ESC 10's é/audio").mkdir(parents=True)
    for target in [line.split()[0] for line in make(stubs, "help").splitlines()]:
        said = make(stubs, target, "FOLDER=ESC 10's é", "EXTRA=passt")
        if target == "esc10":
            assert said == make(stubs, target, f"FOLDER={stubs}/ESC 10's é")
            assert f"use esc10 -- make repro in {stubs}, ESC10={stubs}/ESC 10's é;" in said


def test_without_git_it_says_what_to_do(stubs: Path) -> None:
    with pytest.raises(subprocess.CalledProcessError) as stopped:
        make(stubs, "repro")
    assert "run `git init`" in stopped.value.stdout and "dvc" not in stopped.value.stdout


def texts() -> Iterator[tuple[str, str]]:
    """Every text in the library, with what is not known before it runs as 0; and the pages."""
    for path in sorted((ROOT / "matpac").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                parts = [n.value if isinstance(n, ast.Constant) else "0" for n in node.values]
                yield path.name, "".join(parts)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield path.name, node.value
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        yield path.name, path.read_text()


def test_commands_that_messages_and_pages_name_exist() -> None:
    targets = re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    found = dict.fromkeys(("matpac", "make", "dvc repro", "pip"), 0)
    for where, text in texts():
        for verb, options in re.findall(r"(?:`|^)matpac ([a-z]+)([^`\n]*)", text, re.MULTILINE):
            command = main.commands.get(verb)
            assert command, f"{where}: matpac {verb}"
            known = {each for p in command.params for each in p.opts} | {"--help", "--"}
            if verb != "use":  # behind its -- stands another command
                assert set(re.findall(r"(?<= )--?[a-z][\w-]*", options)) <= known, (
                    f"{where}: {verb}"
                )
            found["matpac"] += 1
        for target in re.findall(r"(?:`|\(|^)make ([a-z0-9-]+)(?=[` )\n]|$)", text, re.MULTILINE):
            assert target in targets, f"{where}: make {target}"
            found["make"] += 1
        for stage in re.findall(r"dvc repro (?:-\w )*([a-z_]+)@", text):
            assert stage in stages(), f"{where}: dvc repro {stage}"
            found["dvc repro"] += 1
        for extra in re.findall(r"pip install ['\"]?matpac\[(\w[\w-]*)\]", text):
            assert extra in extras or extra == "0", f"{where}: {extra}"
            found["pip"] += 1
    assert all(found.values()), found


def test_what_is_missing_names_a_stage_or_the_notebook_that_makes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DVC has the stages of the active profile alone, and none of the notebooks' own."""
    monkeypatch.setenv("MATPAC_ROOT", str(tmp_path))
    (tmp_path / "params.yaml").write_text("profile: mini\n")
    (tmp_path / "params.paper.yaml").touch()
    for stage, notebook in paths.NOTEBOOKS.items():
        assert f"matpac run {notebook}" in stages()[stage]["cmd"]
        assert (ROOT / "notebooks" / f"{notebook}.ipynb").exists()
    for profile, said in (
        ("mini", "`dvc repro pretrain@mini-base`"),
        ("paper", "`matpac use paper` and `dvc repro pretrain@paper-base`"),
        ("smoke", "the notebook 03_pretrain with run = 'base'"),
    ):
        assert paths.command(profile, "pretrain", "base") == said
        with pytest.raises(FileNotFoundError, match=re.escape(f"log: missing; run {said}")):
            paths.made(tmp_path / "log", profile, "pretrain", "base")
