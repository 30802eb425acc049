"""How many clips a second a device trains on: measured, remembered, told before a run starts.

``<bulk>/throughput.json`` keeps the last rate of each device, model and precision. Every run that
ends or is stopped in order renews it; `measure` tries a few updates where there is none yet.
"""

import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

import torch

from matpac.core import distributed, files, fingerprints, threads
from matpac.core.progress import Progress
from matpac.pretraining.batches import Batch
from matpac.pretraining.config import ResolvedRun
from matpac.pretraining.run import Job
from matpac.pretraining.schedules import Scheduled
from matpac.pretraining.trainer import Trainer

FILE = "throughput.json"
CPU_WORK = 1e11
"""Floating-point operations of an update in a trial on a CPU, or those of eight clips."""
WARM_UP, FEWEST = 10, 20
"""Updates of a run that are not timed, and those that have to be, for a rate to be kept."""


class Rate(NamedTuple):
    """What was measured last."""

    clips_per_s: float
    """Of each process."""
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
    return Rate(kept["clips_per_s"], kept["source"]) if kept else None


def remember(folder: Path, run: ResolvedRun, rate: Rate) -> None:
    """Keeps a rate of this device in place of an earlier one."""
    kept, model = _read(folder), run.model
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


@contextmanager
def metered(job: Job, *, updates: int, progress: Progress) -> Iterator[Callable[[], None]]:
    """Tells before a run how long it will take, and keeps afterwards how fast it was.

    Args:
        updates: still to do.
        progress: shows the estimate; silent where this process is not the first.
    Yields: what to call when an update is done, or on its way.
    """
    processes = distributed.world_size()
    if updates:
        known = recall(job.stores, job.run)
        told = estimate(job.run, updates=updates, rate=known, processes=processes)
        progress.say(f"{job.name}: {told}")
    times: list[float] = []

    def keep() -> None:
        timed = len(times) - WARM_UP
        if timed >= FEWEST and distributed.rank() == 0:
            clips = timed * job.run.pretrain.batch_size / processes
            rate = Rate(clips / (time.monotonic() - times[WARM_UP - 1]), "run")
            remember(job.stores, job.run, rate)

    try:
        yield lambda: times.append(time.monotonic())
    except KeyboardInterrupt:
        keep()
        raise
    keep()


def estimate(run: ResolvedRun, *, updates: int, rate: Rate | None, processes: int) -> str:
    """How long so many updates take, in words. Args: rate: None: nobody knows."""
    batch, where = run.pretrain.batch_size, f"{processes} x {device_name(run)}"
    if rate is None:
        took = f"no run was timed on {where} yet (`matpac cost` tries some updates)"
    else:
        together = rate.clips_per_s * processes
        needed = timedelta(seconds=round(updates * batch / together))
        took = f"about {needed} on {where} (measured: {together:,.4g} clips/s)"
    return f"{updates:,} updates of {batch:,} clips; {took}"


def measure(run: ResolvedRun, *, num_mels: int, seconds: float = 5.0) -> Rate:
    """Times updates of a run's networks on random log-mels, in this process.

    On a GPU whole micro-batches, after compilation if the run asks for it; on a CPU as much of one
    as is computed in about a second, not compiled: a small network is half as fast on a few clips.
    The state of torch's generators is left as it is.
    """
    from matpac.pretraining import sizes

    device, pretrain = distributed.device(), run.pretrain
    clips = pretrain.micro_batch_size or pretrain.batch_size
    if device.type == "cpu":
        quick = int(CPU_WORK / sizes.per_clip(run, num_mels))
        clips, pretrain = min(clips, max(8, quick)), pretrain.model_copy(update={"compile": False})
    forked = torch.random.fork_rng([device] if device.type == "cuda" else [])
    with threads.limited(pretrain.threads), forked:
        run = run.model_copy(update={"pretrain": pretrain})
        trainer = Trainer(run, num_mels, mean=0.0, std=1.0)
        logmel = torch.randn(clips, num_mels, run.model.crop_frames).half()
        batch = Batch(logmel, torch.rand(clips, trainer.student.patches.num_patches))
        _time(trainer, batch)  # the first update of all is slow
        spent, updates = 0.0, 0
        while spent < seconds:
            spent += _time(trainer, batch)
            updates += 1
    return Rate(updates * clips / spent, "trial")


def _time(trainer: Trainer, batch: Batch) -> float:
    """Seconds of one update."""
    at = Scheduled(learning_rate=0.0, encoder_ema_decay=1.0, head_ema_decay=1.0, teacher_temp=1.0)
    start = time.perf_counter()
    trainer.step(batch, 1, at, measure=False)
    trainer.failed_at()  # waits for the device
    return time.perf_counter() - start
