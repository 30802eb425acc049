"""OpenMIC-2018: 20 instruments, of which each clip was asked for a few.

A label is the likelihood that the instrument is heard, NaN where nobody was asked. They come from
the table of aggregated labels, from which the authors' script makes ``openmic-2018.npz``: the
names of the clips in that file are Python objects, which only unsafe loading (pickle) restores.
"""

import json
from pathlib import Path

import pandas as pd

from matpac.data.layouts.layout import Layout
from matpac.data.tables import read_rows, read_table

MARKER = "partitions/split01_train.csv"
CLASSES = [
    "accordion", "banjo", "bass", "cello", "clarinet", "cymbals", "drums", "flute", "guitar",
    "mallet_percussion", "mandolin", "organ", "piano", "saxophone", "synthesizer", "trombone",
    "trumpet", "ukulele", "violin", "voice",
]  # fmt: skip
TABLE = "openmic-2018-aggregated-labels.csv"


def read(root: Path) -> Layout:
    """The official split, without a validation part; groups are the tracks.

    Raises: FileNotFoundError; ValueError for a table that does not fit, or another class order.
    """
    index = json.loads((root / "class-map.json").read_text("utf-8"))
    if index != {name: number for number, name in enumerate(CLASSES)}:
        raise ValueError(f"{root / 'class-map.json'}: got {index}, allowed: 0 to 19 in this order: "
                         f"{', '.join(CLASSES)}")  # fmt: skip
    parts = [
        read_rows(root / "partitions" / f"split01_{split}.csv", ["clip"]).assign(split=split)
        for split in ("train", "test")
    ]
    clips = pd.concat(parts, ignore_index=True).assign(fold=0)
    clips["path"] = "audio/" + clips["clip"].str[:3] + "/" + clips["clip"] + ".ogg"
    clips["group"] = clips["clip"].str.split("_").str[0]
    likelihoods = _likelihoods(root / TABLE).reindex(clips["clip"])
    clips["labels"] = list(likelihoods.to_numpy())
    return Layout(clips, CLASSES)


def _likelihoods(path: Path) -> pd.DataFrame:
    """Likelihoods by clip and instrument from one line per answered question."""
    answers = read_table(path, ["sample_key", "instrument", "relevance"])
    relevance = pd.to_numeric(answers["relevance"], errors="coerce")
    wrong = ~relevance.between(0, 1) | ~answers["instrument"].isin(CLASSES)
    wrong |= answers.duplicated(["sample_key", "instrument"])
    if wrong.any():
        raise ValueError(
            f"{path}: got {answers[wrong].iloc[0].to_dict()}, allowed: one relevance from "
            f"0 to 1 for each clip and instrument of class-map.json"
        )
    table = answers.assign(relevance=relevance).pivot(
        index="sample_key", columns="instrument", values="relevance"
    )
    return table.reindex(columns=CLASSES)
