"""Seeds side by side: the weights of each are as alone, and all stop together with their states."""

import os
import pickle
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import joblib
import pytest
import tiny

from matpac.core.signals import Interrupted
from matpac.pretraining import side_by_side
from matpac.pretraining.run import Job
from matpac.pretraining.side_by_side import at_once, train_all


@pytest.fixture(autouse=True)
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joblib, "cpu_count", lambda: 2)


def make_jobs(folder: Path, seeds: int, **pretrain: object) -> list[Job]:
    tiny.make_store(folder / "bulk" / "logmel" / "noise", [32 + n for n in range(8)])
    runs = [tiny.run(pretrain={"threads": 1, "seed": n} | pretrain) for n in range(seeds)]
    return [tiny.make_job(folder / "bulk", folder / str(n), run) for n, run in enumerate(runs)]


def test_how_many() -> None:
    two, five = (tiny.run(pretrain={"threads": n}) for n in (1, 5))
    assert [at_once(two, seeds) for seeds in (1, 2, 3)] == [1, 2, 2]
    assert at_once(five, 3) == at_once(tiny.run(), 3) == 1


def test_weights_and_results_are_those_of_training_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    together = make_jobs(tmp_path / "together", 3)
    results = train_all(together)
    alone = make_jobs(tmp_path / "alone", 3)
    monkeypatch.setattr(side_by_side, "at_once", lambda run, seeds: 1)
    assert train_all(alone) == results and len(results) == 3
    for ours, expected in zip(together, alone, strict=True):
        weights = [job.encoder / "model.safetensors" for job in (ours, expected)]
        assert weights[0].read_bytes() == weights[1].read_bytes()


def test_the_failure_of_one_is_told_and_stops_the_others(tmp_path: Path) -> None:
    long, broken = make_jobs(tmp_path, 2, epochs=100_000.0)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        train_all([long, replace(broken, stores=tmp_path / "nowhere")])
    assert not (long.encoder / "model.safetensors").exists()


def test_a_signal_in_the_middle_of_something_else_is_a_stop(monkeypatch) -> None:
    def train(_: object) -> None:
        try:
            raise KeyError("what an import looks for first")
        except KeyError:
            try:
                raise Interrupted("the first", signal.SIGTERM)
            except Interrupted:
                raise Interrupted("again", signal.SIGTERM) from None

    monkeypatch.setattr(side_by_side, "train", train)
    with pytest.raises(Interrupted, match="the first"):
        side_by_side._in_turn([None])


STOPPED = """
import pickle, sys
from matpac.core.signals import Interrupted
from matpac.pretraining import side_by_side

if __name__ == "__main__":
    side_by_side.joblib.cpu_count = lambda: 2
    try:
        side_by_side.train_all(pickle.load(open(sys.argv[1], "rb")))
    except Interrupted as stopped:
        print(stopped)
        sys.exit(stopped.exit_code)
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 75)])
def test_a_signal_stops_all_with_their_states(tmp_path: Path, number: int, code: int) -> None:
    jobs = make_jobs(tmp_path, 2, epochs=100_000.0, checkpoint_every_s=0.1)
    (tmp_path / "jobs.pkl").write_bytes(pickle.dumps(jobs))
    (tmp_path / "stopped.py").write_text(STOPPED)
    command = [sys.executable, "stopped.py", "jobs.pkl"]
    paths = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        command, cwd=tmp_path, env=paths, stdout=subprocess.PIPE, text=True
    ) as process:
        while process.poll() is None and not all(
            list(job.checkpoints.glob("state-*.json")) for job in jobs
        ):
            time.sleep(0.1)
        process.send_signal(number)
        said, _ = process.communicate(timeout=60)
    assert process.returncode == code
    assert said.count("stopped after step") == 2 and said.count("state saved") == 2


def test_a_process_that_is_killed_is_told() -> None:
    killed = side_by_side.BrokenProcessPool()
    assert "memory" in str(side_by_side._cause([killed], 0))
    assert isinstance(side_by_side._cause([killed], signal.SIGINT), Interrupted)
