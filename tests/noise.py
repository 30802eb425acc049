"""Folders of noise, their manifests, and stores made of them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import soundfile
import torch

from matpac.audio import logmel
from matpac.core import files
from matpac.core.parallel import Workers
from matpac.data.config import FetchParams
from matpac.features import build as stores
from matpac.params import parse

FRONT_END = {"sample_rate": 16000, "window_ms": 25.0, "hop_ms": 10.0, "num_mels": 80}
FRONT_END |= {"fmin_hz": 50.0, "fmax_hz": 8000.0}
LENGTHS_S = {"a": 1.0, "b": 0.3, "c": 0.025, "d": 0.5}


@dataclass
class Corpus:
    """A folder of noise, and the manifest of it."""

    folder: Path
    manifest: pd.DataFrame

    def build(self, store: Path, *, workers: Workers | None = None, **options: Any) -> tuple:
        options = {"front_end": FRONT_END, "shard_bytes": 10**8, "max_bad_fraction": 0.5} | options
        workers = workers or Workers(1, preload="matpac.features.shards")
        return stores.build(self.manifest, self.folder, store, workers=workers, **options)


def make_corpus(folder: Path, lengths_s: dict[str, float]) -> Corpus:
    folder.mkdir(parents=True)
    rng = np.random.default_rng(3)
    for name, length_s in lengths_s.items():
        wave = rng.uniform(-0.5, 0.5, round(16000 * length_s))
        soundfile.write(folder / f"{name}.wav", wave, 16000)
    columns = {"clip": list(lengths_s), "path": [f"{name}.wav" for name in lengths_s]}
    columns |= {"start_s": 0.0, "duration_s": list(lengths_s.values())}
    columns |= {"sha256": list(lengths_s), "excluded": ""}
    return Corpus(folder, pd.DataFrame(columns))


def expected(path: Path) -> np.ndarray:
    samples, _ = soundfile.read(path, dtype="float32")
    return logmel.log_mel(torch.from_numpy(samples)).T.numpy()  # (T, F)


def content(folder: Path) -> dict[str, bytes]:
    """Of a store's files; what was compared when is a matter of the machine."""
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.name != files.CHECKED}


def make_folders(root: Path) -> None:
    """Two data sets of four clips, "music" and "birds", each with folds."""
    for name in ("music", "birds"):
        corpus = make_corpus(root / name, LENGTHS_S)
        table = corpus.manifest.assign(fold=[1, 2, 3, 4], label=["x", "y", "y", "x"])
        table.to_csv(root / f"{name}.csv", index=False)


def folder_params(tasks: list[str], **logmel: Any) -> FetchParams:
    """Parameters of both, with "music" as corpus."""

    def dataset(name: str) -> dict[str, Any]:
        columns = {"filename": "path", "labels": "label", "kind": "multiclass", "fold": "fold"}
        return {"source": "folder", "audio": name, "csv": f"{name}.csv"} | columns

    section = FRONT_END | {"mean": None, "std": None, "max_bad_fraction": 0.0, "workers": 1}
    sections = {"profile": "mini", "storage": None, "logmel": section | {"shard_mb": 1} | logmel}
    sections |= {"datasets": {name: dataset(name) for name in ("music", "birds")}}
    return parse(FetchParams, sections | {"corpora": {"music": 2.0}, "tasks": tasks})
