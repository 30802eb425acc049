"""Several processes, or one: the only module that imports ``torch.distributed``.

On one process every function is the identity, so callers need no ``if``. `launch` starts a library
function on all GPUs of this machine; under torchrun, where the processes exist already, it joins
them. On several machines, start one torchrun on each (``slurm/pretrain.sbatch``).
"""

import itertools
import multiprocessing
import os
import signal
import time
import uuid
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.elastic.multiprocessing.errors import (
    ChildFailedError,
    record,
)
from torch.distributed.launcher.api import LaunchConfig, elastic_launch
from torch.nn.parallel import DistributedDataParallel

from matpac.core.signals import Interrupted, forwarding, signal_of

TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
"""Variables that torchrun gives every process it starts."""
COUNTS = ("WORLD_SIZE", "SLURM_STEP_NUM_TASKS", "SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE")
"""Variables with which other launchers say that this process is one of several."""
_GROUPS = itertools.count()


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
    """One per GPU of this machine, as many as divide the batch; one without any GPU.

    Micro-batches have no say: a process's last one may be smaller, and counts by its clips.
    """
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


def all_max(*values: int) -> list[int]:
    """The largest of each value over all processes, which all get.

    They wait for each other here, but not for their GPUs: the values stay on the CPU.
    """
    if world_size() == 1:
        return list(values)
    largest = torch.tensor(values, dtype=torch.int64)
    dist.all_reduce(largest, dist.ReduceOp.MAX)
    return largest.tolist()


def gather(value: Any) -> list[Any]:
    """The picklable values of all processes, in their order, on each of them."""
    values = [value] * world_size()
    if world_size() > 1:
        dist.all_gather_object(values, value)
    return values


def wait_for_all() -> None:
    """Waits until every process has come here.

    The end of one process makes its launcher end the others, so all have to be done before.
    """
    all_max(0)


def replicate(module: nn.Module, *inputs: Any) -> nn.Module:
    """The module, wrapped so that gradients are averaged over processes (unwrapped when alone).

    Gradients live in the buckets that are exchanged, which saves one copy of them. ``static_graph``
    is left off: in torch 2.11 it fails with an internal error when the first micro-batch is inside
    `no_sync`, and what it would save, the search for unused parameters, is off anyway.

    Args:
        inputs: any that the module takes; it gives several tensors. DDP fills its buckets anew
            after the first backward pass, and with them changes the order in which three or more
            processes add up a gradient. Done here, with these, the first update of a resumed run
            adds up as that of an uninterrupted one.
    """
    if world_size() == 1:
        return module
    ids = [device().index] if device().type == "cuda" else None
    replica = DistributedDataParallel(module, device_ids=ids, gradient_as_bucket_view=True)
    if inputs:
        torch.stack([output.sum() for output in replica(*inputs)]).sum().backward()
        module.zero_grad(set_to_none=True)
    return replica


def no_sync(replica: nn.Module) -> AbstractContextManager:
    """Forward and backward passes within it add up gradients in each process by itself.

    The next passes outside average what has gathered over the processes: once per optimiser step,
    not once per micro-batch.

    Args: replica: what `replicate` gave.
    """
    return replica.no_sync() if isinstance(replica, DistributedDataParallel) else nullcontext()


def is_joined() -> bool:
    """Whether torchrun started this process as one of a group.

    Raises: RuntimeError if another launcher started several, or torchrun's variables are not all
        there: each process would train a model by itself.
    """
    missing = [name for name in TORCHRUN if name not in os.environ]
    if not missing:
        return True
    several = [name for name in COUNTS if int(os.environ.get(name) or 1) > 1]
    if several or "RANK" in os.environ:
        found = [f"{name}={os.environ[name]}" for name in (*several, "RANK") if name in os.environ]
        raise RuntimeError(
            f"{', '.join(found)}, but not {', '.join(missing)}: this process seems to be one of "
            "several that do not know each other. Start one torchrun per machine "
            "(slurm/pretrain.sbatch), or unset the variable to run alone"
        )
    return False


def launch(function: Callable[..., Any], *args: object, num_processes: int = 1) -> Any:
    """Runs ``function(*args)`` in every process of the job.

    Args:
        function: importable from the library; one defined in a notebook cannot be sent.
        num_processes: on this machine, unless torchrun has started them already.
    Returns: what it returned on the first process of this machine.
    Raises: RuntimeError with the traceback of the process that failed first, or the signal that
        killed one, and as `is_joined`; Interrupted if Ctrl-C or SIGTERM ended the processes.
    """
    if is_joined():
        return _worker(function, *args)
    if num_processes == 1:
        return function(*args)
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=num_processes,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
        start_method="spawn",
        # Not SIGINT and SIGTERM, after which torch gives the processes 30 seconds, however large
        # their state is; not SIGHUP, which nohup means to be ignored.
        signals_to_handle="SIGQUIT",
    )
    try:
        with forwarding():
            result = elastic_launch(config, _spawned)(function, *args)[0]
    except ChildFailedError as error:
        process, failure = error.get_first_failure()
        if number := signal_of(failure.exitcode):
            raise Interrupted("stopped before training began", number) from None
        message = failure.message  # a mapping where `record` could write one
        if isinstance(message, dict):
            message = message["extraInfo"]["py_callstack"]
        raise RuntimeError(f"process {process} failed: {message}") from None
    if isinstance(result, KeyboardInterrupt):
        raise result
    return result


@record
def _worker(function: Callable[..., Any], *args: object) -> Any:
    """One process of a job: joins the group, works, leaves it."""
    if torch.cuda.is_available():
        torch.cuda.set_device(device())
    else:  # processes that all use all cores only wait for each other
        local = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
        torch.set_num_threads(max(1, torch.get_num_threads() // local))
    store, own_rank, size = next(dist.rendezvous("env://"))
    # Each group of these processes under a name of its own: torchrun's store still holds where the
    # others were in the one before.
    store = dist.PrefixStore(f"group {next(_GROUPS)}", store)
    # Flags and Python objects are exchanged between CPUs: nobody waits for a GPU.
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    # Nobody leaves before all are in: gloo takes one that left at once for one that died.
    os.environ["TORCH_DIST_INIT_BARRIER"] = "1"
    dist.init_process_group(backend, store=store, rank=own_rank, world_size=size)
    try:
        result = function(*args)
    except Exception:
        _give_way()
        raise
    except KeyboardInterrupt:  # all stop together (`all_max`), and leave without an abort
        dist.destroy_process_group()
        raise
    # Not after a failure: leaving in the middle of the others' work may hang.
    dist.destroy_process_group()
    return result


def _give_way() -> None:
    """Lets the launcher see the process that was killed, or failed first, before this one.

    The death of one fails the others within milliseconds, and a launcher, which looks now and then,
    takes the first that it sees for the cause. It ends those that wait here.
    """
    first = False
    with suppress(RuntimeError):  # the store went down with its machine; the cause is raised anyway
        first = dist.distributed_c10d._get_default_store().add("failures", 1) == 1
    time.sleep(0.5 if first else 10)


def _spawned(function: Callable[..., Any], *args: object) -> Any:
    """A process that `launch` started. Returns: also the exception that stopped it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # as for SIGTERM, ends even a wait within torch
    try:
        return _worker(function, *args)
    except KeyboardInterrupt as stopped:
        if multiprocessing.parent_process().is_alive():
            return stopped  # torch's launcher waits for the results of all processes
        raise
