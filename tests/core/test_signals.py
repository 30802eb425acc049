"""Signals: what they end, when, and with which exit code."""

import multiprocessing
import os
import pickle
import signal
import threading
import time

import pytest

from matpac.core import signals
from matpac.core.signals import Interrupted, forwarding, raising, signal_of

BOTH = (signal.SIGINT, signal.SIGTERM)


@pytest.fixture(autouse=True)
def handlers_are_put_back():
    before = [signal.getsignal(number) for number in BOTH]
    yield
    assert [signal.getsignal(number) for number in BOTH] == before


@pytest.mark.parametrize("number", BOTH)
def test_a_signal_leaves_a_note(number: int) -> None:
    with signals.interruption() as interrupted:
        assert interrupted() == 0
        os.kill(os.getpid(), number)
        assert interrupted() == number
        os.kill(os.getpid(), signal.SIGTERM)  # of several the first counts
        assert interrupted() == number


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 75)])
def test_a_signal_raises_at_once(number: int, code: int) -> None:
    with pytest.raises(KeyboardInterrupt) as stopped, raising():
        os.kill(os.getpid(), number)
        pytest.fail("it went on")
    assert isinstance(stopped.value, Interrupted) and stopped.value.exit_code == code
    assert str(stopped.value) == f"stopped by {signal.Signals(number).name}"


def test_outside_the_main_thread_no_signal_arrives() -> None:
    seen = []

    def work() -> None:
        with signals.interruption() as interrupted, raising(), forwarding():
            seen.append(interrupted())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [0]


def test_it_comes_back_from_another_process() -> None:
    again = pickle.loads(pickle.dumps(Interrupted("base: stopped after step 3", signal.SIGTERM)))
    assert (str(again), again.exit_code) == ("base: stopped after step 3", 75)


@pytest.mark.parametrize(
    ("code", "number"),
    [(75, signal.SIGTERM), (-15, signal.SIGTERM), (130, signal.SIGINT), (-2, signal.SIGINT)]
    + [(code, 0) for code in (0, 1, -9, -11, 143)],
)
def test_which_signal_an_exit_code_means(code: int, number: int) -> None:
    assert signal_of(code) == number


def wait_for_a_signal(ready, send) -> None:
    with signals.interruption() as interrupted:
        ready.set()
        while not interrupted():
            time.sleep(0.01)
        send.put(interrupted())


def test_signals_are_forwarded_to_processes_started_meanwhile() -> None:
    context = multiprocessing.get_context("fork")
    ready, results = context.Event(), context.SimpleQueue()
    other = context.Process(target=time.sleep, args=(30,))
    other.start()
    with forwarding():
        child = context.Process(target=wait_for_a_signal, args=(ready, results))
        child.start()
        assert ready.wait(10)
        os.kill(os.getpid(), signal.SIGTERM)
        child.join(10)
    assert results.get() == signal.SIGTERM and child.exitcode == 0
    assert other.is_alive()
    other.kill()
    other.join()


def test_without_processes_there_is_nothing_to_wait_for() -> None:
    with pytest.raises(Interrupted, match="stopped by SIGTERM"), forwarding():
        os.kill(os.getpid(), signal.SIGTERM)
        pytest.fail("it went on")
