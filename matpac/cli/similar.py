"""The sounds of a folder that are nearest to one.

    matpac similar FILE FOLDER --encoder ENCODER

Clips' embeddings are compared by their cosine after each of the D numbers was brought to zero mean
and unit variance over the folder. As they come, embeddings of one encoder share a large part, so
that all cosines are near 1, and a few numbers of large variance decide; k nearest neighbours are
found in the same way (`matpac.probing.knn`). The search is exact.

A table that ``matpac embed`` wrote of the folder stands for it, if it is of the same encoder; so
does what ``matpac pretrain FOLDER`` made of it, which has one.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from matpac.cli.embed import Summary, rows
from matpac.encoders import hub
from matpac.encoders.frozen import CONFIG
from matpac.encoders.interface import WaveEncoder, list_audio
from matpac.probing.identity import identity
from matpac.probing.knn import nearest
from matpac.probing.task import Inputs

TABLE = "embeddings.parquet"
"""Of the sounds that an encoder was trained on, beside it."""
FEWEST = 2
"""Sounds to search in: one has no variance."""
NEEDED = ("encoder", "identity", "layer", "precision")
"""What a table's metadata have to say."""


class Clips(NamedTuple):
    """What is searched in."""

    paths: list[str]
    embeddings: Tensor
    """(N, D), of the paths."""
    found: Summary
    """Files without embedding are no part of the others."""


def similar(
    file: Path,
    folder: Path,
    *,
    encoder: str | None = None,
    weights: Path | None = None,
    device: str | None = None,
    number: int = 10,
) -> tuple[list[tuple[float, str]], Summary]:
    """The sounds of a folder, or of its table, in the order of their similarity to a file.

    Args:
        file: may lie in the folder, and is then not among those found.
        encoder: None: of a table its own, or once that is gone the folder that it lies in;
            else as `hub.chosen`.
        weights, device: as of `hub.load`.
        number: of sounds at most.
    Returns: similarity, -1 to 1, and path of each; and what came of the folder.
    Raises: FileNotFoundError; ValueError naming a file that cannot be read, a table that is of
        another encoder or none of clips, or a folder with less than `FEWEST` sounds.
    """
    if (folder / CONFIG).is_file() and (folder / TABLE).is_file():
        folder /= TABLE
    table = folder.suffix == ".parquet" and not folder.is_dir()
    told = _told(folder) if table else {}
    precision, layer = told.get("precision", "float32"), int(told.get("layer", -1))
    name = hub.chosen(encoder or told.get("encoder"))
    options = {"weights": weights, "device": device, "precision": precision}
    try:
        loaded = hub.load(name, **options)
    except FileNotFoundError as error:
        if encoder or not table:
            raise
        if not (folder.parent / CONFIG).is_file():
            raise FileNotFoundError(
                f"{folder}: its encoder is not where it was; give --encoder: {error}"
            ) from None
        name = folder.parent  # whether it is the same is told by its digest
        loaded = hub.load(name, **options)
    if table and told["identity"] != identity(loaded):
        raise ValueError(
            f"{folder}: got embeddings of {told['encoder']}, which was not the same as "
            f"{name} is now; give the table's encoder, or make the table again"
        )
    (asked,) = loaded.embed_each([file], layer=layer)
    if isinstance(asked, Exception):
        raise asked
    clips = _of_table(folder, loaded.width) if table else _of_folder(loaded, folder)
    if len(clips.paths) < FEWEST:
        raise ValueError(f"{folder}: got {len(clips.paths)} sound to search in, needed: {FEWEST}")
    every = np.arange(len(clips.paths))
    inputs = Inputs(clips.embeddings, every)
    cosines, at = nearest(inputs, every, ((asked - inputs.mean) * inputs.scale)[None], number + 1)
    pairs = zip(cosines[0].tolist(), at[0], strict=True)
    others = [
        (cosine, clips.paths[row])
        for cosine, row in pairs
        if not _is(file, clips.paths[row], folder, asked, clips.embeddings[row])
    ]
    return others[:number], clips.found


def _is(file: Path, path: str, folder: Path, asked: Tensor, embedding: Tensor) -> bool:
    """Whether a sound is the one that was asked about; a table does not say where it was."""
    if folder.is_dir():
        return (folder / path).resolve() == file.resolve()
    same_name = f"{file.resolve()}".endswith(f"/{path}")
    return same_name and torch.allclose(asked, embedding, rtol=1e-3, atol=1e-3)


def _of_folder(encoder: WaveEncoder, folder: Path) -> Clips:
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder; a table ends in .parquet")
    names, problems = list_audio(folder), {}
    embedded = rows(encoder, folder, names, problems, verb="embed")
    good = [row for row in embedded if row.embedding is not None]
    together = torch.stack([row.embedding for row in good])
    return Clips([row.path for row in good], together, Summary(len(names), problems))


def _told(path: Path) -> dict[str, str]:
    """Metadata of a table of clips' embeddings."""
    if not path.is_file():
        made = f"`matpac embed FOLDER -o {path} --encoder ENCODER` makes it"
        raise FileNotFoundError(f"{path}: no such table; {made}")
    try:
        schema = pq.read_schema(path)
    except pa.ArrowInvalid as error:
        raise ValueError(f"{path}: {error}") from None
    told = {key.decode(): value.decode() for key, value in (schema.metadata or {}).items()}
    if not {"path", "problem", "embedding"} == set(schema.names) or not told.keys() >= {*NEEDED}:
        raise ValueError(
            f"{path}: got columns {', '.join(schema.names)}, needed: a table that `matpac embed` "
            f"wrote without --frames, whose metadata say {', '.join(NEEDED)}"
        )
    return told


def _of_table(path: Path, width: int) -> Clips:
    paths, problems, parts = [], {}, [np.zeros(0, np.float32)]
    for batch in pq.ParquetFile(path).iter_batches():
        for row in batch.select(["path", "problem"]).to_pylist():
            if row["problem"]:
                problems[row["path"]] = row["problem"]
            else:
                paths.append(row["path"])
        parts.append(batch["embedding"].flatten().to_numpy())  # of nulls there is nothing in it
    embeddings = torch.from_numpy(np.concatenate(parts)).reshape(-1, width)
    return Clips(paths, embeddings, Summary(len(paths) + len(problems), problems))
