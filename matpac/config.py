"""The only reader of ``params.yaml``: validation, overlays of runs, and where things lie.

A run is an overlay of only what differs from the base sections, resolved by `resolve`. Every
problem found is listed in one ValueError. ``python -m matpac.config`` validates the whole file;
each stage's command does that first, so nothing starts on a misspelt key.
"""

import hashlib
import json
import os
import sys
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from matpac.sections import (  # noqa: F401 (callers take every section from here)
    Common,
    DatasetConfig,
    EmbeddedDataset,
    EncoderConfig,
    FetchParams,
    FiguresParams,
    FolderDataset,
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
    Section,
)

Stage = TypeVar("Stage", bound=Common)


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
        problems = _problems(error)
    # Looked for even where a section is bad, so that one message names everything.
    known = {name: sections[name] for name in stage.model_fields if name in sections}
    problems += [f"  {problem}" for problem in _name_problems(known) + _overlay_problems(known)]
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
        raise ValueError(f"runs.{run}:\n" + "\n".join(_problems(error))) from None


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
        sections = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: not valid YAML: {error}") from None
    if not isinstance(sections, dict):
        raise ValueError(f"{path}: got {type(sections).__name__}, allowed: a mapping of sections")
    return parse(Params, sections, source=str(path))


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
    return root() / Path(os.path.expandvars(base)).expanduser() / params.profile


def digest(value: object) -> str:
    """A short SHA-256 of any JSON-able value or Section, independent of key order."""
    if isinstance(value, BaseModel):
        value = value.model_dump()
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def _name_problems(sections: dict[str, Any]) -> list[str]:
    """Names that refer to nothing, or to two things."""
    datasets, runs, encoders = (_keys(sections.get(s)) for s in ("datasets", "runs", "encoders"))
    problems = []
    for section in ("corpora", "tasks"):
        names = _names(sections.get(section)) if datasets else []
        problems += [
            f"{section}: got {name!r}, allowed: the names of datasets ({', '.join(datasets)})"
            for name in names
            if name not in datasets
        ]
        problems += [f"{section}: {n!r} is named twice" for n in set(names) if names.count(n) > 1]
    for name in _names(sections.get("tasks")):
        dataset = sections["datasets"].get(name) if name in datasets else None
        is_folder = isinstance(dataset, dict) and dataset.get("source") == "folder"
        if is_folder and dataset.get("kind") is None:
            problems.append(f"datasets.{name}.kind: missing, and {name!r} is in tasks")
    if runs and "base" not in runs:
        problems.append("runs: no 'base', the reference of every comparison")
    problems += [f"{n!r} is both in runs and in encoders" for n in runs if n in encoders]
    return problems


def _overlay_problems(sections: dict[str, Any]) -> list[str]:
    """What is bad in a run's overlay, beyond what is bad in the sections that it changes."""
    base = {name: sections.get(name) for name in ResolvedRun.model_fields}
    if not all(isinstance(section, dict) for section in base.values()):
        return []
    of_base = set(_validation_problems(base))
    problems = []
    for name in _keys(sections.get("runs")):
        overlay = sections["runs"][name]
        parts = {part: _keys(overlay) and overlay.get(part) for part in base}
        if any(part and not isinstance(part, dict) for part in parts.values()):
            continue
        merged = {part: base[part] | (parts[part] or {}) for part in base}
        found = [p for p in _validation_problems(merged) if p not in of_base]
        problems += [f"runs.{name}.{problem.strip()}" for problem in found]
    return problems


def _validation_problems(resolved: dict[str, Any]) -> list[str]:
    try:
        ResolvedRun.model_validate(resolved)
    except ValidationError as error:
        return _problems(error)
    return []


def _names(section: object) -> list[str]:
    """Names in a list or mapping; what is of another type is validation's to report."""
    return [n for n in section if isinstance(n, str)] if isinstance(section, list | dict) else []


def _keys(section: object) -> list[str]:
    return list(section) if isinstance(section, dict) else []


def _problems(error: ValidationError) -> list[str]:
    """One readable line per problem: where, what is wrong, what was found."""
    lines = []
    for problem in error.errors():
        where = ".".join(str(part) for part in problem["loc"])
        message = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "extra_forbidden":
            message = "unknown key"
        elif problem["type"] == "missing":
            message = "missing"
        elif problem["type"] != "value_error":
            message += f", got {problem['input']!r}"
            if isinstance(problem["input"], str) and _is_number(problem["input"]):
                message += " (YAML reads a number like 1e-3 as text; write 1.0e-3)"
        lines += [f"  {where}: {part}" if where else f"  {part}" for part in message.split("\n")]
    return lines


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def main() -> int:
    """Validates the parameter file named on the command line, or the project's own."""
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    try:
        load(path)
    except (ValueError, FileNotFoundError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
