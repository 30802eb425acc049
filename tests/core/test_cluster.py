"""A real Dask cluster of two worker processes on this machine: what it does, refuses and loses."""

import hashlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import dask
import pytest
from distributed import Client, LocalCluster
from waiting import wait_until

from matpac.audio import reading
from matpac.core import cluster, files
from matpac.core.cluster import VARIABLE
from matpac.core.parallel import Workers
from matpac.data.fetch import fetch
from matpac.features.preprocess import preprocess

from noise import folder_params, make_folders


@pytest.fixture(scope="module")
def local() -> Iterator[LocalCluster]:
    # In the tests' own processes Dask would wait long for what has been killed.
    with (
        dask.config.set({"distributed.comm.timeouts.connect": "5s"}),
        LocalCluster(2, processes=True, threads_per_worker=1, dashboard_address=None) as running,
    ):
        yield running


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@pytest.fixture
def texts(tmp_path: Path) -> dict[Path, str]:
    """Small files and their checksums, in an order of their own."""
    found = {}
    for number in range(20):
        path = tmp_path / f"{number}.txt"
        path.write_text(str(number))
        found[path] = sha256(str(number))
    return found


def connected(local: LocalCluster, *folders: Path) -> Workers:
    return Workers(2, preload="math", scheduler=local.scheduler_address, folders=folders)


def checked(workers: Workers, paths: list[Path]) -> list[str]:
    with workers:
        return list(workers.map(files.sha256, paths, num_items=len(paths)))


def test_a_cluster_works_in_order_and_goes_on_without_us(
    local: LocalCluster, texts: dict[Path, str], tmp_path: Path
) -> None:
    for _ in range(2):
        assert checked(connected(local, tmp_path), list(texts)) == list(texts.values())
    with connected(local) as workers:
        results = workers.map(files.sha256, texts, num_items=20, ordered=False)
        assert sorted(results) == sorted(texts.values())
    command = Path("/proc/self/cmdline")
    if command.exists():
        assert checked(connected(local), [command]) != [files.sha256(command)]


