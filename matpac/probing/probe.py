"""The ``probe`` stage: a frozen encoder -> linear-probe scores on every task (MATPAC Sec. IV-A).

Embeddings of a task are computed once per encoder (`matpac.probing.extract`), so adding a task or
changing the probe never embeds anything again. Which protocol this is, and what the paper leaves
open: ``docs/probing.md``.

Shapes: N clips of a task, D embedding size, C labels.
"""

import hashlib
import json
from dataclasses import asdict
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch

from matpac import encoders
from matpac.core import distributed, files, paths, section
from matpac.core.fingerprints import source_digest
from matpac.core.progress import track
from matpac.data import manifests
from matpac.encoders import hub, user
from matpac.encoders.frozen import AudioEncoder, frozen, load_encoder
from matpac.encoders.interface import WaveEncoder
from matpac.encoders.vit import ViTEncoder
from matpac.features.store import Store
from matpac.method.student import Student
from matpac.pretraining import config
from matpac.probing.config import EncoderConfig, ProbeConfig, ProbeParams
from matpac.probing.embedders import Embedder, Recorded, Stored
from matpac.probing.extract import extract
from matpac.probing.linear import ProbeResult, choose, train_probes
from matpac.probing.splits import make_problems


class Features(NamedTuple):
    """What turns clips into the features of a probe."""

    name: str
    """Of the run or encoder in ``params.yaml``."""
    seed: int
    """Of the pretraining, or of the random initialisation."""
    encoder: AudioEncoder | WaveEncoder | None
    """Of log-mels, or of waveforms; None: mean and std over time of each mel band."""
    code: str = ""
    """Digest of the encoder's function, source and weights if they are the user's."""


def probe(encoder: str, params: ProbeParams | dict[str, Any]) -> pd.DataFrame:
    """The ``probe`` stage: scores of one run or encoder on every task.

    Args:
        encoder: its name in ``runs`` or ``encoders``.
        params: the sections of `matpac.params.config.ProbeParams`.
    Returns: one row per (seed, task, fold, repeat), as written to
        ``data/<profile>/probe/<encoder>/scores.csv``; score, accuracy or mAP, is in [0, 1], and
        ``learning_rate`` the one taken. The means per task go to
        ``data/<profile>/metrics/probe/<encoder>.json``.
    Raises: ValueError for bad parameters; FileNotFoundError naming the stage that has not run.
    """
    params = section.parse(ProbeParams, params)
    every = [
        task_scores(params, features, task)
        for features in list_features(params, encoder)
        for task in track(params.tasks, len(params.tasks), f"probe {encoder}", unit="task")
    ]
    scores = pd.concat(every, ignore_index=True)
    small = paths.small(params)
    means = scores.groupby("task", sort=False)["score"].mean()
    metrics = {"mean": means.mean(), **means.to_dict()}
    files.write_json(small / "metrics" / "probe" / f"{encoder}.json", metrics)
    readable = scores.assign(learning_rate=scores["learning_rate"].map("{:g}".format))
    with files.replacing(small / "probe" / encoder / "scores.csv") as temporary:
        readable.to_csv(temporary, index=False, float_format="%.6f", lineterminator="\n")
    return scores


def list_features(params: ProbeParams, name: str) -> list[Features]:
    """The encoders behind a name: one per pretraining seed.

    Raises: ValueError for a name that is neither a run nor an encoder; FileNotFoundError if its
        ``pretrain`` stage has not run, or saying where its weights are to be had; ImportError
        naming what to install.
    """
    if name in params.runs:
        folder = paths.small(params) / "pretrain" / name
        return [
            Features(name, seed, load_encoder(folder / f"seed_{seed}"))
            for seed in config.seeds(params, name)
        ]
    if name not in params.encoders:
        allowed = ", ".join([*params.runs, *params.encoders])
        raise ValueError(f"encoder: got {name!r}, allowed: {allowed}")
    seed, wanted = params.pretrain.seed, params.encoders[name]
    if wanted.kind == "logmel_statistics":
        return [Features(name, seed, None)]
    if wanted.kind == "random":
        return [Features(name, seed, random_encoder(params))]
    return [Features(name, seed, encoder_of(params, wanted), _users_code(wanted))]


def encoder_of(params: ProbeParams, wanted: EncoderConfig) -> WaveEncoder:
    """An encoder from elsewhere. Raises: as `list_features`."""
    weights = paths.expand(wanted.weights) if wanted.weights else None
    if wanted.kind == "pretrained":
        if wanted.weights in encoders.names():
            raise ValueError(
                f"weights: got {wanted.weights!r}, a published row; allowed: kind: {wanted.weights}"
            )
        # What is no folder may be a name on the Hugging Face Hub, which must not be expanded.
        return hub.load(weights if weights.is_dir() else wanted.weights, device="cpu")
    if wanted.kind == "module":
        return user.from_function(wanted.module, weights)
    if wanted.kind == "hear":
        return user.from_hear(wanted.module, weights)
    mirror = params.downloads.mirror
    return encoders.make(wanted.kind, weights, mirror=mirror)


