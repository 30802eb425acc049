"""Stored log-mels: a few large memory-mapped files per data set, read clip by clip or crop by crop.

The store of a data set is a folder ``<bulk>/<profile>/logmel/<name>/``:

    shard-00000.f16  half-precision log-mels, time-major (frames, F), clip after clip
    clips.parquet    one row per row of the manifest: clip, shard, first_frame, num_frames, excluded
    clips.npy        the numbers of the usable rows once more, to be memory-mapped (`COLUMNS`)
    index.json       front end, checksums and sizes, counts, statistics, a digest of all that

`matpac.features.build` writes it. Opening compares the tables with their checksums, and each shard
once per change of its file; besides it reads nothing, so millions of clips open at once and cost no
memory, and a crop reads only its own bytes.

Shapes: B clips, F mel bins, T frames.
"""

import mmap
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from matpac.core import files, fingerprints, paths

DTYPE = np.dtype("<f2")
COLUMNS = ("row", "shard", "first_frame", "num_frames")
"""Rows of ``clips.npy``, (4, number of clips), int32."""


class Store:
    """Read access to one data set's log-mels; clips that are excluded are not counted.

    May be pickled: a loader process opens the files anew.

    Args:
        folder: the store.
        index_sha256: checksum of ``index.json`` that DVC tracks, if it is to be compared.
        verified: it was compared a moment ago, by another process.
    Attributes:
        index: the content of ``index.json``.
        num_frames: T of each clip, (number of clips,).
        rows: each clip's row in the manifest, (number of clips,).
    Raises: FileNotFoundError naming the stage to run if a file is missing; ValueError if one is not
        what the index says, or the index not what was written, or not the expected one.
    """

    def __init__(
        self, folder: Path, *, index_sha256: str | None = None, verified: bool = False
    ) -> None:
        self.folder = Path(folder)
        if verified:
            self.index = files.read_json(self.folder / "index.json")
        else:
            self.index = verify(self.folder, index_sha256=index_sha256)
        self.num_mels = int(self.index["front_end"]["num_mels"])
        columns = np.load(self.folder / "clips.npy", mmap_mode="r").view(np.ndarray)
        self.rows, self._shard, self._first_frame, self.num_frames = columns
        self._maps: dict[int, tuple[mmap.mmap, np.ndarray]] = {}

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def clip_ids(self) -> np.ndarray:
        """Name of each clip, as in the manifest; read when first asked for."""
        names = pq.read_table(self.folder / "clips.parquet", columns=["clip"])["clip"]
        return names.to_numpy()[self.rows]

    def clip(self, index: int) -> np.ndarray:
        """All frames of a clip: a read-only view (T, F), float16."""
        return self._frames(index, 0, int(self.num_frames[index]))

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
        # All parts are asked for before the first is read, so the disk works on them together.
        parts = [
            self._frames(index, start, num_frames)
            for index, start in zip(indices.tolist(), starts.tolist(), strict=True)
        ]
        crops = np.empty((len(parts), self.num_mels, num_frames), dtype=np.float16)
        for crop, part in zip(crops, parts, strict=True):
            crop[:] = part.T  # (F, T)
        return crops

    def _frames(self, index: int, start: int, num_frames: int) -> np.ndarray:
        """A view of some frames of a clip; their bytes are asked for."""
        mapped, frames = self._map(int(self._shard[index]))
        first = int(self._first_frame[index]) + start
        if hasattr(mmap, "MADV_WILLNEED"):
            frame_bytes = self.num_mels * DTYPE.itemsize
            begin = first * frame_bytes // mmap.PAGESIZE * mmap.PAGESIZE
            end = (first + num_frames) * frame_bytes
            mapped.madvise(mmap.MADV_WILLNEED, begin, end - begin)
        return frames[first : first + num_frames]

    def _map(self, shard: int) -> tuple[mmap.mmap, np.ndarray]:
        """A shard's memory map and its content (frames, F)."""
        if shard not in self._maps:
            path = self.folder / self.index["shards"][shard]["file"]
            if not path.exists():
                raise FileNotFoundError(_missing(path))
            with path.open("rb") as file:
                mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            if hasattr(mmap, "MADV_RANDOM"):
                # Otherwise the system reads far more than the crop: measured on a cold 3 GB
                # shard, 1.1 ms per crop against 0.15 ms with this and MADV_WILLNEED.
                mapped.madvise(mmap.MADV_RANDOM)
            frames = np.frombuffer(mapped, dtype=DTYPE).reshape(-1, self.num_mels)
            self._maps[shard] = mapped, frames
        return self._maps[shard]

    def __reduce__(self) -> tuple:
        return partial(Store, self.folder, verified=True), ()


def verify(folder: Path, *, again: bool = False, index_sha256: str | None = None) -> dict[str, Any]:
    """Compares a store with its index.

    Args:
        again: read all shards, also those that did not change since they were last found right.
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
    if not isinstance(index, dict) or index.get("digest") != digest(index):
        raise ValueError(f"{path}: not what was written; run {_command(folder)}")
    for entry in [*index["tables"], *index["shards"]]:
        part = folder / entry["file"]
        if not part.exists():
            raise FileNotFoundError(_missing(part))
        if entry["bytes"] != (size := part.stat().st_size):
            raise ValueError(
                f"{part}: got {size} bytes, the index says {entry['bytes']}; run {_command(folder)}"
            )
    tables, shards = ({e["file"]: e["sha256"] for e in index[k]} for k in ("tables", "shards"))
    wrong = [name for name, sha256 in tables.items() if files.sha256(folder / name) != sha256]
    if wrong := wrong or files.wrong(folder, shards, again=again):
        raise ValueError(
            f"{folder / wrong[0]}: its checksum is not the index's; run {_command(folder)}"
        )
    return index


def digest(index: dict[str, Any]) -> str:
    """Of all of an index but itself: kept in it, so that an edited one is noticed."""
    return fingerprints.digest({key: value for key, value in index.items() if key != "digest"})


def _missing(path: Path) -> str:
    return f"{path}: missing; run {_command(path.parent)}"


def _command(folder: Path) -> str:
    return paths.command(_profile(folder), "logmel", option="-f")


def _profile(folder: Path) -> str:
    """A store lies in <bulk>/<profile>/logmel/<name>."""
    return Path(folder).absolute().parents[1].name
