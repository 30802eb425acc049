"""The seeds of a run: one after the other, or side by side on the cores of one processor.

A small network keeps one core busy and a second one hardly: two trainings of one thread each, side
by side, see 1.8 times the clips of one training with two threads (mini profile, two cores).
"""

import multiprocessing
import os
import signal
from collections.abc import Sequence
from concurrent.futures import FIRST_EXCEPTION, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from typing import Any

import joblib
import torch

from matpac.core import distributed
from matpac.core.parallel import follow_the_parent, unforked
from matpac.core.signals import Interrupted, interruption, raising
from matpac.pretraining.config import ResolvedRun
from matpac.pretraining.loop import train
from matpac.pretraining.run import Job


def at_once(run: ResolvedRun, seeds: int) -> int:
    """How many of a run's seeds train at a time."""
    if run.pretrain.threads is None or torch.cuda.is_available() or distributed.is_joined():
        return 1
    return max(1, min(seeds, joblib.cpu_count() // run.pretrain.threads))


def train_all(jobs: Sequence[Job]) -> list[dict[str, Any]]:
    """Trains the seeds of a run; each has the same weights as alone.

    Returns: of each what `matpac.pretraining.loop.train` returned.
    Raises: as `matpac.pretraining.loop.train`. When one fails or a signal comes, all the others
        stop with their states saved.
    """
    count = at_once(jobs[0].run, len(jobs))
    if count == 1:
        processes = distributed.num_processes(jobs[0].run.pretrain.batch_size)
        return [distributed.launch(train, job, num_processes=processes) for job in jobs]
    before = set(multiprocessing.active_children())
    with (
        ProcessPoolExecutor(
            count, mp_context=unforked(__name__), initializer=follow_the_parent
        ) as pool,
        interruption() as interrupted,
    ):
        futures = [pool.submit(_in_turn, jobs[n::count]) for n in range(count)]
        running = set(futures)
        while running:
            done, running = wait(running, timeout=1, return_when=FIRST_EXCEPTION)
            if interrupted() or any(future.exception() for future in done):
                # Again each second: what a process gets before it trains goes unheard.
                for child in set(multiprocessing.active_children()) - before:
                    with suppress(ProcessLookupError):
                        os.kill(child.pid, interrupted() or signal.SIGTERM)
    errors = [error for future in futures if (error := future.exception())]
    if errors:
        raise _cause(errors, interrupted())
    results = [future.result() for future in futures]
    return [results[n % count][n // count] for n in range(len(jobs))]


def _in_turn(jobs: Sequence[Job]) -> list[dict[str, Any]]:
    """In a process of its own."""
    with raising():
        return [train(job) for job in jobs]


def _cause(errors: Sequence[BaseException], signal_number: int) -> BaseException:
    """That of the others, which were only told to stop."""
    own = [each for each in errors if not isinstance(each, Interrupted | BrokenProcessPool)]
    if own:
        return own[0]
    stopped = [str(each) for each in errors if isinstance(each, Interrupted)]
    if stopped or signal_number:
        return Interrupted(
            "\n".join(stopped) or "stopped before training began", signal_number or signal.SIGTERM
        )
    return RuntimeError(
        "a training process was killed, most often because memory ran out; states are kept: run "
        "the stage again, with fewer processes (pretrain.threads) if that is so"
    )
