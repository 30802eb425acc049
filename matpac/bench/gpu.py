"""PART gpu: training steps in bfloat16 on one GPU, fed by the loader.

Every micro-batch size is tried as it is and compiled. Each step is a whole update, so the rate of a
larger batch made of such micro-batches is a little higher.
"""

import gc
import itertools
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from matpac import distributed, flops
from matpac.batches import Batch, loader
from matpac.bench import measure
from matpac.bench.loader import CLIP_FRAMES, open_batches, tiled_store
from matpac.bench.step import AT, make_step, make_trainer, shares
from matpac.config import ResolvedRun
from matpac.trainer import Trainer

SIZES = (128, 256, 512, 1024)
LARGE = (8192, 8192, 8192)
CLIPS = 20_000


def report(
    run: ResolvedRun,
    num_mels: int,
    *,
    sizes: Sequence[int] = SIZES,
    precision: str = "bfloat16",
    workers: int | None = None,
    seconds: float = 6.0,
    limit_s: float = 390.0,
    square: tuple[int, int, int] = LARGE,
) -> dict[str, Any]:
    """Trains for some seconds at each size, plain and compiled; then profiles the fastest.

    Args:
        workers: loader processes; None: the cores but one, at most 12.
        seconds: of steps per size, after the first ones.
        limit_s: no further size is begun after this time; it is then listed as not measured.
        square: the bare product that each size is compared with.
    """
    begin = time.monotonic()
    workers = min(12, max(1, len(os.sched_getaffinity(0)) - 1)) if workers is None else workers
    bare = measure.product_rate(
        torch.nn.functional.linear,
        square,
        device=distributed.device(),
        dtype=getattr(torch, precision),
    )
    found: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "tiled"
        tiled_store(folder, CLIPS, num_mels=num_mels, clip_frames=CLIP_FRAMES)
        for compiled, size in itertools.product((False, True), sizes):
            entry: dict[str, Any] = {"micro_batch": size, "compiled": compiled}
            if time.monotonic() - begin > limit_s:
                entry["problem"] = "not measured: time was up"
            else:
                how = {"precision": precision, "compiled": compiled, "batch_size": size}
                entry |= _size(run, num_mels, folder, bare, workers, seconds, **how)
            found.append(entry)
            print(entry, flush=True)  # should the machine be taken away before the end
    work = flops.per_clip(run, num_mels)
    return {
        "settings": {
            "precision": precision,
            "workers": workers,
            "product": list(square),
            "gflop_per_sample": round(work / 1e9, 2),
        },
        "figures": {"steps": found, "profile_percent": _profiles(run, num_mels, precision, found)},
    }


def _size(
    run: ResolvedRun,
    num_mels: int,
    folder: Path,
    bare: Callable[[], float],
    workers: int,
    seconds: float,
    **how: Any,
) -> dict[str, Any]:
    """Samples per second with the loader and with one batch again and again; peak memory.

    Args: folder: a store; bare: gives the rate of the bare product; how: for `make_trainer`.
    """
    torch.compiler.reset()  # or a second size would be compiled for any size
    gc.collect()  # the networks before refer to themselves: their memory would count for these
    cuda, size = torch.cuda.is_available(), how["batch_size"]
    if cuda:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    try:
        trainer = make_trainer(run, num_mels, **how)
        fixed = make_step(trainer, num_mels, size)
        first = [measure.seconds(fixed) for _ in range(4)]
        times = min(500, max(3, int(seconds / first[-1])))
        before = bare()
        alone = measure.seconds(lambda: [fixed() for _ in range(times)])
        feed = loader(
            open_batches(
                folder,
                batch_size=size,
                crop_frames=run.model.crop_frames,
                num_patches=trainer.student.patches.num_patches,
            ),
            first=0,
            last=2 + times,
            workers=workers,
        )
        _steps(trainer, feed, 2)
        fed = measure.seconds(lambda: _steps(trainer, feed, times))
        product = (before + bare()) / 2
    except torch.cuda.OutOfMemoryError:
        return {"problem": "out of memory"}
    except RuntimeError as error:
        # No C compiler, little shared memory for the loader: other sizes must not be lost.
        return {"problem": f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"}
    reached = flops.per_clip(run, num_mels) * size * times / fed
    return {
        "samples_per_s": measure.median([size * times / fed]),
        "samples_per_s_without_loader": measure.median([size * times / alone]),
        "tflop_per_s": measure.median([reached / 1e12]),
        "product_tflop_per_s": measure.median([product / 1e12]),
        "fraction_of_product": measure.median([reached / product]),
        "first_step_s": round(first[0], 1),
        "peak_memory_gib": round(torch.cuda.max_memory_allocated() / 2**30, 1) if cuda else None,
    }


def _steps(trainer: Trainer, feed: Iterator[Batch], times: int) -> None:
    for _ in range(times):
        trainer.step(next(feed), 1, AT, measure=False)


def _profiles(
    run: ResolvedRun, num_mels: int, precision: str, found: list[dict[str, Any]]
) -> dict[str, dict[str, float]]:
    """Where the time of the fastest size goes, plain and compiled."""
    profiles = {}
    for compiled, name in ((False, "plain"), (True, "compiled")):
        rates = {
            entry["micro_batch"]: entry["samples_per_s"]
            for entry in found
            if entry["compiled"] == compiled and "samples_per_s" in entry
        }
        if not rates:
            continue
        size = max(rates, key=rates.__getitem__)
        torch.compiler.reset()
        trainer = make_trainer(
            run, num_mels, batch_size=size, precision=precision, compiled=compiled
        )
        step = make_step(trainer, num_mels, size)
        for _ in range(3):
            step()
        profiles[f"{name}, {size}"] = shares(step, times=3)
        del trainer, step
    return profiles
