"""Workers of a Dask cluster: preparing data on more than one machine.

The cluster is one that the user started (``dask scheduler``, ``dask worker``, dask-jobqueue, ...).
Its workers need this library with the same code and packages, and this machine's folders under the
same names. Each of them compares before it works, those that join later too, since one with other
code would write other bytes, and one without the folders would find every clip missing. Between
kinds of processors last digits may still differ: equal machines make equal stores.
"""

import pickle
import socket
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from matpac.core.fingerprints import code_digest

if TYPE_CHECKING:
    import distributed

VARIABLE = "DASK_SCHEDULER_ADDRESS"
"""Dask's own variable; ``logmel.scheduler`` wins."""
SECONDS_TO_CONNECT = 10
JOBS_AT_A_TIME = 1000
"""Jobs that wait or run on the cluster: its number of workers may change."""
PACKAGES = ("numpy", "soundfile", "torch", "torchaudio")
"""What decides log-mels besides this library's code."""


class Cluster:
    """A Dask cluster that works for us; `shutdown` leaves it running.

    Args:
        address: of the scheduler, e.g. ``"tcp://10.0.0.1:8786"``.
        setting: where the address was given, for errors.
        folders: what every worker has to see.
    Raises: ModuleNotFoundError if Dask's ``distributed`` is not installed; ConnectionError if no
        scheduler answers.
    """

    def __init__(self, address: str, *, setting: str, folders: Sequence[Path]) -> None:
        try:
            from distributed import Client
        except ModuleNotFoundError:
            raise ModuleNotFoundError(
                f"{setting}: got {address!r}, which needs the package distributed; "
                "run `pip install distributed`"
            ) from None
        self.name = f"{setting} {address}"
        self.folders = [str(folder.resolve()) for folder in folders]
        try:
            # A client that finds nobody stays half-open and can keep the next one from starting.
            place = urlsplit(address)
            socket.create_connection((place.hostname, place.port), SECONDS_TO_CONNECT).close()
            self._client = Client(address, timeout=SECONDS_TO_CONNECT, set_as_default=False)
        except (OSError, ValueError, TypeError) as error:
            raise ConnectionError(
                f"{setting}: got {address!r}, where no Dask scheduler answered within "
                f"{SECONDS_TO_CONNECT} s ({error})"
            ) from None
        if not self._client.nthreads():
            print(f"{address} has no workers yet, waiting for them", flush=True)

    def map(
        self, function: Callable[[Any], Any], jobs: Iterable[Any], *, ordered: bool
    ) -> Iterator[Any]:
        """As `matpac.core.parallel.Workers.map`. Raises: RuntimeError if the cluster gives up."""
        from distributed.client import FutureCancelledError
        from distributed.comm import CommClosedError
        from distributed.scheduler import KilledWorker

        kept = "what is finished is kept: run the stage again"
        try:
            yield from self._results(function, jobs, ordered)
        except KilledWorker as error:
            raise RuntimeError(
                f"{self.name}: {error.allowed_failures + 1} workers ended abruptly on the same "
                f"job, most often for lack of memory; give each more, or fewer threads; {kept}"
            ) from error
        except (FutureCancelledError, CommClosedError) as error:
            raise RuntimeError(
                f"{self.name}: the scheduler ended or was restarted; {kept}"
            ) from error

    def _results(self, function: Callable, jobs: Iterable, ordered: bool) -> Iterator:
        from distributed import as_completed

        if ordered:
            in_order: deque[distributed.Future] = deque()
            for job in jobs:
                in_order.append(self._submit(function, job))
                if len(in_order) >= JOBS_AT_A_TIME:
                    yield in_order.popleft().result()
            while in_order:
                yield in_order.popleft().result()
            return
        ready = as_completed(loop=self._client.loop)
        for job in jobs:
            ready.add(self._submit(function, job))
            if ready.count() >= JOBS_AT_A_TIME:
                yield next(ready).result()
        yield from (future.result() for future in ready)

    def _submit(self, function: Callable, job: Any) -> "distributed.Future":
        content = pickle.dumps((function, job)), environment(), self.folders

        async def ask() -> "distributed.Future":
            return self._client.submit(_remote(), *content, pure=False)

        # In the client's own thread: when the scheduler ends, that goes through what was asked.
        return self._client.sync(ask)

    def shutdown(self, *, cancel_futures: bool) -> None:
        """Disconnects; jobs that are not finished are given up."""
        self._client.close()


@cache
def environment() -> dict[str, str]:
    """What decides the results: our code and the packages it uses."""
    installed = {each.name: each.version for each in metadata.distributions()}
    packages = {package: installed.get(package, "missing") for package in PACKAGES}
    return {"matpac": code_digest("audio", "data", "features")} | packages


def run(content: bytes, wanted: dict[str, str], folders: list[str]) -> Any:
    """On a worker: a pickled function applied to its pickled job, if this is the place for it.

    Raises: RuntimeError naming what differs here; FileNotFoundError naming an unseen folder.
    """
    host, found = socket.gethostname(), environment()
    if differing := [
        f"{name} {found.get(name)} (needed: {value})"
        for name, value in wanted.items()
        if found.get(name) != value
    ]:
        raise RuntimeError(
            f"the Dask worker on {host} has other code and would make other files: "
            f"{', '.join(differing)}; restart the workers with the same environment"
        )
    if unseen := [folder for folder in folders if not Path(folder).is_dir()]:
        raise FileNotFoundError(
            f"{unseen[0]}: the Dask worker on {host} does not see this folder; a cluster's "
            "workers need the file system of the machine that asks them"
        )
    function, job = pickle.loads(content)
    return function(job)


def _remote() -> Callable[..., Any]:
    """`run` in a form that a worker without this library can receive, to say that it has none."""

    def call(*arguments: Any) -> Any:
        # Sent as bytecode, as all functions within functions are: it may use nothing from outside.
        import socket
        from importlib import import_module

        try:
            cluster = import_module("matpac.core.cluster")
        except ImportError as error:
            raise RuntimeError(
                f"the Dask worker on {socket.gethostname()} cannot import this library ({error}); "
                "a cluster's workers need the environment of the machine that asks them"
            ) from None
        return cluster.run(*arguments)

    return call
