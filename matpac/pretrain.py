"""The training loop (MATPAC Sec. III and IV-A): one run of ``params.yaml`` -> a frozen encoder.

A step reads as the method: the teacher encodes the masked patches, the student predicts them from
the visible ones, two losses, backward, optimiser, then EMA of the teacher and of the centre.

The released code updates teacher and centre inside the forward pass, before the optimiser step; as
in DINO and M2D they come after it here, with decays, temperature and the skip of update 0 taken at
the same index.
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
from typing import Any, NamedTuple

import pandas as pd
import torch
from torch import Tensor, nn

from matpac import config, diagnostics, distributed, files, losses, schedules
from matpac.batches import Batch, Batches, Corpus, loader
from matpac.checkpoint import Checkpoints, fingerprint
from matpac.clips import Store
from matpac.config import PretrainParams, ResolvedRun
from matpac.embed import frozen, save_encoder
from matpac.heads import Center, student_log_distribution, teacher_distribution
from matpac.logmel import normalise
from matpac.masking import random_mask
from matpac.model import Student
from matpac.progress import Progress
from matpac.teacher import Teacher

LOG = [
    "step",
    "epoch",
    "learning_rate",
    "encoder_ema_decay",
    "head_ema_decay",
    "teacher_temp",
    "prediction_loss",
    "classification_loss",
    "total_loss",
    "gradient_norm",
]
DIAGNOSTICS = ["step", *diagnostics.NAMES]
STEPS_BETWEEN_FLUSHES = 25
"""Losses stay on the device this long, so that logging does not make it wait every step."""


class Scheduled(NamedTuple):
    """The values of one update that depend on its index alone."""

    learning_rate: float
    encoder_ema_decay: float
    head_ema_decay: float
    teacher_temp: float


@dataclass(frozen=True)
class Plan:
    """Every schedule of a run, with epochs turned into updates."""

    run: ResolvedRun
    steps_per_epoch: float
    total_steps: int

    def at(self, step: int) -> Scheduled:
        """The values of update ``step``."""
        pretrain, objective = self.run.pretrain, self.run.objective
        scale = pretrain.batch_size / 256 if pretrain.scale_learning_rate else 1.0
        ramp = objective.teacher_temp_ramp_epochs * self.steps_per_epoch
        sharpened = schedules.linear(
            step, objective.teacher_temp_start, objective.teacher_temp, ramp
        )
        return Scheduled(
            learning_rate=schedules.learning_rate(
                step,
                peak=pretrain.learning_rate * scale,
                warmup_steps=int(pretrain.warmup_epochs * self.steps_per_epoch),
                total_steps=self.total_steps,
            ),
            encoder_ema_decay=schedules.linear(step, *pretrain.encoder_ema_decay, self.total_steps),
            head_ema_decay=schedules.linear(step, *pretrain.head_ema_decay, self.total_steps),
            teacher_temp=sharpened if objective.sharpening else objective.student_temp,
        )


class Measured(NamedTuple):
    """What one update says of itself, on the device."""

    losses: Tensor
    """Prediction, classification, total, gradient norm: (4,)."""
    collapse: Tensor | None
    """`diagnostics.NAMES`, at the steps that measure them."""


class Trainer:
    """Student, teacher, centre and optimiser of one process.

    Args:
        run: the resolved configuration.
        num_mels: F; mean, std: normalisation of the log-mels.
    """

    def __init__(self, run: ResolvedRun, num_mels: int, *, mean: float, std: float) -> None:
        torch.manual_seed(run.pretrain.seed)  # alike on every rank: equal initial weights
        self.run, self.mean, self.std = run, mean, std
        self.device = distributed.device()
        self.student = Student(run.model, num_mels)
        self.teacher = Teacher(
            self.student, run.model, copy_student=run.pretrain.teacher_copies_student
        )
        objective = run.objective
        self.center = Center(
            run.model.num_prototypes,
            averages=objective.centering,
            momentum=objective.center_momentum,
        )
        if objective.alpha == 1:
            self.student.head.requires_grad_(False)  # "w/o classification": nothing teaches it
        for module in (self.student, self.teacher, self.center):
            module.to(self.device)
        self.optimizer = make_optimizer(self.student, run)
        self.replica = distributed.replicate(self.student)

    def step(self, batch: Batch, step: int, at: Scheduled, *, measure: bool) -> Measured:
        """One update (MATPAC Sec. III).

        Args:
            batch: this process's crops and mask noise.
            step: its index; at: the schedules there; measure: whether to compute diagnostics.
        Raises: RuntimeError for a loss or gradient that is not finite, before anything changes.
        """
        objective, pretrain = self.run.objective, self.run.pretrain
        logmel = normalise(batch.logmel.to(self.device).float(), self.mean, self.std)
        mask = random_mask(batch.noise.to(self.device), self.run.model.mask_ratio)
        with torch.autocast(
            self.device.type, torch.bfloat16, enabled=pretrain.precision == "bfloat16"
        ):
            with torch.no_grad():
                target = self.teacher(self.student.patches(logmel, mask.masked))
            predicted = self.replica(logmel, mask)
        teacher = teacher_distribution(target.logits, self.center.value, at.teacher_temp)
        student = student_log_distribution(predicted.logits, objective.student_temp)
        prediction = losses.prediction_losses(predicted.latents, target.latents).mean()
        classification = losses.classification_losses(student, teacher).mean()
        total = losses.total_loss(prediction, classification, objective.alpha)

        self.optimizer.zero_grad(set_to_none=True)
        total.backward()
        norm = nn.utils.clip_grad_norm_(self.student.parameters(), pretrain.clip_norm)
        values = distributed.all_mean(torch.stack([prediction, classification, total]).detach())
        measured = torch.cat([values, norm[None]])
        check_finite(measured, step)
        collapse = None
        if measure:
            collapse = diagnostics.collapse(
                predicted,
                target,
                log_student=student,
                teacher=teacher,
                center=self.center.value,
            )
        for group in self.optimizer.param_groups:
            group["lr"] = at.learning_rate
        self.optimizer.step()
        if step > 0:  # the released code's first update leaves the teacher alone
            self.teacher.update(
                self.student,
                encoder_decay=at.encoder_ema_decay,
                head_decay=at.head_ema_decay,
            )
        batch_mean = self.center.batch_mean(target.logits, teacher)
        self.center.update(distributed.all_mean(batch_mean))
        return Measured(measured, collapse)

    def state(self) -> dict[str, Any]:
        """All that a resumed run needs: tensors and plain numbers only."""
        return {
            "student": self.student.state_dict(),
            "teacher": self.teacher.state_dict(),
            "center": self.center.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Restores what `state` gave."""
        for name in ("student", "teacher", "center", "optimizer"):
            getattr(self, name).load_state_dict(state[name])


