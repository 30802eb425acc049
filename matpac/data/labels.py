"""What the columns of a CSV say about its clips: labels, and splits or folds.

What is wrong with a column as a whole is an error; what is wrong with one row excludes that clip,
with the reason.
"""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from matpac.data.manifests import describe, exclude, excluded_clips

SPLIT_ALIASES = {
    "train": ("train", "training"),
    "valid": ("valid", "val", "validation", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
CELLS = {"1": 1.0, "1.0": 1.0, "true": 1.0, "0": 0.0, "0.0": 0.0, "false": 0.0, "": np.nan}
"""What a cell of an indicator column may hold."""


def add_labels(
    manifest: pd.DataFrame,
    table: pd.DataFrame,
    csv: Path,
    labels: str | list[str] | None,
    separator: str | None,
    kind: str | None,
) -> list[str]:
    """Adds the target column and excludes rows without a target.

    Args: labels, separator, kind: as in `config.FolderDataset`, which checks them together.
    Returns: the classes, of which each has a clip that can be used.
    Raises: ValueError for lists written as text.
    """
    if kind is None:
        return []
    if isinstance(labels, list):
        return _add_indicators(manifest, table[labels])
    assert labels is not None
    named = [
        [part.strip() for part in text.split(separator) if part.strip()] if separator else [text]
        for text in table[labels]
    ]
    if separator:
        _refuse_lists(table[labels], separator, f"{csv}: column {labels!r}")
    blank = (table[labels] == "").to_numpy()
    if kind == "multiclass":
        exclude(manifest, blank, f"blank label in column {labels!r}")
    used = (manifest["excluded"] == "").to_numpy()
    classes = in_order(
        {label for each, use in zip(named, used, strict=True) if use for label in each if label}
    )
    index = {label: number for number, label in enumerate(classes)}
    if kind == "multiclass":
        manifest["label"] = [index.get(each[0], -1) for each in named]
        return classes
    manifest["labels"] = list(one_hot(named, index))  # a blank cell means that no class is present
    return classes


def _refuse_lists(cells: pd.Series, separator: str, where: str) -> None:
    """Raises ValueError for lists written as text: their brackets and quotes would be labels."""
    plain = rf"\[[^][]*{re.escape(separator)}[^][]*\]"  # not "[a], [b]", which are two labels
    lists = cells[cells.str.fullmatch(rf"(?s)[\[({{]\s*['\"].*[\])}}]|{plain}")]
    if len(lists):
        raise ValueError(
            f"{where}: got {lists.iloc[0]!r}, a list written as text, allowed: labels with "
            f"{separator!r} between them, without brackets and quotes"
        )


def one_hot(named: list[list[str]], index: dict[str, int]) -> np.ndarray:
    """Names of the classes of each clip as 1 and 0, (N, C); names without an index are left out."""
    targets = np.zeros((len(named), len(index)))
    for row, each in enumerate(named):
        targets[row, [index[label] for label in each if label in index]] = 1.0
    return targets


def _add_indicators(manifest: pd.DataFrame, cells: pd.DataFrame) -> list[str]:
    """Multilabel targets from one 0/1 column per class."""
    targets = cells.apply(lambda column: column.str.lower().map(CELLS)).to_numpy(dtype=float)
    unknown = (np.isnan(targets) & (cells != "").to_numpy()).any(axis=1)
    manifest["labels"] = list(targets)
    exclude(manifest, unknown, "unknown label: allowed in a 0/1 column: 1, 0, true, false, blank")
    exclude(manifest, np.isnan(targets).all(axis=1), "blank label: no class is observed")
    return list(cells.columns)


def add_parts(
    manifest: pd.DataFrame, table: pd.DataFrame, csv: Path, fold: str | None, split: str | None
) -> tuple[str | None, int]:
    """Adds splits or folds and excludes rows without.

    Returns: the scheme, "folds", "tvt" or None, and the number of folds.
    Raises: ValueError naming the column that makes no task.
    """
    if fold is not None:
        values = in_order(set(table[fold]) - {""})
        if len(values) < 2:
            raise ValueError(f"{csv}: column {fold!r}: got {len(values)} folds, allowed: 2 or more")
        rank = {value: number for number, value in enumerate(values, start=1)}
        manifest["fold"] = table[fold].map(rank).fillna(0).astype(int)
        exclude(manifest, (table[fold] == "").to_numpy(), f"blank fold in column {fold!r}")
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
    exclude(manifest, (lower == "").to_numpy(), f"blank split in column {split!r}")
    for part in ("train", "test"):
        if not (manifest["split"] == part).any():
            raise ValueError(f"{csv}: column {split!r}: no {part} clip, needed for a task")
    return "tvt", 0


def refuse_empty_parts(manifest: pd.DataFrame, column: str, parts: pd.Series, where: str) -> None:
    """Raises ValueError if every clip of a split or fold is excluded, with the reasons.

    Args:
        column: "split" or "fold".
        parts: what the table at hand calls each row's split or fold.
        where: the table and column, for the error.
    """
    placed = manifest[~manifest[column].isin([0, ""])]
    used = set(placed.loc[placed["excluded"] == "", column])
    for part, rows in placed.groupby(column):
        if part not in used:
            name = parts[rows.index[0]]
            raise ValueError(
                f"{where}: no clip of {column} {name!r} can be used:\n"
                + describe(excluded_clips(rows))
            )


def refuse_crossing(manifest: pd.DataFrame, parts: pd.Series, where: str, remedy: str) -> None:
    """Raises ValueError if clips of one group that can be used lie in several parts.

    Args: parts: the split or fold of each row; where, remedy: for the error.
    """
    used = manifest["excluded"] == ""
    counts = parts[used].groupby(manifest.loc[used, "group"]).nunique()
    if len(crossing := counts.index[counts > 1]):
        raise ValueError(
            f"{where}: {', '.join(map(repr, crossing[:5]))} in several splits or folds, "
            f"allowed: one each; {remedy}"
        )


def hopeless(manifest: pd.DataFrame, info: dict[str, Any]) -> str:
    """Why no probe could be trained and tested on a task; "" if one can.

    Args: manifest, info: as in `matpac.data.manifests`.
    """
    used, classes = manifest[manifest["excluded"] == ""], info["classes"]
    if len(classes) < 2:
        return f"{len(classes)} class ({', '.join(classes)}) has clips that can be used, needed: 2"
    having = _having(used, info)
    if info["kind"] == "multiclass":
        single = [name for name, rows in zip(classes, having, strict=True) if rows.sum() < 2]
        if single and info["source"] == "folder":  # of an official one a part may be wanted
            return (
                f"{len(single)} of {len(classes)} classes have only one clip that can be used, "
                f"needed: 2, to train and to test: {', '.join(map(repr, single[:5]))}"
            )
    for part, rows in _parts(used).items():
        if part != "train" and not having[:, rows].any():
            return f"no clip of {part} has a label, needed: one, to score by"
    if (used["split"] == "valid").any():
        return ""
    parts = {f"all folds but {k}": used["fold"] != k for k in sorted(set(used["fold"]) - {0})}
    for part, training in (parts or {"the training part": used["split"] == "train"}).items():
        groups = used["group"][training]
        if max(groups[rows[training]].nunique() for rows in having) < 2:
            return (
                f"no validation part can be drawn from {part}, which has {groups.nunique()} groups "
                "of clips, needed: a class in 2 of them"
            )
    return ""


def not_trained(manifest: pd.DataFrame, info: dict[str, Any]) -> list[str]:
    """Classes of test clips that no training clip has, as a label that is spelt otherwise there."""
    used = manifest[manifest["excluded"] == ""]
    having = _having(used, info)
    held = {part: having[:, rows].any(axis=1) for part, rows in _parts(used).items()}  # (C,) each
    if "test" in held:
        lost = held["test"] & ~held["train"]
    else:
        lost = np.sum(list(held.values()), axis=0) == 1
    return [name for name, each in zip(info["classes"], lost, strict=True) if each]


def _having(used: pd.DataFrame, info: dict[str, Any]) -> np.ndarray:
    """Which clips have which class: (C, N) bool."""
    if info["kind"] == "multiclass":
        return (used["label"].to_numpy()[:, None] == np.arange(len(info["classes"]))).T
    return np.stack(used["labels"].to_list()).T >= 0.5


def _parts(used: pd.DataFrame) -> dict[str, np.ndarray]:
    """Folds, or splits that there are: the rows of each, (N,) bool."""
    if (used["fold"] > 0).any():
        return {f"fold {k}": (used["fold"] == k).to_numpy() for k in sorted(set(used["fold"]))}
    return {
        part: (used["split"] == part).to_numpy()
        for part in SPLIT_ALIASES
        if part in set(used["split"])
    }


def in_order(values: set[str]) -> list[str]:
    """Sorted as numbers if all are, otherwise as text; "1" and "01" are two."""
    if all(value.isdecimal() for value in values):
        return sorted(values, key=lambda value: (int(value), value))
    return sorted(values)
