"""File-by-file work (checking audio, computing log-mels) on all cores.

Functions given to `Workers.map` must be importable (defined in the library, not in a notebook).
Results come in the order of the jobs, so what is made from them does not depend on the number of
processes. Beyond one machine, pass any `concurrent.futures` executor, for example that of a Dask
cluster: ``dask.distributed.Client(address).get_executor()``.
"""

import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from typing import TypeVar

Job = TypeVar("Job")
Result = TypeVar("Result")

JOBS_AT_AN_EXECUTOR = 2000
"""Jobs that wait or run at an executor from outside, whose number of workers is not known."""


class Workers:
    """Processes that are started when first needed and ended with the ``with`` block.

    Args:
        count: processes; 0: one per core that this process may use.
        preload: module to import before the processes are forked, so that a slow import
            (torch takes seconds) happens once and not in each.
        fewest: with fewer items in all, starting processes costs more than it gains, and the
            work is done in this process.
        executor: used instead of own processes.
    """

    def __init__(
        self, count: int = 0, *, preload: str, fewest: int = 0, executor: Executor | None = None
    ) -> None:
        self.count = count or _cores()
        self.preload, self.fewest = preload, fewest
        self.executor = executor
        self._own: ProcessPoolExecutor | None = None

    def map(
        self, function: Callable[[Job], Result], jobs: Iterable[Job], *, num_items: int
    ) -> Iterator[Result]:
        """Results of ``function`` in the order of ``jobs``, which are drawn as they are needed.

        Args:
            num_items: files or clips in all jobs together, compared with ``fewest``.
        Raises: whatever ``function`` raises, and BrokenProcessPool if a process is killed.
        """
        if (self.executor is None and num_items < self.fewest) or (executor := self.pool()) is None:
            yield from map(function, jobs)
            return
        in_flight: deque = deque()
        window = 4 * self.count if self.executor is None else JOBS_AT_AN_EXECUTOR
        try:
            for job in jobs:
                in_flight.append(executor.submit(function, job))
                if len(in_flight) >= window:
                    yield in_flight.popleft().result()
            while in_flight:
                yield in_flight.popleft().result()
        finally:
            for future in in_flight:
                future.cancel()

    def pool(self) -> Executor | None:
        """The given executor, or own processes; None if there is one worker: this process."""
        if self.executor is None and self._own is None and self.count > 1:
            self._own = self._start()
        return self.executor or self._own

    def _start(self) -> ProcessPoolExecutor:
        # Never plain fork: the parent may run threads (torch, a Jupyter kernel).
        if "forkserver" not in multiprocessing.get_all_start_methods():
            context = multiprocessing.get_context("spawn")
        else:
            context = multiprocessing.get_context("forkserver")
            context.set_forkserver_preload(["__main__", self.preload])
        return ProcessPoolExecutor(self.count, mp_context=context)

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *_: object) -> None:
        if self._own is not None:
            self._own.shutdown(cancel_futures=True)
            self._own = None


def _cores() -> int:
    """Cores this process may use, which in a batch job are fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
