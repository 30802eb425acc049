"""A score with its interval for any encoder on any labelled folder, without a pipeline.

    matpac probe TABLE.csv --audio FOLDER --encoder ENCODER

The table is read and the audio checked as the stage ``fetch`` does it, the probe is trained as by
the stage ``probe``; nothing is kept.
"""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch

from matpac.cli import folder_plan, folder_scan
from matpac.cli.embed import listed
from matpac.core import distributed
from matpac.core.parallel import Workers
from matpac.data.folders import folder_manifest
from matpac.data.labels import hopeless, not_trained
from matpac.data.manifests import excluded_clips
from matpac.data.tables import read_table
from matpac.encoders.interface import WaveEncoder
from matpac.probing.config import ProbeConfig
from matpac.probing.embedders import Recorded
from matpac.probing.extract import extract
from matpac.probing.linear import choose, train_probes
from matpac.probing.probe import target_array
from matpac.probing.splits import make_splits
from matpac.probing.task import Task
from matpac.reporting.statistics import interval


class Score(NamedTuple):
    """What a linear probe reaches on the test parts, in %."""

    metric: str
    mean: float
    ci95: float
    """Half of the 95 % interval, Student's t over the units."""
    unit: str
    """Over what it is: folds, each the mean of its repeats, or repeats."""
    num_clips: int
    num_classes: int

    def __str__(self) -> str:
        return (
            f"{self.metric} {self.mean:.1f} ± {self.ci95:.1f} % (95 % interval over {self.unit}), "
            f"{self.num_clips:,} clips, {self.num_classes} classes"
        )


def probe_table(
    table: Path,
    audio: Path,
    encoder: WaveEncoder,
    *,
    filename: str,
    label: str,
    separator: str | None = None,
    fold: str | None = None,
    split: str | None = None,
    group: str | None = None,
) -> Score:
    """Embeds the clips of a table and probes them.

    Args:
        encoder: as `matpac.load` gives it.
        filename, label, separator, fold, split, group: columns, as in
            `matpac.data.config.FolderDataset`; a separator means several labels. With neither fold
            nor split, classes are dealt into five folds, whole groups each.
    Raises: FileNotFoundError, ValueError as the stage ``fetch``, but for how many files may be
        bad; ValueError for several labels without fold or split, and for classes that cannot be
        dealt.
    """
    settings = ProbeConfig.model_validate(folder_plan.template()["params"]["probe"])
    kind = "multilabel" if separator else "multiclass"
    if fold and split:
        raise ValueError("both a fold and a split are given, allowed: one of them")
    if separator and not (fold or split):
        raise ValueError("several labels per clip: needed: a column with the fold or the split")
    given = {"fold": fold or split, "split": fold or split, "group": group}
    there = set(read_table(table).columns) - {filename, label}
    if idle := [name for name, taken in given.items() if name in there and not taken]:
        print(f"{table}: columns not used unless asked for (--fold or --split, --group): {idle}")
    with TemporaryDirectory() as kept, Workers(preload="matpac.data.audit") as workers:
        manifest, info = folder_manifest(
            table.stem,
            audio_folder=audio,
            csv=table,
            filename=filename,
            labels=label,
            separator=separator,
            kind=kind,
            fold=fold,
            split=split,
            group=group,
            cache=Path(kept) / "audit",
            workers=workers,
        )
        if left_out := dict(excluded_clips(manifest)):
            print(f"{len(left_out)} clips are left out:\n{listed(left_out)}")
        manifest = manifest[manifest["excluded"] == ""].reset_index(drop=True)
        if not (fold or split) and len(info["classes"]) > 1:
            manifest["fold"] = _dealt(manifest, info["classes"])
        if why := hopeless(manifest, info):
            raise ValueError(f"{table}: column {label!r}: {why}")
        if lost := not_trained(manifest, info):
            print(f"classes of test clips that no training clip has: {', '.join(lost)}")
        targets = target_array(manifest, info["kind"])
        splits = make_splits(
            scheme=info["split_scheme"] or "folds",
            splits=manifest["split"].to_numpy(str),
            folds=manifest["fold"].to_numpy(int),
            groups=manifest["group"].to_numpy(str),
            targets=targets,
            repeats=settings.repeats,
            seed=settings.seed,
            valid_fraction=settings.valid_fraction,
        )
        features = extract(Recorded(encoder, manifest, audio), Path(kept), name="encoder")
        features = torch.from_numpy(np.array(features))  # its file goes
    task = Task(
        features, targets, splits, num_classes=len(info["classes"]), device=distributed.device()
    )
    results = choose(train_probes(task, settings))
    rows = pd.DataFrame([(each.fold, each.repeat, each.score) for each in results])
    found = 100 * rows.groupby(1 if split else 0)[2].mean()
    unit = f"{len(found)} repeats of the probe" if split else f"{len(found)} folds"
    metric = {"map": "mAP"}.get(info["metric"], info["metric"])
    return Score(metric, found.mean(), interval(found), unit, len(manifest), len(info["classes"]))


def _dealt(manifest: pd.DataFrame, classes: list[str]) -> pd.Series:
    """Five folds of classes. Raises: ValueError if one has not a group for each."""
    named = manifest[["group"]].assign(**{"class": np.array(classes)[manifest["label"]]})
    if (folds := folder_scan.folds(named)).eq(0).any():
        few = sorted(set(named.loc[folds == 0, "class"]))
        raise ValueError(
            f"classes of fewer than {folder_scan.FOLDS} clips or groups: {', '.join(few)}; needed "
            "where no column gives a fold or split"
        )
    return folds
