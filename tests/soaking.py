"""Starts one training process after the other, for `test_soak` to kill.

Argument: the number of processes to train in. Each line of input is a pickled `Job`: a process is
forked that trains it from where it stands. Lines of output tell of it: ``life <process>``, ``step
<process>`` and ``writing <process>`` by the first process of the training, at last ``ended <exit
code>``. What is slow in a start, importing, is done once, here; torch has no threads yet when the
process is forked.
"""

import os
import pickle
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import stopping

from matpac.core import distributed, files
from matpac.pretraining import loop, states
from matpac.pretraining.run import Job

SLOWER_S = 0.005
"""Each of the seven parts of writing a state takes so much longer: else few kills would hit one."""


def told_before(function: Callable[..., Any], event: str) -> Callable[..., Any]:
    """Prints the event, then does the same."""

    def told(*args: object, **named: object) -> object:
        tell(event)
        return function(*args, **named)

    return told


def slower(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same after some time."""

    def slow(*args: object, **named: object) -> object:
        time.sleep(SLOWER_S)
        return function(*args, **named)

    return slow


def tell(event: str) -> None:
    """One write, so that lines of different threads stay whole."""
    os.write(1, f"{event} {os.getpid()}\n".encode())


def live(job: Job) -> dict[str, Any]:
    """Trains, telling of it."""
    if distributed.rank() == 0:
        stopping.after_step(lambda _: tell("step"))
        states.write = told_before(states.write, "writing")
        for module, name in ((files, "sync"), (files, "write_json"), (states._Sink, "finish")):
            setattr(module, name, slower(getattr(module, name)))
    with redirect_stdout(sys.stderr):
        return loop.train(job)


def main() -> None:
    for line in sys.stdin:
        job = pickle.loads(Path(line.strip()).read_bytes())
        threads = [path.read_text() for path in Path("/proc/self/task").glob("*/comm")]
        assert len([name for name in threads if name != "jemalloc_bg_thd\n"]) == 1  # survives forks
        child = os.fork()
        if not child:
            tell("life")
            distributed.launch(live, job, num_processes=int(sys.argv[1]))
            sys.exit()
        _, status = os.waitpid(child, 0)
        print(f"ended {os.waitstatus_to_exitcode(status)}", flush=True)


if __name__ == "__main__":
    main()
