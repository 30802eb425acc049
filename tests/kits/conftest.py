"""What the tests of the field's benchmarks share: an encoder in a folder, and sounds.

Each benchmark is a package with an environment of its own (`make test-benchmarks`); elsewhere
its test is skipped.
"""

from pathlib import Path

import encoder_checks
import numpy as np
import pytest
from kit_sounds import CLASSES, Sound, sound

from matpac.encoders.frozen import save_encoder


@pytest.fixture(scope="session")
def splits() -> dict[str, list[Sound]]:
    """Sounds of 1 s, as many of each class: 64 to train, 32 to validate, 32 to test."""
    rng = np.random.default_rng(0)
    sizes = {"train": 16, "valid": 8, "test": 8}
    return {
        split: [(label, sound(label, rng)) for label in CLASSES for _ in range(num)]
        for split, num in sizes.items()
    }


@pytest.fixture(scope="session")
def encoder_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two layers with random weights, which tell such sounds apart."""
    folder = tmp_path_factory.mktemp("encoder")
    save_encoder(encoder_checks.tiny_net(), folder)
    return folder
