"""UrbanSound8K: ten folds; slices cut from one recording are a group and share a fold.

Files differ in rate, depth and number of channels, and some are far shorter than the usual 4 s.
"""

from pathlib import Path

import pandas as pd

from matpac.data.layouts.layout import Layout
from matpac.data.tables import read_table

MARKER = "metadata/UrbanSound8K.csv"
FOLDS = [str(fold) for fold in range(1, 11)]


def read(root: Path) -> Layout:
    """The official folds, classes in the order of their numbers.

    Raises: FileNotFoundError; ValueError for a fold or class that does not fit.
    """
    columns = ["slice_file_name", "fsID", "fold", "classID", "class"]
    table = read_table(root / MARKER, columns)
    if wrong := set(table["fold"]) - set(FOLDS):
        raise ValueError(f"{root / MARKER}: fold: got {sorted(wrong)[:5]}, allowed: 1 to 10")
    names = table[["classID", "class"]].drop_duplicates().sort_values("classID", key=pd.to_numeric)
    if names["classID"].duplicated().any() or names["class"].duplicated().any():
        raise ValueError(
            f"{root / MARKER}: got {names.to_numpy().tolist()}, allowed: one name per classID"
        )
    clips = pd.DataFrame({"clip": table["slice_file_name"], "fold": table["fold"].astype(int)})
    clips["path"] = "audio/fold" + table["fold"] + "/" + table["slice_file_name"]
    clips["split"], clips["group"] = "", table["fsID"]
    classes = names["class"].to_list()
    clips["label"] = table["class"].map(classes.index)
    return Layout(clips, classes)
