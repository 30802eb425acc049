"""From sounds, minutes and a machine to ``params.yaml``: which size, which crops, which schedule.

Everything is arithmetic but one number per size that comes into question, the crops a second that
this machine trains on, tried for a few seconds.
"""

import re
import time
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import yaml

from matpac.cli.folder_scan import Sounds
from matpac.core import distributed, files, paths, yaml_file
from matpac.features.store import Store
from matpac.params import Params, parse
from matpac.pretraining import config, sizes, throughput

TEMPLATE = Path(__file__).with_name("own_folder.yaml")
SIZES = ("mini", "small", "base")
"""Of which the largest is taken that sees enough crops; `fine` only when it is asked for."""
SHORTEST_CROP = 32
"""Frames: ten patches of 16 x 16, of which three are visible."""
LEAST_SECONDS = 60
USABLE = 0.95
"""Part of the clips that is at least as long as a crop."""
FEW_CROPS = 48_000
"""What a run of the mini profile sees; half of them gave one to three points less there."""
TRIAL_S = 4.0
REACHED = 0.9
"""Of the trial's rate: it reads no sounds, measures nothing and saves nothing."""
WARM_UP = 0.05
"""Of training, as in the mini profile: of the learning rate, and of the teacher's temperature."""
HEADER = """\
# Written by `matpac pretrain {folder}`. The same in the pipeline: copy this file
# into the project as params.{profile}.yaml, then `matpac use {profile}` and `make repro`.
"""


class Planned(NamedTuple):
    """A size on trial."""

    size: str
    sections: dict[str, Any]
    rate: throughput.Rate
    updates: int
    crops: int


@cache
def template() -> dict[str, Any]:
    """The content of ``own_folder.yaml``."""
    return yaml_file.read(TEMPLATE)


def data_sections(sounds: Sounds, out: Path) -> dict[str, Any]:
    """The sections that the stages before pretraining read; writes the tables they name.

    Raises: ValueError for a folder whose path a parameter file cannot hold.
    """
    folder = str(sounds.folder.resolve())
    if not folder.isprintable() or str(paths.expand(folder)) != folder:
        raise ValueError(f"{folder!r}: got a path with $, ~ or no text in it; rename or link it")
    audio = {"source": "folder", "audio": folder}
    tables = sounds.write_tables(out.resolve())
    datasets = {name: audio | {"csv": str(table)} for name, table in tables.items()}
    datasets = datasets or {"sounds": audio}
    corpora = dict.fromkeys(datasets, 1.0)
    if tables:
        columns = {"labels": "label", "kind": "multiclass", "fold": "fold", "group": "group"}
        datasets["sounds"] |= columns
        tasks = ["sounds"]
    else:
        datasets |= template()["miniature"]
        tasks = list(template()["miniature"])
    name = re.sub("[^a-z0-9]+", "_", sounds.folder.resolve().name.lower()).strip("_")
    own = {"profile": f"own_{name}".strip("_"), "datasets": datasets, "corpora": corpora}
    common = template()["params"]
    return (
        own | {"tasks": tasks} | {name: common[name] for name in ("storage", "downloads", "logmel")}
    )


def frames(params: Any) -> np.ndarray:
    """Of every clip in the stores, long enough for the shortest crop.

    Raises: ValueError if that is too little.
    """
    stores = [Store(paths.bulk(params) / "logmel" / name) for name in params.corpora]
    found = np.concatenate([store.num_frames for store in stores])
    found = found[found >= SHORTEST_CROP]
    hop_s = params.logmel.hop_ms / 1000
    if (seconds := found.sum() * hop_s) < LEAST_SECONDS:
        raise ValueError(
            f"{params.datasets['sounds'].audio}: got {seconds:.0f} s of audio in clips of "
            f"{SHORTEST_CROP * hop_s:g} s or longer, needed: {LEAST_SECONDS} s; an hour is a good "
            "beginning"
        )
    return found


def plan(
    data: dict[str, Any], clips: np.ndarray, *, minutes: float, size: str | None, label: str
) -> tuple[Params, str, str]:
    """The whole of ``params.yaml`` for a training that takes so many minutes on this machine.

    Args:
        data: as `data_sections`; clips: frames of each, as `frames`.
        size: in ``own_folder.yaml``; None: the largest of `SIZES` that sees enough crops, for which
            it is tried.
        label: of the run.
    Returns: the parameters; the size; and what was chosen and why, in lines.
    """
    tried: list[Planned] = []
    said = []
    for each in [size] if size else reversed(SIZES):
        sections = _sections(data, each, clips, label)
        least = template()["sizes"][each]["least_crops"] if size is None else 0
        bound = _bound(sections, minutes)
        if bound < least:  # not worth a trial
            said.append(f"{each} needs {least:,} crops and would see {bound:,.0f} at most")
            continue
        tried.append(_tried(each, sections, minutes))
        if tried[-1].crops >= least:
            break
        said.append(f"{each} needs {least:,} crops and would see {tried[-1].crops:,}")
    chosen = tried[-1]
    params = parse(Params, _scheduled(chosen, clips), source="plan")
    throughput.remember(paths.bulk(params), config.resolve(params, "base"), chosen.rate)
    return params, chosen.size, _told(chosen, clips, said, params, asked=size is not None)


def write(params: Params, sounds: Sounds, path: Path) -> None:
    """Writes ``params.yaml``."""
    text = HEADER.format(folder=sounds.folder.resolve(), profile=params.profile)
    text += yaml.safe_dump(
        params.model_dump(exclude_unset=True), sort_keys=False, allow_unicode=True
    )
    with files.replacing(path) as temporary:
        temporary.write_text(text, "utf-8")


