"""Training is killed again and again, also while it writes its state, and nothing can be told.

A few kills in ``make test``; ``make soak`` sets MATPAC_SOAK for more of them, and for training in
two processes.
"""

import os
import pickle
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import soaking
import tiny

from matpac.pretraining.run import Job

SOAK = bool(os.environ.get("MATPAC_SOAK"))
long = pytest.mark.skipif(not SOAK, reason="long; make soak runs it")
STEPS = 48


@dataclass
class Lives:
    """Training processes, one after the other."""

    process: subprocess.Popen
    """The one that starts them."""
    random: random.Random
    hits: list[str] = field(default_factory=list)
    """What each kill came amid of, as the files tell."""

    def start(self, job: Job) -> int:
        """Returns: the process."""
        print(pickled(job), file=self.process.stdin, flush=True)
        return self.next("life")

    def next(self, event: str) -> int:
        """Waits for an event. Returns: the number that comes with it."""
        for line in self.process.stdout:
            name, number = line.split()
            if name == event:
                return int(number)
            assert name != "ended", f"training ended with {number} before it was killed"
        raise AssertionError("the process that starts the others died")

    def kill(self, job: Job) -> None:
        """Starts training and kills it, or the process that started it, some events later."""
        launcher = self.start(job)
        event = self.random.choice(["step", "writing"])
        for _ in range(self.random.randint(1, 4)):
            first = self.next(event)
        time.sleep(self.random.uniform(0, 8 * soaking.SLOWER_S))
        os.kill(self.random.choice([launcher, first]), signal.SIGKILL)
        assert self.next("ended") != 0
        wait_until_gone(first)
        left = list(job.checkpoints.glob(".state-*"))
        self.hits.append("writing" if left else "between")

    def finish(self, job: Job) -> None:
        """Lets training come to its end."""
        self.start(job)
        assert self.next("ended") == 0


def wait_until_gone(process: int) -> None:
    """Of a process whose parent was killed, which makes it save its state and end."""
    deadline = time.monotonic() + 60
    status = Path(f"/proc/{process}/status")
    while status.exists() and "\nState:\tZ" not in status.read_text():
        assert time.monotonic() < deadline, f"{process} was left behind"
        time.sleep(0.05)


def pickled(job: Job) -> Path:
    """Beside its folder."""
    path = job.encoder.parent.with_suffix(".pickle")
    path.write_bytes(pickle.dumps(job))
    return path


@contextmanager
def lives(*, seed: int, processes: int = 1) -> Iterator[Lives]:
    """The process that starts those that train; killed at moments that the seed decides."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, soaking.__file__, str(processes)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    try:
        yield Lives(process, random.Random(seed))
    finally:
        process.stdin.close()  # it ends after the life that it is in
        process.stdout.read()
        assert process.wait(60) == 0


def make_jobs(bulk: Path, folder: Path, *, workers: int) -> tuple[Job, Job]:
    """A run that writes a state after every update, and the same elsewhere."""
    often = {"epochs": STEPS / 2, "checkpoint_every_s": 0.0, "workers": workers}
    resolved = tiny.run(pretrain=often)
    return tuple(tiny.make_job(bulk, folder / name, resolved) for name in ("whole", "killed"))


def assert_equal_files(ours: Job, expected: Job) -> None:
    """Everything that training leaves, byte for byte."""
    for folder in ("encoder", "logs", "checkpoints/tiny/fingerprint"):
        paths = [job.encoder.parent / folder for job in (ours, expected)]
        names = [{path.name for path in each.iterdir() if path.is_file()} for each in paths]
        assert names[0] == names[1]
        for name in names[0]:
            assert (paths[0] / name).read_bytes() == (paths[1] / name).read_bytes(), name
    assert tiny.newest(ours).name == f"state-{STEPS:09d}.pt"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("seed", "kills", "workers"),
    [
        (0, 8 if SOAK else 4, 0),
        pytest.param(1, 8, 0, marks=long),
        pytest.param(2, 8, 2, marks=long),
    ],
)
def test_killed_at_random_moments(
    bulk: Path, tmp_path: Path, seed: int, kills: int, workers: int
) -> None:
    whole, killed = make_jobs(bulk, tmp_path, workers=workers)
    with lives(seed=seed) as training:
        training.finish(whole)
        for _ in range(kills):
            training.kill(killed)
        training.finish(killed)
    assert len(training.hits) == kills and training.hits.count("writing") >= kills // 4
    assert_equal_files(killed, whole)


@long
@pytest.mark.ddp
@pytest.mark.slow
def test_two_processes_killed_at_random_moments(bulk: Path, tmp_path: Path) -> None:
    """One of them, or the one that started them; nobody is left behind."""
    whole, killed = make_jobs(bulk, tmp_path, workers=0)
    with lives(seed=3, processes=2) as training:
        training.finish(whole)
        for _ in range(6):
            training.kill(killed)
        training.finish(killed)
    assert_equal_files(killed, whole)
