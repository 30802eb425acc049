"""``pytest --nbval notebooks/`` runs on a smoke root made once per session, not on real data."""

import os
import tempfile
from pathlib import Path

import pytest

# Before torch is imported, as in tests/conftest.py.
os.environ |= {"CUDA_VISIBLE_DEVICES": "", "GOMP_SPINCOUNT": "1000"}

import smoke


def pytest_collection_finish(session: pytest.Session) -> None:
    """Prepares the root when a notebook is about to run, whichever one."""
    if any(item.path.suffix == ".ipynb" for item in session.items):
        folder = tempfile.TemporaryDirectory(prefix="matpac-smoke-")
        session.config.add_cleanup(folder.cleanup)
        smoke.prepare(Path(folder.name))
