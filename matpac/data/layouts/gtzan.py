"""GTZAN: ten genres, the fault-filtered split.

The lists are those that torchaudio carries; they name files strictly, so nothing else that lies in
the folders is taken for a track. One widespread copy has an unreadable ``jazz.00054``, a training
track: it may be missing.
"""

from pathlib import Path

import pandas as pd

from matpac.data.layouts.layout import Layout

MARKER = "*/*.[0-9][0-9][0-9][0-9][0-9].wav"
"""``genres/`` of the authors' archive and ``genres_original/`` of another copy are both roots."""
CLASSES = [
    "blues", "classical", "country", "disco", "hiphop", "jazz", "metal", "pop", "reggae", "rock",
]  # fmt: skip
BROKEN = frozenset({"jazz.00054"})


def read(root: Path) -> Layout:
    """The fault-filtered split; nothing is known of artists, so each track is a group."""
    from torchaudio.datasets import gtzan  # seconds, for this data set alone

    lists = {
        "train": gtzan.filtered_train,
        "valid": gtzan.filtered_valid,
        "test": gtzan.filtered_test,
    }
    rows = [(track, split) for split, tracks in lists.items() for track in tracks]
    clips = pd.DataFrame(rows, columns=["clip", "split"]).assign(fold=0)
    genre = clips["clip"].str.split(".").str[0]
    clips["path"] = genre + "/" + clips["clip"] + ".wav"
    clips["group"] = clips["clip"]
    clips["label"] = genre.map(CLASSES.index)
    return Layout(clips, CLASSES, broken=BROKEN)
