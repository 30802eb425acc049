"""Switching profiles loses nothing."""

import sys
from pathlib import Path

import pytest
import yaml

from matpac.params import load, profiles

import smoke


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name, profile in (("params.yaml", "mini"), ("params.paper.yaml", "paper")):
        text = "# a comment of mine\n" + yaml.safe_dump(smoke.sections() | {"profile": profile})
        (tmp_path / name).write_text(text)
    return tmp_path


def test_there_and_back_restores_every_byte(root: Path) -> None:
    before = {p.name: p.read_bytes() for p in root.iterdir()}
    assert "mini is kept in params.mini.yaml" in profiles.use("paper", root)
    assert sorted(p.name for p in root.iterdir()) == ["params.mini.yaml", "params.yaml"]
    assert load(root / "params.yaml").profile == "paper"
    profiles.use("mini", root)
    assert {p.name: p.read_bytes() for p in root.iterdir()} == before


def test_the_active_profile_is_left_alone(root: Path) -> None:
    assert profiles.use("mini", root) == "params.yaml is the profile mini already"


def test_an_unknown_profile_names_those_there_are(root: Path) -> None:
    with pytest.raises(FileNotFoundError, match="allowed: mini, paper"):
        profiles.use("papr", root)


def test_nothing_is_overwritten(root: Path) -> None:
    (root / "params.mini.yaml").write_text("mine")
    with pytest.raises(ValueError, match="exists and would be overwritten"):
        profiles.use("paper", root)
    assert (root / "params.mini.yaml").read_text() == "mine"
    assert load(root / "params.yaml").profile == "mini"


def test_a_bad_profile_is_not_switched_to(root: Path) -> None:
    (root / "params.paper.yaml").write_text("profile: paper\n")
    with pytest.raises(ValueError, match="missing"):
        profiles.use("paper", root)
    assert load(root / "params.yaml").profile == "mini"


def test_a_file_without_a_profile_is_named(root: Path) -> None:
    for text, problem in (("runs: {}\n", "no key 'profile'"), ("a: [", "line 1: not valid YAML")):
        (root / "params.paper.yaml").write_text(text)
        with pytest.raises(ValueError, match=rf"params\.paper\.yaml: {problem}"):
            profiles.use("paper", root)


def test_a_command_runs_under_a_profile_and_its_failure_restores(root: Path) -> None:
    code = "import yaml, sys; sys.exit(yaml.safe_load(open('params.yaml'))['profile'] == 'paper')"
    assert profiles.run_under("paper", [sys.executable, "-c", code], root) == 1
    assert profiles.run_under("mini", [sys.executable, "-c", code], root) == 0
    assert load(root / "params.yaml").profile == "mini"
