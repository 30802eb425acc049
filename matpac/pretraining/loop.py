"""The training loop (MATPAC Sec. IV-A): one `Job`, from its newest state to its end.

`Trainer.step` is the method. Ctrl-C and SIGTERM stop the loop at a step boundary with its state
saved; a resumed run sees the batches and random numbers that it would have seen.
"""

from collections.abc import Generator
from contextlib import closing, nullcontext
from typing import Any

from matpac.core import distributed, files, threads
from matpac.core.progress import Progress
from matpac.core.signals import Interrupted, interruption
from matpac.pretraining import states
from matpac.pretraining.batches import Batch, Batches, loader
from matpac.pretraining.board import FOLDER, Board
from matpac.pretraining.checkpoint import Checkpoints
from matpac.pretraining.logs import Logs, LogWriter
from matpac.pretraining.monitor import Monitor
from matpac.pretraining.run import Job, finish, prepare, write_encoder
from matpac.pretraining.schedules import Plan
from matpac.pretraining.throughput import metered
from matpac.pretraining.trainer import Trainer


def train(job: Job) -> dict[str, Any]:
    """Trains one run from its newest state, or from scratch, to the end; on every process.

    Returns: what the last step measured, on the first process.
    Raises: RuntimeError after saving the state for a loss that is not finite, and for a collapse
        if it is to stop at one; Interrupted after saving the state;
        OSError if the log or a state could not be written.
    """
    with threads.limited(job.run.pretrain.threads):
        return _train(job)


def _train(job: Job) -> dict[str, Any]:
    batches, trainer = prepare(job)
    pretrain, main = job.run.pretrain, distributed.rank() == 0
    total_steps = batches.steps(pretrain.epochs)
    plan = Plan(job.run, batches.sampler.epoch_length / pretrain.batch_size, total_steps)
    logs = Logs(job.checkpoints)
    checkpoints = Checkpoints(
        job.checkpoints,
        job.identity,
        keep=pretrain.keep_checkpoints,
        every_s=pretrain.checkpoint_every_s,
    )
    first, data = resume(job, batches, trainer, checkpoints, logs)
    on_the_way = job.on_the_way(total_steps) if main else {}
    for step, folder in on_the_way.items():
        if step < first and not folder.exists():
            print(f"{job.name}: no encoder at {folder.name} of training, which is beyond it")
    shown = main and pretrain.tensorboard
    with (
        closing(data),
        checkpoints,
        interruption() as interrupted,
        Progress(
            total_steps, f"pretrain {job.name}", unit="step", initial=first, enabled=main
        ) as progress,
        metered(job, updates=total_steps - first, progress=progress) as updated,
        Board(job.checkpoints / FOLDER, first) if shown else nullcontext() as board,
    ):
        writer = LogWriter(logs if main else None, plan.steps_per_epoch, board)
        monitor = Monitor(job.name, trainer, batches, plan, progress)
        for step, batch in enumerate(data, start=first):
            if step in on_the_way:
                write_encoder(job, trainer, on_the_way[step])
            at = plan.at(step)
            last = step == total_steps - 1
            measure = step % pretrain.diagnostics_every == 0 or last
            writer.add(step, at, trainer.step(batch, step, at, measure=measure))
            stop, due = distributed.all_max(interrupted(), main and checkpoints.due())
            saving = due or last or stop
            failure = monitor.look(writer.flush(everything=bool(saving)), writer.note)
            progress.update()
            updated()
            if saving or failure:
                save(batches, trainer, checkpoints, logs, failure.step if failure else step + 1)
            if last or stop or failure:
                checkpoints.wait()
                distributed.wait_for_all()  # the end of one process would end the first's writing
            if failure:
                raise RuntimeError(f"{job.name}: {failure.reason}\nits state is saved")
            if stop:
                raise Interrupted(f"{job.name}: stopped after step {step}; state saved", stop)
    return finish(job, trainer, logs, batches, total_steps) if main else {}


def resume(
    job: Job, batches: Batches, trainer: Trainer, checkpoints: Checkpoints, logs: Logs
) -> tuple[int, Generator[Batch, None, None]]:
    """Loads the newest state, or the chosen one, if there is one, and says so.

    Returns: the step to go on with, and the batches from there.
    Raises: as `Checkpoints.load`; ValueError if the state is of another order of clips.
    """
    main = distributed.rank() == 0
    if main:
        for folder in (job.encoder, job.logs):
            files.remove_temporaries(folder)
    state = checkpoints.load(job.chosen)
    first = state["step"] if state else 0
    if main:
        logs.cut(first)
        if state:
            logs.tell_changes(first, state.get("logs", {}))
            print(f"{job.name}: resuming at step {first}")
        elif others := checkpoints.others():
            print(
                f"{job.name}: starting afresh; {len(others)} training state(s) of other "
                "parameters, data or code are left alone (make clean-checkpoints removes them)"
            )
    total_steps = batches.steps(job.run.pretrain.epochs)
    if state:
        if state["order"] != (order := place(batches, first)):
            raise ValueError(f"order of clips: got {state['order']}, allowed: {order}")
        trainer.load_state(state)
    data = loader(batches, first=first, last=total_steps, workers=job.run.pretrain.workers)
    if state:
        # After the loader, which draws from torch's generator when it is made. Training does not.
        states.set_random_state(state["random"][distributed.rank() % len(state["random"])])
    return first, data


def place(batches: Batches, step: int) -> dict[str, int]:
    """Where in the endless order of clips update ``step`` begins, whatever the processes."""
    return {
        "seed": batches.seed,
        "epoch_length": batches.sampler.epoch_length,
        "batch_size": batches.batch_size,
        "position": step * batches.batch_size,
    }


def save(
    batches: Batches, trainer: Trainer, checkpoints: Checkpoints, logs: Logs, step: int
) -> None:
    """Begins to write the state before update ``step``; all processes call it together."""
    random = distributed.gather(states.random_state())
    if distributed.rank() == 0:
        state = trainer.state() | {"order": place(batches, step), "random": random}
        state["logs"] = logs.digests(step)
        checkpoints.save(state, step, after=logs.paths())
