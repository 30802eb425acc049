"""What the runs of ``params.yaml`` cost: work, memory, disk and hours (``matpac cost``).

Everything is arithmetic but one number, the clips that a device trains on per second; it is given,
or was measured by an earlier run, or is measured now.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import soundfile
from tabulate import tabulate
from tqdm import tqdm

from matpac.audio import finding
from matpac.core import paths
from matpac.data import manifests
from matpac.data.config import EmbeddedDataset
from matpac.features.store import Store
from matpac.params import Params, load
from matpac.pretraining import config, sizes, throughput
from matpac.pretraining.config import ResolvedRun
from matpac.pretraining.side_by_side import at_once

RELEASED = {"audioset": 1 + 294_816 * 2048 // 300}
"""Clips of an epoch of the released configuration, for AudioSet that is not there yet."""
RELEASED_S, EMBEDDED_S = 10.0, 5.0
"""Seconds of such a clip, and of one of the embedded corpus, at most."""
OPENED = 200
"""Files of a folder, at most, whose headers tell the length of all."""
GPUS = (1, 8, 64, 512)
LINKS = {"450 GB/s": 450e9, "50 GB/s": 50e9, "12.5 GB/s": 12.5e9}
"""Bytes per second from a GPU to the others: NVLink; networks of 400 and 100 Gb/s per GPU."""


class Clips(NamedTuple):
    """What is known of a data set."""

    num_frames: np.ndarray
    """Of each clip's log-mel."""
    source: str
    """Where that is from; "": from the store, which is exact."""


def clips(params: Params, name: str) -> Clips:
    """Those of the store; before it is made, what else tells of the data set."""
    if ((folder := paths.bulk(params) / "logmel" / name) / "index.json").exists():
        return Clips(Store(folder).num_frames, "")
    seconds, source = _seconds(params, name)
    frames = (1000 * seconds - params.logmel.window_ms + 1e-6) // params.logmel.hop_ms + 1
    return Clips(frames.clip(min=0).astype(int), source)


