"""A store, a configuration and a training run small enough for unit tests."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import soundfile
import torch

from matpac.core import files
from matpac.core.parallel import Workers
from matpac.features import build
from matpac.features.store import Store
from matpac.pretraining import states
from matpac.pretraining.batches import Batch
from matpac.pretraining.checkpoint import identity
from matpac.pretraining.config import ResolvedRun
from matpac.pretraining.run import Job
from matpac.pretraining.schedules import Scheduled
from matpac.pretraining.trainer import Trainer

FRONT_END = {"sample_rate": 16000, "window_ms": 25.0, "hop_ms": 10.0, "num_mels": 16}
FRONT_END |= {"fmin_hz": 50.0, "fmax_hz": 8000.0}
CROP = 32
"""Frames: with patches of 8 a grid of 2 rows and 4 columns."""
SECTIONS: dict[str, dict[str, Any]] = {
    "model": {
        "crop_frames": CROP,
        "patch_size": 8,
        "mask_ratio": 0.6,
        "positions": "sincos",
        "encoder_width": 16,
        "encoder_depth": 2,
        "encoder_heads": 2,
        "predictor_width": 12,
        "predictor_depth": 1,
        "predictor_heads": 2,
        "mlp_ratio": 2.0,
        "head_hidden": 16,
        "head_bottleneck": 8,
        "num_prototypes": 12,
        "train_weight_g": True,
    },
    "objective": {
        "alpha": 0.5,
        "student_temp": 0.1,
        "teacher_temp_start": 0.04,
        "teacher_temp": 0.07,
        "teacher_temp_ramp_epochs": 1.0,
        "sharpening": True,
        "centering": "probabilities",
        "center_momentum": 0.9,
    },
    "pretrain": {
        "epochs": 6.0,
        "warmup_epochs": 1.0,
        "batch_size": 4,
        "learning_rate": 4e-3,
        "scale_learning_rate": False,
        "betas": [0.9, 0.95],
        "eps": 1e-6,
        "weight_decay": 0.05,
        "decay_norms_and_biases": True,
        "clip_norm": 3.0,
        "encoder_ema_decay": [0.97, 0.998],
        "head_ema_decay": [0.97, 1.0],
        "precision": "float32",
        "teacher_copies_student": False,
        "same_masks_on_all_ranks": False,
        "workers": 0,
        "diagnostics_every": 5,
        "checkpoint_every_s": 1000.0,
        "keep_checkpoints": 2,
        "seed": 0,
    },
}


def sections(**changes: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The sections of a run, with some keys changed: ``sections(objective={"alpha": 1.0})``."""
    return {name: section | changes.get(name, {}) for name, section in SECTIONS.items()}


def run(**changes: dict[str, Any]) -> ResolvedRun:
    """The same, validated."""
    return ResolvedRun.model_validate(sections(**changes))


def make_store(folder: Path, lengths: list[int]) -> Store:
    """A store of chirps in noise.

    Args:
        folder: where, .../<profile>/logmel/<name>; lengths: frames of each clip.
    """
    audio = folder.with_name(f"{folder.name}.audio")
    audio.mkdir(parents=True)
    random = np.random.default_rng(0)
    names = [f"{number}.wav" for number in range(len(lengths))]
    for name, length in zip(names, lengths, strict=True):
        seconds = np.arange(400 + 160 * (length - 1)) / 16000
        start, slope = random.uniform(100, 4000), random.uniform(-2000, 4000)
        wave = 0.3 * np.sin(2 * np.pi * (start + slope * seconds) * seconds)
        soundfile.write(audio / name, wave + random.normal(0, 0.01, len(wave)), 16000)
    manifest = pd.DataFrame({"clip": names, "path": names})
    manifest["start_s"], manifest["duration_s"] = 0.0, np.array(lengths) / 100 + 0.015
    manifest["sha256"], manifest["excluded"] = names, ""
    build.build(
        manifest,
        audio,
        folder,
        front_end=FRONT_END,
        shard_bytes=10**8,
        max_bad_fraction=0.0,
        workers=Workers(1, preload="matpac.features.shards"),
    )
    store = Store(folder)
    assert store.num_frames.tolist() == lengths
    return store


