"""Logs that grow beside the training states and are cut back to one."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from test_states import full_disk

from matpac.pretraining.logs import Logs, LogWriter
from matpac.pretraining.schedules import Scheduled
from matpac.pretraining.trainer import Measured

COLUMNS = ["step", "loss"]
AT = Scheduled(learning_rate=0.5, encoder_ema_decay=0.75, head_ema_decay=0.25, teacher_temp=0.05)


@pytest.fixture
def made(tmp_path: Path) -> Logs:
    return Logs(tmp_path / "logs")


def test_a_log_grows_with_one_header(made: Logs) -> None:
    made.append("log", COLUMNS, [[0, 1.5], [1, 1 / 3]])
    made.append("log", COLUMNS, [[2, 1234567890.0]])
    assert made.path("log").read_text() == "step,loss\n0,1.5\n1,0.3333333\n2,1.234568e+09\n"
    assert made.paths() == [made.folder / "log.csv"]


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("step,loss\n0,1\n1,2\n2,3\n10,4\n", "step,loss\n0,1\n1,2\n"),
        ("step,loss\n0,1\n1,2\n2,", "step,loss\n0,1\n1,2\n"),  # died while writing a row
        ("step,loss\n0,1\n1", "step,loss\n0,1\n"),
        ("step,loss\n0,1\n", "step,loss\n0,1\n"),
        ("step,loss\n0,1\n1,2\n\0\0\0\0", "step,loss\n0,1\n1,2\n"),  # the machine died
        ("step,loss\n0,1\n1,2\n\0\0\0\0,5\n1,7\n", "step,loss\n0,1\n1,2\n"),
        ("step,loss\n5,1\n", None),
        ("step,lo", None),  # died while writing the header
        ("", None),
    ],
)
def test_logs_are_cut_back_to_a_step(made: Logs, text: str, kept: str | None) -> None:
    made.folder.mkdir(parents=True)
    for name in ("log", "diagnostics"):
        made.path(name).write_text(text)
    made.cut(2)
    for name in ("log", "diagnostics"):
        path = made.path(name)
        assert (path.read_text() if path.exists() else None) == kept
        made.append(name, COLUMNS, [[2, 9.0]])
        assert path.read_text() == (kept or "step,loss\n") + "2,9\n"
    assert [path.name for path in made.paths()] == ["diagnostics.csv", "log.csv"]


def test_rows_that_are_lost_are_said(made: Logs, capsys: pytest.CaptureFixture[str]) -> None:
    """The diagnostics have no row for every step; the log has."""
    for name in ("log", "diagnostics"):
        made.append(name, COLUMNS, [[0, 1.0], [1, 1.0], [2, 1.0]])
    made.cut(3)
    assert capsys.readouterr().out == ""
    made.cut(5)
    assert capsys.readouterr().out == f"{made.path('log')}: has 3 of 5 rows; the others are lost\n"
    made.path("log").unlink()
    made.cut(2)
    assert "has 0 of 2 rows" in capsys.readouterr().out


def test_a_changed_digit_is_told(made: Logs, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("log", "diagnostics"):
        made.append(name, COLUMNS, [[0, 1.0], [1, 2.0], [2, 3.0]])
    saved = made.digests(2)
    made.append("log", COLUMNS, [[3, 4.0]])  # after the state
    made.cut(2)
    made.tell_changes(2, saved)
    assert capsys.readouterr().out == ""
    path = made.path("log")
    path.write_text(path.read_text().replace("1,2", "1,3"))
    made.tell_changes(2, saved)
    assert (
        capsys.readouterr().out
        == f"{path}: changed since the state was saved, which is as it was\n"
    )


def test_a_full_disk_is_named(made: Logs) -> None:
    made.append("log", COLUMNS, [[0, 1.0]])
    with full_disk(20), pytest.raises(OSError, match=r"log\.csv: not written: File too large"):
        made.append("log", COLUMNS, [[step, 1.0] for step in range(1, 9)])
    made.cut(1)
    assert made.path("log").read_text() == "step,loss\n0,1\n"


def test_other_processes_write_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    writer = LogWriter(None, steps_per_epoch=4)
    collapse = SimpleNamespace(values=lambda: {"agreement": 0.0, "rank": 2.0})
    writer.add(0, AT, Measured(torch.tensor([0.0, 0.25, 0.5, 0.75]), collapse))
    assert len(writer.flush().log) == 1  # what the first process writes
    assert list(tmp_path.iterdir()) == []
