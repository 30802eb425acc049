"""Rates of training: kept, found again, told; and what a run is said to take."""

from pathlib import Path

import pytest
import tiny
import torch

from matpac.core import files
from matpac.core.progress import Progress
from matpac.pretraining import throughput
from matpac.pretraining.config import ResolvedRun
from matpac.pretraining.throughput import Rate, metered


@pytest.fixture(autouse=True)
def device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(throughput, "device_name", lambda run: "card")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that goes on by half a second whenever it is looked at: after each update."""
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
    throughput.remember(tmp_path, run, Rate(10.0, "trial"))
    throughput.remember(tmp_path, run, Rate(20.0, "run"))  # in place of the first
    throughput.remember(tmp_path, half, Rate(30.0, "run"))
    assert throughput.recall(tmp_path, run) == Rate(20.0, "run")
    assert throughput.recall(tmp_path, tiny.run(objective={"alpha": 0.75})) == Rate(20.0, "run")
    assert throughput.recall(tmp_path, half) == Rate(30.0, "run")
    assert throughput.recall(tmp_path, other) is None
    monkeypatch.setattr(throughput, "device_name", lambda run: "another card")
    assert throughput.recall(tmp_path, run) is None
    throughput.remember(tmp_path, run, Rate(5.0, "run"))
    kept = files.read_json(tmp_path / "throughput.json")
    assert {name: len(rates) for name, rates in kept.items()} == {"card": 2, "another card": 1}


def test_an_estimate() -> None:
    run = tiny.run(pretrain={"batch_size": 4})
    asked = {"updates": 1500, "processes": 2}
    assert throughput.estimate(run, rate=Rate(100.0, "run"), **asked) == (
        "1,500 updates of 4 clips; about 0:00:30 on 2 x card (measured: 200 clips/s)"
    )
    assert "about 2 days, 8:00:00 on" in throughput.estimate(
        run, rate=Rate(1.0, "run"), updates=50_400, processes=1
    )
    assert throughput.estimate(run, rate=None, **asked) == (
        "1,500 updates of 4 clips; no run was timed on 2 x card yet "
        "(`matpac cost` tries some updates)"
    )


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
    throughput.remember(job.stores, job.run, Rate(2.0, "trial"))
    progress = Progress(40, "tiny", unit="step")
    with metered(job, updates=40, progress=progress) as updated:
        for _ in range(40):
            updated()
    progress.close()
    assert "tiny: 40 updates of 4 clips" in (said := capsys.readouterr().out)
    assert "about 0:01:20 on 1 x card (measured: 2 clips/s)" in said
    # 30 updates of 4 clips since the tenth, and a look at the end.
    assert throughput.recall(job.stores, job.run) == Rate(30 * 4 / 15.5, "run")


@pytest.mark.parametrize("enabled", [True, False], ids=["silent", "not the first"])
def test_nothing_is_told_where_progress_is_silent(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
    enabled: bool,
) -> None:
    monkeypatch.setenv("MATPAC_PROGRESS", "silent" if enabled else "lines")
    job = make_job(tmp_path, tiny.run())
    capsys.readouterr()
    with metered(job, updates=5, progress=Progress(5, "tiny", enabled=enabled)):
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
    clock: list[float],
    updates: int,
    error: type[BaseException] | None,
    kept: bool,
) -> None:
    job = make_job(tmp_path, tiny.run())
    try:
        with metered(job, updates=100, progress=Progress(100, "tiny")) as updated:
            for _ in range(updates):
                updated()
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
    assert rate.source == "trial"
    assert rate.clips_per_s > 0
