"""NSynth: single notes, 11 families of instruments.

The three folders are the split. ``synth_lead`` occurs in training only, so a probe has 11 outputs
of which 10 are tested. Groups are instruments: those of training are in no other part; validation
and test share theirs.
"""

import json
from pathlib import Path
from typing import Any

import pandas as pd

from matpac.data.layouts.layout import Layout

MARKER = "nsynth-train/examples.json"
CLASSES = [
    "bass", "brass", "flute", "guitar", "keyboard", "mallet", "organ", "reed", "string",
    "synth_lead", "vocal",
]  # fmt: skip
KEPT = ("instrument", "instrument_family", "instrument_family_str")


def read(root: Path) -> Layout:
    """The official split. Raises: ValueError for a note that does not fit."""
    parts = [
        _notes(root / f"nsynth-{split}" / "examples.json").assign(split=split)
        for split in ("train", "valid", "test")
        if (root / f"nsynth-{split}" / "examples.json").exists()
    ]
    clips = pd.concat(parts, ignore_index=True).assign(fold=0)
    clips["path"] = "nsynth-" + clips["split"] + "/audio/" + clips["clip"] + ".wav"
    return Layout(clips[["clip", "path", "split", "fold", "group", "label"]], CLASSES)


def _notes(path: Path) -> pd.DataFrame:
    """Notes of a part with their families as labels and their instruments as groups."""
    try:
        notes = json.loads(path.read_text("utf-8"), object_pairs_hook=_smaller)
        rows = [(name, *(facts[key] for key in KEPT)) for name, facts in notes.items()]
    except (json.JSONDecodeError, AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: got {error!r}, allowed: notes with {', '.join(KEPT)}") from None
    table = pd.DataFrame(rows, columns=["clip", "group", "label", "family"])
    wrong = table["label"].map(dict(enumerate(CLASSES))) != table["family"]
    if wrong.any():
        name, _, label, family = table[wrong].iloc[0]
        raise ValueError(
            f"{path}: {name}: got family {label} {family!r}, allowed: 0 to 10 in this order: "
            f"{', '.join(CLASSES)}"
        )
    return table.drop(columns="family").assign(group=table["group"].astype(str))


def _smaller(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object without what is not used: 300,000 notes would fill a gigabyte."""
    return {key: value for key, value in pairs if key in KEPT or isinstance(value, dict)}
