"""FSD50K: 200 classes of sound events, several per clip.

Labels already hold the ancestors of each class. The split is the authors': train and val of the
development set, and the evaluation set; clips are not dealt out anew, since who uploaded them is
not in the tables. Unpacked archives may have a folder of their own name inside.
"""

from pathlib import Path

import pandas as pd

from matpac.data.labels import one_hot
from matpac.data.layouts.layout import Layout
from matpac.data.tables import read_rows, read_table

MARKER = "FSD50K.ground_truth"
SPLITS = {"train": "train", "val": "valid"}


def read(root: Path) -> Layout:
    """The official split; each clip is a group.

    Raises: FileNotFoundError; ValueError for an unknown class or split.
    """
    truth = root / _inner(root, MARKER)
    vocabulary = read_rows(truth / "vocabulary.csv", ["index", "label", "mid"])
    classes = vocabulary.sort_values("index", key=pd.to_numeric)["label"].to_list()
    dev = read_table(truth / "dev.csv", ["fname", "labels", "split"])
    if unknown := set(dev["split"]) - set(SPLITS):
        raise ValueError(f"{truth / 'dev.csv'}: split: got {unknown}, allowed: train, val")
    dev["split"] = dev["split"].map(SPLITS)
    test = read_table(truth / "eval.csv", ["fname", "labels"]).assign(split="test")
    rows = pd.concat([dev, test], ignore_index=True)
    named = rows["labels"].str.split(",").to_list()
    if unknown := {label for each in named for label in each} - set(classes):
        raise ValueError(f"{truth}: got labels {sorted(unknown)[:5]} that vocabulary.csv has not")
    audio = {
        part: _inner(root, f"FSD50K.{folder}_audio")
        for part, folder in (("train", "dev"), ("valid", "dev"), ("test", "eval"))
    }
    clips = pd.DataFrame({"clip": rows["fname"], "split": rows["split"], "fold": 0})
    clips["path"] = rows["split"].map(audio) + "/" + rows["fname"] + ".wav"
    clips["group"] = clips["clip"]
    index = {label: number for number, label in enumerate(classes)}
    clips["labels"] = list(one_hot(named, index))
    return Layout(clips, classes)


def _inner(root: Path, name: str) -> str:
    """A folder of the root, or the one of the same name inside it."""
    return f"{name}/{name}" if (root / name / name).is_dir() else name
