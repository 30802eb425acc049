"""MagnaTagATune: the 50 most frequent of 188 tags.

The split goes by folder: 0 to b, c, and d to f. Clips without any of the 50 tags stay in. Three
files are broken as shipped, and only these may be missing. A group is a recording, from which
several clips were cut.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from matpac.data.layouts.layout import Layout
from matpac.data.tables import read_table

MARKER = "annotations_final.csv"
NUM_TAGS = 188
CLASSES = [
    "guitar", "classical", "slow", "techno", "strings", "drums", "electronic", "rock", "fast",
    "piano", "ambient", "beat", "violin", "vocal", "synth", "female", "indian", "opera", "male",
    "singing", "vocals", "no vocals", "harpsichord", "loud", "quiet", "flute", "woman",
    "male vocal", "no vocal", "pop", "soft", "sitar", "solo", "man", "classic", "choir", "voice",
    "new age", "dance", "male voice", "female vocal", "beats", "harp", "cello", "no voice",
    "weird", "country", "metal", "female voice", "choral",
]  # fmt: skip
"""In the order in which the literature lists them; of equally frequent ones it has several."""
SPLITS = dict.fromkeys("0123456789ab", "train") | {"c": "valid"} | dict.fromkeys("def", "test")
BROKEN = frozenset({"35644", "55753", "57881"})


def read(root: Path) -> Layout:
    """The split by folder, with clips named by their number.

    Raises: FileNotFoundError; ValueError for a table that does not fit.
    """
    table = read_table(root / MARKER)
    tags = [column for column in table.columns if column not in ("clip_id", "mp3_path")]
    if absent := {"clip_id", "mp3_path", *CLASSES} - set(table.columns):
        raise ValueError(f"{root / MARKER}: no column {', '.join(map(repr, sorted(absent)))}")
    cells = table[tags].to_numpy()
    folders = table["mp3_path"].str.split("/").str[0]
    wrong = ~np.isin(cells, ["0", "1"]).all(axis=1) | ~folders.isin(list(SPLITS)).to_numpy()
    if wrong.any():
        raise ValueError(
            f"{root / MARKER}: clip {table['clip_id'][wrong].iloc[0]}: allowed: 0 or 1 for each "
            "tag, and an mp3_path that starts with 0/ to f/"
        )
    given = pd.DataFrame(cells == "1", columns=tags)
    clips = pd.DataFrame({"clip": table["clip_id"], "path": _audio(root) + table["mp3_path"]})
    clips["split"], clips["fold"] = folders.map(SPLITS), 0
    clips["group"] = table["mp3_path"].str.replace(r"-\d+-\d+\.mp3$", "", regex=True)
    clips["labels"] = list(given[CLASSES].to_numpy(float))
    return Layout(clips, CLASSES, BROKEN, deviations(given), disjoint=False)


def deviations(given: pd.DataFrame) -> list[str]:
    """Whether the tags, and the most frequent of them as a set, are those of the literature."""
    problems = []
    if given.shape[1] != NUM_TAGS:
        problems.append(f"{given.shape[1]} tags, expected {NUM_TAGS}")
    counts = given.sum()
    rarest, others = counts[CLASSES].min(), counts.drop(CLASSES)
    if len(more := others[others > rarest]):
        problems.append(
            f"the {len(CLASSES)} most frequent tags are others than in the literature: "
            f"{', '.join(map(repr, more.index[:5]))} occur more often than "
            f"{counts[CLASSES].idxmin()!r}"
        )
    return problems


def _audio(root: Path) -> str:
    """Where the folders 0 to f lie, relative to the root: in it, or in a folder of it."""
    below = sorted(each.name for each in root.iterdir() if each.is_dir())
    for place in ["", *(f"{name}/" for name in below)]:
        if any((root / place / folder).is_dir() for folder in SPLITS):
            return place
    return ""
