"""What the tests of training share."""

from pathlib import Path

import pytest
import tiny


@pytest.fixture(scope="module")
def bulk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Log-mels of eight clips of at least one crop."""
    folder = tmp_path_factory.mktemp("bulk")
    tiny.make_store(folder / "logmel" / "noise", [32, 33, 35, 38, 40, 44, 50, 64])
    return folder