def _users_code(wanted: EncoderConfig) -> str:
    """Digest of what decides a user's encoder besides its tensors; "" for another encoder."""
    if not wanted.module:
        return ""
    said = [wanted.module, source_digest(wanted.module.partition(":")[0], paths.root())]
    if wanted.weights and (path := paths.expand(wanted.weights)).exists():
        # What a module makes of them need not be tensors.
        said.append(files.sha256_of_all(path))
    return hashlib.sha256("\n".join(said).encode()).hexdigest()


def random_encoder(params: ProbeParams) -> AudioEncoder:
    """The base model before its first update, with the normalisation of the pretraining corpora."""
    path = paths.small(params) / "logmel" / "pretraining.json"
    if not path.exists():
        raise FileNotFoundError(f"{path}: missing; run the stage logmel@{params.profile}")
    index = json.loads(path.read_text())
    torch.manual_seed(params.pretrain.seed)
    student = Student(params.model, index["front_end"]["num_mels"])
    constants = index["normalisation"]
    return frozen(student, index["front_end"], mean=constants["mean"], std=constants["std"])


def task_scores(params: ProbeParams, features: Features, task: str) -> pd.DataFrame:
    """Probes one task: a row per fold and repeat, at the learning rate that `choose` takes."""
    results, metric = task_results(params, features, task, params.probe)
    scores = pd.DataFrame([asdict(result) for result in choose(results)])
    named = {"encoder": features.name, "seed": features.seed, "task": task, "metric": metric}
    return pd.concat([pd.DataFrame([named] * len(scores)), scores], axis=1)


def task_results(
    params: ProbeParams, features: Features, task: str, settings: ProbeConfig
) -> tuple[dict[float, list[ProbeResult]], str]:
    """Probes one task at every learning rate of ``settings``.

    Returns: per rate, a result per fold and repeat; and the task's metric.
    """
    manifest, info = manifests.load(params, task)
    store = open_store(params, task)
    manifest = manifest.iloc[store.rows]
    targets = target_array(manifest, info["kind"])
    problems = make_problems(
        scheme=info["split_scheme"],
        splits=manifest["split"].to_numpy(str),
        folds=manifest["fold"].to_numpy(int),
        groups=manifest["group"].to_numpy(str),
        targets=targets,
        repeats=settings.repeats,
        seed=settings.seed,
        valid_fraction=settings.valid_fraction,
    )
    folder = paths.bulk(params) / "embeddings" / features.name
    rate = settings.learning_rate
    results = train_probes(
        extract(embedder(params, features, task, store, manifest), folder, name=features.name),
        targets,
        problems,
        kind=info["kind"],
        num_classes=len(info["classes"]),
        learning_rates=rate if isinstance(rate, list) else [rate],
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        weight_decay=settings.weight_decay,
        standardize=settings.standardize,
        patience=settings.patience,
        device=distributed.device(),
    )
    return results, info["metric"]


def embedder(
    params: ProbeParams, features: Features, task: str, store: Store, manifest: pd.DataFrame
) -> Embedder:
    """An encoder on the clips of a task.

    An encoder with the front end of the stored log-mels takes those, any other one the audio.

    Args: manifest: one row per clip of the store.
    """
    encoder = features.encoder
    if isinstance(encoder, ViTEncoder) and encoder.is_fed_by(store.index["front_end"]):
        encoder = encoder.net
    if isinstance(encoder, WaveEncoder):
        folder = manifests.audio_folder(params, task)
        return Recorded(encoder, manifest, folder, code=features.code)
    return Stored(encoder, store)


def target_array(manifest: pd.DataFrame, kind: str) -> np.ndarray:
    """Class indices (N,), or 1, 0 or NaN (not observed) per label, (N, C).

    OpenMIC's labels are likelihoods; at least one half is positive, as its authors have it.
    """
    if kind == "multiclass":
        return manifest["label"].to_numpy(np.int64, copy=True)
    likelihoods = np.stack(manifest["labels"].to_list()).astype(np.float32)
    return np.where(np.isnan(likelihoods), np.nan, likelihoods >= 0.5).astype(np.float32)


def open_store(params: ProbeParams, task: str) -> Store:
    """The log-mels of a task, checked against the index that DVC tracks."""
    tracked = paths.small(params) / "logmel" / "tasks" / f"{task}.json"
    if not tracked.exists():
        raise FileNotFoundError(f"{tracked}: missing; run the stage logmel@{params.profile}")
    return Store(paths.bulk(params) / "logmel" / task, index_sha256=files.sha256(tracked))
