"""File-by-file work (checking audio, computing log-mels) on all cores, or on a cluster.

Little work is done by threads of this process, since other processes need seconds to start; more
by processes, which share no interpreter lock; and all of it on a Dask cluster if the user names its
scheduler. What is made does not depend on which it is. Functions given to `Workers.map` must be
importable (defined in the library, not in a notebook) and may run in several threads at once.
"""

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent import futures
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path
from threading import Thread
from typing import Any, Self, TypeVar

from matpac.core import paths
from matpac.core.cluster import VARIABLE, Cluster

Job = TypeVar("Job")
Result = TypeVar("Result")
Pool = TypeVar("Pool", bound=Executor)

JOBS_AT_A_CLUSTER = 1000
"""Jobs that wait or run there at a time: its number of workers may change."""


class Workers:
    """Threads, processes or a cluster, started when first needed, left with the ``with`` block.

    Args:
        count: threads or processes; 0: one per core that this process may use.
        preload: module to import before the processes are forked, so that a slow import
            (torch takes seconds) happens once and not in each.
        fewest: with fewer items in all, threads do the work.
        scheduler: address of a Dask scheduler whose workers do all of it; None: the one in the
            environment variable `matpac.core.cluster.VARIABLE`, if that is set.
        folders: what the workers of a cluster have to see.
    """

    def __init__(
        self,
        count: int = 0,
        *,
        preload: str,
        fewest: int = 0,
        scheduler: str | None = None,
        folders: Sequence[Path] = (),
    ) -> None:
        self.count = count or _cores()
        self.preload, self.fewest, self.folders = preload, fewest, folders
        self.setting = "logmel.scheduler" if scheduler else VARIABLE
        self.scheduler = scheduler or os.environ.get(VARIABLE)
        self._open = ExitStack()

    @classmethod
    def of(cls, params: Any, *, preload: str, fewest: int, audio: Iterable[Path]) -> Self:
        """Those that the section ``logmel`` asks for.

        Args: audio: the audio folders; what is not there yet will be made in the bulk folder.
        """
        bulk = paths.bulk(params)
        bulk.mkdir(parents=True, exist_ok=True)
        section = params.logmel
        return cls(
            section.workers,
            preload=preload,
            fewest=fewest,
            scheduler=section.scheduler,
            folders=[bulk, *(folder for folder in audio if folder.is_dir())],
        )

    def map(
        self,
        function: Callable[[Job], Result],
        jobs: Iterable[Job],
        *,
        num_items: int,
        ordered: bool = True,
    ) -> Iterator[Result]:
        """Results of ``function`` for all ``jobs``, which are drawn as they are needed.

        Args:
            num_items: files or clips in all jobs together, compared with ``fewest``.
            ordered: False: results come as they are ready, so that none waits for a slower one.
        Raises: whatever ``function`` raises; RuntimeError if a process is killed or a cluster gives
            up; as `Cluster`.
        """
        executor = self._executor(num_items)
        if executor is None:
            yield from map(function, jobs)
            return
        clustered = isinstance(executor, Cluster)
        window = JOBS_AT_A_CLUSTER if clustered else 4 * self.count
        in_flight: dict[futures.Future, None] = {}  # in the order of submission
        with executor.explained() if clustered else self._explained():
            try:
                for job in jobs:
                    in_flight[executor.submit(function, job)] = None
                    if len(in_flight) >= window:
                        yield from _results(in_flight, ordered)
                while in_flight:
                    yield from _results(in_flight, ordered)
            finally:
                for future in in_flight:
                    future.cancel()

    def pool(self) -> ProcessPoolExecutor | None:
        """Processes on this machine; None if there is one worker: this process."""
        return self._processes if self.count > 1 else None

    def _executor(self, num_items: int) -> Executor | None:
        if self.scheduler:
            return self._cluster
        if self.count > 1 and num_items < self.fewest and "_processes" not in vars(self):
            return self._threads
        return self.pool()

    @cached_property
    def _threads(self) -> ThreadPoolExecutor:
        return self._opened(ThreadPoolExecutor(self.count))

    @cached_property
    def _processes(self) -> ProcessPoolExecutor:
        # Never plain fork: the parent may run threads (torch, a Jupyter kernel).
        if "forkserver" not in multiprocessing.get_all_start_methods():
            context = multiprocessing.get_context("spawn")
        else:
            context = multiprocessing.get_context("forkserver")
            context.set_forkserver_preload(["__main__", __name__, self.preload])
        return self._opened(
            ProcessPoolExecutor(self.count, mp_context=context, initializer=_follow_the_parent)
        )

    @cached_property
    def _cluster(self) -> Cluster:
        return self._opened(Cluster(self.scheduler, setting=self.setting, folders=self.folders))

    def _opened(self, executor: Pool) -> Pool:
        self._open.callback(executor.shutdown, cancel_futures=True)
        return executor

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except BrokenProcessPool as error:
            raise RuntimeError(
                f"one of {self.count} worker processes was killed, most often because memory ran "
                "out; what is finished is kept: run the stage again, with a smaller "
                "logmel.workers if that is so (in a script of your own, the call also has to "
                'stand below `if __name__ == "__main__":`)'
            ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()


def _results(in_flight: dict[futures.Future, None], ordered: bool) -> Iterator:
    """Waits for the oldest, or for any, and takes what is done out of ``in_flight``."""
    if ordered:
        done = {next(iter(in_flight))}
    else:
        done = futures.wait(in_flight, return_when=futures.FIRST_COMPLETED).done
    for future in done:
        del in_flight[future]
        yield future.result()


def _follow_the_parent() -> None:
    """In a new process: Ctrl-C is for the parent to handle, and its end, even by force, is ours."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def end() -> None:
        parent.join()
        os._exit(1)

    Thread(target=end, daemon=True).start()


def _cores() -> int:
    """Cores this process may use, which in a batch job are fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