def pretraining_index(folder: Path) -> dict[str, Any]:
    """What the ``logmel`` stage says of a bulk folder with the one store ``logmel/noise``."""
    index_file = folder / "logmel" / "noise" / "index.json"
    corpus = {"store": "logmel/noise", "weight": 1.0, "index_sha256": files.sha256(index_file)}
    constants = {"mean": -8.0, "std": 4.0}
    return {"front_end": FRONT_END, "normalisation": constants, "corpora": [corpus]}


def make_job(bulk: Path, outputs: Path, resolved: ResolvedRun) -> Job:
    """A training run on the store ``logmel/noise`` of a bulk folder."""
    index = pretraining_index(bulk)
    return Job(
        name="tiny",
        run=resolved,
        index=index,
        stores=bulk,
        identity=identity(resolved, index),
        checkpoints=outputs / "checkpoints" / "tiny" / "fingerprint",
        encoder=outputs / "encoder",
        logs=outputs / "logs",
    )


def newest(job: Job) -> Path:
    """Its newest training state."""
    return max(job.checkpoints.glob("state-*.pt"))


def assert_equal_results(ours: Job, expected: Job) -> None:
    """Bit for bit: encoder, logs, and all of the last training state but its configuration."""
    for name in ("model.safetensors", "config.json"):
        assert (ours.encoder / name).read_bytes() == (expected.encoder / name).read_bytes()
    for name in ("log.csv", "diagnostics.csv"):
        assert (ours.logs / name).read_text() == (expected.logs / name).read_text()
    assert newest(ours).name == newest(expected).name
    contents = []
    for job in (ours, expected):
        state = states.read(newest(job))
        del state["identity"]
        buffer = io.BytesIO()
        torch.save(states.Snapshot(state).content(), buffer)
        contents.append(buffer.getvalue())
    assert contents[0] == contents[1]


def make_project(bulk: Path, root: Path, **runs: dict[str, Any]) -> dict[str, Any]:
    """A root whose ``logmel`` stage has run. Returns: the sections of the ``pretrain`` stage."""
    (root / "data/tiny").mkdir(parents=True)
    for name in ("noise", "noise.audio"):
        (root / "data/tiny/logmel").mkdir(exist_ok=True)
        (root / "data/tiny/logmel" / name).symlink_to(bulk / "logmel" / name)
    files.write_json(root / "data/tiny/logmel/pretraining.json", pretraining_index(bulk))
    short = sections(pretrain={"epochs": 1.0})
    return {"profile": "tiny", "storage": None, "runs": runs} | short


AT = Scheduled(learning_rate=1e-2, encoder_ema_decay=0.75, head_ema_decay=0.5, teacher_temp=0.05)
"""Of the updates of a trainer without a run."""


def make_trainer(**changes: dict[str, Any]) -> Trainer:
    """Of a run with some keys changed."""
    return Trainer(run(**changes), 16, mean=-8.0, std=4.0)


def make_batch(size: int = 4, seed: int = 0) -> Batch:
    """Noise around the mean of the log-mels."""
    random = torch.Generator().manual_seed(seed)
    logmel = -8 + 4 * torch.randn(size, 16, CROP, generator=random)
    return Batch(logmel.half(), torch.rand(size, 8, generator=random))


def tensors(trainer: Trainer) -> dict[str, torch.Tensor]:
    """Copies of all that an update changes but the optimiser."""
    return {
        f"{part}.{name}": tensor.clone()
        for part in ("student", "teacher", "center")
        for name, tensor in getattr(trainer, part).state_dict().items()
    }
