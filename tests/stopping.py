"""Trains a run in a process of its own that halts at some steps, for a signal to reach it there.

Arguments: a pickled `Job`, then the steps. Where it halts it prints ``reached <step>`` and goes on
with the next line of its input. An interrupted run is started once more.
"""

import os
import pickle
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from matpac.core import distributed
from matpac.pretraining import logs, loop
from matpac.pretraining.run import Job


def after_step(act: Callable[[int], None]) -> None:
    """Does something after each update of this process."""
    whole_step = loop.Trainer.step

    def step(self: loop.Trainer, batch: object, step: int, *args: object, **named: object):
        measured = whole_step(self, batch, step, *args, **named)
        act(step)
        return measured

    loop.Trainer.step = step


def terminated(job: Job, at: int) -> dict:
    """In several processes: the one that started them is sent SIGTERM at a step of the second."""

    def terminate(step: int) -> None:
        if step == at and distributed.rank() == 1:
            os.kill(os.getppid(), signal.SIGTERM)
            time.sleep(1)  # it comes back to all of them

    after_step(terminate)
    return loop.train(job)


def main() -> None:
    job = pickle.loads(Path(sys.argv[1]).read_bytes())
    halts = [int(step) for step in sys.argv[2:]]
    logs.STEPS_BETWEEN_FLUSHES = 3

    def halt(step: int) -> None:
        if step in halts:
            halts.remove(step)
            print(f"reached {step}", flush=True)
            sys.stdin.readline()

    after_step(halt)
    try:
        loop.train(job)
    except KeyboardInterrupt as stopped:
        print(stopped, flush=True)
    loop.train(job)


if __name__ == "__main__":
    main()