def _seconds(params: Params, name: str) -> tuple[np.ndarray, str]:
    dataset = params.datasets[name]
    if (paths.small(params) / "manifests" / f"{name}.json").exists():
        table, _ = manifests.load(params, name, columns=["duration_s", "excluded"])
        return table["duration_s"][table["excluded"] == ""].to_numpy(), "by its manifest"
    if isinstance(dataset, EmbeddedDataset):
        return np.full(dataset.num_clips, EMBEDDED_S), "as params.yaml asks for"
    folders = [paths.expand(text) for key, text in dataset.places if key in ("audio", "path")]
    found = [folder / file for folder in folders for file in finding.audio_files(folder)[0]]
    if lengths := [_length(path) for path in found[:: len(found) // OPENED + 1]]:
        return np.resize(lengths, len(found)), "by the headers of its files"
    known = RELEASED.get(name, 0)
    return np.full(known, RELEASED_S), "as released" if known else "not counted until it is fetched"


def _length(path: str) -> float:
    try:
        return soundfile.info(path).duration
    except soundfile.LibsndfileError:  # it will be told, and left out
        return 0.0


def epoch(params: Params, crop_frames: int) -> tuple[int, str]:
    """Clips of a pass over the corpora, and what is not from their stores, in brackets."""
    count, told = 0, []
    for name, weight in params.corpora.items():
        found = clips(params, name)
        count += round(np.count_nonzero(found.num_frames >= crop_frames) * weight)
        told += [f"{name} {found.source}"] * bool(found.source)
    return count, f" ({', '.join(told)})" if told else ""


def disk(params: Params) -> str:
    """Stores, training states and encoders when everything has run."""
    num_mels, states, encoders = params.logmel.num_mels, 0, 0
    names = dict.fromkeys([*params.corpora, *params.tasks])
    frames = sum(int(clips(params, name).num_frames.sum()) for name in names)
    for _, _, run, _ in _trained(params):
        held = sizes.held(run, num_mels)
        kept = run.pretrain.keep_checkpoints + 1  # one more is there while it is written
        states += kept * (held["weights"] + held["teacher"] + held["optimiser"])
        # In the folder and in DVC's cache.
        encoders += 2 * sizes.FLOAT * sizes.parts(run, num_mels)["student"].parameters
    stores = frames * num_mels * sizes.HALF
    found = {"log-mel stores": stores, "training states": states, "encoders": encoders}
    return ", ".join(f"{name} {amount(size)}" for name, size in found.items())


class Training(NamedTuple):
    """One pretraining, of one seed."""

    run: str
    seed: int
    updates: int
    flop: float
    hours: float


def trainings(params: Params, *, clips_per_s: float, gpus: int = 1) -> list[Training]:
    """What every run of ``params.yaml`` takes.

    Args:
        clips_per_s: of each device, for the run ``base``; more work per clip takes longer. Seeds
            that train side by side are taken to have that rate each.
        gpus: devices that share the batch, at the same rate each.
    """
    num_mels, epochs, found = params.logmel.num_mels, {}, []
    reference = sizes.per_clip(base(params), num_mels)
    for name, seed, run, seeds in _trained(params):
        crop, batch = run.model.crop_frames, run.pretrain.batch_size
        if crop not in epochs:
            epochs[crop], _ = epoch(params, crop)
        work = sizes.per_clip(run, num_mels)
        updates = int(run.pretrain.epochs * epochs[crop] / batch)
        rate_of_all = clips_per_s * gpus * at_once(run, seeds) * reference / work
        hours = updates * batch / rate_of_all / 3600
        found.append(Training(name, seed, updates, updates * batch * work, hours))
    return found


def _trained(params: Params) -> Iterable[tuple[str, int, ResolvedRun, int]]:
    """Every run and seed, resolved, and how many seeds that run has."""
    for run in params.runs:
        seeds = config.seeds(params, run)
        yield from ((run, s, config.resolve(params, run, seed=s), len(seeds)) for s in seeds)


def base_name(params: Params) -> str:
    """The run that others are compared with: ``base``, or the first."""
    return "base" if "base" in params.runs else next(iter(params.runs))


def base(params: Params) -> ResolvedRun:
    """The same, resolved."""
    return config.resolve(params, base_name(params))


def rate(params: Params, *, again: bool = False) -> tuple[float, str]:
    """Clips per second of one device, and where the number comes from.

    Args: again: measure even if an earlier run did.
    """
    run, folder = base(params), paths.bulk(params)
    if again or not (known := throughput.recall(folder, run)):
        known = throughput.measure(run, num_mels=params.logmel.num_mels)
        throughput.remember(folder, run, known)
    source = {"run": "by an earlier run", "trial": "in a trial"}[known.source]
    return known.clips_per_s, f"measured {source} on {throughput.device_name(run)}"


def parts_table(run: ResolvedRun, num_mels: int) -> str:
    """Parameters and work of each part of the networks, for one clip."""
    parts = sizes.parts(run, num_mels)
    together = sizes.Part(*map(sum, zip(*parts.values(), strict=True)))
    rows = [
        [name, f"{part.parameters / 1e6:.2f}", f"{part.trained / 1e6:.2f}"]
        + [f"{flop / 1e9:.4g}" for flop in (part.forward, part.backward, part.work)]
        for name, part in (parts | {"together": together}).items()
    ]
    header = ["part", "parameters (M)", "trained (M)", "forward (GFLOP)", "backward", "both"]
    return table(header, rows)


def memory_lines(run: ResolvedRun, num_mels: int) -> list[str]:
    """What a process holds, and what an update moves."""
    held, kept = sizes.held(run, num_mels), sizes.activations(run, num_mels)
    batch, crop = run.pretrain.batch_size, sizes.crop_bytes(run, num_mels)
    micro = min(run.pretrain.micro_batch_size or batch, batch)
    holds = ", ".join(f"{name} {amount(size)}" for name, size in held.items() if size)
    return [
        f"memory of a process: {holds}; kept for the backward pass {amount(kept)} per clip, "
        f"{amount(micro * kept)} per micro-batch of {micro}",
        f"per update of {batch:,} clips: {number(batch * sizes.per_clip(run, num_mels) / 1e12)} "
        f"TFLOP, {amount(batch * crop)} read, {amount(held['gradients'])} of gradient per process",
    ]


def runs_table(found: Sequence[Training], *, gpus: int) -> str:
    """Hours of each training and of all."""
    seeds, rows = len({each.run for each in found}) < len(found), []
    named = {f"{each.run}, seed {each.seed}" if seeds else each.run: [each] for each in found}
    for name, several in (named | {"together": found}).items():
        updates, flop, hours = (sum(column) for column in list(zip(*several, strict=True))[2:])
        row = [number(flop / 1e18), number(hours), number(hours * gpus)]
        rows.append([name, f"{updates:,}", *row])
    return table(["run", "updates", "EFLOP", "hours", "GPU-hours"], rows)


def scaling_table(params: Params, *, clips_per_s: float, gpus: Iterable[int] = GPUS) -> str:
    """The run ``base`` on more and more GPUs that share its batch, from the rate of one.

    An all-reduce sends 2 (n - 1) / n of the gradient from each of n GPUs (ring). The hours are of
    the computation alone; the exchange comes on top as far as it is not hidden behind it. Numbers
    of GPUs that cannot share the batch evenly are left out.
    """
    run, num_mels, rows = base(params), params.logmel.num_mels, []
    batch, micro = run.pretrain.batch_size, run.pretrain.micro_batch_size
    gradient = sizes.held(run, num_mels)["gradients"]
    read = sizes.crop_bytes(run, num_mels) * clips_per_s / 1e6
    clips_in_all = int(run.pretrain.epochs * epoch(params, run.model.crop_frames)[0])
    for n in (n for n in gpus if batch % n == 0):
        share, sent = batch // n, 2 * (n - 1) / n * gradient
        numbers = [share / clips_per_s * 1e3, *(sent / link * 1e3 for link in LINKS.values())]
        numbers += [n * read, clips_in_all / clips_per_s / n / 3600]
        rows.append([n, share, -(-share // (micro or share)), *map(number, numbers)])
    header = ["GPUs", "clips per GPU", "micro-batches", "computing (ms)"]
    header += [f"all-reduce at {link} (ms)" for link in LINKS]
    return table([*header, "store (MB/s)", "hours"], rows)


def table(header: list[str], rows: list[list[str]]) -> str:
    """Markdown: the first column to the left, numbers to the right."""
    sides = ["left"] + ["right"] * (len(header) - 1)
    return tabulate(rows, header, tablefmt="pipe", colalign=sides, disable_numparse=True)


def number(value: float) -> str:
    """Three digits, or all before the point."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def amount(size: float) -> str:
    """Bytes in the unit that people would take, three digits long."""
    text = tqdm.format_sizeof(size)
    return f"{text[:-1]} {text[-1]}B"


def main(*, clips_per_s: float | None, measure: bool, gpus: int) -> None:
    """Prints the costs of the profile in ``params.yaml``."""
    params = load()
    run, num_mels = base(params), params.logmel.num_mels
    clips_per_s, source = (clips_per_s, "given") if clips_per_s else rate(params, again=measure)
    count, assumed = epoch(params, run.model.crop_frames)
    lines = [
        f"profile {params.profile}, run {base_name(params)}, one clip:",
        parts_table(run, num_mels),
        *memory_lines(run, num_mels),
        f"\n{gpus} x {clips_per_s:,.4g} clips/s ({source}); an epoch of {count:,} clips{assumed}",
        runs_table(trainings(params, clips_per_s=clips_per_s, gpus=gpus), gpus=gpus),
        "\none batch on several GPUs, each at that rate (calculated):",
        scaling_table(params, clips_per_s=clips_per_s),
        f"\ndisk: {disk(params)}",
    ]
    print("\n".join(lines))
