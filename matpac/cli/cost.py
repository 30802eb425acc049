"""What the paper costs: work, memory, disk and hours (``matpac cost``).

Everything is arithmetic but one number, the clips that a device trains on per second; it is given,
or was measured by an earlier run, or is measured now.
"""

from collections.abc import Iterable

from matpac.cli import costs
from matpac.cli.costs import Training
from matpac.core import paths
from matpac.params import Params, load
from matpac.pretraining import flops, memory
from matpac.pretraining import throughput as rates
from matpac.pretraining.config import ResolvedRun

GPUS = (1, 8, 64, 512)
LINKS = {"450 GB/s": 450e9, "50 GB/s": 50e9, "12.5 GB/s": 12.5e9}
"""Bytes per second from a GPU to the others: NVLink; networks of 400 and 100 Gb/s per GPU."""


def parts_table(run: ResolvedRun, num_mels: int) -> str:
    """Parameters and work of each part of the networks, for one clip."""
    work, counts = flops.work(run, num_mels), memory.parameters(run, num_mels)
    rows = [[part, *(f"{n / 1e6:.2f}" for n in counts[part]), *_gflop(work[part])] for part in work]
    sums = [sum(count[i] for count in counts.values()) for i in range(2)]
    together = sum(work.values(), start=flops.Work())
    rows.append(["together", *(f"{n / 1e6:.2f}" for n in sums), *_gflop(together)])
    header = ["part", "parameters (M)", "trained (M)", "forward (GFLOP)", "backward", "both"]
    return table(header, rows)


def _gflop(work: flops.Work) -> list[str]:
    return [f"{n / 1e9:.4g}" for n in (work.forward, work.backward, work.total)]


def memory_lines(run: ResolvedRun, num_mels: int) -> list[str]:
    """What a process holds, and what an update moves."""
    held, kept = memory.held(run, num_mels), memory.activations(run, num_mels)
    batch = run.pretrain.batch_size
    micro = min(run.pretrain.micro_batch_size or batch, batch)
    work = batch * flops.per_clip(run, num_mels) / 1e12
    return [
        "memory of a process: "
        + ", ".join(f"{name} {amount(size)}" for name, size in held.items() if size)
        + f"; kept for the backward pass {amount(kept)} per clip, {amount(micro * kept)} per "
        + f"micro-batch of {micro}",
        f"per update of {batch:,} clips: {number(work)} TFLOP, "
        f"{amount(batch * memory.crop_bytes(run, num_mels))} read, "
        f"{amount(memory.gradient_bytes(run, num_mels))} of gradient per process",
    ]


def runs_table(found: Iterable[Training], *, gpus: int) -> str:
    """Hours of each training and of all."""
    rows, several = [], list(found)
    seeds = len({each.run for each in several}) < len(several)
    for each in several:
        name = f"{each.run}, seed {each.seed}" if seeds else each.run
        rows.append([name, f"{each.updates:,}", *_sums([each], gpus)])
    rows.append(["together", f"{sum(each.updates for each in several):,}", *_sums(several, gpus)])
    return table(["run", "updates", "EFLOP", "hours", "GPU-hours"], rows)


def _sums(found: list[Training], gpus: int) -> list[str]:
    hours = sum(each.hours for each in found)
    flop = sum(each.flop for each in found)
    return [number(flop / 1e18), number(hours), number(hours * gpus)]


def scaling_table(params: Params, *, clips_per_s: float, gpus: Iterable[int] = GPUS) -> str:
    """The run ``base`` on more and more GPUs that share its batch, from the rate of one.

    An all-reduce sends 2 (n - 1) / n of the gradient from each of n GPUs (ring). The hours are of
    the computation alone; the exchange comes on top as far as it is not hidden behind it. Numbers
    of GPUs that cannot share the batch evenly are left out.
    """
    run, num_mels = costs.base(params), params.logmel.num_mels
    batch, micro = run.pretrain.batch_size, run.pretrain.micro_batch_size
    gradient, crop = memory.gradient_bytes(run, num_mels), memory.crop_bytes(run, num_mels)
    rows = []
    for n in (n for n in gpus if batch % n == 0):
        share = batch // n
        found = costs.trainings(params, clips_per_s=clips_per_s, gpus=n)
        hours = next(each.hours for each in found if each.run == costs.base_name(params))
        exchange = [number(2 * (n - 1) / n * gradient / link * 1e3) for link in LINKS.values()]
        rows.append(
            [
                str(n),
                str(share),
                str(-(-share // (micro or share))),
                number(share / clips_per_s * 1e3),
                *exchange,
                number(n * clips_per_s * crop / 1e6),
                number(hours),
            ]
        )
    header = ["GPUs", "clips per GPU", "micro-batches", "computing (ms)"]
    header += [f"all-reduce at {link} (ms)" for link in LINKS]
    return table([*header, "store (MB/s)", "hours"], rows)


def table(header: list[str], rows: list[list[str]]) -> str:
    """Markdown, aligned: the first column to the left, numbers to the right."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    lines = [
        [
            cell.ljust(w) if not i else cell.rjust(w)
            for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        ]
        for row in [header, rule, *rows]
    ]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def number(value: float) -> str:
    """Three digits, or all before the point."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def amount(size: float) -> str:
    """Bytes in the unit that people would take, three digits long."""
    unit, factor = next(
        (each for each in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)) if size >= each[1]), ("kB", 1e3)
    )
    return f"{size / factor:.3g} {unit}"


def rate(params: Params, *, given: float | None, again: bool) -> tuple[float, str]:
    """Clips per second of one device, and where the number comes from.

    Args: given: by the user; again: measure even if an earlier run did.
    """
    if given is not None:
        return given, "given"
    run, folder = costs.base(params), paths.bulk(params)
    known = None if again else rates.recall(folder, run)
    if known is None:
        known = rates.measure(run, num_mels=params.logmel.num_mels)
        rates.remember(folder, run, known)
    source = {"run": "measured by an earlier run", "trial": "measured in a trial"}[known.source]
    return known.clips_per_s, f"{source} on {rates.device_name(run)}"


def main(*, throughput: float | None, measure: bool, gpus: int) -> None:
    """Prints the costs of the profile in ``params.yaml``."""
    params = load()
    run, num_mels = costs.base(params), params.logmel.num_mels
    clips_per_s, source = rate(params, given=throughput, again=measure)
    found = costs.trainings(params, clips_per_s=clips_per_s, gpus=gpus)
    epoch = costs.epoch(params, run.model.crop_frames)
    disk = costs.disk(params)
    lines = [
        f"profile {params.profile}, run {costs.base_name(params)}, one clip:",
        parts_table(run, num_mels),
        *memory_lines(run, num_mels),
        "",
        f"{gpus} x {clips_per_s:,.4g} clips/s ({source}); an epoch of {epoch.clips:,} clips"
        + (" (assumed: a corpus is not there yet)" if epoch.assumed else ""),
        runs_table(found, gpus=gpus),
        "",
        "one batch on several GPUs, each at that rate (calculated):",
        scaling_table(params, clips_per_s=clips_per_s),
        "",
        "disk: " + ", ".join(f"{name} {amount(size)}" for name, size in disk.items()),
    ]
    print("\n".join(lines))
