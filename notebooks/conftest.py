"""``pytest --nbval notebooks/`` runs on a smoke root made once per session, not on real data."""

import os
import tempfile
from pathlib import Path

import pytest

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch is imported

import smoke


def pytest_collection_finish(session: pytest.Session) -> None:
    """Prepares the root when a notebook is about to run, whichever one."""
    if any(item.path.suffix == ".ipynb" for item in session.items):
        folder = tempfile.TemporaryDirectory(prefix="matpac-smoke-")
        session.config.add_cleanup(folder.cleanup)
        smoke.prepare(Path(folder.name))
