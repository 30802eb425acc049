"""Changed files outside the project make ``fetch`` look again; unchanged ones do not."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from matpac.core import files, paths
from matpac.data import sources
from matpac.params import Params, load, parse
from matpac.probing.sources import write_weights

import command
import smoke

ROOT = Path(__file__).parents[2]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project whose data set "own" lies in the folder $OWN, outside of it."""
    for folder in ("project", "one/audio/below"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "one/audio/a.wav").write_bytes(b"12")
    (tmp_path / "one/audio/below/b.wav").write_bytes(b"345")
    (tmp_path / "one/own.csv").write_text("filename\na.wav\n")
    monkeypatch.setenv("MATPAC_ROOT", str(tmp_path / "project"))
    monkeypatch.setenv("OWN", str(tmp_path / "one"))
    sections = smoke.sections()
    sections["datasets"]["own"] = {"source": "folder", "audio": "$OWN/audio", "csv": "$OWN/own.csv"}
    sections["corpora"] = {"embedded": 1.0, "own": 1.0}
    (tmp_path / "project/params.yaml").write_text(yaml.safe_dump(sections))
    return tmp_path


def found() -> dict[str, Any]:
    return sources.sources(load())


def test_every_change_of_a_table_or_file_is_noticed(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = project / "one/audio"
    before = found()
    assert list(before) == ["own"] and before["own"][0]["num_files"] == 2
    assert before["own"][1]["sha256"] == files.sha256(project / "one/own.csv")
    (folder / ".hidden").write_text("of a file manager")
    os.utime(project / "one/own.csv", ns=(0, 0))
    assert found() == before
    seen = [before]

    def changed() -> bool:
        new = found() not in seen
        seen.append(found())
        return new

    (folder / "c.wav").write_bytes(b"6")
    assert changed() and seen[-1]["own"][0]["num_files"] == 3
    (folder / "c.wav").rename(folder / "below/c.wav")
    assert changed()
    state = (folder / "below/b.wav").stat()
    (folder / "below/b.wav").write_bytes(b"9876")
    os.utime(folder / "below/b.wav", ns=(state.st_atime_ns, state.st_mtime_ns))
    assert changed(), "size"
    (folder / "below/b.wav").write_bytes(b"5432")
    os.utime(folder / "below/b.wav", ns=(0, 1))
    assert changed(), "time"
    (project / "one/own.csv").write_text("filename\nb.wav\n")
    assert changed()
    (project / "one").rename(project / "two")
    monkeypatch.setenv("OWN", str(project / "two"))
    assert changed(), "the same files in another folder"


def test_folders_without_a_csv_and_official_data_sets_are_looked_at(project: Path) -> None:
    sections = smoke.sections()
    sections["datasets"]["own"] = {"source": "folder", "audio": ["$OWN/audio", "$OWN/more"]}
    sections["datasets"]["gtzan"] = {"source": "gtzan", "path": "$OWN/audio"}
    sections["datasets"]["mtt"] = {"source": "mtt", "path": None}  # the pipeline's own download
    sections["corpora"] = {"own": 1.0}
    sections["tasks"] = ["gtzan", "mtt"]
    params = parse(Params, sections)
    with pytest.raises(FileNotFoundError, match=r"datasets\.own\.audio: no folder .*/one/more"):
        sources.sources(params)
    (project / "one/more").mkdir()
    seen = sources.sources(params)
    assert {name: [each["num_files"] for each in every] for name, every in seen.items()} == {
        "own": [2, 0], "gtzan": [2]
    }  # fmt: skip
    (project / "one/more/c.wav").touch()
    assert sources.sources(params)["own"][1] != seen["own"][1]
    assert sources.sources(params)["gtzan"] == seen["gtzan"]


def test_links_are_followed_but_not_in_circles(project: Path) -> None:
    folder = project / "one/audio"
    (folder / "below/up").symlink_to(folder)
    (folder / "nothing.wav").symlink_to(folder / "gone.wav")
    (project / "elsewhere").mkdir()
    (project / "elsewhere/d.wav").write_bytes(b"1")
    (folder / "linked").symlink_to(project / "elsewhere")
    assert found()["own"][0]["num_files"] == 4  # a.wav, below/b.wav, linked/d.wav, nothing.wav
    before = found()
    (project / "elsewhere/d.wav").write_bytes(b"12")
    assert found() != before


def test_the_file_is_rewritten_only_when_something_changed(project: Path) -> None:
    params = load()
    path = project / "project/data" / params.profile / "sources.json"
    assert sources.write(params) and files.read_json(path) == found()
    os.utime(path, ns=(0, 0))
    assert not sources.write(params) and path.stat().st_mtime_ns == 0
    (project / "one/audio/a.wav").unlink()
    assert sources.write(params) and files.read_json(path) == found()


def test_the_command_line(project: Path, capsys: pytest.CaptureFixture) -> None:
    assert command.matpac("sources") == 0
    assert capsys.readouterr().out == "new or changed since the last look: own\n"
    assert command.matpac("sources") == 0 and capsys.readouterr().out == ""
    (project / "one").rename(project / "gone")
    assert command.matpac("sources") == 1
    error = capsys.readouterr().err
    assert f"datasets.own.audio: no folder {project}/one/audio" in error
    assert f"datasets.own.csv: no file {project}/one/own.csv" in error


def test_the_files_behind_encoders(project: Path) -> None:
    sections = smoke.sections()
    named = {"label": "X", "weights": "w.pt"}
    sections["encoders"] |= {"m2d": {"kind": "m2d", **named}, "passt": {"kind": "passt", **named}}
    sections["encoders"]["mine"] = {"kind": "module", "label": "X", "module": "mine:make"}
    params = parse(Params, sections)
    path = paths.small(params) / "weights.json"
    write_weights(params)
    nothing = dict.fromkeys(("random", "logmel", "m2d", "passt"))
    assert files.read_json(path) == nothing | {"mine": {"module": ""}}
    (project / "project/w.pt").write_text("weights")
    (project / "project/mine.py").write_text("raise RuntimeError('imported')")
    write_weights(params)
    first = files.read_json(path)
    assert len(first["m2d"]["weights"]) == len(first["mine"]["module"]) == 64
    assert first["passt"] == first["m2d"] and first["random"] is None
    written = path.stat().st_mtime_ns
    write_weights(params)
    assert path.stat().st_mtime_ns == written
    (project / "project/mine.py").write_text("x = 1")
    write_weights(params)
    changed = {name for name, value in files.read_json(path).items() if value != first[name]}
    assert changed == {"mine"}


def test_looking_is_light() -> None:
    code = "import sys, matpac.data.sources; print({'pandas', 'torch'} & set(sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "set()"


@pytest.mark.slow
def test_dvc_notices_changes_only_when_they_were_looked_for(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With stand-ins for the commands of fetch; ``sources`` is the real stage."""
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    fetch = {k: stages["fetch"][k] for k in ("matrix", "outs")}
    fetch |= {"deps": ["data/${item.profile}/sources.json"], "params": ["datasets"]}
    fetch["cmd"] = (
        "mkdir -p data/${item.profile}/manifests && echo x > data/${item.profile}/manifests/x"
    )
    own = stages["sources"] | {"deps": ["params.yaml"]}
    own["cmd"] = own["cmd"].replace("matpac", f"{sys.executable} -m matpac.cli")
    pipeline = {"vars": [{"validate": "true"}], "stages": {"sources": own, "fetch": fetch}}
    root = project / "project"
    (root / "dvc.yaml").write_text(yaml.safe_dump(pipeline))

    def dvc(*command: str) -> list[str]:
        done = subprocess.run(
            [sys.executable, "-m", "dvc", *command], cwd=root, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
        lines = done.stdout.splitlines()
        return [line.split("'")[1] for line in lines if line.startswith("Running stage '")]

    profile = load().profile
    monkeypatch.setenv("DVC_NO_ANALYTICS", "1")
    dvc("init", "-q", "--no-scm")
    both = [f"sources@{profile}", f"fetch@{profile}"]
    assert dvc("repro") == both
    command.matpac("sources")
    assert dvc("repro") == []
    (project / "one/own.csv").write_text("filename\nb.wav\n")
    assert dvc("repro") == []
    command.matpac("sources")
    assert dvc("repro") == both
