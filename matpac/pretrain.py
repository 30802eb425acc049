"""The training loop (MATPAC Sec. IV-A): one run of ``params.yaml`` -> a frozen encoder.

A run goes from its newest training state, or from scratch, to its last update; `Trainer.step` is
the method. Ctrl-C and SIGTERM stop it at a step boundary with its state saved.
"""

import json
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from matpac import config, distributed, files
from matpac.batches import Batches, Corpus, loader
from matpac.checkpoint import Checkpoints, fingerprint
from matpac.clips import Store
from matpac.config import PretrainParams, ResolvedRun
from matpac.embed import frozen, save_encoder
from matpac.logs import LogWriter, write_curve
from matpac.progress import Progress
from matpac.schedules import Plan
from matpac.trainer import Trainer


@dataclass(frozen=True)
class Job:
    """One training run as every process gets it."""

    name: str
    run: ResolvedRun
    index: dict[str, Any]
    """Content of ``pretraining.json``: stores, weights, front end, mean and std."""
    stores: Path
    """Folder that the stores' paths are relative to."""
    checkpoints: Path
    """Folder of its training states and growing logs."""
    encoder: Path
    """The file to write at the end."""
    logs: Path
    """Folder for the finished logs."""


def train(job: Job) -> dict[str, Any]:
    """Trains one run from its newest state, or from scratch, to the end; on every process.

    Returns: what the last step measured, on the first process.
    Raises: RuntimeError for a loss that is not finite; KeyboardInterrupt after saving the state.
    """
    batches, trainer = prepare(job)
    pretrain = job.run.pretrain
    total_steps = batches.steps(pretrain.epochs)
    plan = Plan(job.run, batches.sampler.epoch_length / pretrain.batch_size, total_steps)
    main = distributed.rank() == 0
    checkpoints = Checkpoints(job.checkpoints, keep=pretrain.keep_checkpoints)
    first = resume(job, trainer, checkpoints)
    writer = LogWriter(checkpoints if main else None, plan.steps_per_epoch)
    saved = time.monotonic()
    data = loader(batches, first=first, last=total_steps, workers=pretrain.workers)
    with (
        interruption() as interrupted,
        Progress(
            total_steps, f"pretrain {job.name}", unit="step", initial=first, enabled=main
        ) as progress,
    ):
        for step, batch in enumerate(data, start=first):
            at = plan.at(step)
            last = step == total_steps - 1
            measure = step % pretrain.diagnostics_every == 0 or last
            writer.add(step, at, trainer.step(batch, step, at, measure=measure))
            progress.update(note=writer.note)
            due = time.monotonic() - saved >= pretrain.checkpoint_every_s
            stop = distributed.any_rank(interrupted())
            if main and (due or last or stop):
                writer.flush()
                checkpoints.save(trainer.state() | {"step": step + 1}, step + 1)
                saved = time.monotonic()
            if stop:
                raise KeyboardInterrupt(f"{job.name}: stopped after step {step}; state saved")
    writer.flush()
    return finish(job, trainer, checkpoints, batches, total_steps) if main else {}


def prepare(job: Job) -> tuple[Batches, Trainer]:
    """Opens the stores and builds the networks."""
    index, run = job.index, job.run
    corpora = [
        Corpus(Store(job.stores / c["store"], index_sha256=c["index_sha256"]), c["weight"])
        for c in index["corpora"]
    ]
    trainer = Trainer(run, index["front_end"]["num_mels"], **normalisation(index))
    batches = Batches(
        corpora,
        batch_size=run.pretrain.batch_size,
        crop_frames=run.model.crop_frames,
        num_patches=trainer.student.patches.num_patches,
        seed=run.pretrain.seed,
        rank=distributed.rank(),
        world_size=distributed.world_size(),
        same_masks=run.pretrain.same_masks_on_all_ranks,
    )
    return batches, trainer


def normalisation(index: dict[str, Any]) -> dict[str, float]:
    """Mean and std of the pretraining corpora's log-mels."""
    return {name: index["normalisation"][name] for name in ("mean", "std")}