def check_finite(measured: Tensor, step: int) -> None:
    """Raises: RuntimeError naming the loss or gradient that is not finite."""
    if not measured.isfinite().all():
        named = dict(zip(LOG[-4:], measured.tolist(), strict=True))
        raise RuntimeError(f"step {step}: not finite, nothing updated: {named}")


def make_optimizer(student: Student, run: ResolvedRun) -> torch.optim.AdamW:
    """AdamW with decoupled weight decay, on every trainable tensor or on matrices only."""
    pretrain = run.pretrain
    trainable = [p for p in student.parameters() if p.requires_grad]
    decayed = [p for p in trainable if pretrain.decay_norms_and_biases or p.squeeze().ndim > 1]
    kept = {id(p) for p in decayed}
    groups = [
        {"params": decayed, "weight_decay": pretrain.weight_decay},
        {"params": [p for p in trainable if id(p) not in kept], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=0.0,
        betas=tuple(pretrain.betas),
        eps=pretrain.eps,
        fused=True,
    )


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
            stop = interrupted()
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


class LogWriter:
    """Gathers what steps measured and writes it to the logs now and then.

    Args:
        checkpoints: where the logs are; None writes nothing (ranks other than 0).
        steps_per_epoch: for the epoch column.
    """

    def __init__(self, checkpoints: Checkpoints | None, steps_per_epoch: float) -> None:
        self.checkpoints, self.steps_per_epoch = checkpoints, steps_per_epoch
        self.rows: list[tuple[int, Scheduled, Measured]] = []
        self.note = ""

    def add(self, step: int, at: Scheduled, measured: Measured) -> None:
        """Takes the measurements of one step."""
        self.rows.append((step, at, measured))
        if len(self.rows) == STEPS_BETWEEN_FLUSHES:
            self.flush()

    def flush(self) -> None:
        """Writes what was gathered."""
        rows, self.rows = self.rows, []
        if not rows or self.checkpoints is None:
            return
        values = torch.stack([m.losses for _, _, m in rows]).tolist()
        log = [
            [step, step / self.steps_per_epoch, *at, *value]
            for (step, at, _), value in zip(rows, values, strict=True)
        ]
        self.checkpoints.append("log", LOG, log)
        collapse = [[s, *m.collapse.tolist()] for s, _, m in rows if m.collapse is not None]
        if collapse:
            self.checkpoints.append("diagnostics", DIAGNOSTICS, collapse)
        self.note = f"loss {values[-1][2]:.3f}"


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
        results[f"seed_{seed}"] = distributed.launch(train, job)
    files.write_json(small / "metrics" / "pretrain" / f"{run}.json", results)
    logs = small / "logs" / run / f"seed_{seeds[0]}"
    for log, kind in (("log", "losses"), ("diagnostics", "collapse")):
        write_curve(logs / f"{log}.csv", small / "plots" / kind / f"{run}.csv")
    return results


def write_curve(log: Path, out: Path, *, most: int = 1000) -> None:
    """What ``dvc plots`` draws: a log averaged over equal stretches, at most ``most`` rows."""
    columns = pd.read_csv(log) if log.exists() else pd.DataFrame({"step": []})
    stretch = columns.index // max(1, -(-len(columns) // most))
    with files.replacing(out) as temporary:
        columns.groupby(stretch).mean().to_csv(temporary, index=False, float_format="%.6g")
