"""Functions that tests run in several processes: a spawned process imports them from here.

What is slow to import is imported where it is used, for the functions that do without it.
"""

import os
import shutil
import signal
import sys
import time
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import torch

from matpac.core import distributed

if TYPE_CHECKING:
    from matpac.pretraining.run import Job


def some_updates(job: "Job", count: int) -> dict[str, Any]:
    """Updates on this process's part of the batches. Returns: losses, diagnostics, all tensors."""
    from matpac.pretraining.run import prepare
    from matpac.pretraining.schedules import Plan

    batches, trainer = prepare(job)
    plan = Plan(job.run, batches.sampler.epoch_length / batches.batch_size, batches.steps(6))
    measured = []
    for step in range(count):
        values = trainer.step(batches[step], step, plan.at(step), measure=True)
        measured.append([*values.losses.tolist(), *values.collapse.values().values()])
    state = trainer.state()
    tensors = {
        f"{part}.{name}": tensor.tolist()
        for part in ("student", "teacher", "center")
        for name, tensor in state[part].items()
    }
    return {"measured": measured, "tensors": tensors}


def lost_run(job: "Job", step: int) -> list[tuple[str, str]]:
    """One clip of the last process is spoiled in one update. Returns: what each says, and it."""
    from matpac.pretraining.batches import Batch, Batches
    from matpac.pretraining.loop import train

    whole, spoiled = Batches.__getitem__, []

    def spoil(self: Batches, update: int) -> Batch:
        batch = whole(self, update)
        if update == step and distributed.rank() == distributed.world_size() - 1:
            batch.logmel[0, 2, 3] = float("inf")
            spoiled[:] = self.names(update)[:1]
        return batch

    Batches.__getitem__ = spoil
    try:
        train(job)
        said = ""
    except RuntimeError as error:
        said = str(error)
    finally:
        Batches.__getitem__ = whole
    return distributed.gather((said, "".join(spoiled)))


def resumed(whole: "Job", again: "Job", *, step: int) -> dict[str, Any]:
    """The same run elsewhere, from the first one's state after so many updates."""
    from matpac.pretraining.loop import train

    if distributed.rank() == 0:
        again.checkpoints.mkdir(parents=True)
        for pattern in (f"state-{step:09d}.*", "*.csv"):
            for path in whole.checkpoints.glob(pattern):
                shutil.copy(path, again.checkpoints)
    return train(again)


def gradients(replica: torch.nn.Module) -> list[list[float]]:
    """Of every process: d(3 (rank + 1) w)/dw within `no_sync`, then with as much on top outside."""
    found = []
    for within in (distributed.no_sync(replica), nullcontext()):
        with within:
            replica(torch.full((1, 1), 3.0 * (distributed.rank() + 1))).backward()
        found.append(next(replica.parameters()).grad.item())
    return distributed.gather(found)


def several_things(
    jobs: dict[str, "Job"], count: int, whole: "Job", again: "Job", lost: tuple["Job", int]
) -> dict[str, Any]:
    """What needs several processes, at the price of one start."""
    from matpac.pretraining.loop import train

    rank = float(distributed.rank())
    return {
        "world_size": distributed.world_size(),
        "mean": distributed.all_mean(torch.tensor([1 + 2 * rank, -rank])).tolist(),
        "largest": distributed.all_max(rank == 1, 0),
        "gathered": distributed.gather({"rank": rank}),
        "gradients": gradients(distributed.replicate(torch.nn.Linear(1, 1, bias=False))),
        "updates": {name: some_updates(job, count) for name, job in jobs.items()},
        "train": train(whole),
        "resumed": resumed(whole, again, step=3),
        "lost": lost_run(*lost),
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


def is_there(_: str) -> None:
    """All are."""
    print(f"{distributed.gather(distributed.rank())} are there", flush=True)


if __name__ == "__main__":  # as torchrun starts it: the functions' names, then their arguments
    for name in sys.argv[1].split(","):
        distributed.launch(globals()[name], *sys.argv[2:])
        time.sleep(int(os.environ["RANK"]))  # the second comes late to the next
