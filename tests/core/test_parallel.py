"""Threads and processes of one machine: order, errors, and what is left when one is killed."""

import operator
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from waiting import wait_until

from matpac.core.parallel import Workers

HERE = "math"
"""Something quick to preload."""
needs_proc = pytest.mark.skipif(
    not Path("/proc/self/stat").exists(), reason="looks at processes in /proc"
)


def jobs(count: int) -> Iterator[int]:
    yield from range(count)


def alive(process: int) -> bool:
    """Whether a process runs; one that ended and waits for its parent does not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def ignores_ctrl_c(process: int) -> bool:
    status = Path(f"/proc/{process}/status").read_text()
    ignored = next(line for line in status.splitlines() if line.startswith("SigIgn:"))
    return bool(int(ignored.split()[1], 16) & 1 << signal.SIGINT - 1)


def test_results_come_in_the_order_of_the_jobs_and_errors_are_raised() -> None:
    with Workers(2, preload=HERE) as workers:
        assert list(workers.map(abs, jobs(20), num_items=20)) == list(range(20))
        unordered = list(workers.map(abs, jobs(20), num_items=20, ordered=False))
        assert sorted(unordered) == list(range(20))
        with pytest.raises(TypeError):
            list(workers.map(abs, ["text"], num_items=1))


def test_little_work_is_done_by_threads_of_this_process() -> None:
    def inside(_: int) -> tuple[int, int]:
        time.sleep(0.01)
        return os.getpid(), threading.get_ident()

    with Workers(2, preload=HERE, fewest=30) as workers:
        results = set(workers.map(inside, jobs(20), num_items=20))
        assert {process for process, _ in results} == {os.getpid()} and len(results) == 2
    with Workers(1, preload=HERE, fewest=30) as workers:
        here = (os.getpid(), threading.get_ident())
        assert set(workers.map(inside, jobs(20), num_items=20)) == {here}
        assert set(workers.map(inside, jobs(20), num_items=30)) == {here}


def test_more_work_is_done_by_processes() -> None:
    with Workers(2, preload=HERE, fewest=30) as workers:
        for num_items in (30, 29):  # once they are there, they do all of it
            found = set(workers.map(operator.call, [os.getpid] * 8, num_items=num_items))
            assert found and os.getpid() not in found


def test_a_slow_job_does_not_hold_up_the_results_of_others() -> None:
    hold = threading.Event()

    def work(job: int) -> int:
        if job == 0:
            assert hold.wait(20)
        return job

    with Workers(2, preload=HERE, fewest=100) as workers:
        results = workers.map(work, jobs(50), num_items=50, ordered=False)
        others = [next(results) for _ in range(49)]
        hold.set()
        assert sorted(others) == list(range(1, 50)) and list(results) == [0]


def test_jobs_are_drawn_as_they_are_needed() -> None:
    drawn = []

    def noted() -> Iterator[int]:
        for job in range(1000):
            drawn.append(job)
            yield job

    with Workers(2, preload=HERE, fewest=10_000) as workers:
        for ordered in (True, False):
            drawn.clear()
            results = workers.map(abs, noted(), num_items=1000, ordered=ordered)
            next(results)
            assert len(drawn) <= 16
            results.close()


def test_a_killed_process_is_named_with_what_to_do() -> None:
    with Workers(2, preload=HERE) as workers:
        results = workers.map(time.sleep, [0.0] + [60.0] * 3, num_items=4)
        next(results)
        os.kill(next(iter(workers.pool()._processes)), signal.SIGKILL)
        with pytest.raises(
            RuntimeError,
            match=r"one of 2 worker processes was killed, most often because memory ran out; "
            r"what is finished is kept: run the stage again, with a smaller logmel\.workers",
        ):
            list(results)


@needs_proc
def test_no_process_outlives_its_parent() -> None:
    code = (
        "import time\n"
        "from matpac.core.parallel import Workers\n"
        "with Workers(2, preload='math') as workers:\n"
        "    results = workers.map(time.sleep, [0, 60, 60, 60], num_items=4)\n"
        "    next(results)\n"
        "    print(*workers.pool()._processes, flush=True)\n"
        "    next(results)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as run:
        processes = [int(each) for each in run.stdout.readline().split()]
        assert len(processes) == 2 and all(alive(each) for each in processes)
        run.kill()
    wait_until(lambda: not any(alive(each) for each in processes))


@needs_proc
def test_ctrl_c_is_for_the_parent(capfd: pytest.CaptureFixture) -> None:
    """The terminal sends it to all processes."""
    with Workers(2, preload=HERE) as workers:
        results = workers.map(time.sleep, [0.0] + [0.3] * 3, num_items=4)
        next(results)
        processes = list(workers.pool()._processes)
        wait_until(lambda: all(ignores_ctrl_c(process) for process in processes))
        for process in processes:
            os.kill(process, signal.SIGINT)
        assert len(list(results)) == 3
    assert capfd.readouterr().err == ""
