"""Runs a stage's notebook with papermill; the executed copy is kept for people."""

import os
from pathlib import Path

from matpac.core import paths
from matpac.params import load


def run(notebook: str, key: str | None) -> Path:
    """Executes ``notebooks/<notebook>.ipynb`` on ``params.yaml``, which is checked before.

    Args:
        notebook: its name without ending.
        key: the name in ``runs`` or ``encoders`` that it is for.
    Returns: the executed copy, ``data/<profile>/executed/<notebook>[-<key>].ipynb``.
    Raises: ValueError, FileNotFoundError for bad parameters; papermill.PapermillExecutionError.
    """
    root = paths.root()
    folder = paths.small(load()) / "executed"
    folder.mkdir(parents=True, exist_ok=True)
    # Waiting threads spin shortly, then sleep: on a busy machine long spinning is ten times slower.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    os.environ.setdefault("MATPAC_PROGRESS", "lines")
    # The kernel of this environment, whatever others are installed.
    os.environ["JUPYTER_PREFER_ENV_PATH"] = "1"
    os.environ.pop("JUPYTER_PATH", None)
    import papermill

    executed = folder / f"{notebook}-{key}.ipynb" if key else folder / f"{notebook}.ipynb"
    papermill.execute_notebook(
        str(root / "notebooks" / f"{notebook}.ipynb"),
        str(executed),
        parameters={"params": "params.yaml"} | ({"run": key} if key else {}),
        cwd=str(root),
        kernel_name="python3",
        language="python",
        log_output=True,
        progress_bar=False,
        start_timeout=120,
    )
    return executed
