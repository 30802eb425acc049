"""Embeddings of a whole data set: computed once per encoder, in parts, on all GPUs, and kept.

They lie in ``<bulk>/<profile>/embeddings/<encoder>/``:

    <key>.npy     (N, D) float32, one row per clip of the store; opened memory-mapped
    <key>.json    what they are embeddings of, compared whenever they are opened
    <key>.parts/  only until all are there: a file per 2,048 clips

The key is a digest of encoder, clips and embedding code. What is there already is not computed
again, be it parts of an extraction that was killed. Parts are the same for any number of processes,
and so are the numbers. Shapes: N clips of a data set, D embedding size.
"""

import math
import pickle
import shutil
import warnings
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch

from matpac.core import distributed, files, fingerprints
from matpac.core.progress import Progress
from matpac.probing.embedders import Embedder

PART_CLIPS = 2048


def extract(
    embedder: Embedder, folder: Path, *, name: str, part_clips: int = PART_CLIPS
) -> np.ndarray:
    """Embeddings of all clips of a data set, from ``folder`` or computed and kept there.

    One process per GPU computes them, as far as there are parts; one without any GPU, or for an
    encoder that cannot be sent to others.

    Args:
        embedder: the encoder, on the CPU, and the clips.
        name: of the encoder.
        part_clips: clips of a part.
    Returns: (N, D) float32, mapped from its file: memory is needed for what is being read only.
    Raises: ValueError if the files there are not what their key says.
    """
    form = {"dtype": "float32", "shape": [len(embedder), embedder.width]}
    described = {"encoder": name, **embedder.origin(), **form}  # the content of <key>.json
    key = fingerprints.digest({part: described[part] for part in ("identity", "clips", "code")})
    path = folder / f"{key}.npy"
    if not _is_finished(path):
        num_processes = _num_processes(embedder, name, -(-len(embedder) // part_clips))
        # Two tasks that are probed side by side may be of the same clips.
        lock = files.locked(folder / f".{key}.lock", "embeds the same clips", wait_s=math.inf)
        with nullcontext() if distributed.is_joined() else lock:
            if not _is_finished(path):  # by the one that was waited for
                work = embedder, path, described, part_clips
                distributed.launch(_compute, *work, num_processes=num_processes)
    return _open(path, described)


def _num_processes(embedder: Embedder, name: str, num_parts: int) -> int:
    """As many as have work; warns of an encoder that only this process can have."""
    wanted = max(1, min(torch.cuda.device_count(), num_parts))
    if wanted > 1:
        try:
            pickle.dumps(embedder)
        except (AttributeError, TypeError, RuntimeError, pickle.PicklingError) as error:
            # What packages keep in their modules: functions made in functions, parametrizations.
            warnings.warn(f"{name}: embedded on one GPU, not sent to others: {error}", stacklevel=3)
            return 1
    return wanted


def _compute(embedder: Embedder, path: Path, described: dict[str, Any], part_clips: int) -> None:
    """In every process: its share of the parts; the first one then joins them."""
    folder, clips = path.with_suffix(".parts"), range(len(embedder))
    cut = [clips[first : first + part_clips] for first in clips[::part_clips]]
    parts = {folder / f"{part.start:08d}-{part.stop:08d}.npy": part for part in cut}
    # Dealt out before looking at what is there: the others write while this one looks.
    mine = list(parts.items())[distributed.rank() :: distributed.world_size()]
    embedder = embedder.to(distributed.device())
    shown = distributed.rank() == 0 and len(mine) > 1
    with Progress(
        len(mine), f"embed {described['encoder']}", unit="part", enabled=shown
    ) as progress:
        for file, part in mine:
            if not file.exists():
                _write_part(file, embedder, part)
            progress.update()
    distributed.wait_for_all()
    if distributed.rank() == 0:
        _join(list(parts), path, described)
        told = described | {"sha256": files.sha256(path)}
        files.write_json(path.with_suffix(".json"), told)
        shutil.rmtree(folder)


def _write_part(file: Path, embedder: Embedder, clips: range) -> None:
    computed = embedder.embed(clips)
    with files.replacing(file) as temporary, temporary.open("wb") as opened:
        np.save(opened, computed)


def _join(parts: list[Path], path: Path, described: dict[str, Any]) -> None:
    """One file of all parts, holding one of them in memory at a time."""
    header = {"descr": "<f4", "fortran_order": False, "shape": tuple(described["shape"])}
    with files.replacing(path) as temporary, temporary.open("wb") as opened:
        np.lib.format.write_array_header_1_0(opened, header)
        for part in parts:
            np.load(part).tofile(opened)


def _is_finished(path: Path) -> bool:
    """Whether embeddings are there, and a description with their checksum."""
    told = path.with_suffix(".json")
    return path.exists() and told.exists() and "sha256" in files.read_json(told)


def _open(path: Path, described: dict[str, Any]) -> np.ndarray:
    """The embeddings, if they are the ones described."""
    found = files.read_json(path.with_suffix(".json"))
    wrong = [name for name in described if found.get(name) != described[name]]
    if wrong:
        listed = ", ".join(f"{n} {found.get(n)!r}, needed: {described[n]!r}" for n in wrong)
        raise ValueError(f"{path}: got embeddings of {listed}; delete it")
    try:
        embeddings = np.load(path, mmap_mode="c")
    except ValueError as error:
        raise ValueError(f"{path}: {error}; delete it") from None
    if (str(embeddings.dtype), list(embeddings.shape)) != (described["dtype"], described["shape"]):
        raise ValueError(
            f"{path}: got {embeddings.dtype} {list(embeddings.shape)}, needed: "
            f"{described['dtype']} {described['shape']}; delete it"
        )
    if files.wrong(path.parent, {path.name: found["sha256"]}):
        raise ValueError(f"{path}: its checksum is not the recorded one; delete it")
    return embeddings
