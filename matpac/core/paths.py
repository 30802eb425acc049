"""Where things lie: the project's root, and a profile's folders."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from matpac.core import files, yaml_file
from matpac.core.section import Common

NOTEBOOKS = {
    "fetch": "01_fetch",
    "logmel": "02_logmel",
    "pretrain": "03_pretrain",
    "probe": "04_probe",
    "probe_only": "04_probe",
    "figures": "05_figures",
}
"""Stage -> its notebook."""


def root() -> Path:
    """The project: ``MATPAC_ROOT``, else the nearest folder upwards that holds ``dvc.yaml``.

    Raises: FileNotFoundError when there is none.
    """
    if given := os.environ.get("MATPAC_ROOT"):
        return Path(given).resolve()
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "dvc.yaml").exists():
            return folder
    raise FileNotFoundError(f"no dvc.yaml in {here} or above; set MATPAC_ROOT to the project")


def active_profile() -> str | None:
    """The profile that ``root()/params.yaml`` says it holds; None without such a file."""
    path = root() / "params.yaml"
    sections = yaml_file.read(path) if path.exists() else None
    return str(sections.get("profile")) if isinstance(sections, dict) else None


def made(path: Path, profile: str, stage: str, key: str = "") -> Path:
    """The path of what a stage makes.

    Args: key: the run or encoder, for stages that exist once for each.
    Raises: FileNotFoundError saying what to run.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path}: missing; run {command(profile, stage, key)}")
    return path


def command(profile: str, stage: str, key: str = "", *, option: str = "") -> str:
    """What runs a stage: DVC knows those of the active profile, notebooks run on any parameters.

    Args: key: as of `made`; option: of ``dvc repro``.
    """
    name = f"{stage}@{profile}-{key}" if key else f"{stage}@{profile}"
    repro = f"`dvc repro {option + ' ' if option else ''}{name}`"
    if profile == active_profile():
        return repro
    if (root() / f"params.{profile}.yaml").exists():
        return f"`matpac use {profile}` and {repro}"
    return f"the notebook {NOTEBOOKS[stage]}" + (f" with run = {key!r}" if key else "")


def small(params: Common) -> Path:
    """Folder of what DVC tracks: manifests, indices, metrics, logs, encoders."""
    return root() / "data" / params.profile


def bulk(params: Common) -> Path:
    """Folder of audio, log-mel stores, training states and embeddings."""
    base = os.environ.get("MATPAC_DATA") or params.storage or "data"
    return expand(base) / params.profile


@contextmanager
def claimed(params: Common, stage: str) -> Iterator[None]:
    """Within it no other process runs this stage on the same bulk folder, which it would spoil.

    Args: stage: its name, with that of a run or encoder where these may run side by side.
    Raises: BlockingIOError naming the lock if another keeps it for longer than a minute.
    """
    with files.locked(bulk(params) / f".{stage}.lock", f"runs the stage {stage} there"):
        yield


def expand(path: str) -> Path:
    """A path of ``params.yaml``: ``~`` and ``$VARIABLES`` expanded, relative to the root.

    Raises: ValueError for a user who is not there.
    """
    try:
        expanded = Path(os.path.expandvars(path)).expanduser()
    except RuntimeError:
        raise ValueError(f"{path}: no such user on this machine") from None
    return root() / expanded
