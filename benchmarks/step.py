"""PART step: a whole training step on a CPU, beside the matrix products that bound it.

It is `Trainer.step`: targets, predictions, losses, backward, clipping, AdamW, teacher and centre.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks import measure
from matpac.method.masking import num_visible
from matpac.pretraining import sizes
from matpac.pretraining.batches import Batch
from matpac.pretraining.config import ResolvedRun
from matpac.pretraining.schedules import Scheduled
from matpac.pretraining.trainer import Trainer

AT = Scheduled(
    learning_rate=3e-4, encoder_ema_decay=0.99995, head_ema_decay=0.998, teacher_temp=0.05
)
KINDS = {
    "attention": ("scaled_dot_product", "attention", "bmm"),
    "matrix products": ("linear_pointwise", "addmm", "aten::mm"),
    "optimiser": ("adam",),
    "teacher": ("lerp",),
    "gradient norm": ("vector_norm",),
    "GELU": ("gelu",),
    "layer norms": ("layer_norm",),
    "softmax": ("softmax",),
    "copies": ("copy", "cat"),
}
"""Kind of operation -> parts of its operators' names; the first that fits counts."""


def report(
    run: ResolvedRun,
    num_mels: int,
    *,
    batch_size: int = 8,
    threads: int = 2,
    rounds: int = 9,
) -> dict[str, Any]:
    """Times the step of ``run`` in float32, not compiled, and bare products, in turns.

    Returns: settings and figures; rates are medians, fractions those of the rounds.
    """
    torch.set_num_threads(threads)
    trainer = make_trainer(run, num_mels, batch_size=batch_size, precision="float32")
    step = make_step(trainer, num_mels, batch_size)
    patches = trainer.student.patches.num_patches
    masked = patches - num_visible(patches, run.model.mask_ratio)
    width = run.model.encoder_width
    shapes = {
        "MLP": (batch_size * (1 + masked), width, int(width * run.model.mlp_ratio)),
        "square": (2048, 2048, 2048),
    }
    works: dict[str, Callable[[], float]] = {"step": lambda: measure.seconds(step)}
    for name, product in measure.PRODUCTS.items():
        for kind, shape in shapes.items():
            works[f"{name}, {kind}"] = measure.product_rate(
                product, shape, device=torch.device("cpu"), dtype=torch.float32
            )
    found = measure.in_turns(works, rounds)
    peak = measure.memory_gib("VmHWM")
    work = sizes.per_clip(run, num_mels) * batch_size
    reached = [work / each for each in found.pop("step")]
    return {
        "settings": {
            "batch_size": batch_size,
            "threads": threads,
            "precision": "float32",
            "rounds": rounds,
            "products": {kind: list(shape) for kind, shape in shapes.items()},
        },
        "figures": {
            "samples_per_s": measure.median([each / work * batch_size for each in reached]),
            "gflop_per_sample": round(work / batch_size / 1e9, 2),
            "gflop_per_s": measure.median([each / 1e9 for each in reached]),
            "product_gflop_per_s": {
                name: measure.median([each / 1e9 for each in rates])
                for name, rates in found.items()
            },
            "fraction_of_product": {
                name: measure.ratio(reached, rates) for name, rates in found.items()
            },
            "peak_memory_gib": peak and round(peak, 2),
            "profile_percent": shares(step, times=2),
        },
    }


def make_trainer(
    run: ResolvedRun,
    num_mels: int,
    *,
    batch_size: int,
    precision: str,
    compiled: bool = False,
) -> Trainer:
    """The networks of a run; the whole batch at once."""
    changes = {"batch_size": batch_size, "micro_batch_size": None, "precision": precision}
    changes |= {"compile": compiled, "activation_checkpointing": False}
    run = run.model_copy(update={"pretrain": run.pretrain.model_copy(update=changes)})
    return Trainer(run, num_mels, mean=-7.0, std=4.0)


def make_step(trainer: Trainer, num_mels: int, batch_size: int) -> Callable[[], object]:
    """One update on noise, which costs what any input costs."""
    random = torch.Generator().manual_seed(0)
    sizes = (batch_size, num_mels, trainer.run.model.crop_frames)
    logmel = (4 * torch.randn(sizes, generator=random) - 7).half()
    noise = torch.rand(batch_size, trainer.student.patches.num_patches, generator=random)
    batch = Batch(logmel.to(trainer.device), noise.to(trainer.device))
    return lambda: trainer.step(batch, 1, AT, measure=False)


def shares(work: Callable[[], object], *, times: int) -> dict[str, float]:
    """Percent of the processor's time that each kind of operation takes, largest first."""
    with profile(activities=[ProfilerActivity.CPU], acc_events=True) as profiled:
        for _ in range(times):
            work()
    return by_kind((each.key, each.self_cpu_time_total) for each in profiled.key_averages())


def by_kind(times: Iterable[tuple[str, float]]) -> dict[str, float]:
    """Names and times of operators -> kind of `KINDS` and its percentage, largest first."""
    sums: dict[str, float] = {}
    for name, time in times:
        lower = name.lower()
        kind = next((k for k, parts in KINDS.items() if any(p in lower for p in parts)), "rest")
        sums[kind] = sums.get(kind, 0.0) + time
    total = sum(sums.values())
    ordered = sorted(sums.items(), key=lambda item: -item[1])
    return {kind: round(100 * time / total, 1) for kind, time in ordered}
