"""The seeds of a run: one after the other, or side by side on the cores of one processor.

A small network keeps one core busy and a second one hardly: two trainings of one thread each, side
by side, see 1.8 times the clips of one training with two threads (mini profile, two cores).
"""

import multiprocessing
import os
import signal
from collections.abc import Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, suppress
from multiprocessing.process import BaseProcess
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
    # A pool for each, so that a process that has ended, or dies, is no other's affair.
    with ExitStack() as pools, interruption() as interrupted:
        children: dict[Future, BaseProcess] = {}
        for n in range(count):
            pool = ProcessPoolExecutor(1, mp_context=unforked(__name__), initializer=_deaf)
            before = set(multiprocessing.active_children())
            future = pools.enter_context(pool).submit(_in_turn, jobs[n::count])
            children[future] = (set(multiprocessing.active_children()) - before).pop()
        running = set(children)
        while running:
            _, running = wait(running, timeout=1, return_when=FIRST_EXCEPTION)
            if interrupted() or any(each.exception() for each in set(children) - running):
                # Again each second: what a process gets before it trains goes unheard.
                for future in running:
                    with suppress(ProcessLookupError):
                        os.kill(children[future].pid, interrupted() or signal.SIGTERM)
    futures = list(children)
    errors = [error for future in futures if (error := future.exception())]
    if errors:
        raise _cause(errors, interrupted())
    results = [future.result() for future in futures]
    return [results[n % count][n // count] for n in range(len(jobs))]


def _deaf() -> None:
    """In a new process: signals are heard while it trains, not while it starts or answers."""
    follow_the_parent()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _in_turn(jobs: Sequence[Job]) -> list[dict[str, Any]]:
    """In a process of its own."""
    try:
        with raising():
            return [train(job) for job in jobs]
    except Interrupted as stopped:
        # The first, where it was told again while it stopped. What it came in the middle of, as an
        # import that had not found a file yet, is no cause.
        first, context = stopped, stopped.__context__
        while context:
            first = context if isinstance(context, Interrupted) else first
            context = context.__context__
        raise first from None


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
