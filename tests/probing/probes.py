"""Tasks and settings for the tests of probes."""

from typing import Any

import numpy as np
import torch

from matpac.encoders.frozen import AudioEncoder
from matpac.features.store import Store
from matpac.probing.config import ProbeConfig
from matpac.probing.splits import Split

NAN = float("nan")
SETTINGS = {
    "batch_size": 10,
    "learning_rate": 0.05,
    "epochs": 5,
    "patience": None,
    "weight_decay": 0.0,
    "standardize": True,
    "repeats": 1,
    "valid_fraction": 0.2,
    "seed": 0,
}


def settings(**changes: Any) -> ProbeConfig:
    return ProbeConfig.model_validate(SETTINGS | changes)


def split(train: range, valid: range, test: range, *, seed: int = 0, fold: int = 0) -> Split:
    return Split(np.array(train), np.array(valid), np.array(test), seed, fold, 1)


ONE = [split(range(60), range(60, 80), range(80, 100))]


def uneven_splits() -> list[Split]:
    """Training parts of 37, 24 and 50 rows: 4, 3 and 5 steps of 10."""
    return [
        split(range(37), range(60, 70), range(70, 100), seed=1, fold=1),
        split(range(10, 34), range(50, 58), range(80, 100), seed=2, fold=2),
        split(range(50), range(50, 75), range(75, 100), seed=3, fold=3),
    ]


def clusters(num_classes: int = 3, dim: int = 7) -> tuple[torch.Tensor, torch.Tensor]:
    """100 overlapping clips with features of very different size, one of them constant."""
    generator = torch.Generator().manual_seed(5)
    labels = torch.randint(num_classes, (100,), generator=generator)
    centres = torch.randn(num_classes, dim, generator=generator)
    features = centres[labels] + torch.randn(100, dim, generator=generator)
    features = features * torch.logspace(-2, 2, dim) + 3.0
    features[:, 4] = 0.1
    return features, labels


def folds_task(num_folds: int = 5) -> dict[str, np.ndarray]:
    """40 recordings of 3 clips, 4 classes, 5 folds: 8 recordings per fold, 2 of each class."""
    recording = np.repeat(np.arange(40), 3)
    return {
        "splits": np.full(120, ""),
        "folds": recording % num_folds + 1,
        "groups": np.array([f"rec{r:02d}" for r in recording]),
        "targets": (recording // num_folds) % 4,
    }


def alone(encoder: AudioEncoder, store: Store) -> np.ndarray:
    """Embeddings of the clips one by one, (N, D)."""
    logmels = [torch.from_numpy(store.clip(i).T.astype(np.float32)) for i in range(len(store))]
    return torch.cat([encoder(logmel[None]).mean(dim=2).flatten(1) for logmel in logmels]).numpy()
