"""What is wrong between the sections of parameters, each of which may be right alone."""

from collections.abc import Iterator
from typing import Any

from pydantic import TypeAdapter, ValidationError

from matpac.core.section import describe
from matpac.data.config import Dataset, DatasetConfig
from matpac.pretraining.config import ResolvedRun
from matpac.reporting.paper import NAMES as REPORTED

NO_NAMES = ("inf", "infinity", "nan", "null")
"""What tables read as a number or as nothing."""
COLUMNS = ("average", "block", "mean", "minus", "model", "seeds", "source", "training_data")
"""What stands beside the tasks in tables and metrics."""


def find(sections: dict[str, Any]) -> list[str]:
    """All of it in readable lines, of sections that may be bad in themselves, too."""
    return [*_names(sections), *_unlabelled(sections), *_reported(sections), *_runs(sections)]


def _names(sections: dict[str, Any]) -> Iterator[str]:
    """Names that refer to nothing, or to two things."""
    datasets, runs, encoders = (_mapping(sections, s) for s in ("datasets", "runs", "encoders"))
    if "tasks" in datasets:  # where `dvc.yaml` keeps the indices of all tasks
        yield "datasets: got 'tasks', which is no name for a data set"
    for section in ("corpora", "tasks"):
        names = _texts(sections.get(section))
        for name in dict.fromkeys(names):
            if datasets and name not in datasets:
                yield f"{section}: got {name!r}, allowed: names of datasets ({', '.join(datasets)})"
            if names.count(name) > 1:
                yield f"{section}: {name!r} is named twice"
    if runs and "base" not in runs:
        yield "runs: no 'base', the reference of every comparison"
    if _mapping(_mapping(runs, "base"), "model"):  # no stage of a random row reads it
        yield "runs.base.model: got an overlay; the sizes of the base are the section model"
    for name in runs:
        if name in encoders:
            yield f"{name!r} is both in runs and in encoders"
    for name in (*runs, *encoders, *datasets):
        if name in NO_NAMES:
            yield f"{name!r} in runs, encoders or datasets: tables read a number or nothing"
    for name in _texts(sections.get("tasks")):
        if name in COLUMNS:
            yield f"tasks: got {name!r}, which is another column of the tables: rename the data set"


def _unlabelled(sections: dict[str, Any]) -> Iterator[str]:
    """Tasks without labels."""
    datasets, adapter = _mapping(sections, "datasets"), TypeAdapter(DatasetConfig)
    for name in _texts(sections.get("tasks")):
        try:
            dataset: Dataset = adapter.validate_python(datasets.get(name))
        except ValidationError:
            continue
        if dataset.unlabelled:
            yield f"tasks: got {name!r}, which has no labels: {dataset.unlabelled}"


def _reported(sections: dict[str, Any]) -> Iterator[str]:
    """Rows of the paper's Table II that are not there."""
    for section in ("runs", "encoders"):
        entries = _mapping(sections, section)
        for name in entries:
            reported = _mapping(entries, name).get("reported")
            if isinstance(reported, str) and reported not in REPORTED:
                allowed = ", ".join(map(repr, REPORTED))
                yield f"{section}.{name}.reported: got {reported!r}, allowed: {allowed}"


def _runs(sections: dict[str, Any]) -> Iterator[str]:
    """Sizes that do not fit the log-mels, and what is bad in an overlay but not in its base."""
    base = {name: _mapping(sections, name) for name in ResolvedRun.model_fields}
    if not all(base.values()):
        return
    mels = _mapping(sections, "logmel").get("num_mels")
    of_base = _sizes(base["model"], mels)
    yield from of_base
    of_base += _validation(base)
    runs = _mapping(sections, "runs")
    for name in runs:
        overlay = {part: _mapping(_mapping(runs, name), part) for part in base}
        merged = {part: base[part] | overlay[part] for part in base}
        for problem in _sizes(merged["model"], mels) + _validation(merged):
            if problem not in of_base:
                yield f"runs.{name}.{problem}"


def _validation(resolved: dict[str, Any]) -> list[str]:
    try:
        ResolvedRun.model_validate(resolved)
    except ValidationError as error:
        return [line.strip() for line in describe(error)]
    return []


def _sizes(model: dict[str, Any], mels: object) -> list[str]:
    """Sizes of the front end and the model that do not fit together."""
    patch, frames, ratio = (model.get(k) for k in ("patch_size", "crop_frames", "mask_ratio"))
    if not all(type(n) is int and n > 0 for n in (mels, patch, frames)):
        return []
    problems, num_patches = [], (mels // patch) * (frames // patch)
    if mels % patch:
        problems.append(f"model.patch_size: got {patch}, allowed: divisors of num_mels {mels}")
    if isinstance(ratio, float) and 0 < ratio < 1:
        visible = int(num_patches * (1 - ratio))
        if not 0 < visible < num_patches:
            problems.append(
                f"model.mask_ratio: got {ratio}, which leaves {visible} of {num_patches} patches "
                "visible; allowed: at least one visible and one masked"
            )
    return problems


def _mapping(sections: dict[str, Any], name: str) -> dict[str, Any]:
    """An entry that is a mapping; what is of another type is validation's to report."""
    entry = sections.get(name)
    return entry if isinstance(entry, dict) else {}


def _texts(section: object) -> list[str]:
    return [n for n in section if isinstance(n, str)] if isinstance(section, list | dict) else []
