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
from concurrent.futures import CancelledError, Future
from contextlib import contextmanager
from functools import cache, partial
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from matpac.core.fingerprints import code_digest

if TYPE_CHECKING:
    from distributed import Client

VARIABLE = "DASK_SCHEDULER_ADDRESS"
"""Dask's own variable; ``logmel.scheduler`` wins."""
SECONDS_TO_CONNECT = 10
JOBS_AT_A_TIME = 1000
"""Jobs that wait or run on the cluster: its number of workers may change."""
PACKAGES = ("numpy", "soundfile", "torch", "torchaudio")
"""What decides log-mels besides this library's code."""


def connect(address: str, *, setting: str) -> "Client":
    """A Dask cluster that works for us; closing it leaves it running.

    Args:
        address: of the scheduler, e.g. ``"tcp://10.0.0.1:8786"``.
        setting: where the address was given, for errors.
    Raises: ModuleNotFoundError if Dask's ``distributed`` is not installed; ConnectionError if no
        scheduler answers.
    """
    try:
        from distributed import Client
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            f"{setting}: got {address!r}, which needs the package distributed; "
            "run `pip install distributed`"
        ) from None
    try:
        # A client that finds nobody stays half-open and can keep the next one from starting.
        place = urlsplit(address)
        socket.create_connection((place.hostname, place.port), SECONDS_TO_CONNECT).close()
        client = Client(address, timeout=SECONDS_TO_CONNECT, set_as_default=False)
    except (OSError, ValueError, TypeError) as error:
        raise ConnectionError(
            f"{setting}: got {address!r}, where no Dask scheduler answered within "
            f"{SECONDS_TO_CONNECT} s ({error})"
        ) from None
    if not client.nthreads():
        print(f"{address} has no workers yet, waiting for them", flush=True)
    return client


@contextmanager
def explained(name: str) -> Iterator[None]:
    """What ends work on the cluster as RuntimeError. Args: name: of the cluster."""
    from distributed.client import ClosedClientError
    from distributed.comm import CommClosedError
    from distributed.scheduler import KilledWorker

    kept = "what is finished is kept: run the stage again"
    try:
        yield
    except KilledWorker as error:
        raise RuntimeError(
            f"{name}: {error.allowed_failures + 1} workers ended abruptly on the same job, most "
            f"often for lack of memory; give each more, or fewer threads; {kept}"
        ) from error
    except ImportError as error:
        raise RuntimeError(
            f"{name}: a worker cannot import this library ({error}); a cluster's workers need the "
            "environment of the machine that asks them"
        ) from error
    except (CancelledError, ClosedClientError, CommClosedError) as error:
        raise RuntimeError(f"{name}: the scheduler ended or was restarted; {kept}") from error


@cache
def environment() -> dict[str, str]:
    """What decides the results: our code and the packages it uses."""
    installed = {each.name: each.version for each in metadata.distributions()}
    packages = {package: installed.get(package, "missing") for package in PACKAGES}
    return {"matpac": code_digest("audio", "data", "features")} | packages


def run(
    function: Callable[[Any], Any], job: Any, wanted: dict[str, str], folders: list[str]
) -> Any:
    """On a worker: a function of its job, if this is the place for it.

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
    return function(job)


def asking(
    client: "Client", function: Callable[[Any], Any], folders: Sequence[Path]
) -> Callable[[Any], Future]:
    """What asks the workers for ``function`` of a job, by way of `run`."""
    executor = client.get_executor(pure=False)
    seen = [str(folder.resolve()) for folder in folders]

    def unpacked(content: bytes) -> Any:
        # Sent as bytecode, as all functions within functions are: it may use nothing from outside,
        # and the scheduler on the way to a worker may lack this library.
        import pickle

        return pickle.loads(content)()

    def submit(job: Any) -> Future:
        content = pickle.dumps(partial(run, function, job, environment(), seen))

        async def ask() -> Future:
            return executor.submit(unpacked, content)

        # In the client's own thread: when the scheduler ends, that goes through what was asked.
        return client.sync(ask)

    return submit
