"""Several processes, or one: the only module that imports ``torch.distributed``.

On one process every function is the identity, so callers need no ``if``. `launch` starts a library
function on all GPUs of this machine; under torchrun, where the processes exist already, it joins
them.
"""

import os
import signal
import traceback
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.elastic.multiprocessing.errors import (
    ChildFailedError,
    ProcessFailure,
    record,
)
from torch.distributed.launcher.api import LaunchConfig, elastic_launch
from torch.nn.parallel import DistributedDataParallel


def rank() -> int:
    """Index of this process, 0 when alone."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """Number of processes, 1 when alone."""
    return dist.get_world_size() if dist.is_initialized() else 1


def device() -> torch.device:
    """This process's GPU, or the CPU."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))


def num_processes(batch_size: int) -> int:
    """One per GPU of this machine, as many as divide the batch; one without any GPU."""
    gpus = torch.cuda.device_count()
    used = next((n for n in range(gpus, 1, -1) if batch_size % n == 0), 1)
    if used < gpus and "RANK" not in os.environ:
        print(f"using {used} of {gpus} GPUs: a batch of {batch_size} cannot be shared by all")
    return used


def all_mean(tensor: Tensor) -> Tensor:
    """Mean of a tensor over all processes, each counting alike."""
    if world_size() == 1:
        return tensor
    tensor = tensor.clone()
    dist.all_reduce(tensor)
    return tensor / world_size()


def any_rank(flag: bool) -> bool:
    """Whether the flag is set on any process; all processes get the same answer."""
    if world_size() == 1:
        return flag
    flags = torch.tensor(float(flag), device=device())
    dist.all_reduce(flags)
    return bool(flags > 0)


def replicate(module: nn.Module) -> nn.Module:
    """The module, wrapped so that gradients are averaged over processes (unwrapped when alone)."""
    if world_size() == 1:
        return module
    ids = [device().index] if device().type == "cuda" else None
    return DistributedDataParallel(module, device_ids=ids, gradient_as_bucket_view=True)


def no_sync(replica: nn.Module) -> AbstractContextManager:
    """Within it gradients add up in each process by itself.

    The next forward and backward pass outside averages what has gathered over the processes: once
    per optimiser step, not once per micro-batch.

    Args: replica: what `replicate` gave.
    """
    return replica.no_sync() if isinstance(replica, DistributedDataParallel) else nullcontext()


def launch(function: Callable[..., Any], *args: object, num_processes: int = 1) -> Any:
    """Runs ``function(*args)`` in every process of the job.

    Args:
        function: importable from the library; one defined in a notebook cannot be sent.
        num_processes: on this machine, unless torchrun has started them already.
    Returns: what it returned on the first process of this machine.
    Raises: RuntimeError with the traceback of the process that failed first, or the signal that
        killed one.
    """
    if "RANK" in os.environ:
        return _worker(function, *args)
    if int(os.environ.get("SLURM_NTASKS", 1)) > 1:
        raise RuntimeError("several Slurm tasks without RANK: start one torchrun per node instead")
    if num_processes == 1:
        return function(*args)
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=num_processes,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
        start_method="spawn",
    )
    with TemporaryDirectory() as folder:
        record_file = Path(folder) / "first_failure.txt"
        try:
            return elastic_launch(config, _spawned)(record_file, function, *args)[0]
        except ChildFailedError as error:
            raise RuntimeError(_describe(record_file, error.failures)) from None


@record
def _worker(function: Callable[..., Any], *args: object) -> Any:
    """One process of a job: joins the group, works, leaves it."""
    if torch.cuda.is_available():
        torch.cuda.set_device(device())
    else:  # processes that all use all cores only wait for each other
        local = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
        torch.set_num_threads(max(1, torch.get_num_threads() // local))
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    result = function(*args)
    # Not after a failure: leaving in the middle of the others' work may hang.
    dist.destroy_process_group()
    return result


def _spawned(record_file: Path, function: Callable[..., Any], *args: object) -> Any:
    """A process that `launch` started; the first one to fail says why in ``record_file``.

    The death of one fails the others within milliseconds, and torch's launcher, which looks now and
    then, may see one of those first.
    """
    try:
        return _worker(function, *args)
    except BaseException:
        with suppress(FileExistsError), record_file.open("x") as file:
            file.write(f"process {rank()} failed: {traceback.format_exc()}")
        raise


def _describe(record_file: Path, failures: dict[int, ProcessFailure]) -> str:
    """Why a job failed: the first traceback, and what was killed without leaving one."""
    lines = [
        f"process {process} failed: {failure.message}"
        for process, failure in failures.items()
        if failure.exitcode == -signal.SIGKILL or not record_file.exists()
    ]
    return "\n".join([*lines, record_file.read_text()] if record_file.exists() else lines)
