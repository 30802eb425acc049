"""Embeddings of a folder of audio as one Parquet table.

    matpac embed FOLDER -o embeddings.parquet --encoder ENCODER

One row per file, or with ``--frames`` per time column:

    path        relative to the folder
    time_s      only with ``--frames``: centre of the column, seconds from the file's start
    problem     "", or why the file has no embedding
    embedding   D float32 values; null where there is a problem

A file that cannot be read is listed with its reason and stops no other. The table is written as the
work goes on, so that memory does not grow with the folder, and appears when it is complete. Its
metadata say which encoder, with a digest of it, layer, width, sample rate and version made it.
"""

import os
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from torch import Tensor

from matpac.core import files
from matpac.core.progress import Progress
from matpac.encoders.interface import Frames, WaveEncoder, list_audio
from matpac.probing.identity import identity

ROW_GROUP_VALUES = 1 << 23
"""Numbers in a row group of the table, 32 MB."""
SHOWN = 5  # problems on the screen; the table names all


class Summary(NamedTuple):
    """What came of a folder."""

    num_files: int
    problems: dict[str, str]
    """Path -> reason, of the files without embedding."""


class Row(NamedTuple):
    """What is known of a file, or of a time column of it."""

    path: str
    time_s: float | None
    problem: str
    embedding: Tensor | None
    """(D,); None where there is a problem."""


def embed_folder(
    encoder: WaveEncoder,
    folder: Path,
    out: Path,
    *,
    name: str = "",
    frames: bool = False,
    layer: int = -1,
    batch_size: int = 16,
) -> Summary:
    """Writes the embeddings of every audio file in a folder and below.

    Args:
        encoder: as `matpac.load` gives it; name: of it, for the table's metadata.
        out: the table, ending in .parquet; replaced when the new one is complete.
        frames: one row per time column instead of their mean.
        layer, batch_size: as in `WaveEncoder.embed`.
    Raises: FileNotFoundError if there is no such folder; ValueError for another suffix, if there
        is no audio, or if no file can be read: then nothing is written.
    """
    names, problems = audio_of(folder, out), {}
    options = {"frames": frames, "layer": layer, "batch_size": batch_size}
    encoder.check(layer=layer, batch_size=batch_size)
    schema = _schema(encoder, name, layer, frames=frames)
    group: list[dict[str, Any]] = []
    # One array: thousands of small ones among what comes and goes would fragment the memory.
    size = max(1, ROW_GROUP_VALUES // encoder.width)
    embeddings = np.empty((size, encoder.width), np.float32)
    with files.replacing(out) as temporary, pq.ParquetWriter(temporary, schema) as table:
        for row in rows(encoder, folder, names, problems, verb="embed", **options):
            group.append(row._asdict())
            if row.embedding is not None:
                group[-1]["embedding"] = embeddings[len(group) - 1]
                group[-1]["embedding"][:] = row.embedding.numpy()
            if len(group) == size:
                table.write_table(pa.Table.from_pylist(group, schema))
                group.clear()
        if group:
            table.write_table(pa.Table.from_pylist(group, schema))
    return Summary(len(names), problems)


def audio_of(folder: Path, out: Path) -> list[str]:
    """Paths of the audio files that the table ``out`` is to have. Raises: as `embed_folder`."""
    if out.suffix != ".parquet":
        raise ValueError(f"output: got {out}, allowed: a name that ends in .parquet")
    if out.is_dir():
        raise ValueError(f"output: got {out}, a folder, allowed: a file")
    if not folder.is_dir():
        what = "is a file; give its folder" if folder.is_file() else "no such folder"
        raise FileNotFoundError(f"{folder}: {what}")
    return list_audio(folder)


def rows(
    encoder: WaveEncoder,
    folder: Path,
    names: list[str],
    problems: dict[str, str],
    *,
    verb: str,
    **options: Any,
) -> Iterator[Row]:
    """One row per file, or per time column, while the work goes on.

    Args:
        problems: path -> reason, of the files that cannot be read, is filled on the way.
        verb: what is done, for the progress bar; options: as of `WaveEncoder.embed_each`.
    Raises: ValueError at the end if no file could be read.
    """
    found = encoder.embed_each([folder / name for name in names], **options)
    with Progress(len(names), f"{verb} {folder.name}", unit="file") as progress:
        for name, each in zip(names, found, strict=True):
            # Names of other encodings than UTF-8 keep what can be kept of them.
            path = os.fsencode(name).decode("utf-8", "replace")
            if isinstance(each, Exception):
                problems[name] = str(each).removeprefix(f"{folder / name}: ")
                yield Row(path, None, problems[name], None)
            elif isinstance(each, Frames):
                for time_s, embedding in zip(each.times.tolist(), each.embeddings, strict=True):
                    yield Row(path, time_s, "", embedding)
            else:
                yield Row(path, None, "", each)
            progress.update()
    if len(problems) == len(names):
        raise ValueError(f"{folder}: nothing could be read\n{listed(problems)}")


def _schema(encoder: WaveEncoder, name: str, layer: int, *, frames: bool) -> pa.Schema:
    described = {
        "encoder": name,
        "identity": identity(encoder),
        "layer": str(layer % encoder.num_layers),
        "num_layers": str(encoder.num_layers),
        "width": str(encoder.width),
        "sample_rate": str(encoder.sample_rate),
        "precision": encoder.precision,
        "matpac_version": version("matpac"),
    }
    times = [pa.field("time_s", pa.float64())] if frames else []
    embedding = pa.field("embedding", pa.list_(pa.field("element", pa.float32())))
    fields = [pa.field("path", pa.string()), *times, pa.field("problem", pa.string()), embedding]
    return pa.schema(fields, metadata=described)


def listed(problems: dict[str, str]) -> str:
    """The first problems, a line each, and how many more there are."""
    lines = [f"  {path}: {reason}" for path, reason in list(problems.items())[:SHOWN]]
    return "\n".join(lines + [f"  ... and {len(problems) - SHOWN} more"] * (len(problems) > SHOWN))
