"""Training states and logs on disk."""

from pathlib import Path

import pytest
import tiny
import torch

from matpac import checkpoint
from matpac.checkpoint import Checkpoints, fingerprint

COLUMNS = ["step", "loss"]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def checkpoints(tmp_path: Path) -> Checkpoints:
    return Checkpoints(tmp_path / "base" / "abc", keep=2)


# -------------------------------------------------------------------------------- states


def test_nothing_is_made_before_the_first_save(checkpoints: Checkpoints) -> None:
    assert checkpoints.load() is None
    checkpoints.cut_logs(0)
    assert not checkpoints.folder.parent.exists() and checkpoints.others() == []


def test_the_newest_state_comes_back_exactly(checkpoints: Checkpoints) -> None:
    state = {"a": {"w": torch.randn(3, dtype=torch.float64)}, "groups": [{"lr": 0.1}], "step": 9}
    checkpoints.save({"step": 2}, 2)
    checkpoints.save(state, 1000)  # later than 2 by number, not by text
    loaded = checkpoints.load()
    assert torch.equal(loaded["a"]["w"], state["a"]["w"])
    assert (loaded["groups"], loaded["step"]) == (state["groups"], 9)


@pytest.mark.parametrize("keep", [1, 3])
def test_only_the_newest_states_are_kept(tmp_path: Path, keep: int) -> None:
    checkpoints = Checkpoints(tmp_path / "base" / "abc", keep=keep)
    for step in (5, 10, 15, 20):
        checkpoints.save({"step": step}, step)
    kept = [f"state-{step:09d}.pt" for step in (5, 10, 15, 20)[-keep:]]
    assert names(checkpoints.folder) == kept


@pytest.mark.parametrize("content", [b"", b"not a state", b"half"])
def test_an_unreadable_state_is_named_and_the_one_before_taken(
    checkpoints: Checkpoints, content: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoints.save({"step": 3}, 3)
    checkpoints.save({"step": 4}, 4)
    for step in (4, 3):
        path = checkpoints.folder / f"state-{step:09d}.pt"
        half = path.read_bytes()[: path.stat().st_size // 2]
        path.write_bytes(half if content == b"half" else content)
        if step == 4:
            assert checkpoints.load() == {"step": 3}
            said = capsys.readouterr().out
            assert "state-000000004.pt: not a readable training state" in said
    with pytest.raises(RuntimeError, match=r"(?s)000000004\.pt.*000000003\.pt.*start afresh"):
        checkpoints.load()


def test_pickled_code_is_not_executed(checkpoints: Checkpoints, tmp_path: Path) -> None:
    checkpoints.save({"step": 3, "path": tmp_path}, 3)  # a Path is no plain number
    with pytest.raises(RuntimeError, match="not a readable training state"):
        checkpoints.load()


def test_a_save_that_fails_leaves_the_old_state(
    checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints.save({"step": 3}, 3)

    def full(value: object, file: object) -> None:
        file.write(b"half of it")
        raise OSError("no space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="no space"):
        checkpoints.save({"step": 4}, 4)
    assert checkpoints.load() == {"step": 3}


def test_other_fingerprints_of_the_run(checkpoints: Checkpoints) -> None:
    checkpoints.save({}, 1)
    assert checkpoints.others() == []
    other = Checkpoints(checkpoints.folder.with_name("xyz"), keep=1)
    assert other.others() == [checkpoints.folder]


# -------------------------------------------------------------------------------- logs


def test_a_log_grows_with_one_header(checkpoints: Checkpoints) -> None:
    checkpoints.append("log", COLUMNS, [[0, 1.5], [1, 1 / 3]])
    checkpoints.append("log", COLUMNS, [[2, 1234567890.0]])
    text = "step,loss\n0,1.5\n1,0.3333333\n2,1.234568e+09\n"
    assert checkpoints.log("log").read_text() == text


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("step,loss\n0,1\n1,2\n2,3\n10,4\n", "step,loss\n0,1\n1,2\n"),
        ("step,loss\n0,1\n1,2\n2,", "step,loss\n0,1\n1,2\n"),  # died while writing a row
        ("step,loss\n0,1\n1", "step,loss\n0,1\n"),
        ("step,loss\n0,1\n", "step,loss\n0,1\n"),
        ("step,loss\n5,1\n", None),
        ("step,lo", None),  # died while writing the header
        ("", None),
    ],
)
def test_logs_are_cut_back_to_a_step(checkpoints: Checkpoints, text: str, kept: str | None) -> None:
    checkpoints.folder.mkdir(parents=True)
    for name in ("log", "diagnostics"):
        checkpoints.log(name).write_text(text)
    checkpoints.cut_logs(2)
    for name in ("log", "diagnostics"):
        path = checkpoints.log(name)
        assert (path.read_text() if path.exists() else None) == kept
        checkpoints.append(name, COLUMNS, [[2, 9.0]])
        assert path.read_text() == (kept or "step,loss\n") + "2,9\n"
    assert names(checkpoints.folder) == ["diagnostics.csv", "log.csv"]


# -------------------------------------------------------------------------------- fingerprint


def test_fingerprint_is_stable() -> None:
    assert fingerprint(tiny.run(), "data") == fingerprint(tiny.run(), "data")


@pytest.mark.parametrize(
    ("section", "change"),
    [
        ("model", {"num_prototypes": 13}),
        ("model", {"positions": "learned"}),
        ("objective", {"alpha": 0.25}),
        ("objective", {"centering": "none"}),
        ("pretrain", {"seed": 1}),
        ("pretrain", {"epochs": 7.0}),
        ("pretrain", {"precision": "bfloat16"}),
        ("pretrain", {"diagnostics_every": 6}),
    ],
)
def test_fingerprint_follows_what_decides_the_result(section: str, change: dict) -> None:
    changed = tiny.run(**{section: change})
    assert fingerprint(changed, "data") != fingerprint(tiny.run(), "data")


def test_fingerprint_follows_data_and_code(monkeypatch: pytest.MonkeyPatch) -> None:
    before = fingerprint(tiny.run(), "data")
    assert fingerprint(tiny.run(), "other data") != before
    monkeypatch.setattr(checkpoint, "code_digest", lambda module: f"edited {module}")
    assert fingerprint(tiny.run(), "data") != before


@pytest.mark.parametrize(
    "change", [{"workers": 3}, {"checkpoint_every_s": 1.0}, {"keep_checkpoints": 7}]
)
def test_fingerprint_ignores_how_fast_and_how_safely(change: dict) -> None:
    changed = tiny.run(pretrain=change)
    assert fingerprint(changed, "data") == fingerprint(tiny.run(), "data")


def test_clean_checkpoints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("MATPAC_ROOT", str(tmp_path))
    monkeypatch.delenv("MATPAC_DATA", raising=False)
    text = (Path(__file__).parent / "smoke.yaml").read_text()
    (tmp_path / "params.yaml").write_text(text)
    Checkpoints(tmp_path / "data/smoke/checkpoints/base/abc", keep=1).save({}, 1)
    (tmp_path / "data/smoke/logmel").mkdir()
    checkpoint.main()
    assert names(tmp_path / "data/smoke") == ["logmel"]
    assert str(tmp_path / "data/smoke/checkpoints") in capsys.readouterr().out
