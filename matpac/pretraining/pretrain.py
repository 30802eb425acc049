"""The training loop (MATPAC Sec. IV-A): one run of ``params.yaml`` -> a frozen encoder.

A run goes from its newest training state, or from scratch, to its last update; `Trainer.step` is
the method. Ctrl-C and SIGTERM stop it at a step boundary with its state saved.
``matpac pretrain RUN`` is what torchrun and batch systems start.
"""

import json
from collections.abc import Generator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from matpac.core import distributed, files, paths, section
from matpac.core.progress import Progress
from matpac.core.signals import Interrupted, interruption
from matpac.pretraining import config, states
from matpac.pretraining.batches import Batch, Batches, loader
from matpac.pretraining.checkpoint import Checkpoints, identity
from matpac.pretraining.config import PretrainParams
from matpac.pretraining.logs import Logs, LogWriter, write_curve
from matpac.pretraining.monitor import Watch
from matpac.pretraining.plan import Plan
from matpac.pretraining.run import Job, finish, prepare
from matpac.pretraining.throughput import Meter
from matpac.pretraining.trainer import Trainer


def train(job: Job) -> dict[str, Any]:
    """Trains one run from its newest state, or from scratch, to the end; on every process.

    Returns: what the last step measured, on the first process.
    Raises: RuntimeError after saving the state for a loss that is not finite, and for a collapse
        if it is to stop at one; Interrupted after saving the state;
        OSError if the log or a state could not be written.
    """
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
    writer = LogWriter(logs if main else None, plan.steps_per_epoch)
    with (
        closing(data),
        checkpoints,
        interruption() as interrupted,
        Progress(
            total_steps, f"pretrain {job.name}", unit="step", initial=first, enabled=main
        ) as progress,
        Meter(job, updates=total_steps - first, progress=progress) as meter,
    ):
        watch = Watch(job.name, trainer, batches, plan, progress)
        for step, batch in enumerate(data, start=first):
            at = plan.at(step)
            last = step == total_steps - 1
            measure = step % pretrain.diagnostics_every == 0 or last
            writer.add(step, at, trainer.step(batch, step, at, measure=measure))
            stop, due = distributed.all_max(interrupted(), main and checkpoints.due())
            saving = due or last or stop
            lost = watch.look(writer.flush(everything=bool(saving)), writer.note)
            progress.update()
            meter.update()
            if saving or lost:
                save(batches, trainer, checkpoints, logs, lost.step if lost else step + 1)
            if last or stop or lost:
                checkpoints.wait()
                distributed.wait_for_all()  # the end of one process would end the first's writing
            if lost:
                raise RuntimeError(f"{job.name}: {lost.reason}\nits state is saved")
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
        checkpoints.save(state, step, after=logs.paths())


def pretrain(
    run: str, params: PretrainParams | dict[str, Any], *, checkpoint: Path | None = None
) -> dict[str, dict[str, Any]]:
    """The ``pretrain`` stage: trains one run, once per seed.

    Writes, below ``data/<profile>``: ``pretrain/<run>/seed_<seed>/model.safetensors`` with its
    ``config.json``, ``logs/<run>/seed_<seed>/{log,diagnostics}.csv``,
    ``metrics/pretrain/<run>.json`` and, for ``dvc plots``,
    ``plots/{losses,collapse}/<run>.csv`` of the first seed.

    Args:
        run: its name in ``runs``.
        params: the sections of `matpac.params.config.PretrainParams`.
        checkpoint: the training state to go on from; of several seeds, for the one it belongs to.
            None: each goes on from its newest.
    Returns: ``seed_<seed>`` -> what the last step measured, the content of the metrics file.
    Raises: ValueError for bad parameters, and for a checkpoint of another run, naming the
        differences; FileNotFoundError if the ``logmel`` stage has not run.
    """
    params = section.parse(PretrainParams, params)
    small = paths.small(params)
    jobs = jobs_of(run, params)
    if checkpoint is not None:
        jobs = choose(jobs, checkpoint)
    results = {}
    for seed, job in jobs.items():
        processes = distributed.num_processes(job.run.pretrain.batch_size)
        results[f"seed_{seed}"] = distributed.launch(train, job, num_processes=processes)
    if not all(results.values()):
        return results  # under torchrun: another process is the first, and writes
    files.write_json(small / "metrics" / "pretrain" / f"{run}.json", results)
    logs = next(iter(jobs.values())).logs
    for log, kind in (("log", "losses"), ("diagnostics", "collapse")):
        write_curve(logs / f"{log}.csv", small / "plots" / kind / f"{run}.csv")
    return results


def jobs_of(run: str, params: PretrainParams) -> dict[int, Job]:
    """Seed -> training run. Raises: as `pretrain`."""
    seeds = config.seeds(params, run)
    small = paths.small(params)
    index_file = small / "logmel" / "pretraining.json"
    if not index_file.exists():
        raise FileNotFoundError(f"{index_file}: missing; run the stage logmel@{params.profile}")
    index = json.loads(index_file.read_text())
    jobs = {}
    for seed in seeds:
        resolved = config.resolve(params, run, seed=seed)
        own = identity(resolved, index)
        jobs[seed] = Job(
            name=run if len(seeds) == 1 else f"{run} seed {seed}",
            run=resolved,
            index=index,
            stores=paths.bulk(params),
            identity=own,
            checkpoints=paths.bulk(params) / "checkpoints" / run / own.fingerprint,
            encoder=small / "pretrain" / run / f"seed_{seed}",
            logs=small / "logs" / run / f"seed_{seed}",
        )
    return jobs


def choose(jobs: dict[int, Job], checkpoint: Path) -> dict[int, Job]:
    """The same jobs, the one that the training state belongs to going on from it.

    Raises: ValueError listing what differs if it belongs to none; as `states.describe`.
    """
    given = states.describe(checkpoint).identity
    problems = []
    for seed, job in jobs.items():
        if not (differences := job.identity.differences(given)):
            return jobs | {seed: replace(job, chosen=checkpoint)}
        problems.append("\n  ".join([f"{checkpoint}: not a state of {job.name}:", *differences]))
    raise ValueError("\n".join(problems))
