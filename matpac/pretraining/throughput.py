"""How many clips a second a device trains on: measured, remembered, told before a run starts.

``<bulk>/throughput.json`` keeps the last rate of each device, model and precision. Every run that
ends or is stopped in order renews it; `measure` tries a few updates where there is none yet.
"""

import platform
import time
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

import torch

from matpac.core import distributed, files, fingerprints, threads
from matpac.core.progress import Progress
from matpac.method.schedules import Scheduled
from matpac.pretraining import flops
from matpac.pretraining.batches import Batch
from matpac.pretraining.config import ResolvedRun
from matpac.pretraining.run import Job
from matpac.pretraining.trainer import Trainer

FILE = "throughput.json"
WARM_UP, FEWEST = 10, 20
"""Updates of a run that are not timed, and those that have to be, for a rate to be kept."""


class Rate(NamedTuple):
    """What was measured last."""

    clips_per_s: float
    """Of each process."""
    processes: int
    source: str
    """``run`` or ``trial``."""


def device_name(run: ResolvedRun) -> str:
    """This process's device; of a CPU the threads that a run computes with."""
    device = distributed.device()
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    count = run.pretrain.threads or torch.get_num_threads()
    return f"CPU ({platform.machine()}, {count} threads)"


def recall(folder: Path, run: ResolvedRun) -> Rate | None:
    """The rate of this device for a run's model and precision, if one was kept in ``folder``."""
    kept = _read(folder).get(device_name(run), {}).get(_key(run))
    return Rate(kept["clips_per_s"], kept["processes"], kept["source"]) if kept else None


def remember(folder: Path, run: ResolvedRun, rate: Rate) -> None:
    """Keeps a rate of this device in place of an earlier one."""
    kept = _read(folder)
    model = run.model
    sizes = f"{model.encoder_width}/{model.encoder_depth}/{model.encoder_heads}"
    readable = {"encoder": sizes, "precision": run.pretrain.precision}
    kept.setdefault(device_name(run), {})[_key(run)] = rate._asdict() | readable
    files.write_json(folder / FILE, kept)


def _read(folder: Path) -> dict[str, dict[str, dict]]:
    return files.read_json(folder / FILE) if (folder / FILE).exists() else {}


def _key(run: ResolvedRun) -> str:
    return fingerprints.digest(
        {"model": run.model.model_dump(), "precision": run.pretrain.precision}
    )


class Meter:
    """Tells before a run how long it will take, and keeps afterwards how fast it was.

    Args:
        job: the run.
        updates: still to do.
        progress: shows the estimate; silent where this process is not the first.
    """

    def __init__(self, job: Job, *, updates: int, progress: Progress) -> None:
        self.job, self.updates, self.progress = job, updates, progress
        self.done, self.start = 0, 0.0

    def __enter__(self) -> "Meter":
        if self.updates and (self.progress.lines or self.progress.bar is not None):
            text = estimate(
                self.job.run,
                num_mels=self.job.index["front_end"]["num_mels"],
                updates=self.updates,
                rate=recall(self.job.stores, self.job.run),
                processes=distributed.world_size(),
            )
            self.progress.say(f"{self.job.name}: {text}")
        return self

    def update(self) -> None:
        """One update is done, or on its way."""
        self.done += 1
        if self.done == WARM_UP:
            self.start = time.monotonic()

    def __exit__(
        self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None
    ) -> None:
        in_order = kind is None or issubclass(kind, KeyboardInterrupt)
        timed = self.done - WARM_UP
        if in_order and timed >= FEWEST and distributed.rank() == 0:
            processes = distributed.world_size()
            clips = timed * self.job.run.pretrain.batch_size / processes
            rate = Rate(clips / (time.monotonic() - self.start), processes, "run")
            remember(self.job.stores, self.job.run, rate)


def estimate(
    run: ResolvedRun, *, num_mels: int, updates: int, rate: Rate | None, processes: int
) -> str:
    """How long so many updates take, in words.

    Args: rate: if None, the device's matrix products are timed, which gives a lower bound.
    """
    batch, work = run.pretrain.batch_size, flops.per_clip(run, num_mels)
    line = f"{updates:,} updates of {batch:,} clips, {work / 1e9:.3g} GFLOP per clip; "
    where = f"{processes} x {device_name(run)}"
    if rate:
        together = rate.clips_per_s * processes
        took = duration(updates * batch / together)
        return line + f"about {took} on {where} (measured: {together:,.4g} clips/s)"
    products = matrix_rate(run.pretrain.precision)
    least = updates * batch * work / (products * processes)
    if least < 60:  # small networks do not keep the device busy: this would say nothing
        return line + f"no run was timed on {where} yet"
    return line + (
        f"at least {duration(least)} on {where}, whose matrix products reach "
        f"{products / 1e12:.2g} TFLOP/s (no run was timed here yet)"
    )


UNITS = (("days", 86400.0), ("h", 3600.0), ("min", 60.0), ("s", 1.0))


def duration(seconds: float) -> str:
    """In the largest unit of which there are two, three digits long."""
    unit, size = next((each for each in UNITS if seconds >= 2 * each[1]), UNITS[-1])
    return f"{seconds / size:.3g} {unit}"


def matrix_rate(precision: str) -> float:
    """FLOP/s of a large matrix product on this device: the best of a few, some milliseconds."""
    device = distributed.device()
    size = 4096 if device.type == "cuda" else 512
    matrix = torch.ones(size, size, device=device, dtype=getattr(torch, precision))
    best = float("inf")
    for _ in range(5):
        _wait(device)
        start = time.perf_counter()
        matrix @ matrix
        _wait(device)
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best


def measure(run: ResolvedRun, *, num_mels: int, seconds: float = 10.0) -> Rate:
    """Times a few updates of a run's networks on random log-mels, in this process.

    On a GPU whole micro-batches, after compilation if the run asks for it; on a CPU as many clips
    as fit into the time, not compiled. The state of torch's generators is left as it is.
    """
    device = distributed.device()
    on_cpu = {"compile": False} if device.type == "cpu" else {}
    run = run.model_copy(update={"pretrain": run.pretrain.model_copy(update=on_cpu)})
    forked = torch.random.fork_rng([device] if device.type == "cuda" else [])
    with threads.limited(run.pretrain.threads), forked:
        trainer = Trainer(run, num_mels, mean=0.0, std=1.0)
        size = run.pretrain.micro_batch_size or run.pretrain.batch_size
        if device.type == "cpu":
            _time(trainer, 1, num_mels)  # the first update of all is slow
            size = max(1, min(size, int(seconds / 4 / _time(trainer, 1, num_mels))))
        _time(trainer, size, num_mels)
        spent, updates = 0.0, 0
        while spent < seconds / 2:
            spent += _time(trainer, size, num_mels)
            updates += 1
    return Rate(updates * size / spent, 1, "trial")


def _time(trainer: Trainer, clips: int, num_mels: int) -> float:
    """Seconds of one update."""
    patches = trainer.student.patches
    batch = Batch(
        torch.randn(clips, num_mels, trainer.run.model.crop_frames).half(),
        torch.rand(clips, patches.num_patches),
    )
    at = Scheduled(learning_rate=0.0, encoder_ema_decay=1.0, head_ema_decay=1.0, teacher_temp=1.0)
    _wait(trainer.device)
    start = time.perf_counter()
    trainer.step(batch, 1, at, measure=False)
    _wait(trainer.device)
    return time.perf_counter() - start


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
