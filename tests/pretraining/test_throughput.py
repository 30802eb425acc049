"""Rates of training: kept, found again, told; and what a run is said to take."""

from pathlib import Path

import pytest
import tiny
import torch

from matpac.core import files
from matpac.core.progress import Progress
from matpac.pretraining import throughput
from matpac.pretraining.config import ResolvedRun
from matpac.pretraining.throughput import Meter, Rate


@pytest.fixture(autouse=True)
def device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(throughput, "device_name", lambda run: "card")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that goes on by half a second whenever it is looked at."""
    now = [0.0]

    def look() -> float:
        now[0] += 0.5
        return now[0]

    monkeypatch.setattr(throughput.time, "monotonic", look)
    return now


def make_job(folder: Path, run: ResolvedRun) -> object:
    tiny.make_store(folder / "bulk" / "logmel" / "noise", [40, 50])
    return tiny.make_job(folder / "bulk", folder / "out", run)


def test_a_rate_is_found_again_by_device_model_and_precision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, other = tiny.run(), tiny.run(model={"num_prototypes": 5})
    half = tiny.run(pretrain={"precision": "bfloat16"})
    assert throughput.recall(tmp_path, run) is None
    throughput.remember(tmp_path, run, Rate(10.0, 1, "trial"))
    throughput.remember(tmp_path, run, Rate(20.0, 2, "run"))  # in place of the first
    throughput.remember(tmp_path, half, Rate(30.0, 1, "run"))
    assert throughput.recall(tmp_path, run) == Rate(20.0, 2, "run")
    assert throughput.recall(tmp_path, tiny.run(objective={"alpha": 0.75})) == Rate(20.0, 2, "run")
    assert throughput.recall(tmp_path, half) == Rate(30.0, 1, "run")
    assert throughput.recall(tmp_path, other) is None
    monkeypatch.setattr(throughput, "device_name", lambda run: "another card")
    assert throughput.recall(tmp_path, run) is None
    throughput.remember(tmp_path, run, Rate(5.0, 1, "run"))
    kept = files.read_json(tmp_path / "throughput.json")
    assert {name: len(rates) for name, rates in kept.items()} == {"card": 2, "another card": 1}


def test_an_estimate_from_a_rate() -> None:
    run = tiny.run(pretrain={"batch_size": 4})
    rate = Rate(100.0, 1, "run")
    text = throughput.estimate(run, num_mels=16, updates=1500, rate=rate, processes=2)
    work = throughput.flops.per_clip(run, 16) / 1e9
    assert text == (
        f"1,500 updates of 4 clips, {work:.3g} GFLOP per clip; "
        "about 30 s on 2 x card (measured: 200 clips/s)"
    )


def test_without_a_rate_matrix_products_give_a_lower_bound(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = tiny.run(pretrain={"batch_size": 4})
    work = throughput.flops.per_clip(run, 16)
    monkeypatch.setattr(throughput, "matrix_rate", lambda precision: work * 10.0)
    text = throughput.estimate(run, num_mels=16, updates=1500, rate=None, processes=1)
    assert "at least 10 min on 1 x card, whose matrix products reach" in text
    assert text.endswith("(no run was timed here yet)")
    text = throughput.estimate(run, num_mels=16, updates=149, rate=None, processes=1)
    assert text.endswith("GFLOP per clip; no run was timed on 1 x card yet")  # under a minute


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.5, "0.5 s"),
        (119, "119 s"),
        (120, "2 min"),
        (7199, "120 min"),
        (7200, "2 h"),
        (172799, "48 h"),
        (172800, "2 days"),
        (8.64e6, "100 days"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert throughput.duration(seconds) == text


def test_matrix_products_are_timed() -> None:
    """Far above what number by number would give, and below any CPU's peak."""
    assert 1e8 < throughput.matrix_rate("float32") < 1e14


@pytest.mark.parametrize("shown", ["lines", "bar"])
def test_a_run_is_told_and_timed(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
    clock: list[float],
    shown: str,
) -> None:
    monkeypatch.setenv("MATPAC_PROGRESS", shown)
    job = make_job(tmp_path, tiny.run(pretrain={"batch_size": 4}))
    throughput.remember(job.stores, job.run, Rate(2.0, 1, "trial"))
    progress = Progress(40, "tiny", unit="step")
    with Meter(job, updates=40, progress=progress) as meter:
        for _ in range(40):
            meter.update()
    progress.close()
    assert "tiny: 40 updates of 4 clips" in (said := capsys.readouterr().out)
    assert "about 80 s on 1 x card (measured: 2 clips/s)" in said
    # The clock was looked at after ten updates and at the end: 30 of 4 clips in half a second.
    assert throughput.recall(job.stores, job.run) == Rate(240.0, 1, "run")


@pytest.mark.parametrize("enabled", [True, False], ids=["silent", "not the first"])
def test_nothing_is_told_where_progress_is_silent(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
    enabled: bool,
) -> None:
    monkeypatch.setenv("MATPAC_PROGRESS", "silent" if enabled else "lines")
    monkeypatch.setattr(throughput, "matrix_rate", lambda _: pytest.fail("a moment lost"))
    job = make_job(tmp_path, tiny.run())
    capsys.readouterr()
    with Meter(job, updates=5, progress=Progress(5, "tiny", enabled=enabled)):
        pass
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("updates", "error", "kept"),
    [
        (29, None, False),  # too few to be a measurement
        (30, None, True),
        (30, KeyboardInterrupt, True),  # stopped in order
        (30, RuntimeError, False),
    ],
)
def test_which_runs_are_measurements(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    clock: list[float],
    updates: int,
    error: type[BaseException] | None,
    kept: bool,
) -> None:
    monkeypatch.setenv("MATPAC_PROGRESS", "silent")
    job = make_job(tmp_path, tiny.run())
    try:
        with Meter(job, updates=100, progress=Progress(100, "tiny")) as meter:
            for _ in range(updates):
                meter.update()
            if error:
                raise error
    except (KeyboardInterrupt, RuntimeError):
        pass
    assert (throughput.recall(job.stores, job.run) is not None) == kept


def test_a_trial_measures_and_leaves_the_generators_alone() -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    run = tiny.run(pretrain={"compile": True})  # which a trial on a CPU leaves out
    rate = throughput.measure(run, num_mels=16, seconds=0.2)
    assert torch.equal(torch.get_rng_state(), before)
    assert rate.source == "trial" and rate.processes == 1
    assert 1 < rate.clips_per_s < 1e6
