"""The encoders that a name in ``runs`` or ``encoders`` of ``params.yaml`` stands for."""

import hashlib
import json
from typing import NamedTuple

import torch

from matpac.core import files, paths
from matpac.encoders import hub, user, weights
from matpac.encoders.frozen import AudioEncoder, frozen, load_encoder
from matpac.encoders.interface import WaveEncoder
from matpac.encoders.published import ROWS
from matpac.method.student import Student
from matpac.pretraining import config
from matpac.probing import sources
from matpac.probing.config import EncoderConfig, ProbeParams


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
    fraction: float = 1.0
    """Of its training that the encoder has behind it."""


def list_features(params: ProbeParams, name: str) -> list[Features]:
    """The encoders behind a name: one per pretraining seed.

    Raises: ValueError for a name that is neither a run nor an encoder; FileNotFoundError if its
        ``pretrain`` stage has not run, or saying where its weights are to be had; ImportError
        naming what to install.
    """
    if name in params.runs:
        folder = paths.small(params) / "pretrain" / name
        stage = params.profile, "pretrain", name
        return [
            Features(name, seed, load_encoder(paths.made(folder / f"seed_{seed}", *stage)))
            for seed in config.seeds(params, name)
        ]
    if name not in params.encoders:
        allowed = ", ".join([*params.runs, *params.encoders])
        raise ValueError(f"encoder: got {name!r}, allowed: {allowed}")
    seed, wanted = params.pretrain.seed, params.encoders[name]
    if wanted.kind == "logmel_statistics":
        return [Features(name, seed, None)]
    if wanted.kind == "random":
        return [
            Features(name, s, random_encoder(params, "base", s)) for s in wanted.seeds or [seed]
        ]
    return [Features(name, seed, encoder_of(params, wanted), users_code(wanted))]


def on_the_way(params: ProbeParams, name: str) -> list[Features]:
    """The encoders of a run that were kept during training; none of what is not trained here."""
    if name not in params.runs:
        return []
    folder = paths.small(params) / "pretrain" / name
    return [
        Features(name, seed, load_encoder(kept), fraction=float(kept.name))
        for seed in config.seeds(params, name)
        for kept in sorted((folder / f"seed_{seed}").glob(f"{config.COURSE}/*"))
    ]


def encoder_of(params: ProbeParams, wanted: EncoderConfig) -> WaveEncoder:
    """An encoder from elsewhere. Raises: as `list_features`."""
    file = paths.expand(wanted.weights) if wanted.weights else None
    if wanted.kind == "pretrained":
        if wanted.weights in ROWS:
            raise ValueError(
                f"weights: got {wanted.weights!r}, a published row; allowed: kind: {wanted.weights}"
            )
        # What is no folder may be a name on the Hugging Face Hub, which must not be expanded.
        return hub.load(file if file.is_dir() else wanted.weights, device="cpu")
    if wanted.kind == "module":
        return user.from_function(wanted.module, file)
    if wanted.kind == "hear":
        return user.from_hear(wanted.module, file)
    return weights.make(wanted.kind, file, mirror=params.downloads.mirror)


def users_code(wanted: EncoderConfig) -> str:
    """Digest of what decides a user's encoder besides its tensors; "" for another encoder."""
    if not wanted.module:
        return ""
    # What a module makes of its weights need not be tensors.
    said = json.dumps([wanted.module, sources.files_of(wanted)])
    return hashlib.sha256(said.encode()).hexdigest()


def random_encoder(params: ProbeParams, run: str, seed: int) -> AudioEncoder:
    """A run's model before its first update, with the normalisation of the pretraining corpora."""
    path = paths.small(params) / "logmel" / "pretraining.json"
    index = files.read_json(paths.made(path, params.profile, "logmel"))
    torch.manual_seed(seed)
    model = config.resolve(params, run).model
    student = Student(model, index["front_end"]["num_mels"])
    constants = index["normalisation"]
    return frozen(student, index["front_end"], mean=constants["mean"], std=constants["std"])