def resume(job: Job, trainer: Trainer, checkpoints: Checkpoints) -> int:
    """Loads the newest state, if there is one, and says so. Returns: the step to go on with."""
    state = checkpoints.load()
    main = distributed.rank() == 0
    if main:
        checkpoints.cut_logs(state["step"] if state else 0)
    if state is None:
        if main and (others := checkpoints.others()):
            print(
                f"{job.name}: starting afresh; {len(others)} training state(s) of other "
                "parameters, data or code are left alone (make clean-checkpoints removes them)"
            )
        return 0
    trainer.load_state(state)
    if main:
        print(f"{job.name}: resuming at step {state['step']}")
    return state["step"]


def finish(
    job: Job, trainer: Trainer, checkpoints: Checkpoints, batches: Batches, total_steps: int
) -> dict[str, Any]:
    """Writes the encoder and the logs to the stage's outputs. Returns: the last measurements."""
    index = job.index
    encoder = frozen(trainer.student, index["front_end"], **normalisation(index))
    save_encoder(encoder.cpu(), job.encoder)
    metrics: dict[str, Any] = {
        "steps": total_steps,
        "clips": batches.num_usable,
        "clips_shorter_than_a_crop": batches.num_clips - batches.num_usable,
    }
    for name in ("log", "diagnostics"):
        if checkpoints.log(name).exists():
            with files.replacing(job.logs / f"{name}.csv") as temporary:
                shutil.copyfile(checkpoints.log(name), temporary)
            header, *_, last = checkpoints.log(name).read_text().splitlines()
            values = zip(header.split(","), last.split(","), strict=True)
            metrics |= {key: float(value) for key, value in values if key != "step"}
    return metrics


@contextmanager
def interruption() -> Iterator[Any]:
    """Ctrl-C and SIGTERM end the loop at the next step boundary, where a state can be saved.

    Yields: a function that says whether one came. Outside a main thread, where no signal arrives,
    it never does.
    """
    received: list[int] = []

    def receive(number: int, _: FrameType | None) -> None:
        received.append(number)

    previous = {}
    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            previous[number] = signal.signal(number, receive)
    except ValueError:
        pass
    try:
        yield lambda: bool(received)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def pretrain(run: str, params: PretrainParams | dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The ``pretrain`` stage: trains one run, once per seed.

    Writes, below ``data/<profile>``: ``pretrain/<run>/seed_<seed>/encoder.safetensors`` with its
    ``.json``, ``logs/<run>/seed_<seed>/{log,diagnostics}.csv``, ``metrics/pretrain/<run>.json``
    and, for ``dvc plots``, ``plots/{losses,collapse}/<run>.csv`` of the first seed.

    Args:
        run: its name in ``runs``.
        params: the sections of `matpac.config.PretrainParams`.
    Returns: ``seed_<seed>`` -> what the last step measured, the content of the metrics file.
    Raises: ValueError for bad parameters; FileNotFoundError if the ``logmel`` stage has not run.
    """
    params = config.parse(PretrainParams, params)
    seeds = config.seeds(params, run)
    small = config.small(params)
    index_file = small / "logmel" / "pretraining.json"
    if not index_file.exists():
        raise FileNotFoundError(f"{index_file}: missing; run the stage logmel@{params.profile}")
    text = index_file.read_text()
    results = {}
    for seed in seeds:
        resolved = config.resolve(params, run, seed=seed)
        folder = config.bulk(params) / "checkpoints" / run / fingerprint(resolved, text)
        job = Job(
            name=run if len(seeds) == 1 else f"{run} seed {seed}",
            run=resolved,
            index=json.loads(text),
            stores=config.bulk(params),
            checkpoints=folder,
            encoder=small / "pretrain" / run / f"seed_{seed}" / "encoder.safetensors",
            logs=small / "logs" / run / f"seed_{seed}",
        )
        processes = distributed.num_processes(resolved.pretrain.batch_size)
        results[f"seed_{seed}"] = distributed.launch(train, job, num_processes=processes)
    if not all(results.values()):
        return results  # under torchrun: another process is the first, and writes
    files.write_json(small / "metrics" / "pretrain" / f"{run}.json", results)
    logs = small / "logs" / run / f"seed_{seeds[0]}"
    for log, kind in (("log", "losses"), ("diagnostics", "collapse")):
        write_curve(logs / f"{log}.csv", small / "plots" / kind / f"{run}.csv")
    return results
