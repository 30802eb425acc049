"""Workers of a Dask cluster: preparing data on more than one machine.

The cluster is one that the user started (``dask scheduler``, ``dask worker``, dask-jobqueue, ...).
Its workers need this library with the same code and packages, and this machine's folders under the
same names. Each of them compares before it works, those that join later too, since one with other
code would write other bytes, and one without the folders would find every clip missing. Between
kinds of processors last digits may still differ: equal machines make equal stores.
"""

import pickle
import socket
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matpac.core.fingerprints import code_digest

if TYPE_CHECKING:
    import distributed

VARIABLE = "DASK_SCHEDULER_ADDRESS"
"""Dask's own variable; ``logmel.scheduler`` wins."""
SECONDS_TO_CONNECT = 10
PACKAGES = ("numpy", "soundfile", "torch", "torchaudio")
"""What decides log-mels besides this library's code."""


class Cluster(Executor):
    """An executor whose jobs run on a Dask cluster; `shutdown` leaves the cluster running.

    Args:
        address: of the scheduler, e.g. ``"tcp://10.0.0.1:8786"``.
        setting: where the address was given, for errors.
        folders: what every worker has to see.
    Raises: ModuleNotFoundError if Dask's ``distributed`` is not installed; ConnectionError if no
        scheduler answers.
    """

    def __init__(self, address: str, *, setting: str, folders: Sequence[Path]) -> None:
        try:
            client = _client_class()
        except ModuleNotFoundError:
            raise ModuleNotFoundError(
                f"{setting}: got {address!r}, which needs the package distributed; "
                "run `pip install distributed`"
            ) from None
        self.address, self.setting = address, setting
        self.folders = [str(folder.resolve()) for folder in folders]
        try:
            self._client = client(address, timeout=SECONDS_TO_CONNECT, set_as_default=False)
        except (OSError, ValueError) as error:
            raise ConnectionError(
                f"{setting}: got {address!r}, where no Dask scheduler answered within "
                f"{SECONDS_TO_CONNECT} s ({error})"
            ) from None
        if not self._client.nthreads():
            print(f"{address} has no workers yet, waiting for them", flush=True)

    def submit(self, function: Callable[[Any], Any], job: Any) -> Future:  # type: ignore[override]
        """Runs ``function(job)`` on a worker; the function must be a module's of this library."""
        module = function.__module__.removeprefix("matpac.")
        content = pickle.dumps((function, job)), module, environment(module), self.folders

        async def ask() -> "distributed.Future":
            return self._client.submit(_remote(), *content, pure=False)

        # In the client's own thread: when the scheduler ends, that goes through what was asked.
        asked = self._client.sync(ask)
        # Not `Client.get_executor`, whose futures may then never be done.
        future: Future = Future()
        future.add_done_callback(lambda _: asked.cancel() if future.cancelled() else None)
        asked.add_done_callback(lambda _: _pass_on(asked.result, future))
        return future

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Says in a RuntimeError what happened to a cluster that gave up a job of the block."""
        from distributed.client import FutureCancelledError
        from distributed.comm import CommClosedError
        from distributed.scheduler import KilledWorker

        kept = "what is finished is kept: run the stage again"
        try:
            yield
        except KilledWorker as error:
            raise RuntimeError(
                f"{self.setting} {self.address}: {error.allowed_failures + 1} workers ended "
                "abruptly on the same job, most often for lack of memory; give each more, or "
                f"fewer threads; {kept}"
            ) from error
        except (FutureCancelledError, CommClosedError) as error:
            raise RuntimeError(
                f"{self.setting} {self.address}: the scheduler ended or was restarted; {kept}"
            ) from error

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Disconnects; jobs that are not finished are given up."""
        self._client.close()


def _client_class() -> "type[distributed.Client]":
    """Dask's client, which `distributed` alone would leave half-open where it cannot start.

    Collected as garbage later, perhaps in the thread that another client is starting, such a one
    would wait for a lock that is held until that thread has started.
    """
    from distributed import Client

    class ClosedUnlessStarted(Client):
        def start(self, **kwargs: Any) -> None:
            try:
                super().start(**kwargs)
            except BaseException:
                self.close()
                raise

    return ClosedUnlessStarted


def _pass_on(result: Callable[[], Any], future: Future) -> None:
    """Gives a future the outcome of a finished job, unless nobody waits for it any more."""
    if not future.set_running_or_notify_cancel():
        return
    try:
        found = result()
    except BaseException as error:
        future.set_exception(error)
    else:
        future.set_result(found)


@cache
def environment(module: str) -> dict[str, str]:
    """What decides the results of a module's functions: our code and the packages it uses."""
    found = {"matpac": code_digest("audio", "data", "features")}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "missing"
    return found


def run(content: bytes, module: str, wanted: dict[str, str], folders: list[str]) -> Any:
    """On a worker: a pickled function applied to its pickled job, if this is the place for it.

    Raises: RuntimeError naming what differs here; FileNotFoundError naming an unseen folder.
    """
    host = socket.gethostname()
    found = environment(module)
    if differing := [
        f"{name} {found.get(name)} (needed: {value})"
        for name, value in wanted.items()
        if found.get(name) != value
    ]:
        raise RuntimeError(
            f"the Dask worker on {host} has other code and would make other files: "
            f"{', '.join(differing)}; restart the workers with the same environment"
        )
    for folder in folders:
        if not Path(folder).is_dir():
            raise FileNotFoundError(
                f"{folder}: the Dask worker on {host} does not see this folder; a cluster's "
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
