"""Several processes compute what one does; a failure of any is told."""

import csv
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
import workers_ddp

from matpac import distributed

UPDATES = 5


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Here and in the new processes: so small sums only lose time with more."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("MATPAC_PROGRESS", "silent")
        yield
    torch.set_num_threads(threads)


def test_alone_everything_is_the_identity() -> None:
    tensor, module = torch.ones(2), torch.nn.Linear(1, 1)
    assert distributed.rank() == 0 and distributed.world_size() == 1
    assert distributed.all_mean(tensor) is tensor
    assert distributed.replicate(module) is module


def test_one_process_is_no_new_process() -> None:
    unpicklable = lambda x: [x, distributed.world_size()]  # noqa: E731
    assert distributed.launch(unpicklable, 3, num_processes=1) == [3, 1]


def test_processes_that_exist_already_are_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    """As under torchrun: the environment says which process this is."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    place = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "localhost"}
    for name, value in (place | {"MASTER_PORT": str(port)}).items():
        monkeypatch.setenv(name, value)
    joined = lambda: torch.distributed.is_initialized()  # noqa: E731
    assert distributed.launch(joined, num_processes=7)
    assert not joined()  # and left again


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """The same work in two processes and in one."""
    bulk = tmp_path_factory.mktemp("bulk")
    tiny.make_store(bulk / "logmel" / "noise", [32 + 3 * n for n in range(12)])
    whole = tiny.run(objective={"alpha": 1.0}, pretrain={"epochs": 2.0})
    # Some gradients are 0 but for rounding (of the attention's key bias, say); divided by their own
    # size, as Adam does with its usual epsilon, they would move weights by chance.
    updates = tiny.run(pretrain={"eps": 1e-3, "learning_rate": 0.1})
    results = {}
    for name, processes in (("two", 2), ("one", 1)):
        job = tiny.make_job(bulk, bulk / name, updates)
        whole_job = tiny.make_job(bulk, bulk / name, whole)
        results[name] = distributed.launch(
            workers_ddp.several_things, job, UPDATES, whole_job, num_processes=processes
        ) | {"folder": bulk / name}
    return results


@pytest.mark.ddp
@pytest.mark.slow
def test_means_over_processes(both) -> None:
    assert both["two"]["world_size"] == 2
    assert both["two"]["mean"] == [2.0, -0.5]
    assert both["two"]["wrapped"] == "DistributedDataParallel"


@pytest.mark.ddp
@pytest.mark.slow
def test_two_half_batches_are_one_whole_batch(both) -> None:
    """Losses, gradient norm, diagnostics, then weights, teacher and centre after five updates."""
    two, one = (both[name]["updates"] for name in ("two", "one"))
    np.testing.assert_allclose(two["measured"], one["measured"], rtol=1e-5, atol=1e-6)
    assert set(two["tensors"]) == set(one["tensors"])
    for name, tensor in one["tensors"].items():
        ours, expected = np.array(two["tensors"][name]), np.array(tensor)
        # Relative to the tensor: single entries near 0 have no relative precision of their own.
        assert np.abs(ours - expected).max() <= 1e-5 * np.abs(expected).max(), name


@pytest.mark.ddp
@pytest.mark.slow
def test_a_whole_run_in_two_processes(both) -> None:
    """Without the classification task, whose head then takes no part; only one process writes."""
    two, one = both["two"], both["one"]
    assert two["train"] == pytest.approx(one["train"], rel=1e-4, abs=1e-5)
    logs = [read_log(each["folder"] / "logs" / "log.csv") for each in (two, one)]
    assert len(logs[0]) == 6
    np.testing.assert_allclose(*logs, rtol=1e-4)
    assert (two["folder"] / "encoder.safetensors").exists()


def read_log(path: Path) -> list[list[float]]:
    with path.open() as file:
        return [[float(value) for value in row] for row in list(csv.reader(file))[1:]]


@pytest.mark.ddp
@pytest.mark.slow
def test_a_failing_process_is_told_with_its_traceback() -> None:
    with pytest.raises(RuntimeError) as error:
        distributed.launch(workers_ddp.second_fails, "no such thing", num_processes=2)
    message = str(error.value)
    # The first process fails too, a moment later, for want of the second.
    assert message.startswith("process 1 failed: Traceback")
    assert "in second_fails\n    raise LookupError(message)" in message
    assert "LookupError: no such thing" in message


@pytest.mark.ddp
@pytest.mark.slow
def test_a_killed_process_is_told() -> None:
    """As the system does when memory runs out."""
    with pytest.raises(RuntimeError, match=r"process 1 failed: Signal 9 \(SIGKILL\)"):
        distributed.launch(workers_ddp.second_fails, "", num_processes=2)
