"""The only reader of ``params.yaml``: validation, overlays of runs, and where things lie.

A run is an overlay of only what differs from the base sections, resolved by `resolve`. Every
problem found is listed in one ValueError. ``python -m matpac.config`` validates the whole file;
each stage's command does that first, so nothing starts on a misspelt key. It also names folders and
tables of audio that are not there; `load` does not, since parameters may be read anywhere.
"""

import argparse
import hashlib
import json
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from matpac import checks
from matpac.dataset_sections import (  # noqa: F401 (callers take every section from here)
    DatasetConfig,
    DownloadsConfig,
    EmbeddedDataset,
    FolderDataset,
    OfficialDataset,
    PackedDataset,
)
from matpac.sections import (  # noqa: F401 (and these)
    Common,
    EncoderConfig,
    FetchParams,
    LogmelConfig,
    LogmelParams,
    ModelConfig,
    ObjectiveConfig,
    Params,
    PretrainConfig,
    PretrainParams,
    ProbeConfig,
    ProbeParams,
    ResolvedRun,
    Run,
)
from matpac.values import Section  # noqa: F401 (and this)

Stage = TypeVar("Stage", bound=Common)
FINDERS = (
    checks.name_problems,
    checks.dataset_problems,
    checks.size_problems,
    checks.overlay_problems,
)


def parse(
    stage: type[Stage], sections: Stage | dict[str, Any], *, source: str = "parameters"
) -> Stage:
    """Validates ``sections`` for one stage.

    Args:
        stage: the class that holds the stage's sections.
        sections: section name -> mapping, as in ``params.yaml``; or validated before.
        source: what to call their origin in an error.
    Raises: ValueError listing every unknown, missing, mistyped or impossible entry.
    """
    if isinstance(sections, stage):
        return sections
    problems = []
    try:
        value = stage.model_validate(sections)
    except ValidationError as error:
        problems = checks.describe(error)
    # Looked for even where a section is bad, so that one message names everything.
    known = {name: sections[name] for name in stage.model_fields if name in sections}
    for find in FINDERS:
        problems += [f"  {problem}" for problem in find(known)]
    if problems:
        raise ValueError(f"{source}:\n" + "\n".join(problems))
    return value


def resolve(params: PretrainParams, run: str, *, seed: int | None = None) -> ResolvedRun:
    """The base sections with the overlay of ``run`` (and ``seed``, if given) applied.

    Raises: ValueError naming an unknown run, or listing what is bad in the overlay.
    """
    if run not in params.runs:
        raise ValueError(f"run: got {run!r}, allowed: {', '.join(params.runs)}")
    merged: dict[str, dict[str, Any]] = {}
    for section in ResolvedRun.model_fields:
        merged[section] = getattr(params, section).model_dump() | getattr(params.runs[run], section)
    if seed is not None:
        merged["pretrain"]["seed"] = seed
    try:
        return ResolvedRun.model_validate(merged)
    except ValidationError as error:
        raise ValueError(f"runs.{run}:\n" + "\n".join(checks.describe(error))) from None


def seeds(params: PretrainParams, run: str) -> list[int]:
    """The pretraining seeds of a run, in order. Raises: as `resolve`."""
    resolved = resolve(params, run)
    return params.runs[run].seeds or [resolved.pretrain.seed]


def load(path: Path | None = None) -> Params:
    """Reads and validates a whole parameter file.

    Args: path: default ``root()/params.yaml``.
    Raises: FileNotFoundError; ValueError listing every problem.
    """
    path = path or root() / "params.yaml"
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such parameter file")
    try:
        sections = yaml.load(path.read_text(), _UniqueKeys)
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: not valid YAML: {error}") from None
    if not isinstance(sections, dict):
        raise ValueError(f"{path}: got {type(sections).__name__}, allowed: a mapping of sections")
    return parse(Params, sections, source=str(path))


