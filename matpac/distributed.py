"""Several processes, or one: the only module that imports ``torch.distributed``.

On one process every function is the identity, so callers need no ``if``. `launch` starts a library
function on all GPUs of this machine; under torchrun or Slurm, where the processes exist already, it
joins them.
"""

import os
from collections.abc import Callable
from pathlib import Path
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


def default_world_size() -> int:
    """All GPUs of this machine; one process without any."""
    return max(1, torch.cuda.device_count())


def all_mean(tensor: Tensor) -> Tensor:
    """Mean of a tensor over all processes, each counting alike."""
    if world_size() == 1:
        return tensor
    tensor = tensor.clone()
    dist.all_reduce(tensor)
    return tensor / world_size()


def replicate(module: nn.Module) -> nn.Module:
    """The module, wrapped so that gradients are averaged over processes (unwrapped when alone)."""
    if world_size() == 1:
        return module
    ids = [device().index] if device().type == "cuda" else None
    return DistributedDataParallel(module, device_ids=ids, gradient_as_bucket_view=True)


def launch(function: Callable[..., Any], *args: object, num_processes: int | None = None) -> Any:
    """Runs ``function(*args)`` in every process of the job.

    Args:
        function: importable from the library; one defined in a notebook cannot be sent.
        num_processes: on this machine; default: one per GPU.
    Returns: what it returned on the first process of this machine.
    Raises: RuntimeError with the traceback of the process that failed first, and a line of each
        that failed with it.
    """
    if "RANK" in os.environ:
        return _worker(function, *args)
    num_processes = num_processes or default_world_size()
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
    try:
        return elastic_launch(config, _worker)(function, *args)[0]
    except ChildFailedError as error:
        raise RuntimeError(_describe(error.failures)) from None


@record
def _worker(function: Callable[..., Any], *args: object) -> Any:
    """One process of a job: joins the group, works, leaves it."""
    if torch.cuda.is_available():
        torch.cuda.set_device(device())
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    result = function(*args)
    # Not after a failure: that makes the others fail before the cause is on record, or hangs.
    dist.destroy_process_group()
    return result


def _describe(failures: dict[int, ProcessFailure]) -> str:
    """Of several failed processes the first one's traceback, and the last line of the others'."""

    # Torch records whole seconds, but the death of one fails the others within milliseconds.
    def recorded(process: int) -> float:
        path = Path(failures[process].error_file)
        return path.stat().st_mtime if path.is_file() else float("inf")  # killed: no record

    first, *others = sorted(failures, key=recorded)
    lines = [f"process {first} failed: {_traceback(failures[first].message)}"]
    for process in others:
        last = _traceback(failures[process].message).strip().splitlines()[-1:]
        lines.append(f"process {process} failed too: {' '.join(last)}")
    return "\n".join(lines)


def _traceback(message: Any) -> str:
    """Python's own traceback out of what torch's launcher recorded of a failure."""
    if isinstance(message, dict):
        return message.get("extraInfo", {}).get("py_callstack") or str(message.get("message"))
    return str(message)
