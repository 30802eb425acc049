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
from concurrent.futures import (
    FIRST_COMPLETED,
    Executor,
    Future,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
    wait,
)
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from threading import Thread
from typing import Any, Self, TypeVar

import joblib

from matpac.core import paths
from matpac.core.cluster import VARIABLE, Cluster

Job = TypeVar("Job")
Result = TypeVar("Result")
Pool = TypeVar("Pool", bound=Executor | Cluster)


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
        self.count = count or joblib.cpu_count()  # which knows affinity and a container's share
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
        folders = [bulk, *(folder for folder in audio if folder.is_dir())]
        wanted = {"scheduler": params.logmel.scheduler, "folders": folders}
        return cls(params.logmel.workers, preload=preload, fewest=fewest, **wanted)

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
        if self.scheduler:
            return self._cluster.map(function, jobs, ordered=ordered)
        if self.count == 1:
            return map(function, jobs)
        few = num_items < self.fewest and "_processes" not in vars(self)
        executor = self._threads if few else self._processes
        return self._results(executor, function, jobs, ordered)

    def pool(self) -> ProcessPoolExecutor | None:
        """Processes on this machine; None if there is one worker: this process."""
        return self._processes if self.count > 1 else None

    def _results(
        self, executor: Executor, function: Callable, jobs: Iterable, ordered: bool
    ) -> Iterator:
        in_flight: list[Future] = []  # in the order of submission
        try:
            for job in jobs:
                in_flight.append(executor.submit(function, job))
                if len(in_flight) >= 4 * self.count:
                    yield from _ready(in_flight, ordered)
            while in_flight:
                yield from _ready(in_flight, ordered)
        except BrokenProcessPool as error:
            raise RuntimeError(
                f"one of {self.count} worker processes was killed, most often because memory ran "
                "out; what is finished is kept: run the stage again, with a smaller "
                "logmel.workers if that is so (in a script of your own, the call also has to "
                'stand below `if __name__ == "__main__":`)'
            ) from error
        finally:
            for future in in_flight:
                future.cancel()

    @cached_property
    def _threads(self) -> ThreadPoolExecutor:
        return self._opened(ThreadPoolExecutor(self.count))

    @cached_property
    def _processes(self) -> ProcessPoolExecutor:
        context = unforked(self.preload)
        return self._opened(
            ProcessPoolExecutor(self.count, mp_context=context, initializer=follow_the_parent)
        )

    @cached_property
    def _cluster(self) -> Cluster:
        return self._opened(Cluster(self.scheduler, setting=self.setting, folders=self.folders))

    def _opened(self, executor: Pool) -> Pool:
        self._open.callback(executor.shutdown, cancel_futures=True)
        return executor

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()


def _ready(in_flight: list[Future], ordered: bool) -> Iterator:
    """Waits for the oldest, or for any, and takes what is done out of ``in_flight``."""
    done = in_flight[:1] if ordered else wait(in_flight, return_when=FIRST_COMPLETED).done
    for future in done:
        in_flight.remove(future)
        yield future.result()


def unforked(preload: str) -> multiprocessing.context.BaseContext:
    """How to start processes that are no forks of this one, which may run threads (torch, CUDA, a
    Jupyter kernel) whose locks a fork would find locked for ever.

    Args: preload: module to import once for all of them, where the system can.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["__main__", __name__, preload])
    return context


def follow_the_parent(*_: object) -> None:
    """In a new process: Ctrl-C is for the parent to handle, and its end, even by force, is ours."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def end() -> None:
        parent.join()
        os._exit(1)

    Thread(target=end, daemon=True).start()
