"""The training states of a run: what is kept, what is taken, what is said."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from test_states import full_disk

from matpac.core import files
from matpac.pretraining import checkpoint, states
from matpac.pretraining.checkpoint import Checkpoints
from matpac.pretraining.states import Identity

import command
import smoke

IDENTITY = Identity({"model": {"width": 8}}, data="d", code="c")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def make(folder: Path, *, keep: int = 2, identity: Identity = IDENTITY) -> Checkpoints:
    return Checkpoints(folder, identity, keep=keep)


@pytest.fixture
def checkpoints(tmp_path: Path) -> Iterator[Checkpoints]:
    with make(tmp_path / "base" / "abc") as made:
        yield made


def save(checkpoints: Checkpoints, *steps: int, **content: Any) -> None:
    """States that are on the disk."""
    for step in steps:
        checkpoints.save({"order": {}} | content, step)
    checkpoints.wait()


def state_file(checkpoints: Checkpoints, step: int) -> Path:
    return checkpoints.folder / f"state-{step:09d}.pt"


# -------------------------------------------------------------------------------- states


def test_the_newest_state_comes_back_exactly(checkpoints: Checkpoints) -> None:
    state = {"a": {"w": torch.randn(3, dtype=torch.float64)}, "groups": [{"lr": 0.1}]}
    save(checkpoints, 2)
    save(checkpoints, 1000, **state)  # later than 2 by number, not by text
    loaded = checkpoints.load()
    assert torch.equal(loaded["a"]["w"], state["a"]["w"])
    assert (loaded["groups"], loaded["step"]) == (state["groups"], 1000)
    assert Identity(**loaded["identity"]) == IDENTITY
    assert loaded["versions"]["torch"] == torch.__version__


@pytest.mark.parametrize("keep", [1, 3])
def test_only_the_newest_states_are_kept(tmp_path: Path, keep: int) -> None:
    with make(tmp_path / "base" / "abc", keep=keep) as checkpoints:
        save(checkpoints, 5, 10, 15, 20)
    kept = [f"state-{step:09d}.{end}" for step in (5, 10, 15, 20)[-keep:] for end in ("json", "pt")]
    assert names(checkpoints.folder) == kept


def test_when_a_state_is_due(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(checkpoint.time, "monotonic", lambda: now)
    with Checkpoints(tmp_path / "abc", IDENTITY, keep=1, every_s=10.0) as checkpoints:
        assert not checkpoints.due()
        now = 110.0
        assert checkpoints.due()
        save(checkpoints, 1)
        assert not checkpoints.due()
        now = 119.9
        assert not checkpoints.due()


# -------------------------------------------------------------------------------- in the background


class Gate:
    """Halts the writing of states until it is opened."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.open, self.reached, self.real = threading.Event(), threading.Event(), states.write
        self.written: list[str] = []
        monkeypatch.setattr(states, "write", self.write)

    def write(self, path: Path, *args: Any, **named: Any) -> None:
        self.reached.set()
        assert self.open.wait(10)
        self.real(path, *args, **named)
        self.written.append(path.name)


