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
from functools import cached_property, partial
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any, Self, TypeVar

import joblib

from matpac.core import cluster, paths

if TYPE_CHECKING:
    from distributed import Client

Job = TypeVar("Job")
Result = TypeVar("Result")
Pool = TypeVar("Pool", bound=Executor)


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
        self.setting = "logmel.scheduler" if scheduler else cluster.VARIABLE
        self.scheduler = scheduler or os.environ.get(cluster.VARIABLE)
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
            up; as `matpac.core.cluster.connect`.
        """
        if self.scheduler:
            submit = cluster.asking(self._client, function, self.folders)
            with cluster.explained(f"{self.setting} {self.scheduler}"):
                yield from _results(submit, jobs, ordered, cluster.JOBS_AT_A_TIME)
        elif self.count == 1:
            yield from map(function, jobs)
        else:
            few = num_items < self.fewest and "_processes" not in vars(self)
            submit = partial((self._threads if few else self._processes).submit, function)
            try:
                yield from _results(submit, jobs, ordered, 4 * self.count)
            except BrokenProcessPool as error:
                raise RuntimeError(
                    f"one of {self.count} worker processes was killed, most often because memory "
                    "ran out; what is finished is kept: run the stage again, with a smaller "
                    "logmel.workers if that is so (in a script of your own, the call also has to "
                    'stand below `if __name__ == "__main__":`)'
                ) from error

    def pool(self) -> ProcessPoolExecutor | None:
        """Processes on this machine; None if there is one worker: this process."""
        return self._processes if self.count > 1 else None

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
    def _client(self) -> "Client":
        client = cluster.connect(self.scheduler, setting=self.setting)
        self._open.callback(client.close)
        return client

    def _opened(self, executor: Pool) -> Pool:
        self._open.callback(executor.shutdown, cancel_futures=True)
        return executor

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()


def _results(
    submit: Callable[[Any], Future], jobs: Iterable, ordered: bool, at_a_time: int
) -> Iterator:
    """Of ``jobs``, of which so many wait or run."""
    in_flight: list[Future] = []  # in the order of submission

    def ready() -> Iterator:
        done = in_flight[:1] if ordered else wait(in_flight, return_when=FIRST_COMPLETED).done
        for future in done:
            in_flight.remove(future)
            yield future.result()

    try:
        for job in jobs:
            in_flight.append(submit(job))
            if len(in_flight) >= at_a_time:
                yield from ready()
        while in_flight:
            yield from ready()
    finally:
        for future in in_flight:
            future.cancel()


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


def follow_the_parent() -> None:
    """In a new process: Ctrl-C is for the parent to handle, and its end, even by force, is ours."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def end() -> None:
        parent.join()
        os._exit(1)

    Thread(target=end, daemon=True).start()
