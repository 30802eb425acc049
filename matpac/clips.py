"""Stored log-mels: a few large memory-mapped files per data set, read clip by clip or crop by crop.

The store of a data set is a folder ``<bulk>/<profile>/logmel/<name>/``:

    shard-00000.f16  half-precision log-mels, time-major (frames, F), clip after clip
    clips.parquet    one row per row of the manifest: clip, shard, first_frame, num_frames, excluded
    index.json       front end, checksums and sizes, counts, statistics

`matpac.preprocess` writes it. Opening reads neither shards nor names, so millions of clips open in
seconds, and a crop reads only its own bytes. Shapes: B clips, F mel bins, T frames.
"""

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from matpac import files

DTYPE = np.dtype("<f2")


class Store:
    """Read access to one data set's log-mels; clips that are excluded are not counted.

    May be pickled: a loader process opens the files anew.

    Args:
        folder: the store.
        index_sha256: checksum of ``index.json`` that DVC tracks, if it is to be compared.
    Attributes:
        index: the content of ``index.json``.
        num_frames: T of each clip, (number of clips,).
        rows: each clip's row in the manifest, (number of clips,).
    Raises: FileNotFoundError naming the stage to run if a file is missing; ValueError if one has
        not the size in the index, or the index is not the expected one.
    """

    def __init__(self, folder: Path, *, index_sha256: str | None = None) -> None:
        self.folder, self.index_sha256 = Path(folder), index_sha256
        self.index = verify(self.folder, index_sha256=index_sha256)
        self.num_mels = int(self.index["front_end"]["num_mels"])
        table = self._table("shard", "first_frame", "num_frames")
        shard = table["shard"].to_numpy()
        self.rows = np.flatnonzero(shard >= 0)
        self._shard = shard[self.rows]
        self._first_frame = table["first_frame"].to_numpy()[self.rows]
        self.num_frames = table["num_frames"].to_numpy()[self.rows]
        self._maps: dict[int, np.ndarray] = {}

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def clip_ids(self) -> np.ndarray:
        """Name of each clip, as in the manifest; read when first asked for."""
        return self._table("clip")["clip"].to_numpy()[self.rows]

    def clip(self, index: int) -> np.ndarray:
        """All frames of a clip: a read-only view (T, F), float16."""
        first = self._first_frame[index]
        return self._map(int(self._shard[index]))[first : first + self.num_frames[index]]

    def crops(self, indices: np.ndarray, starts: np.ndarray, num_frames: int) -> np.ndarray:
        """Parts of equal length of several clips; only their bytes are read.

        Args:
            indices: clips, (B,).
            starts: first frame of each part within its clip, (B,).
            num_frames: T.
        Returns: (B, F, T), float16.
        Raises: ValueError if a part does not lie within its clip.
        """
        indices, starts = np.asarray(indices), np.asarray(starts)
        last = self.num_frames[indices] - num_frames
        if ((starts < 0) | (starts > last)).any():
            worst = int(np.flatnonzero((starts < 0) | (starts > last))[0])
            raise ValueError(
                f"starts: got {starts[worst]} for {num_frames} frames of clip {indices[worst]}, "
                f"allowed: 0 to {last[worst]}"
            )
        crops = np.empty((len(indices), self.num_mels, num_frames), dtype=np.float16)
        for crop, index, start in zip(crops, indices, starts, strict=True):
            crop[:] = self.clip(index)[start : start + num_frames].T  # (F, T)
        return crops

    def _map(self, shard: int) -> np.ndarray:
        if shard not in self._maps:
            path = self.folder / self.index["shards"][shard]["file"]
            if not path.exists():
                raise FileNotFoundError(_missing(path))
            flat = np.memmap(path, dtype=DTYPE, mode="r")
            self._maps[shard] = flat.reshape(-1, self.num_mels)  # (frames, F)
        return self._maps[shard]

    def _table(self, *columns: str) -> Any:
        return pq.read_table(self.folder / "clips.parquet", columns=list(columns))

    def __reduce__(self) -> tuple:
        return _reopen, (self.folder, self.index_sha256)


def verify(
    folder: Path, *, checksums: bool = False, index_sha256: str | None = None
) -> dict[str, Any]:
    """Compares a store with its index: sizes always, every byte on request.

    Args:
        checksums: read all shards and compare their SHA-256.
        index_sha256: what the index's own checksum should be.
    Returns: the index.
    Raises: as `Store`.
    """
    path = folder / "index.json"
    if not path.exists():
        raise FileNotFoundError(_missing(path))
    if index_sha256 is not None and files.sha256(path) != index_sha256:
        raise ValueError(
            f"{path}: not the index that data/{_profile(folder)}/logmel/ names; "
            f"run {_command(folder)}"
        )
    index = files.read_json(path)
    table = {"file": "clips.parquet", "bytes": None, "sha256": index["clips_sha256"]}
    for entry in [table, *index["shards"]]:
        part = folder / entry["file"]
        if not part.exists():
            raise FileNotFoundError(_missing(part))
        if entry["bytes"] not in (None, size := part.stat().st_size):
            raise ValueError(
                f"{part}: got {size} bytes, the index says {entry['bytes']}; run {_command(folder)}"
            )
        if checksums and files.sha256(part) != entry["sha256"]:
            raise ValueError(f"{part}: its checksum is not the index's; run {_command(folder)}")
    return index


def _reopen(folder: Path, index_sha256: str | None) -> Store:
    return Store(folder, index_sha256=index_sha256)


def _missing(path: Path) -> str:
    return f"{path}: missing; run {_command(path.parent)}"


def _command(folder: Path) -> str:
    return f"`dvc repro -f logmel@{_profile(folder)}`"


def _profile(folder: Path) -> str:
    """A store lies in <bulk>/<profile>/logmel/<name>."""
    return Path(folder).absolute().parents[1].name
