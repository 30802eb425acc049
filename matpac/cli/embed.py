"""Embeddings of a folder of audio as one Parquet table.

    matpac embed FOLDER -o embeddings.parquet --encoder ENCODER

One row per file, or with ``--frames`` per time column:

    path        relative to the folder
    time_s      only with ``--frames``: centre of the column, seconds from the file's start
    problem     "", or why the file has no embedding
    embedding   D float32 values; null where there is a problem

A file that cannot be read is listed with its reason and stops no other. The table is written as the
work goes on, so that memory does not grow with the folder, and appears when it is complete. Its
metadata say which encoder, layer, width, sample rate and version made it.
"""

import os
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from torch import Tensor

from matpac.core import files
from matpac.core.progress import Progress
from matpac.encoders.interface import Frames, WaveEncoder, list_audio

ROW_GROUP_VALUES = 1 << 23
"""Numbers in a row group of the table, 32 MB."""
Found = Tensor | Frames | str  # a file's embeddings, or what is wrong with it
SHOWN = 5  # problems on the screen; the table names all


class Summary(NamedTuple):
    """What came of a folder."""

    num_files: int
    problems: dict[str, str]
    """Path -> reason, of the files without embedding."""


class _Row(NamedTuple):
    path: str
    time_s: float | None
    problem: str


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
    if out.suffix != ".parquet":
        raise ValueError(f"output: got {out}, allowed: a name that ends in .parquet")
    encoder.check(layer=layer, batch_size=batch_size)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder")
    names = list_audio(folder)
    problems = {}
    found = encoder.embed_each(
        [folder / name for name in names], frames=frames, layer=layer, batch_size=batch_size
    )
    with (
        files.replacing(out) as temporary,
        _Table(temporary, _described(encoder, name, layer), frames=frames) as table,
        Progress(len(names), f"embed {folder.name}", unit="file") as progress,
    ):
        for path, each in zip(names, found, strict=True):
            if isinstance(each, Exception):
                problems[path] = str(each).removeprefix(f"{folder / path}: ")
            table.add(path, problems.get(path, each))
            progress.update()
        if len(problems) == len(names):
            raise ValueError(f"{folder}: nothing could be read\n{listed(problems)}")
    return Summary(len(names), problems)


class _Table:
    """Rows on their way into a Parquet file."""

    def __init__(self, path: Path, described: dict[str, str], *, frames: bool) -> None:
        width = int(described["width"])
        times = [pa.field("time_s", pa.float64())] if frames else []
        embedding = pa.field("embedding", pa.list_(pa.field("element", pa.float32())))
        fields = [pa.field("path", pa.string()), *times, pa.field("problem", pa.string())]
        self.schema = pa.schema([*fields, embedding], metadata=described)
        self.writer = pq.ParquetWriter(path, self.schema)
        self.rows: list[_Row] = []
        # One array: thousands of small ones among what comes and goes would fragment the memory.
        self.embeddings = np.empty((max(1, ROW_GROUP_VALUES // width), width), np.float32)

    def add(self, path: str, found: Found) -> None:
        """Takes what is known of a file."""
        # Names of other encodings than UTF-8 keep what can be kept of them.
        path = os.fsencode(path).decode("utf-8", "replace")
        if isinstance(found, Frames):
            for time_s, embedding in zip(found.times.tolist(), found.embeddings, strict=True):
                self._add(_Row(path, time_s, ""), embedding)
        elif isinstance(found, str):
            self._add(_Row(path, None, found), None)
        else:
            self._add(_Row(path, None, ""), found)

    def _add(self, row: _Row, embedding: Tensor | None) -> None:
        if embedding is not None:
            self.embeddings[len(self.rows)] = embedding.numpy()
        self.rows.append(row)
        if len(self.rows) == len(self.embeddings):
            self._write()

    def _write(self) -> None:
        rows, self.rows = self.rows, []
        columns = {name: [getattr(row, name) for row in rows] for name in _Row._fields}
        there = np.array([row.problem == "" for row in rows])
        offsets = np.concatenate([[0], np.cumsum(there * self.embeddings.shape[1])])
        *others, last = self.schema
        embeddings = pa.ListArray.from_arrays(
            pa.array(offsets, pa.int32()),
            pa.array(self.embeddings[: len(rows)][there].reshape(-1)),
            type=last.type,
            mask=pa.array(~there),
        )
        arrays = [*(pa.array(columns[field.name], field.type) for field in others), embeddings]
        self.writer.write_table(pa.Table.from_arrays(arrays, schema=self.schema))

    def __enter__(self) -> "_Table":
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        if kind is None and self.rows:
            self._write()
        self.writer.close()


def _described(encoder: WaveEncoder, name: str, layer: int) -> dict[str, str]:
    return {
        "encoder": name,
        "layer": str(layer % encoder.num_layers),
        "num_layers": str(encoder.num_layers),
        "width": str(encoder.width),
        "sample_rate": str(encoder.sample_rate),
        "precision": encoder.precision,
        "matpac_version": version("matpac"),
    }


def listed(problems: dict[str, str]) -> str:
    """The first problems, a line each, and how many more there are."""
    lines = [f"  {path}: {reason}" for path, reason in list(problems.items())[:SHOWN]]
    return "\n".join(lines + [f"  ... and {len(problems) - SHOWN} more"] * (len(problems) > SHOWN))