def test_training_goes_on_while_a_state_is_written(
    checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, weight = Gate(monkeypatch), torch.zeros(2)
    checkpoints.save({"order": {}, "w": weight}, 1)  # would wait for ever
    assert gate.reached.wait(10) and not state_file(checkpoints, 1).exists()
    weight += 1  # the next update
    gate.open.set()
    checkpoints.wait()
    assert checkpoints.load()["w"].tolist() == [0.0, 0.0]


def test_one_state_is_written_at_a_time(
    checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(monkeypatch)
    checkpoints.save({"order": {}}, 1)
    assert gate.reached.wait(10)
    threading.Timer(0.2, gate.open.set).start()
    checkpoints.save({"order": {}}, 2)  # waits for the first
    assert gate.written[0] == "state-000000001.pt"
    checkpoints.wait()
    assert gate.written == ["state-000000001.pt", "state-000000002.pt"]


def test_the_end_of_the_block_waits_even_after_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(monkeypatch)
    with pytest.raises(LookupError), make(tmp_path / "abc") as checkpoints:
        checkpoints.save({"order": {}}, 1)
        threading.Timer(0.2, gate.open.set).start()
        raise LookupError
    assert gate.written == ["state-000000001.pt"]
    assert not [t for t in threading.enumerate() if t.name.startswith("checkpoint")]


@pytest.mark.parametrize("seen_by", ["save", "wait", "end"])
def test_an_error_of_the_writer_reaches_training(tmp_path: Path, seen_by: str) -> None:
    state = {"order": {}, "w": torch.ones(10_000)}
    with (
        pytest.raises(OSError, match=r"state-000000004\.pt: not written: File too large"),
        make(tmp_path / "abc") as checkpoints,
    ):
        save(checkpoints, 3)
        with full_disk(20_000):
            checkpoints.save(state, 4)
            checkpoints._writing.exception()  # the thread is through
        if seen_by != "end":
            (checkpoints.wait if seen_by == "wait" else lambda: checkpoints.save(state, 5))()
            pytest.fail("nothing was raised")
    assert names(checkpoints.folder) == ["state-000000003.json", "state-000000003.pt"]
    with make(tmp_path / "abc") as again:
        assert again.load()["step"] == 3
        save(again, 4, **state)
        assert again.load()["w"].sum() == 10_000


# -------------------------------------------------------------------------------- damage


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def exchange(path: Path) -> None:
    """By a sound state of another run."""
    other = Identity({"model": {"width": 9}}, data="d", code="c")
    with make(path.parent.with_name("other"), identity=other) as others:
        save(others, 4)
    for end in (".pt", ".json"):
        state_file(others, 4).with_suffix(end).replace(path.with_suffix(end))


@pytest.mark.parametrize(
    ("damage", "reason"),
    [  # of all that test_states damages
        (truncate, "were written"),
        (exchange, "belongs to another run:\n  model.width: 9 there, 8 here"),
    ],
)
def test_an_unusable_state_is_named_and_the_one_before_taken(
    checkpoints: Checkpoints, damage: Any, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoints.keep = 1
    save(checkpoints, 3, mark="sound")
    checkpoints.keep = 2
    save(checkpoints, 4)
    damage(state_file(checkpoints, 4))
    loaded = checkpoints.load()
    assert (loaded["step"], loaded["mark"]) == (3, "sound")
    said = capsys.readouterr().out
    assert f"{state_file(checkpoints, 4)}: " in said and reason in said
    # Put aside: it must not pass for newer than the states to come.
    assert f"put aside in {checkpoints.folder / 'aside'}" in said
    assert "state-000000004.pt" in names(checkpoints.folder / "aside")
    checkpoints.keep = 1
    save(checkpoints, 4, mark="again")
    assert checkpoints.load()["mark"] == "again"


def test_if_no_state_is_usable_training_does_not_start(checkpoints: Checkpoints) -> None:
    save(checkpoints, 3, 4)
    for step in (3, 4):
        truncate(state_file(checkpoints, step))
    before = ["lock", *names(checkpoints.folder)]
    with pytest.raises(RuntimeError, match=r"(?s)000000004\.pt.*000000003\.pt.*start afresh"):
        checkpoints.load()
    assert names(checkpoints.folder) == before


def test_what_a_killed_writer_left_is_removed(checkpoints: Checkpoints) -> None:
    save(checkpoints, 3)
    (checkpoints.folder / ".state-000000004.pt.0a1b2c3d.tmp").write_bytes(b"half of it")
    (checkpoints.folder / "state-000000004.json").write_text("{}")  # its state never came
    (checkpoints.folder / "notes.json").write_text("mine")
    assert checkpoints.load()["step"] == 3
    left = ["lock", "notes.json", "state-000000003.json", "state-000000003.pt"]
    assert names(checkpoints.folder) == left


# -------------------------------------------------------------------------------- a chosen state


def test_a_chosen_state_is_taken_and_later_ones_are_put_aside(
    checkpoints: Checkpoints, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoints.keep = 3
    save(checkpoints, 3, 5, 7)
    assert checkpoints.load(state_file(checkpoints, 5))["step"] == 5
    assert "000000007.pt: after step 5, put aside" in capsys.readouterr().out
    checkpoints.keep = 1
    save(checkpoints, 6)  # is not pruned in favour of 7
    assert checkpoints.load()["step"] == 6
    aside = checkpoints.folder / "aside" / "state-000000007.pt"
    assert checkpoints.load(aside)["step"] == 7


def test_a_chosen_state_may_lie_anywhere(checkpoints: Checkpoints, tmp_path: Path) -> None:
    with make(tmp_path / "kept") as kept:
        save(kept, 9)
    assert checkpoints.load(state_file(kept, 9))["step"] == 9
    assert kept.load()["step"] == 9  # and stays


def test_a_chosen_state_that_cannot_be_used_is_an_error(
    checkpoints: Checkpoints, tmp_path: Path
) -> None:
    save(checkpoints, 3, 4)
    with pytest.raises(FileNotFoundError, match=r"state-000000009\.pt: no such training state"):
        checkpoints.load(state_file(checkpoints, 9))
    truncate(state_file(checkpoints, 4))
    with pytest.raises(ValueError, match=r"000000004\.pt: \d+ bytes, but"):
        checkpoints.load(state_file(checkpoints, 4))
    for identity, reason in (
        (Identity({"model": {"width": 8}}, "x", "c"), "the pretraining data differ"),
        (Identity({"model": {"width": 8}}, "d", "x"), "the library's code differs"),
    ):
        with (
            make(tmp_path / "x", identity=identity) as other,
            pytest.raises(ValueError, match=rf"(?s)3\.pt: belongs to another run:\n  {reason}$"),
        ):
            other.load(state_file(checkpoints, 3))


# -------------------------------------------------------------------------------- two at once


def hold(folder: Path, taken: Any, leave: Any) -> None:
    with make(folder) as checkpoints:
        checkpoints.load()
        taken.set()
        leave.wait(10)
        os.kill(os.getpid(), signal.SIGKILL)  # the lock goes with the process, whatever its end


@pytest.mark.parametrize("ends", [True, False])
def test_a_run_is_trained_by_one_process_at_a_time(
    checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch, capsys: Any, ends: bool
) -> None:
    monkeypatch.setattr(files, "LOCK_WAIT_S", 10.0 if ends else 0.5)
    save(checkpoints, 3)
    fork = multiprocessing.get_context("fork")
    taken, leave = fork.Event(), fork.Event()
    other = fork.Process(target=hold, args=(checkpoints.folder, taken, leave))
    other.start()
    assert taken.wait(10)
    (half := checkpoints.folder / ".state-000000004.pt.0a1b2c3d.tmp").touch()  # the other's
    if ends:
        threading.Timer(0.5, leave.set).start()
        assert checkpoints.load()["step"] == 3 and not half.exists()
    else:
        with pytest.raises(BlockingIOError, match="abc/lock: another process trains this run"):
            checkpoints.load()
        assert half.exists()
        leave.set()
    assert "waiting for another process that trains this run" in capsys.readouterr().out
    other.join(10)
    assert other.exitcode == -signal.SIGKILL


# -------------------------------------------------------------------------------- identity


def test_clean_checkpoints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("MATPAC_ROOT", str(tmp_path))
    text = smoke.SMOKE_YAML.read_text()
    (tmp_path / "params.yaml").write_text(text)
    with make(tmp_path / "data/smoke/checkpoints/base/abc") as checkpoints:
        save(checkpoints, 1)
    (tmp_path / "data/smoke/logmel").mkdir()
    assert command.matpac("clean", "--help") == 0
    assert names(tmp_path / "data/smoke") == ["checkpoints", "logmel"]
    command.matpac("clean")
    assert names(tmp_path / "data/smoke") == ["logmel"]
    kept = tmp_path / "data/smoke/checkpoints"
    assert f"removed {kept}" in capsys.readouterr().out
    assert command.matpac("clean") == 0
    assert f"{kept}: no training states" in capsys.readouterr().out
    kept.touch()  # what is no folder cannot be removed as one
    assert command.matpac("clean") == 1
    told = capsys.readouterr()
    assert "removed" not in told.out and str(kept) in told.err
