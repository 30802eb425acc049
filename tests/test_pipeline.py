"""What ``dvc repro`` runs, and what it leaves alone, in a copy of the project at smoke size.

Two profiles stand in for the real ones: ``mini`` has the smoke parameters, ``paper`` a folder of
audio with a CSV. The stages are run in this process and recorded with ``dvc commit``; what changes
then is run for real, notebooks included.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import yaml

from matpac.params import Params, load, parse

import command
import smoke

ROOT = Path(__file__).parents[1]
COPIED = ["dvc.yaml", ".dvcignore", ".gitignore", "matpac", "notebooks", "Makefile"]
pytestmark = pytest.mark.slow


def dvc(project: Path, *arguments: str, check: bool = True) -> str:
    """Output of a DVC command, as a user of .venv would run it."""
    done = subprocess.run(
        [sys.executable, "-m", "dvc", *arguments],
        cwd=project,
        env=dvc_environment(),
        capture_output=True,
        text=True,
    )
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def dvc_environment() -> dict[str, str]:
    """As an activated .venv has it, without what tests set."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MATPAC_")}
    return environment | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}


def ran(output: str) -> list[str]:
    """The stages that ``dvc repro`` ran."""
    return re.findall(r"Running stage '([^']+)'", output)


def paper_sections(folder: Path) -> dict:
    """Smoke sections on a folder of noisy tones, two classes in two folds."""
    audio = folder / "audio"
    audio.mkdir()
    rows = []
    for i in range(24):
        tone = np.sin(2 * np.pi * (300 + 900 * (i % 2)) * np.arange(32000) / 16000)
        noise = np.random.default_rng(i).normal(0, 0.05, 32000)
        soundfile.write(audio / f"{i}.wav", 0.3 * tone + noise, 16000)
        rows.append({"filename": f"{i}.wav", "class": "ab"[i % 2], "fold": 1 + i // 12})
    (audio / "empty.wav").touch()
    rows += [{"filename": name, "class": "a", "fold": 1} for name in ("empty.wav", "gone.wav")]
    pd.DataFrame(rows).to_csv(folder / "clips.csv", index=False)
    sections = smoke.sections() | {"profile": "paper", "corpora": {"tones": 2.0}}
    sections["logmel"] |= {"max_bad_fraction": 0.1}
    sections["datasets"] = {
        "tones": {
            "source": "folder",
            "audio": str(audio),
            "csv": str(folder / "clips.csv"),
            "labels": "class",
            "kind": "multiclass",
            "fold": "fold",
        }
    }
    sections |= {"tasks": ["tones"], "runs": {"base": {"label": "MATPAC"}}}
    return sections


@pytest.fixture(scope="module", autouse=True)
def another_kernel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What Jupyter takes for "python3" is no Python of ours: stages must not ask it."""
    folder = tmp_path_factory.mktemp("jupyter")
    (folder / "kernels/python3").mkdir(parents=True)
    kernel = {"argv": ["/bin/false"], "display_name": "Python 3", "language": "python"}
    (folder / "kernels/python3/kernel.json").write_text(json.dumps(kernel))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JUPYTER_PATH", str(folder))
        yield


@pytest.fixture(scope="module")
def project(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project with both profiles up to date, ``mini`` active."""
    project = tmp_path_factory.mktemp("pro ject's é")  # what shells trip over
    for name in COPIED:
        source = ROOT / name
        ignore = shutil.ignore_patterns("__pycache__")
        copy = shutil.copyfile if source.is_file() else shutil.copytree
        copy(source, project / name, **({} if source.is_file() else {"ignore": ignore}))
    for start in (["git", "init", "-q"], [sys.executable, "-m", "dvc", "init", "-q"]):
        subprocess.run(start, cwd=project, check=True)
    (project / ".dvc" / "config").write_text((ROOT / ".dvc" / "config").read_text())
    sections = smoke.sections("base", "alpha1")
    sections |= {"profile": "mini", "tasks": ["nsynth", "esc50"]}
    shutil.copytree(prepared / "data/smoke/audio", project / "data/mini/audio")  # rendered before
    outside = tmp_path_factory.mktemp("recordings")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MATPAC_ROOT", str(project))
        for given in (paper_sections(outside), sections):
            smoke.run_stages(parse(Params, given))
            (project / "params.yaml").write_text(yaml.safe_dump(given, sort_keys=False))
            dvc(project, "commit", "--force")
            (project / "params.yaml").rename(project / f"params.{given['profile']}.yaml")
    (project / "params.mini.yaml").rename(project / "params.yaml")
    return project


@pytest.fixture
def edit(project: Path):
    """Changes ``params.yaml`` for one test."""
    path = project / "params.yaml"
    before = path.read_text()

    def change(**sections: object) -> None:
        path.write_text(yaml.safe_dump(yaml.safe_load(before) | sections, sort_keys=False))

    yield change
    path.write_text(before)


def test_bad_files_are_named_and_the_rest_goes_through_every_stage(project: Path) -> None:
    manifest = pd.read_parquet(project / "data" / "paper" / "manifests" / "tones.parquet")
    bad = manifest[manifest["excluded"] != ""].set_index("path")["excluded"]
    assert set(bad.index) == {"empty.wav", "gone.wav"} and "missing" in bad["gone.wav"]
    scores = pd.read_csv(project / "data" / "paper" / "probe" / "base" / "scores.csv")
    assert len(scores) == 4  # two folds, two repeats
    assert "24" in (project / "figures" / "paper" / "table1.md").read_text()


DATA = ["sources@mini", "fetch@mini", "logmel@mini"]


def test_one_more_task_leaves_every_pretraining_alone(project: Path, edit) -> None:
    before = (project / "data" / "mini" / "logmel" / "pretraining.json").read_bytes()
    edit(tasks=["nsynth", "esc50", "fsd50k"])
    assert ran(dvc(project, "repro", "logmel@mini")) == DATA
    assert (project / "data" / "mini" / "logmel" / "pretraining.json").read_bytes() == before
    status = dvc(project, "status")
    assert "probe@mini-base" in status and "pretrain@" not in status


def test_every_mistake_is_named_before_anything_runs(project: Path, edit) -> None:
    runs = {"base": {}, "alpha1": {"objective": {"alpa": 1.0}}}
    probe = smoke.sections()["probe"] | {"repeats": "five"}
    edit(runs=runs, probe=probe)
    output = dvc(project, "repro", check=False)
    assert "runs.alpha1.objective.alpa: unknown key" in output
    assert "probe.repeats: Input should be a valid integer, got 'five'" in output
    assert "Executing" not in output, "a notebook was started"


def test_a_failed_stage_leaves_the_error_and_no_output(project: Path, edit) -> None:
    sections = yaml.safe_load((project / "params.yaml").read_text())
    edit(model=sections["model"] | {"crop_frames": 1600})  # longer than any clip
    output = dvc(project, "repro", "pretrain@mini-base", check=False)
    # Back to the two tasks: the run cache has the results of fetch and logmel.
    assert set(ran(output)) <= {*DATA, "pretrain@mini-base"}
    assert "the pretraining corpora hold no clip as long as a crop" in output
    executed = project / "data" / "mini" / "executed" / "03_pretrain-base.ipynb"
    assert "the pretraining corpora hold no clip" in executed.read_text()
    assert not (project / "data" / "mini" / "pretrain" / "base").exists()
    edit()
    assert "pretrain@mini-base" not in ran(dvc(project, "repro", "pretrain@mini-base"))
    assert (project / "data" / "mini" / "pretrain" / "base").exists(), "restored from the cache"


def test_switching_profiles_and_back_runs_nothing(project: Path, monkeypatch) -> None:
    """Nor does a second repro."""
    monkeypatch.setenv("MATPAC_ROOT", str(project))
    for profile, stage in (("paper", "pretrain@paper-base"), ("mini", "probe@mini-alpha1")):
        assert command.matpac("use", profile) == 0
        output = dvc(project, "repro")
        assert ran(output) == [] and f"'{stage}' didn't change" in output, output
    assert load(project / "params.yaml").profile == "mini"


def test_raising_the_number_of_core_runs_everything_again(project: Path) -> None:
    version = project / "matpac/core/version.py"
    text = version.read_text()
    try:
        version.write_text(text.replace("RESULTS = 1", "RESULTS = 2"))
        stale = {name.partition("@")[0] for name in json.loads(dvc(project, "status", "--json"))}
    finally:
        version.write_text(text)
    assert {"fetch", "logmel", "pretrain", "probe", "probe_only"} <= stale


def test_an_edited_overlay_and_another_encoder_run_what_is_theirs(
    project: Path, edit, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That run, its probe and that of the encoder, and the figures; then other weights of it."""
    trained, weights = project / "data/mini/pretrain", project / "weights"
    shutil.copytree(trained / "base/seed_0", weights)
    sections = yaml.safe_load((project / "params.yaml").read_text())
    changed = {"alpha1": sections["runs"]["alpha1"] | {"objective": {"alpha": 0.9}}}
    edit(runs=sections["runs"] | changed)
    stale = set(json.loads(dvc(project, "status", "--json")))
    assert {"pretrain@mini-alpha1"} == {name for name in stale if not name.startswith("figures")}
    earlier = {"kind": "pretrained", "label": "Earlier", "weights": str(weights)}
    edit(runs=sections["runs"] | changed, encoders=sections["encoders"] | {"earlier": earlier})
    output = dvc(project, "repro")
    of_run, of_encoder = ["pretrain@mini-alpha1", "probe@mini-alpha1"], ["probe_only@mini-earlier"]
    assert sorted(ran(output)) == sorted(["sources@mini", *of_run, *of_encoder, "figures@mini"])
    assert "pretrain alpha1: 100%" in output, "progress reaches the terminal"
    assert "ERROR" not in output and "Traceback" not in output
    scores = [
        pd.read_csv(project / "data/mini/probe" / name / "scores.csv").drop(columns="encoder")
        for name in ("earlier", "base")
    ]
    pd.testing.assert_frame_equal(*scores)
    assert "| Earlier | elsewhere |" in (project / "figures/mini/table2.md").read_text()
    shutil.copytree(trained / "alpha1/seed_0", weights, dirs_exist_ok=True)
    monkeypatch.setenv("MATPAC_ROOT", str(project))
    assert command.matpac("sources") == 0
    stale = json.loads(dvc(project, "status", "--json"))
    stale = [name for name in stale if name.startswith(("pretrain", "probe"))]
    assert stale == of_encoder


def test_ctrl_c_saves_and_the_next_repro_goes_on(project: Path, edit) -> None:
    sections = yaml.safe_load((project / "params.yaml").read_text())
    edit(pretrain=sections["pretrain"] | {"epochs": 60.0, "checkpoint_every_s": 1e6})
    started = subprocess.Popen(
        [sys.executable, "-m", "dvc", "repro", "-s", "pretrain@mini-base"],
        cwd=project,
        env=dvc_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,  # a terminal's Ctrl-C reaches a whole group
    )
    lines = iter(started.stdout.readline, "")
    assert any("base: 360 updates" in line for line in lines), "training never began"
    os.killpg(started.pid, signal.SIGINT)
    rest = started.communicate()[0]
    assert started.returncode != 0, rest
    assert re.search(
        r"\nbase: stopped after step \d+; state saved; the same command goes on from there\n", rest
    )
    assert "Traceback" not in rest and not re.search(r"ERROR(?!: failed to reproduce)", rest)
    assert not (project / "data" / "mini" / "pretrain" / "base").exists()
    output = dvc(project, "repro", "-s", "pretrain@mini-base")
    step = re.search(r"base: resuming at step (\d+)", output)
    assert step and int(step[1]) > 0, output
    assert "pretrain base: 100%|360/360" in output


def test_metrics_and_plots_are_readable(project: Path) -> None:
    metrics = dvc(project, "metrics", "show")
    assert "mutual_information" in metrics and "probe/base.json" in metrics
    page = dvc(project, "plots", "show", "--out", "plots")
    assert "index.html" in page
    text = (project / "plots" / "index.html").read_text()
    for column in ("total_loss", "mutual_information", "prototypes_in_use"):
        assert column in text
