"""Functions that tests run in several processes: a spawned process imports them from here.

What is slow to import is imported where it is used, for the functions that do without it.
"""

import os
import signal
import sys
from typing import TYPE_CHECKING, Any

import torch

from matpac import distributed

if TYPE_CHECKING:
    from matpac.pretrain import Job


def some_updates(job: "Job", count: int) -> dict[str, Any]:
    """Updates on this process's part of the batches. Returns: losses, diagnostics, all tensors."""
    from matpac.pretrain import prepare
    from matpac.schedules import Plan

    batches, trainer = prepare(job)
    plan = Plan(job.run, batches.sampler.epoch_length / batches.batch_size, batches.steps(6))
    measured = []
    for step in range(count):
        values = trainer.step(batches[step], step, plan.at(step), measure=True)
        measured.append([*values.losses.tolist(), *values.collapse.tolist()])
    state = trainer.state()
    tensors = {
        f"{part}.{name}": tensor.tolist()
        for part in ("student", "teacher", "center")
        for name, tensor in state[part].items()
    }
    return {"measured": measured, "tensors": tensors}


def several_things(jobs: dict[str, "Job"], count: int, whole: "Job") -> dict[str, Any]:
    """What needs several processes, at the price of one start."""
    from matpac.pretrain import train

    rank = float(distributed.rank())
    return {
        "world_size": distributed.world_size(),
        "mean": distributed.all_mean(torch.tensor([1 + 2 * rank, -rank])).tolist(),
        "any": [distributed.any_rank(rank == 1), distributed.any_rank(False)],
        "gathered": distributed.gather({"rank": rank}),
        "wrapped": type(distributed.replicate(torch.nn.Linear(1, 1))).__name__,
        "updates": {name: some_updates(job, count) for name, job in jobs.items()},
        "train": train(whole),
    }


def second_fails(message: str) -> None:
    """The second process raises, or is killed without a message, while the first waits for it."""
    if distributed.rank() == 1:
        if not message:
            os.kill(os.getpid(), signal.SIGKILL)
        raise LookupError(message)
    while True:
        distributed.all_mean(torch.zeros(1))


def all_stop(message: str) -> None:
    """Every process is told to stop."""
    raise KeyboardInterrupt(message)


if __name__ == "__main__":  # as torchrun starts it: the function's name, then its arguments
    distributed.launch(globals()[sys.argv[1]], *sys.argv[2:])
