"""A data set of Table I, unpacked in its official layout, becomes a manifest.

Its own tables say which clips there are (`matpac.data.layouts`); they are counted against Table I,
and what is missing is an error unless only a part is meant to be there. Files that are known to be
broken as shipped are left out without being counted as bad.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from matpac.core.parallel import Workers
from matpac.data import manifests
from matpac.data.audit import add_facts
from matpac.data.labels import refuse_crossing, refuse_empty_parts
from matpac.data.layouts import LOADERS
from matpac.data.layouts.layout import CLIPS, NUM_CLASSES, Layout, find_root


def official_manifest(
    name: str,
    source: str,
    *,
    folder: Path,
    subset: bool,
    cache: Path,
    workers: Workers,
    window_ms: float = 25,
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Reads the data set's tables, checks every file, and makes the manifest.

    Args:
        name: what ``params.yaml`` calls the data set.
        source: which of `layouts.LOADERS`.
        folder: holds the unpacked data set, or is one or two levels above it.
        subset: take the clips that are there; otherwise anything missing is an error.
        cache, workers, window_ms: as in `folders.folder_manifest`.
    Returns: manifest and information as in `matpac.data.manifests`, without "audio";
        "official_clips" is the size of the whole data set.
    Raises: FileNotFoundError if the data set is not in ``folder``; ValueError for tables that do
        not fit, for what is missing, and for a split or fold without a clip that can be used.
    """
    try:
        root = find_root(folder, LOADERS[source].MARKER)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{name}: {error}") from None
    layout = LOADERS[source].read(root)
    column = "fold" if 1 in CLIPS[source] else "split"
    manifest = _clips(name, source, column, root, layout, subset=subset)
    below = "" if root == folder else f"{root.relative_to(folder).as_posix()}/"
    manifest = manifest.assign(path=below + manifest["path"])
    manifest = manifest.sort_values("path", kind="stable", ignore_index=True)
    add_facts(manifest, folder, window_ms=window_ms, cache=cache, workers=workers, name=name)
    broken = manifest["clip"].isin(layout.broken) & (manifest["excluded"] != "")
    manifest.loc[broken, "excluded"] = manifests.KNOWN + manifest["excluded"][broken]
    if "labels" in manifest:
        unasked = np.isnan(np.stack(manifest["labels"].to_list())).all(axis=1)
        manifests.exclude(manifest, unasked, "blank label: no class is observed")
    refuse_empty_parts(manifest, column, manifest[column], str(root))
    if layout.disjoint:
        held_out = manifest[column].replace("valid", "test")  # NSynth's two share instruments
        refuse_crossing(manifest, held_out, str(root), "these are not the official tables")
    num_folds = len(CLIPS[source]) if column == "fold" else 0
    kind = "multilabel" if "labels" in manifest else "multiclass"
    info = manifests.information(
        name, source, kind, "folds" if num_folds else "tvt", num_folds, layout.classes
    )
    return manifest, info | {"official_clips": sum(CLIPS[source].values())}


def _clips(
    name: str, source: str, column: str, root: Path, layout: Layout, *, subset: bool
) -> pd.DataFrame:
    """The clips of the layout, or those that are there.

    Raises: ValueError for what is missing, or if there is nothing to train on or to test.
    """
    there = np.array([(root / path).is_file() for path in layout.clips["path"]], dtype=bool)
    if not subset and (problems := shortfalls(source, column, layout, there)):
        raise ValueError(
            f"{name}: {root} is not the whole data set (datasets.{name}.subset: true takes what "
            "is there):\n" + "\n".join(problems)
        )
    clips = layout.clips[there] if subset else layout.clips
    found = set(clips[column])
    if not {"train", "test"} <= found and len(found - {"train", "valid", "test"}) < 2:
        raise ValueError(
            f"{name}: {root}: got clips of {', '.join(map(str, sorted(found))) or 'no part'}, "
            "needed: of train and test, or of two folds"
        )
    return clips


def shortfalls(source: str, column: str, layout: Layout, there: np.ndarray) -> list[str]:
    """What is not as in the whole data set, one readable line each.

    Args:
        source: which of `layouts.LOADERS`.
        column: "split" or "fold".
        there: whether the file of each of the layout's clips exists, (N,).
    """
    parts, clips = layout.clips[column].to_numpy(), layout.clips
    problems = []
    for part, expected in CLIPS[source].items():
        rows = parts == part
        found = there[rows].sum() + clips["clip"][rows & ~there].isin(layout.broken).sum()
        if not rows.sum() == found == expected:
            problems.append(
                f"  {column} {part}: {expected} clips expected, {rows.sum()} in its tables, "
                f"{found} of these on the disk"
            )
    if len(layout.classes) != NUM_CLASSES[source]:
        problems.append(f"  {NUM_CLASSES[source]} classes expected, {len(layout.classes)} found")
    problems += [f"  {problem}" for problem in layout.problems]
    missing = clips["path"][~there & ~clips["clip"].isin(layout.broken)]
    if len(missing):
        named = missing.head(manifests.SHOWN).to_list()
        problems.append(f"  {len(missing)} files are missing: {', '.join(named)}")
    if len(missing) > manifests.SHOWN:
        problems[-1] += f" and {len(missing) - manifests.SHOWN} more"
    return problems