def _sections(data: dict[str, Any], size: str, clips: np.ndarray, label: str) -> dict[str, Any]:
    """All sections, with a schedule that is only good for a trial."""
    common, own = template()["params"], template()["sizes"][size]
    enough = int(np.quantile(clips, 1 - USABLE, method="lower"))
    crop = min(own["longest_crop"], enough) // 16 * 16
    placeholder: dict[str, Any] = {"epochs": 1.0, "warmup_epochs": 0.0, "diagnostics_every": 10}
    if distributed.device().type == "cpu":
        placeholder["precision"] = "float32"  # most emulate bfloat16
    decays = {"encoder_ema_decay": [0.9, 0.9], "head_ema_decay": [0.9, 1.0]}
    return data | {
        "model": {"crop_frames": crop} | common["model"] | own["model"],
        "objective": common["objective"] | {"teacher_temp_ramp_epochs": 0.0},
        "pretrain": common["pretrain"] | own["pretrain"] | placeholder | decays,
        "runs": {"base": {"label": label}},
        "encoders": common["encoders"],
        "probe": common["probe"],
    }


def _bound(sections: dict[str, Any], minutes: float) -> float:
    """Crops that matrix products alone leave time for."""
    run = config.resolve(parse(Params, sections), "base")
    work = sizes.per_clip(run, sections["logmel"]["num_mels"])
    return 60 * minutes * _products_per_s(run.pretrain.precision) / work


@cache
def _products_per_s(precision: str) -> float:
    """FLOP/s of a large matrix product on this device: the best of a few, some milliseconds."""
    device = distributed.device()
    size = 4096 if device.type == "cuda" else 512
    matrix = torch.ones(size, size, device=device, dtype=getattr(torch, precision))
    best = float("inf")
    for _ in range(5):
        start = time.perf_counter()
        (matrix @ matrix).sum().item()  # which waits for the device
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best


def _tried(size: str, sections: dict[str, Any], minutes: float) -> Planned:
    """On a CPU with one thread, too: beside other work a small network is faster without others."""
    seconds, num_mels = min(TRIAL_S, 6 * minutes), sections["logmel"]["num_mels"]
    found = []
    for threads in [1, None] if distributed.device().type == "cpu" else [None]:
        own = sections | {"pretrain": sections["pretrain"] | {"threads": threads}}
        run = config.resolve(parse(Params, own), "base")
        found.append((throughput.measure(run, num_mels=num_mels, seconds=seconds), own))
    rate, sections = max(found, key=lambda each: each[0].clips_per_s)
    batch = run.pretrain.batch_size
    together = rate.clips_per_s * distributed.num_processes(batch)
    updates = max(20, int(60 * minutes * REACHED * together / batch))
    return Planned(size, sections, rate, updates, updates * batch)


def _scheduled(chosen: Planned, clips: np.ndarray) -> dict[str, Any]:
    """The sections with everything that the number of updates decides.

    The averages of the teacher span the parts of training that they span in the mini profile, whose
    runs have 1,500 updates: from 1/45 to 1/3. The last is that of the paper's 295,000, too.
    """
    updates = chosen.updates
    model, pretrain = chosen.sections["model"], chosen.sections["pretrain"]
    usable = int((clips >= model["crop_frames"]).sum())
    # Updates are the whole ones in the epochs.
    epochs = round((updates + 0.5) * pretrain["batch_size"] / usable, 6)
    slow, fast = 1 - min(0.03, 45 / updates), 1 - min(0.002, 3 / updates)
    head = 1 - min(0.03, max(0.002, 45 / updates))  # the paper's is 0.998
    schedule = {
        "epochs": epochs,
        "warmup_epochs": round(WARM_UP * epochs, 6),
        "encoder_ema_decay": [round(slow, 6), round(fast, 6)],
        "head_ema_decay": [round(head, 6), 1.0],
        "diagnostics_every": max(10, updates // 150),
    }
    ramp = {"teacher_temp_ramp_epochs": schedule["warmup_epochs"]}
    return chosen.sections | {
        "objective": chosen.sections["objective"] | ramp,
        "pretrain": pretrain | schedule,
    }


def _told(
    chosen: Planned, clips: np.ndarray, others: list[str], params: Params, *, asked: bool
) -> str:
    """What was chosen and why."""
    model, run = params.model, config.resolve(params, "base")
    hop_s = params.logmel.hop_ms / 1000
    reason = "as asked for" if asked else "the largest that sees enough crops"
    if others:
        reason += f" ({'; '.join(others)})"
    passes = chosen.crops * model.crop_frames / clips.sum()
    hours = clips.sum() * hop_s / 3600
    lines = [
        f"size {chosen.size}, {model.encoder_depth} blocks {model.encoder_width} wide: {reason}",
        f"crops of {model.crop_frames * hop_s:.2f} s: {USABLE:.0%} of the clips are as long, and "
        f"{chosen.size} takes no longer ones than "
        f"{template()['sizes'][chosen.size]['longest_crop'] * hop_s:.2f} s",
        f"{chosen.updates:,} updates of {run.pretrain.batch_size} crops, {passes:.3g} times the "
        f"{hours:.2g} h: {chosen.rate.clips_per_s:,.4g} crops/s in a trial on "
        f"{throughput.device_name(run)}",
    ]
    if chosen.size == "mini" and not asked:
        lines.append(
            "of speech --size fine learns more, with patches of 8 x 8 (docs/own-folder.md)"
        )
    if chosen.crops < FEW_CROPS:
        lines.append(f"that is little: fewer than {FEW_CROPS:,} crops; more --minutes would help")
    return "\n".join(lines)
