"""A folder of audio and a CSV become a manifest.

What is wrong with the CSV as a whole (a column that is not there, an unknown name of a split) is
an error; what is wrong with one row or file excludes that clip, with the reason.
"""

import os
import posixpath
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from matpac import audio, datasets
from matpac.audit import audit
from matpac.tables import read_table
from matpac.workers import Workers

SPLIT_ALIASES = {
    "train": ("train", "training"),
    "valid": ("valid", "val", "validation", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
CELLS = {"1": 1.0, "1.0": 1.0, "true": 1.0, "0": 0.0, "0.0": 0.0, "false": 0.0, "": np.nan}
"""What a cell of an indicator column may hold."""


def folder_manifest(
    name: str,
    *,
    audio_folder: Path,
    csv: Path,
    filename: str = "filename",
    labels: str | list[str] | None = None,
    separator: str | None = None,
    kind: str | None = None,
    fold: str | None = None,
    split: str | None = None,
    group: str | None = None,
    cache: Path,
    workers: Workers,
    window_ms: float = 25,
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Reads the table, checks every file, and makes the manifest of a data set.

    Args:
        audio_folder: the ``filename`` column is relative to it. A bare name, also one without
            extension, may stand for the only file of that name anywhere below.
        labels, separator, kind, fold, split, group: as in `config.FolderDataset`.
        cache: folder for what is found about the files.
        window_ms: clips shorter than this are excluded.
    Returns: manifest and information as in `matpac.datasets`, without "audio".
    Raises: FileNotFoundError for a missing folder or CSV; ValueError naming the CSV and column.
    """
    if not audio_folder.is_dir():
        raise FileNotFoundError(f"{name}: no audio folder {audio_folder}")
    label_columns = [labels] if isinstance(labels, str) else labels or []
    table = read_table(csv, [filename, *label_columns, fold, split, group])
    paths = _locate(audio_folder, table[filename].map(_normalised))
    facts = audit(audio_folder, paths[paths != ""], cache=cache, workers=workers, name=name)
    facts = facts.reindex(paths)
    manifest = pd.DataFrame({"clip": table[filename], "path": paths, "start_s": 0.0})
    manifest["duration_s"] = facts["duration_s"].fillna(0.0).to_numpy()
    manifest["sha256"] = facts["sha256"].fillna("").to_numpy()
    manifest["excluded"] = _file_problems(manifest, facts["problem"].to_numpy(), window_ms)
    manifest["clip"] = _unique_names(manifest)
    manifest["split"], manifest["fold"], manifest["group"] = "", 0, manifest["clip"]
    public_kind, metric = datasets.KINDS[kind]
    scheme, num_folds = _add_parts(manifest, table, csv, fold, split)
    classes = _add_labels(manifest, table, csv, labels, separator, kind)
    _refuse_empty_parts(manifest, table, csv, fold, split)
    if group is not None:
        manifest["group"] = table[group].where(table[group] != "", manifest["clip"])
        _refuse_crossing(manifest, csv, group)
    info = {"name": name, "source": "folder", "kind": public_kind, "metric": metric}
    info |= {"split_scheme": scheme, "num_folds": num_folds, "classes": classes}
    return manifest, info


def _normalised(text: str) -> str:
    """A file name as it is compared: ``./a.wav`` and ``b//a.wav`` have shorter forms."""
    return posixpath.normpath(text) if text else ""


def _locate(folder: Path, wanted: pd.Series) -> np.ndarray:
    """Paths relative to ``folder``; bare names that are not directly in it are searched for."""
    paths = wanted.to_numpy(dtype=object, copy=True)
    searched = [
        row for row, text in enumerate(paths) if text and "/" not in text
        and not (folder / text).is_file()
    ]  # fmt: skip
    if not searched:
        return paths
    below: dict[str, list[str]] = defaultdict(list)
    for parent, _, names in os.walk(folder):
        for each in names:
            relative = (Path(parent) / each).relative_to(folder).as_posix()
            below[each].append(relative)
            if Path(each).suffix.lower() in audio.EXTENSIONS:
                below[Path(each).stem].append(relative)
    for row in searched:
        if len(found := below.get(paths[row], [])) == 1:
            paths[row] = found[0]
    return paths


def _unique_names(manifest: pd.DataFrame) -> list[str]:
    """File names as in the table; a blank or repeated one gets its line in it."""
    repeated = manifest.duplicated("path") | (manifest["path"] == "")
    return [
        f"{clip} (line {line})".strip() if again else clip
        for line, (clip, again) in enumerate(zip(manifest["clip"], repeated, strict=True), start=2)
    ]


def _file_problems(manifest: pd.DataFrame, found: np.ndarray, window_ms: float) -> np.ndarray:
    """Why each row's file cannot be used, or ""."""
    problems = np.where(pd.isna(found), "", found).astype(object)
    short = (problems == "") & (manifest["duration_s"] * 1000 < window_ms).to_numpy()
    problems[short] = [
        f"shorter than one window ({1000 * duration:.1f} ms, needed {window_ms:g} ms)"
        for duration in manifest["duration_s"][short]
    ]
    problems[manifest["path"] == ""] = "blank file name"
    duplicate = (manifest.duplicated("path") & (manifest["path"] != "")).to_numpy()
    problems[duplicate] = "duplicate row: the file is already in the table"
    return problems


def _add_labels(
    manifest: pd.DataFrame,
    table: pd.DataFrame,
    csv: Path,
    labels: str | list[str] | None,
    separator: str | None,
    kind: str | None,
) -> list[str]:
    """Adds the target column and excludes rows without a target.

    Returns: the classes, of which each has a clip that can be used.
    """
    if kind is None:
        return []
    if kind == "multilabel" and isinstance(labels, list):
        return _add_indicators(manifest, table[labels])
    if not isinstance(labels, str) or (kind == "multiclass" and separator):
        raise ValueError(
            f"{csv}: {kind} data set with labels {labels!r} and separator {separator!r}, "
            "allowed: multiclass: one column, no separator; "
            "multilabel: one column with a separator, or a list of 0/1 columns"
        )
    named = [
        [part.strip() for part in text.split(separator) if part.strip()] if separator else [text]
        for text in table[labels]
    ]
    blank = (table[labels] == "").to_numpy()
    if kind == "multiclass":
        _exclude(manifest, blank, f"blank label in column {labels!r}")
    used = (manifest["excluded"] == "").to_numpy()
    classes = _in_order(
        {label for each, use in zip(named, used, strict=True) if use for label in each if label}
    )
    index = {label: number for number, label in enumerate(classes)}
    if kind == "multiclass":
        manifest["label"] = [index.get(each[0], -1) for each in named]
        return classes
    targets = np.zeros((len(named), len(classes)))
    for row, each in enumerate(named):
        targets[row, [index[label] for label in each if label in index]] = 1.0
    manifest["labels"] = list(targets)  # a blank cell means that no class is present
    return classes


def _add_indicators(manifest: pd.DataFrame, cells: pd.DataFrame) -> list[str]:
    """Multilabel targets from one 0/1 column per class."""
    targets = cells.apply(lambda column: column.str.lower().map(CELLS)).to_numpy(dtype=float)
    unknown = (np.isnan(targets) & (cells != "").to_numpy()).any(axis=1)
    manifest["labels"] = list(targets)
    _exclude(manifest, unknown, "unknown label: allowed in a 0/1 column: 1, 0, true, false, blank")
    _exclude(manifest, np.isnan(targets).all(axis=1), "blank label: no class is observed")
    return list(cells.columns)


def _add_parts(
    manifest: pd.DataFrame, table: pd.DataFrame, csv: Path, fold: str | None, split: str | None
) -> tuple[str | None, int]:
    """Adds splits or folds and excludes rows without; returns the scheme and number of folds."""
    if fold is not None:
        values = _in_order(set(table[fold]) - {""})
        if len(values) < 2:
            raise ValueError(f"{csv}: column {fold!r}: got {len(values)} folds, allowed: 2 or more")
        rank = {value: number for number, value in enumerate(values, start=1)}
        manifest["fold"] = table[fold].map(rank).fillna(0).astype(int)
        _exclude(manifest, (table[fold] == "").to_numpy(), f"blank fold in column {fold!r}")
        return "folds", len(values)
    if split is None:
        return None, 0
    aliases = {alias: part for part, every in SPLIT_ALIASES.items() for alias in every}
    lower = table[split].str.lower()
    if unknown := sorted(set(lower) - set(aliases) - {""}):
        raise ValueError(
            f"{csv}: column {split!r}: got {', '.join(map(repr, unknown[:5]))}, "
            f"allowed: {', '.join(aliases)}"
        )
    manifest["split"] = lower.map(aliases).fillna("")
    _exclude(manifest, (lower == "").to_numpy(), f"blank split in column {split!r}")
    for part in ("train", "test"):
        if not (manifest["split"] == part).any():
            raise ValueError(f"{csv}: column {split!r}: no {part} clip, needed for a task")
    return "tvt", 0


def _refuse_empty_parts(
    manifest: pd.DataFrame, table: pd.DataFrame, csv: Path, fold: str | None, split: str | None
) -> None:
    """Raises ValueError if every clip of a split or fold is excluded, with the reasons."""
    column, places = ("fold", fold) if fold is not None else ("split", split)
    if places is None:
        return
    placed = manifest[~manifest[column].isin([0, ""])]
    used = set(placed.loc[placed["excluded"] == "", column])
    for part, rows in placed.groupby(column):
        if part not in used:
            name = table.loc[rows.index[0], places]
            raise ValueError(
                f"{csv}: column {places!r}: no clip of {column} {name!r} can be used:\n"
                + datasets.describe(datasets.excluded_clips(rows))
            )


def _refuse_crossing(manifest: pd.DataFrame, csv: Path, group: str) -> None:
    """Raises ValueError if clips of one group lie in several splits or folds."""
    used = manifest[manifest["excluded"] == ""]
    parts = used.groupby("group").agg({"split": "nunique", "fold": "nunique"}).max(axis=1)
    if len(crossing := parts.index[parts > 1]):
        raise ValueError(
            f"{csv}: column {group!r}: {', '.join(map(repr, crossing[:5]))} in several splits or "
            "folds, allowed: one each; leave `group` out to use the table's parts as they are"
        )


def _exclude(manifest: pd.DataFrame, rows: np.ndarray, reason: str) -> None:
    """Excludes ``rows`` that are not excluded for another reason."""
    manifest.loc[rows & (manifest["excluded"] == "").to_numpy(), "excluded"] = reason


def _in_order(values: set[str]) -> list[str]:
    """Sorted as numbers if all are, otherwise as text."""
    if all(value.isdecimal() for value in values):
        return sorted(values, key=int)
    return sorted(values)
