"""Ctrl-C and SIGTERM: work ends where nothing is lost, with an exit code that says why.

SIGTERM is what a batch system sends before it kills. A command that it stopped exits with 75, "try
again later" (``EX_TEMPFAIL``), so that a job script can tell when to queue the job once more.
"""

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

EXIT_CODES = {signal.SIGINT: 130, signal.SIGTERM: 75}


class Interrupted(KeyboardInterrupt):
    """A signal ended the work; a KeyboardInterrupt like any other to notebooks.

    Args:
        message: what was stopped, and where.
        number: of the signal.
    """

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message, number)  # both, so that it can be pickled
        self.message, self.number = message, number

    def __str__(self) -> str:
        return self.message

    @property
    def exit_code(self) -> int:
        """What the command exits with."""
        return EXIT_CODES[signal.Signals(self.number)]


@contextmanager
def interruption() -> Iterator[Callable[[], int]]:
    """Ctrl-C and SIGTERM only leave a note, for the loop to end where a state can be saved.

    Yields: a function that gives the number of the signal that came, 0 if none did.
    """
    received: list[int] = []
    with _handling(received.append):
        yield lambda: received[0] if received else 0


@contextmanager
def raising() -> Iterator[None]:
    """Ctrl-C and SIGTERM raise Interrupted at once: where there is no state to save."""

    def stop(number: int) -> None:
        raise Interrupted(f"stopped by {signal.Signals(number).name}", number)

    with _handling(stop):
        yield


@contextmanager
def forwarding() -> Iterator[None]:
    """Ctrl-C and SIGTERM go to the processes started meanwhile, which end when they are ready.

    Before there is one, Interrupted is raised.
    """
    others = set(multiprocessing.active_children())

    def forward(number: int) -> None:
        children = set(multiprocessing.active_children()) - others
        if not children:
            raise Interrupted(f"stopped by {signal.Signals(number).name}", number)
        for child in children:
            with suppress(ProcessLookupError):
                os.kill(child.pid, number)

    with _handling(forward):
        yield


def signal_of(exit_code: int) -> int:
    """The signal with which a process was stopped, from its exit code; 0 if it was not.

    Negative codes, of a process that had no handler yet, are multiprocessing's.
    """
    found = {code: number for number, code in EXIT_CODES.items()}
    return found.get(exit_code, -exit_code if -exit_code in EXIT_CODES else 0)


@contextmanager
def _handling(handler: Callable[[int], None]) -> Iterator[None]:
    """Calls ``handler`` with the number of each signal; outside a main thread none arrives."""
    previous = {}
    try:
        for number in EXIT_CODES:
            previous[number] = signal.signal(number, lambda number, _: handler(number))
    except ValueError:
        pass
    try:
        yield
    finally:
        for number, old in previous.items():
            signal.signal(number, old)
