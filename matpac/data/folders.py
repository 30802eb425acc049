"""Folders of audio become a manifest, with a CSV that names their files or without.

What is wrong with the CSV as a whole (a column that is not there, an unknown name of a split) is
an error; what is wrong with one row or file excludes that clip, with the reason. Rows are put in
the order of their files' names: that of the CSV decides nothing.
"""

import os
import posixpath
import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pandas as pd

from matpac.audio import finding
from matpac.core.parallel import Workers
from matpac.data import manifests
from matpac.data.audit import add_facts
from matpac.data.labels import add_labels, add_parts, refuse_crossing, refuse_empty_parts
from matpac.data.tables import read_table


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
            extension, may stand for the only file of that name anywhere below; and a name for one
            that differs in case, in Unicode's form or by backslashes.
        labels, separator, kind, fold, split, group: as in `config.FolderDataset`.
        cache: folder for what is found about the files.
        window_ms: clips shorter than this are excluded.
    Returns: manifest and information as in `matpac.data.manifests`, without "audio".
    Raises: FileNotFoundError for a missing folder or CSV; ValueError naming the CSV and column.
    """
    _refuse_missing(name, audio_folder)
    label_columns = [labels] if isinstance(labels, str) else labels or []
    table = read_table(csv, [filename, *label_columns, fold, split, group])
    paths, ambiguous = _locate(audio_folder, table[filename].map(_normalised))
    manifest = pd.DataFrame({"clip": table[filename], "path": paths})
    manifest["clip"] = _unique_names(manifest)
    order = manifest["path"].argsort(kind="stable")
    manifest, table = (each.iloc[order].reset_index(drop=True) for each in (manifest, table))
    add_facts(manifest, audio_folder, window_ms=window_ms, cache=cache, workers=workers, name=name)
    several = manifest["path"].isin(ambiguous)
    manifest.loc[several, "excluded"] = "several files below have this name"
    manifest["split"], manifest["fold"], manifest["group"] = "", 0, manifest["clip"]
    scheme, num_folds = add_parts(manifest, table, csv, fold, split)
    classes = add_labels(manifest, table, csv, labels, separator, kind)
    if places := fold or split:
        column = "fold" if fold else "split"
        refuse_empty_parts(manifest, column, table[places], f"{csv}: column {places!r}")
    if group is not None:
        manifest["group"] = table[group].where(table[group] != "", manifest["clip"])
        parts = manifest["split"] + manifest["fold"].astype(str)
        remedy = "leave `group` out to use the table's parts as they are"
        refuse_crossing(manifest, parts, f"{csv}: column {group!r}", remedy)
    return manifest, manifests.information(
        name, "folder", kind or "unlabelled", scheme, num_folds, classes
    )


def plain_manifest(
    name: str,
    *,
    folders: Sequence[Path],
    relative_to: Path,
    cache: Path,
    workers: Workers,
    window_ms: float = 25,
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Every audio file in folders and below, unlabelled: a pretraining corpus.

    Args:
        folders: files in several of them, or below two of them, are clips once.
        relative_to: a folder above all of them; the manifest's paths start there.
        cache, workers, window_ms: as in `folder_manifest`.
    Returns: manifest and information as in `matpac.data.manifests`, without "audio".
    Raises: FileNotFoundError for a missing folder; ValueError if there is no audio file.
    """
    paths, left_out = set(), {}
    for folder in folders:
        _refuse_missing(name, folder)
        place = folder.relative_to(relative_to).as_posix()
        names, others = finding.audio_files(folder)
        paths |= {_normalised(f"{place}/{file}") for file in names}
        left_out |= {str(folder): others} if others else {}
    if not paths:
        told = "".join(f"\n  {folder}: left out: {text}" for folder, text in left_out.items())
        raise ValueError(
            f"{name}: no audio file in {', '.join(map(str, folders))}, "
            f"allowed: {', '.join(finding.EXTENSIONS)} (inside .tar or .parquet: source packed)"
            + told
        )
    # A name may be any bytes, of which tables hold UTF-8 alone.
    readable = {each: each.encode("utf-8", "backslashreplace").decode() for each in paths}
    shown = sorted(readable.values())
    manifest = pd.DataFrame({"clip": shown, "path": shown})
    add_facts(manifest, relative_to, window_ms=window_ms, cache=cache, workers=workers, name=name)
    escaped = [text for each, text in readable.items() if text != each]
    manifest.loc[manifest["path"].isin(escaped), "excluded"] = "its name is not UTF-8"
    manifest["split"], manifest["fold"], manifest["group"] = "", 0, manifest["clip"]
    return manifest, manifests.information(name, "folder") | {"left_out": left_out}


def _refuse_missing(name: str, folder: Path) -> None:
    if not folder.is_dir():
        raise FileNotFoundError(f"{name}: no audio folder {folder}")


def _normalised(text: str) -> str:
    """A file name as it is compared: ``./a.wav`` and ``b//a.wav`` have shorter forms."""
    return posixpath.normpath(text) if text else ""


def _locate(folder: Path, wanted: pd.Series) -> tuple[np.ndarray, set[str]]:
    """Paths relative to ``folder``; what is not there by its name is searched for.

    Bare names may lie anywhere below, with or without extension. A name that is there in no
    spelling but another one (see `_alike`) is found, too.

    Returns: the paths, and those names that several files have.
    """
    paths = wanted.to_numpy(dtype=object, copy=True)
    # Path.is_file raises for a name that is too long for a file.
    there = os.path.isfile
    searched = [row for row, text in enumerate(paths) if text and not there(folder / text)]
    ambiguous: set[str] = set()
    if not searched:
        return paths, ambiguous
    below: dict[str, list[str]] = defaultdict(list)
    alike: dict[str, list[str]] = defaultdict(list)
    for relative in finding.walk(folder):
        file = PurePosixPath(relative)
        stems = {file.stem} if file.suffix.lower() in finding.EXTENSIONS else set()
        for name in {relative, file.name} | stems:
            below[name].append(relative)
            alike[_alike(name)].append(relative)
    for row in searched:
        found = below.get(paths[row]) or alike.get(_alike(paths[row]), [])
        if len(found) > 1:
            ambiguous.add(paths[row])
        elif found:
            paths[row] = found[0]
    return paths, ambiguous


def _alike(name: str) -> str:
    """Equal for names that other systems take for one: in case, Unicode's form, and slashes."""
    return _normalised(unicodedata.normalize("NFC", name.replace("\\", "/")).casefold())


def _unique_names(manifest: pd.DataFrame) -> list[str]:
    """File names as in the table; a blank or repeated one gets its line in it."""
    repeated = manifest.duplicated("path") | (manifest["path"] == "")
    return [
        f"{clip} (line {line})".strip() if again else clip
        for line, (clip, again) in enumerate(zip(manifest["clip"], repeated, strict=True), start=2)
    ]
