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

from matpac.cli.embed import Summary, audio_of, rows
from matpac.core import files
from matpac.encoders.interface import WaveEncoder


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
    names, chosen = audio_of(folder, out), encoder.head(head)
    problems: dict[str, str] = {}
    table = []
    with files.replacing(out) as temporary:
        temporary.touch()  # what cannot be written is to be known before the work
        for row in rows(encoder, folder, names, problems, verb="label", frames=frames):
            labels = {} if row.embedding is None else chosen.labels(row.embedding, **options)
            told = {"labels": list(labels), "probabilities": list(labels.values())}
            time = {"time_s": row.time_s} if frames else {}
            table.append({"path": row.path, **time, "problem": row.problem, **told})
        pd.DataFrame(table).to_parquet(temporary, index=False)
    return Summary(len(names), problems)
