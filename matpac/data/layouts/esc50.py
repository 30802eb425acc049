"""ESC-50: five folds; clips cut from one recording are a group and share a fold.

Classes are in alphabetical order, and only those that have a clip: a folder that holds ESC-10
alone, a part of ESC-50, becomes a task of ten classes.
"""

from pathlib import Path

import pandas as pd

from matpac.data.layouts.layout import Layout
from matpac.data.tables import read_table

MARKER = "meta/esc50.csv"


def read(root: Path) -> Layout:
    """The official folds. Raises: FileNotFoundError; ValueError for a fold that is no number."""
    table = read_table(root / MARKER, ["filename", "fold", "category", "src_file"])
    if wrong := set(table["fold"]) - set("12345"):
        raise ValueError(f"{root / MARKER}: fold: got {sorted(wrong)[:5]}, allowed: 1 to 5")
    clips = pd.DataFrame({"clip": table["filename"], "path": "audio/" + table["filename"]})
    clips["split"], clips["fold"] = "", table["fold"].astype(int)
    clips["group"] = table["src_file"]
    there = [(root / path).is_file() for path in clips["path"]]
    classes = sorted(set(table["category"][there]) or set(table["category"]))
    clips["label"] = table["category"].map({name: i for i, name in enumerate(classes)})
    clips["label"] = clips["label"].fillna(-1).astype(int)
    return Layout(clips, classes)
