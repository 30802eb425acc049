"""What is to be heard in a folder of audio, as one Parquet table.

    matpac label FOLDER -o labels.parquet --encoder ENCODER --head HEAD

One row per file, or with ``--frames`` per time column:

    path           relative to the folder
    time_s         only with ``--frames``: centre of the column, seconds from the file's start
    problem        "", or why the file has no labels
    labels         the most probable first; none where there is a problem
    probabilities  of each of them
"""

from pathlib import Path
from typing import Any

import pandas as pd

from matpac.cli.embed import Summary, listed
from matpac.core import files
from matpac.core.progress import Progress
from matpac.encoders.interface import Frames, WaveEncoder, list_audio


def label_folder(
    encoder: WaveEncoder,
    folder: Path,
    out: Path,
    *,
    head: str | None = None,
    frames: bool = False,
    **options: Any,
) -> Summary:
    """Writes the labels of every audio file in a folder and below.

    Args:
        encoder: as `matpac.load` gives it; head, frames, options: as of `WaveEncoder.label`.
        out: the table, ending in .parquet; replaced when the new one is complete.
    Raises: FileNotFoundError if there is no such folder; ValueError for another suffix or head, if
        there is no audio, or if no file can be read: then nothing is written.
    """
    if out.suffix != ".parquet":
        raise ValueError(f"output: got {out}, allowed: a name that ends in .parquet")
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder")
    chosen, names = encoder.head(head), list_audio(folder)
    problems: dict[str, str] = {}
    rows: list[dict[str, Any]] = []

    def add(path: str, labels: dict[str, float], **more: Any) -> None:
        told = {"labels": list(labels), "probabilities": list(labels.values())}
        rows.append({"path": path, **more, "problem": problems.get(path, ""), **told})

    found = encoder.embed_each([folder / name for name in names], frames=frames)
    with Progress(len(names), f"label {folder.name}", unit="file") as progress:
        for path, each in zip(names, found, strict=True):
            if isinstance(each, Exception):
                problems[path] = str(each).removeprefix(f"{folder / path}: ")
                add(path, {}, **({"time_s": None} if frames else {}))
            elif isinstance(each, Frames):
                for time_s, column in zip(each.times.tolist(), each.embeddings, strict=True):
                    add(path, chosen.labels(column, **options), time_s=time_s)
            else:
                add(path, chosen.labels(each, **options))
            progress.update()
    if len(problems) == len(names):
        raise ValueError(f"{folder}: nothing could be read\n{listed(problems)}")
    files.write_table(out, pd.DataFrame(rows))
    return Summary(len(names), problems)