def test_the_parameter_is_taken_before_the_variable(
    local: LocalCluster, texts: dict[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, "tcp://127.0.0.1:1")
    assert checked(connected(local), list(texts)) == list(texts.values())
    said = r"DASK_SCHEDULER_ADDRESS: got 'tcp://127\.0\.0\.1:1', where no Dask scheduler answered"
    with pytest.raises(ConnectionError, match=said):
        checked(Workers(preload="math"), list(texts))
    monkeypatch.setenv(VARIABLE, local.scheduler_address)
    assert checked(Workers(preload="math"), list(texts)) == list(texts.values())


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:1", "nonsense", "udp://127.0.0.1:8786"])
def test_no_scheduler(
    address: str, local: LocalCluster, texts: dict[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is named, and nothing half-open keeps the next client from connecting."""
    with monkeypatch.context() as patch:
        patch.setattr(cluster, "SECONDS_TO_CONNECT", 0.5)
        with pytest.raises(ConnectionError, match=rf"logmel\.scheduler: got '{address}', where no"):
            checked(Workers(preload="math", scheduler=address), [Path("any")])
    assert checked(connected(local), list(texts)) == list(texts.values())


def test_distributed_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ModuleNotFoundError, match=r"logmel\.scheduler.*pip install distributed"):
        checked(Workers(preload="math", scheduler="tcp://127.0.0.1:1"), [Path("any")])


def test_workers_with_other_code_or_packages_are_refused(
    local: LocalCluster, texts: dict[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = cluster.environment()
    monkeypatch.setattr(cluster, "environment", lambda: ours | {"matpac": "new", "numpy": "9"})
    theirs = rf"matpac {ours['matpac']} \(needed: new\), numpy {ours['numpy']} \(needed: 9\)"
    with pytest.raises(RuntimeError, match=rf"worker on \S+ has other code .*: {theirs};"):
        checked(connected(local), list(texts))


def test_workers_have_to_see_the_folders(
    local: LocalCluster, texts: dict[Path, str], tmp_path: Path
) -> None:
    with pytest.raises(FileNotFoundError, match=r"elsewhere: the Dask worker on \S+ does not see"):
        checked(connected(local, tmp_path, tmp_path / "elsewhere"), list(texts))


@contextmanager
def in_the_background(workers: Workers, paths: list[Path]) -> Iterator[Future]:
    """The results, waited for by another thread."""
    with ThreadPoolExecutor(1) as executor:
        yield executor.submit(checked, workers, paths)


def test_a_cluster_without_workers_is_waited_for(
    texts: dict[Path, str], capsys: pytest.CaptureFixture
) -> None:
    printed = ""

    def said() -> bool:
        nonlocal printed
        printed += capsys.readouterr().out
        return f"{empty.scheduler_address} has no workers yet, waiting for them\n" in printed

    with LocalCluster(1, processes=True, dashboard_address=":0") as empty:
        empty.scale(0)
        wait_until(lambda: not empty.scheduler.workers)
        with in_the_background(connected(empty), list(texts)) as results:
            wait_until(said)
            empty.scale(1)
            assert results.result(60) == list(texts.values())


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    """A file whose reader waits for ever: a job that does not end by itself."""
    if not hasattr(os, "mkfifo"):
        pytest.skip("no named pipes here")
    os.mkfifo(tmp_path / "pipe")
    return tmp_path / "pipe"


def test_a_job_whose_workers_are_killed(
    local: LocalCluster, pipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local.scheduler, "allowed_failures", 0)
    with (
        Client(local.scheduler_address, set_as_default=False) as client,
        in_the_background(connected(local), [pipe]) as results,
    ):
        processes = client.run(os.getpid)
        wait_until(lambda: any(client.processing().values()))
        (busy,) = [worker for worker, jobs in client.processing().items() if jobs]
        os.kill(processes[busy], signal.SIGKILL)
        said = r"logmel\.scheduler tcp://\S+: 1 workers ended abruptly on the same job, most often "
        said += "for lack of memory; .* what is finished is kept: run the stage again"
        with pytest.raises(RuntimeError, match=said):
            results.result(60)
    wait_until(lambda: len(local.scheduler.workers) == 2)


@pytest.mark.slow
def test_both_stages_run_on_it(
    local: LocalCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = {}
    for where, address in (("here", None), ("there", local.scheduler_address)):
        root = tmp_path / where
        monkeypatch.setenv("MATPAC_ROOT", str(root))
        make_folders(root)
        params = folder_params(["birds"], scheduler=address)
        if address:  # this process reads no audio
            monkeypatch.setattr(reading, "check", None)
            monkeypatch.setattr(reading, "read", None)
        fetch(params)
        preprocess(params)
        # What is known of files is kept with the time of their change, under their folder's name.
        paths = [p for p in root.glob("data/**/*") if p.is_file() and "audit" not in p.parts]
        made[where] = {path.relative_to(root): path.read_bytes() for path in paths}
    assert len(made["here"]) > 10 and made["here"] == made["there"]


@contextmanager
def started(folder: Path, *, cwd: Path | None = None) -> Iterator[tuple[str, subprocess.Popen]]:
    """Address and process of a scheduler with one worker, as users start them."""
    file = folder / "scheduler.json"
    commands = (
        ["dask_scheduler", "--host", "127.0.0.1", "--port", "0", "--dashboard-address", ":0"],
        ["dask_worker", "--nthreads", "1", "--no-nanny"],
    )
    silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with ExitStack() as stack:
        processes = []
        for module, *arguments in commands:
            command = [sys.executable, "-m", f"distributed.cli.{module}", *arguments]
            process = subprocess.Popen([*command, "--scheduler-file", file], cwd=cwd, **silent)
            stack.callback(process.wait)
            stack.callback(process.kill)
            processes.append(process)
        wait_until(lambda: file.exists() and bool(file.read_text()))
        yield files.read_json(file)["address"], processes[0]


@pytest.mark.slow
def test_workers_that_lack_this_library_say_so(texts: dict[Path, str], tmp_path: Path) -> None:
    (tmp_path / "cwd").mkdir()
    missing = "raise ModuleNotFoundError(\"No module named 'matpac'\")"
    (tmp_path / "cwd/matpac.py").write_text(missing)
    with (
        started(tmp_path, cwd=tmp_path / "cwd") as (address, _),
        pytest.raises(RuntimeError, match=r"a worker cannot import this library \(No module named"),
    ):
        checked(Workers(preload="math", scheduler=address), list(texts))


@pytest.mark.slow
@pytest.mark.parametrize("busy", [False, True], ids=["waiting", "handing out results"])
def test_a_scheduler_that_ends(tmp_path: Path, pipe: Path, busy: bool) -> None:
    (tmp_path / "short").write_text("")
    paths = [tmp_path / "short"] * 100_000 if busy else [pipe]
    with (
        started(tmp_path) as (address, scheduler),
        Client(address, set_as_default=False) as client,
        in_the_background(Workers(preload="math", scheduler=address), paths) as results,
    ):
        wait_until(lambda: any(client.processing().values()))
        scheduler.kill()
        with pytest.raises(RuntimeError, match=r"the scheduler ended or was restarted; what is"):
            results.result(60)