class _UniqueKeys(yaml.SafeLoader):
    """YAML's safe loader, which alone would let the second of two equal keys win in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen = [key.value for key, _ in node.value]
        for name in set(seen):
            if seen.count(name) > 1:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {name!r} is there twice", node.start_mark
                )
        return super().construct_mapping(node, deep)


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


def small(params: Common) -> Path:
    """Folder of what DVC tracks: manifests, indices, metrics, logs, encoders."""
    return root() / "data" / params.profile


def bulk(params: Common) -> Path:
    """Folder of audio, log-mel stores, training states and embeddings."""
    base = os.environ.get("MATPAC_DATA") or params.storage or "data"
    return expand(base) / params.profile


def expand(path: str) -> Path:
    """A path of ``params.yaml``: ``~`` and ``$VARIABLES`` expanded, relative to the root."""
    return root() / Path(os.path.expandvars(path)).expanduser()


def shards(text: str) -> tuple[Path, list[Path]]:
    """A folder, and what an entry of `PackedDataset.shards` names in it: folders and files."""
    path = expand(text)
    if path.is_dir():
        return path, [path]
    wild = [i for i, part in enumerate(path.parts) if set("*?[") & set(part)]
    if not wild or path.exists():
        return path.parent, [path] if path.exists() else []
    folder = Path(*path.parts[: wild[0]])
    return folder, sorted(folder.glob("/".join(path.parts[wild[0] :])))


def used_folders(
    params: LogmelParams,
) -> dict[str, FolderDataset | OfficialDataset | PackedDataset]:
    """The data sets among corpora and tasks whose files a user put somewhere."""
    used = {name: params.datasets[name] for name in (*params.corpora, *params.tasks)}
    return {name: dataset for name, dataset in used.items() if dataset.places}


def missing_files(params: LogmelParams, *, names: Iterable[str]) -> list[str]:
    """Folders and tables of these data sets that do not exist, one readable line each."""
    problems = []
    for name in names:
        for key, text in params.datasets[name].places:
            path = expand(text)
            if key == "shards":
                kind, there = "folder or file", bool(shards(text)[1])
            elif key == "csv":
                kind, there = "file", path.is_file()
            else:
                kind, there = "folder", path.is_dir()
            if not there:
                problems.append(f"  datasets.{name}.{key}: no {kind} {path}")
    return problems


def deciding(sections: dict[str, Any]) -> dict[str, Any]:
    """Sections without what only decides how fast or how safely a result is reached."""
    idle = {
        "logmel": {"workers", "shard_mb", "max_bad_fraction", "scheduler"},
        "pretrain": {
            "activation_checkpointing",
            "checkpoint_every_s",
            "compile",
            "keep_checkpoints",
            "micro_batch_size",
            "on_collapse",
            "workers",
        },
    }
    return {
        name: {key: value for key, value in section.items() if key not in idle.get(name, ())}
        if isinstance(section, dict)
        else section
        for name, section in sections.items()
        if name != "downloads"
    }


def digest(value: object) -> str:
    """A short SHA-256 of any JSON-able value or Section, independent of key order."""
    if isinstance(value, BaseModel):
        value = value.model_dump()
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def main(arguments: list[str] | None = None) -> int:
    """Validates the parameter file named on the command line, or the project's own.

    Only the project's own is for this machine. Audio has to be there until its log-mels are made;
    whoever removes it then can still train, probe and draw.
    """
    parser = argparse.ArgumentParser("python -m matpac.config", description=main.__doc__)
    parser.add_argument("file", type=Path, nargs="?", help="default: params.yaml")
    path = parser.parse_args(arguments).file
    try:
        params = load(path)
        stores = bulk(params) / "logmel"
        new = [n for n in used_folders(params) if not (stores / n / "index.json").exists()]
        if path is None and (problems := missing_files(params, names=new)):
            raise FileNotFoundError("\n".join([f"{root() / 'params.yaml'}:", *problems]))
    except (ValueError, FileNotFoundError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
