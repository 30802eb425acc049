"""The wheel that `uv build` makes: all of the library, nothing else, and light requirements."""

import os
import re
import shutil
import subprocess
import sys
import zipfile
from email.parser import Parser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import tiny
import torch

from matpac.encoders.frozen import AudioEncoder, save_encoder

ROOT = Path(__file__).parents[1]
UV = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
HEAVY = {"dvc", "ipykernel", "ipywidgets", "jupyter", "jupyterlab", "matplotlib", "nbval"}
HEAVY |= {"notebook", "papermill", "pytest", "seaborn"}
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(UV is None, reason="needs uv"),
    pytest.mark.skipif(not (ROOT / ".git").exists(), reason="needs the git repository"),
]


def run(*command: object, cwd: Path) -> str:
    """Output of a command that has to succeed, without what makes this project importable."""
    dropped = ("PYTHONPATH", "VIRTUAL_ENV", "MATPAC_ENCODER")
    environment = {k: v for k, v in os.environ.items() if k not in dropped}
    done = subprocess.run(
        list(map(str, command)), cwd=cwd, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def tracked() -> list[str]:
    """Files that git knows and that are there."""
    names = run("git", "ls-files", "-z", cwd=ROOT).split("\0")
    return [name for name in names if name and (ROOT / name).is_file()]


@pytest.fixture(scope="module")
def wheel(tracked: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy of the tracked files by this environment's setuptools; needs no index."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in tracked:
        (folder / "copy" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / "copy" / name)
    options = ["--no-build-isolation", "--python", sys.executable, "-o", folder / "dist"]
    run(UV, "build", "--wheel", *options, folder / "copy", cwd=folder)
    (path,) = (folder / "dist").glob("*.whl")
    return path


def requirements(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [n for n in archive.namelist() if n.endswith(".dist-info/METADATA")]
        return Parser().parsestr(archive.read(name).decode()).get_all("Requires-Dist")


def test_the_wheel_holds_the_library_and_nothing_else(wheel: Path, tracked: list[str]) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = [n for n in archive.namelist() if ".dist-info/" not in n]
    assert sorted(names) == sorted(name for name in tracked if name.startswith("matpac/"))
    assert "matpac/reporting/matpac.mplstyle" in names and "matpac/data/layouts/esc50.py" in names


def test_embedding_needs_no_notebooks_and_no_pipeline(wheel: Path) -> None:
    core = [line for line in requirements(wheel) if "extra ==" not in line]
    names = {re.match(r"[A-Za-z0-9._-]+", line)[0].lower() for line in core}
    assert not names & HEAVY
    assert {"torch", "soundfile", "safetensors", "pyarrow", "huggingface_hub"} <= {
        name.replace("-", "_") for name in names
    }
    extras = {match[1] for line in requirements(wheel) if (match := re.search(r'== "(.+)"', line))}
    assert {"pipeline", "corpus", "cluster", "test"} <= extras


THREE_LINES = """
import matpac
encoder = matpac.load("encoder")
embedding = encoder.embed("sounds/file.wav")
assert embedding.shape == (32,) and embedding.isfinite().all()
labels = matpac.load("mini").label("sounds/file.wav", head="words")
assert len(labels) == 5
print(matpac.__file__)
"""


@pytest.mark.skipif(not os.environ.get("MATPAC_SOAK"), reason="installs 5 GB; MATPAC_SOAK=1")
def test_the_three_lines_work_in_an_empty_environment(wheel: Path, tmp_path: Path) -> None:
    run(UV, "venv", "--python", sys.executable, tmp_path / "env", cwd=tmp_path)
    python = tmp_path / "env" / "bin" / "python"
    run(UV, "pip", "install", "--python", python, wheel, cwd=tmp_path)
    installed = run(UV, "pip", "list", "--python", python, "--format", "freeze", cwd=tmp_path)
    assert not {line.split("==")[0] for line in installed.splitlines()} & HEAVY
    torch.manual_seed(0)
    net = AudioEncoder(tiny.run().model, tiny.FRONT_END, mean=-8.0, std=4.0)
    save_encoder(net, tmp_path / "encoder")
    (tmp_path / "sounds").mkdir()
    noise = np.random.default_rng(0).normal(0, 0.1, (44100, 2))
    soundfile.write(tmp_path / "sounds" / "file.wav", noise, 44100)
    assert str(tmp_path / "env") in run(python, "-c", THREE_LINES, cwd=tmp_path)
    options = ["-o", "e.parquet", "--encoder", "encoder"]
    run(python, "-m", "matpac.cli", "embed", "sounds", *options, cwd=tmp_path)
    assert pd.read_parquet(tmp_path / "e.parquet")["path"].tolist() == ["file.wav"]
    options = ["-o", "l.parquet", "--encoder", "mini", "--head", "esc10"]
    run(python, "-m", "matpac.cli", "label", "sounds", *options, cwd=tmp_path)
    assert len(pd.read_parquet(tmp_path / "l.parquet")["labels"].tolist()[0]) == 5
