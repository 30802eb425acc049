"""One training run: what every process gets, what it opens before and writes after."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from matpac.core import distributed, files
from matpac.encoders.frozen import frozen, save_encoder
from matpac.features.store import Store
from matpac.pretraining.batches import Batches, Corpus
from matpac.pretraining.config import COURSE, ResolvedRun
from matpac.pretraining.logs import Logs
from matpac.pretraining.states import Identity
from matpac.pretraining.trainer import Trainer


@dataclass(frozen=True)
class Job:
    """One training run as every process gets it."""

    name: str
    run: ResolvedRun
    index: dict[str, Any]
    """Content of ``pretraining.json``: stores, weights, front end, mean and std."""
    stores: Path
    """Folder that the stores' paths are relative to."""
    identity: Identity
    checkpoints: Path
    """Folder of its training states and growing logs."""
    encoder: Path
    """Its folder, written at the end."""
    logs: Path
    """Folder for the finished logs."""
    chosen: Path | None = None
    """The training state to go on from; None: the newest."""

    def on_the_way(self, total_steps: int) -> dict[int, Path]:
        """Updates made -> folder of the encoder that is kept then: beside the states, since a
        stage that starts again finds its outputs removed."""
        return {
            int(fraction * total_steps): self.checkpoints / COURSE / f"{fraction:g}"
            for fraction in self.run.pretrain.encoders_at
        }


def prepare(job: Job) -> tuple[Batches, Trainer]:
    """Opens the stores and builds the networks; says how many clips are too short to be used."""
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
    if distributed.rank() == 0 and (short := batches.num_clips - batches.num_usable):
        print(
            f"{job.name}: {short} of {batches.num_clips} clips are left out: shorter than the "
            f"{run.model.crop_frames} frames of a crop"
        )
    return batches, trainer


def normalisation(index: dict[str, Any]) -> dict[str, float]:
    """Mean and std of the pretraining corpora's log-mels."""
    return {name: index["normalisation"][name] for name in ("mean", "std")}


def training(run: ResolvedRun) -> dict[str, Any]:
    """The sections that decided an encoder's weights besides its sizes, kept beside them."""
    return {"objective": run.objective.deciding(), "pretrain": run.pretrain.deciding()}


def write_encoder(job: Job, trainer: Trainer, folder: Path) -> None:
    """Writes the student's encoder as it is now."""
    with torch.random.fork_rng(devices=[]):  # a new encoder draws weights before it gets these
        encoder = frozen(trainer.student, job.index["front_end"], **normalisation(job.index))
    save_encoder(encoder.cpu(), folder, **training(job.run))


def finish(
    job: Job, trainer: Trainer, logs: Logs, batches: Batches, total_steps: int
) -> dict[str, Any]:
    """Writes the encoder and the logs to the stage's outputs. Returns: the last measurements."""
    write_encoder(job, trainer, job.encoder)
    for kept in job.on_the_way(total_steps).values():
        if kept.exists():
            shutil.copytree(kept, job.encoder / COURSE / kept.name, dirs_exist_ok=True)
    metrics: dict[str, Any] = {
        "steps": total_steps,
        "clips": batches.num_usable,
        "clips_shorter_than_a_crop": batches.num_clips - batches.num_usable,
    }
    for name in ("log", "diagnostics"):
        if (path := logs.path(name)).exists():
            with files.replacing(job.logs / path.name) as temporary:
                shutil.copyfile(path, temporary)
            header, *_, last = path.read_text().splitlines()
            values = zip(header.split(","), last.split(","), strict=True)
            metrics |= {key: float(value) for key, value in values if key != "step"}
    return metrics
