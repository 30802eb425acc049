"""A run that is lost stops with its last good state, saying why; and goes on from there."""

import math
from pathlib import Path

import pytest
import tiny

from matpac.pretraining import alarm, logs, states
from matpac.pretraining.batches import Batch, Batches
from matpac.pretraining.loop import train
from matpac.pretraining.run import Job, prepare

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MATPAC_PROGRESS", "lines")


def job(bulk: Path, outputs: Path, **settings: object) -> Job:
    run = tiny.run(pretrain={"epochs": 12.0, "keep_checkpoints": 9} | settings)
    return tiny.make_job(bulk, outputs, run)


def spoil(patch: pytest.MonkeyPatch, *, step: int, row: int) -> None:
    """One value of one clip of one update becomes infinite."""
    whole = Batches.__getitem__

    def spoiled(self: Batches, update: int) -> Batch:
        batch = whole(self, update)
        if update == step:
            batch.logmel[row, 2, 3] = math.inf
        return batch

    patch.setattr(Batches, "__getitem__", spoiled)


@pytest.fixture(scope="module")
def expected(bulk: Path, tmp_path_factory: pytest.TempPathFactory) -> Job:
    """The same run without any trouble."""
    whole = job(bulk, tmp_path_factory.mktemp("whole"))
    train(whole)
    return whole


@pytest.mark.parametrize("bad", [13, 15], ids=["between", "with"])
def test_a_loss_that_is_not_finite_stops_the_run_in_its_last_good_state(
    bulk: Path, tmp_path: Path, expected: Job, monkeypatch: pytest.MonkeyPatch, bad: int
) -> None:
    """Whether or not the update also measures the diagnostics, which every fifth does."""
    ours = job(bulk, tmp_path)
    with monkeypatch.context() as patch:
        spoil(patch, step=bad, row=2)
        names = prepare(ours)[0].names(bad)
        with pytest.raises(RuntimeError) as stopped:
            train(ours)
    message = str(stopped.value)
    assert message.startswith(f"tiny: step {bad}: not finite, nothing updated since: ")
    assert "total_loss nan" in message and f"\n  log-mel of {names[2]}\n" in message
    assert message.count("\n") == 2  # that clip alone, and that its state is saved
    (path,) = ours.checkpoints.glob("state-*.pt")
    assert path.name == f"state-{bad:09d}.pt"
    saved = states.read(path)
    assert all(t.isfinite().all() for t in saved["student"].values())
    train(ours)  # the fault is gone: as if nothing had been
    tiny.assert_equal_results(ours, expected)


def test_a_collapse_is_told_and_shown(
    bulk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    always = alarm.RULES[1]._replace(threshold=lambda k: 99.0)
    monkeypatch.setattr(alarm, "RULES", (always,))
    train(job(bulk, tmp_path, diagnostics_every=2, warmup_epochs=1.0))
    said = capsys.readouterr().out
    # Warm-up is 2 updates; measured at 2, 4, 6.
    told = "tiny: step 6: collapse: distributions ignore the input (mutual_information "
    assert said.count(told) == 1
    assert "COLLAPSE: distributions ignore the input" in said.splitlines()[-1]


def test_a_collapse_can_stop_the_run(
    bulk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    always = alarm.RULES[1]._replace(threshold=lambda k: 99.0)
    monkeypatch.setattr(alarm, "RULES", (always,))
    monkeypatch.setattr(logs.LogWriter.flush, "__kwdefaults__", {"everything": True})
    ours = job(bulk, tmp_path, diagnostics_every=2, on_collapse="stop", checkpoint_every_s=0.0)
    with pytest.raises(RuntimeError, match=r"collapse: distributions ignore the input \(pretrain"):
        train(ours)
    assert max(p.name for p in ours.checkpoints.glob("state-*.pt")) == "state-000000007.pt"
    assert not ours.encoder.exists()


def test_skipped_updates_of_float16_are_shown(
    bulk: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    # Its first scale is too large for so small a run.
    train(job(bulk, tmp_path, precision="float16"))
    assert "updates skipped (float16)" in capsys.readouterr().out.splitlines()[-1]
