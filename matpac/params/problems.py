"""What is wrong with parameters beyond the type of a single value: all of it, in readable lines."""

from typing import Any

from pydantic import ValidationError

from matpac.core.section import describe
from matpac.pretraining.config import ResolvedRun
from matpac.reporting.paper import NAMES as REPORTED

RECIPES = {
    "pretraining": ("unlabelled", 1),
    "openmic": ("multilabel", 200),
    "nsynth": ("multiclass", 110),
    "gtzan": ("multiclass", 100),
    "mtt": ("multilabel", 200),
    "fsd50k": ("multilabel", 200),
    "esc50": ("multiclass", 100),
    "us8k": ("multiclass", 100),
}
"""Kind and fewest clips of `matpac.corpus.RECIPES`, which would take seconds to import."""

def name_problems(sections: dict[str, Any]) -> list[str]:
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
    if runs and "base" not in runs:
        problems.append("runs: no 'base', the reference of every comparison")
    problems += [f"{n!r} is both in runs and in encoders" for n in runs if n in encoders]
    # A run reaches its notebook through `papermill -p`, which turns such texts into numbers.
    numbers = [n for n in (*runs, *encoders) if n in ("nan", "inf", "infinity")]
    problems += [f"{n!r} in runs or encoders: got the name of a number" for n in numbers]
    return problems + _reported_problems(sections)


def _reported_problems(sections: dict[str, Any]) -> list[str]:
    """Rows of the papers' tables that are not there."""
    problems = []
    for section in ("runs", "encoders"):
        for name in _keys(sections.get(section)):
            entry = sections[section][name]
            reported = entry.get("reported") if isinstance(entry, dict) else None
            if isinstance(reported, str) and reported not in REPORTED:
                allowed = ", ".join(map(repr, REPORTED))
                problems.append(f"{section}.{name}.reported: got {reported!r}, allowed: {allowed}")
    return problems


def dataset_problems(sections: dict[str, Any]) -> list[str]:
    """Data sets that cannot be made, or cannot be what they are used for."""
    tasks, problems = _names(sections.get("tasks")), []
    for name in _keys(sections.get("datasets")):
        if name == "tasks":  # where `dvc.yaml` keeps the indices of all tasks
            problems.append("datasets: got 'tasks', which is no name for a data set")
        dataset = sections["datasets"][name]
        source = dataset.get("source") if isinstance(dataset, dict) else None
        if source == "embedded":
            problems += _recipe_problems(name, dataset, is_task=name in tasks)
        elif source == "folder" and name in tasks and dataset.get("kind") is None:
            problems.append(f"datasets.{name}.kind: missing, and {name!r} is in tasks")
        elif source == "packed" and name in tasks:
            problems.append(f"tasks: got {name!r}, whose source 'packed' has no labels")
    return problems


def _recipe_problems(name: str, dataset: dict[str, Any], *, is_task: bool) -> list[str]:
    recipe, num_clips = dataset.get("recipe"), dataset.get("num_clips")
    if not isinstance(recipe, str):
        return []
    if recipe not in RECIPES:
        return [f"datasets.{name}.recipe: got {recipe!r}, allowed: {', '.join(RECIPES)}"]
    kind, smallest = RECIPES[recipe]
    problems = []
    if isinstance(num_clips, int) and 0 < num_clips < smallest:
        problems.append(
            f"datasets.{name}.num_clips: got {num_clips}, allowed for {recipe}: {smallest} or more"
        )
    if is_task and kind == "unlabelled":
        problems.append(f"tasks: got {name!r}, whose recipe {recipe!r} has no labels")
    return problems


def size_problems(sections: dict[str, Any]) -> list[str]:
    """Sizes of the front end and the model that do not fit together, in the base or in a run."""
    logmel = sections.get("logmel")
    mels = logmel.get("num_mels") if isinstance(logmel, dict) else None
    problems = []
    for name, model in _models(sections):
        patch, frames, ratio = (model.get(k) for k in ("patch_size", "crop_frames", "mask_ratio"))
        if not all(isinstance(n, int) and n > 0 for n in (mels, patch, frames)):
            continue
        if mels % patch:
            problems.append(f"{name}.patch_size: got {patch}, allowed: divisors of num_mels {mels}")
        num_patches = (mels // patch) * (frames // patch)
        visible = (
            int(num_patches * (1 - ratio)) if isinstance(ratio, float) and 0 < ratio < 1 else 1
        )
        if not 0 < visible < num_patches:
            problems.append(
                f"{name}.mask_ratio: got {ratio}, which leaves {visible} of {num_patches} patches "
                "visible; allowed: at least one visible and one masked"
            )
    return problems


def _models(sections: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """The model section of the base and of every run that changes it."""
    base = sections.get("model")
    if not isinstance(base, dict):
        return []
    models = [("model", base)]
    for name in _keys(sections.get("runs")):
        overlay = sections["runs"][name]
        changed = set(_keys(overlay.get("model"))) if _keys(overlay) else set()
        if changed & {"patch_size", "crop_frames", "mask_ratio"}:
            models.append((f"runs.{name}.model", base | overlay["model"]))
    return models


def overlay_problems(sections: dict[str, Any]) -> list[str]:
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
        return describe(error)
    return []


def _names(section: object) -> list[str]:
    """Names in a list or mapping; what is of another type is validation's to report."""
    return [n for n in section if isinstance(n, str)] if isinstance(section, list | dict) else []


def _keys(section: object) -> list[str]:
    return list(section) if isinstance(section, dict) else []


FINDERS = (name_problems, dataset_problems, size_problems, overlay_problems)
