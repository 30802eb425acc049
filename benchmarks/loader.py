"""PART loader: crops from the memory-mapped store against one file per clip.

The other way is the usual one: a file of float32 log-mels per clip, loaded whole, then cropped.
Both read the same clips, and all of them lie in the system's cache: the time is the processor's.
"""

import multiprocessing
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from benchmarks import measure
from matpac.core import files
from matpac.features.store import COLUMNS, DTYPE, Store, digest
from matpac.pretraining.batches import Batches, Corpus, loader

GROWTH = (10**3, 10**4, 10**5, 10**6)
CLIP_FRAMES = 998
"""Of 10 s, as in AudioSet."""
TILE = 1000
"""Different clips in a store made by `tiled_store`."""


def report(
    *,
    num_mels: int = 80,
    clip_frames: int = CLIP_FRAMES,
    crop_frames: int = 608,
    batch_size: int = 256,
    num_patches: int = 190,
    workers: int = 1,
    updates: int = 8,
    rounds: int = 5,
    growth: tuple[int, ...] = GROWTH,
) -> dict[str, Any]:
    """Samples per second of both ways, in this process and from workers; then larger stores.

    On few cores one worker tells most: with more, they and this process take turns.

    Args: updates: batches per measurement.
    """
    torch.set_num_threads(1)
    sizes = {"crop_frames": crop_frames, "batch_size": batch_size, "num_patches": num_patches}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        store = tiled_store(folder / "tiled", TILE, num_mels=num_mels, clip_frames=clip_frames)
        ours = open_batches(folder / "tiled", **sizes)
        theirs = one_file_per_clip(store, folder / "files", crop_frames)
        works: dict[str, Callable[[], float]] = {}
        for processes in (0, workers):
            works[f"store, {processes} workers"] = _rate(
                lambda n=processes: loader(ours, first=0, last=updates + 1, workers=n), batch_size
            )
            works[f"files, {processes} workers"] = _rate(
                lambda n=processes: iter(
                    DataLoader(theirs, batch_size, shuffle=True, num_workers=n, drop_last=True)
                ),
                batch_size,
            )
        found = measure.in_turns(works, rounds)
        grown = {clips: _grown(folder, clips, sizes) for clips in growth}
    rates = {name: measure.median(each) for name, each in found.items()}
    crop_bytes = num_mels * crop_frames * DTYPE.itemsize
    return {
        "settings": sizes | {"clip_frames": clip_frames, "workers": workers, "rounds": rounds},
        "figures": {
            "samples_per_s": rates,
            "crops_mb_per_s": {
                name: measure.median([rate * crop_bytes / 1e6]) for name, rate in rates.items()
            },
            "ratio": {
                f"{n} workers": measure.ratio(
                    found[f"store, {n} workers"], found[f"files, {n} workers"]
                )
                for n in (0, workers)
            },
            "growth": {str(clips): each for clips, each in grown.items()},
        },
    }


def tiled_store(folder: Path, num_clips: int, *, num_mels: int, clip_frames: int) -> Store:
    """A store of noise: as many clips as wanted, of which only `TILE` differ.

    What a clip's number leads to is as large as in a real store; the frames take the disk space of
    the first `TILE`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    shard = folder / "shard-00000.f16"
    if not shard.exists():
        random = np.random.default_rng(0)
        with shard.open("wb") as file:
            for _ in range(TILE):
                noise = random.standard_normal((clip_frames, num_mels), np.float32)
                file.write((4 * noise - 7).astype(DTYPE).tobytes())
    columns = np.empty((len(COLUMNS), num_clips), np.int32)
    columns[:] = [[0], [0], [0], [clip_frames]]
    columns[0] = np.arange(num_clips)
    columns[2] = columns[0] % TILE * clip_frames
    np.save(folder / "clips.npy", columns)
    entries = [
        {"file": path.name, "bytes": path.stat().st_size, "sha256": files.sha256(path)}
        for path in (folder / "clips.npy", shard)
    ]
    index = {"front_end": {"num_mels": num_mels}, "tables": entries[:1], "shards": entries[1:]}
    files.write_json(folder / "index.json", index | {"digest": digest(index)})
    return Store(folder)


def open_batches(folder: Path, **sizes: int) -> Batches:
    """What one process trains on, from the store in ``folder``."""
    return Batches([Corpus(Store(folder), 1.0)], seed=0, **sizes)


class Files(Dataset):
    """One .npy file of float32 log-mels (F, T) per clip: loaded whole, then cropped."""

    def __init__(self, paths: list[Path], crop_frames: int) -> None:
        self.paths, self.crop_frames = paths, crop_frames

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        logmel = torch.from_numpy(np.load(self.paths[index]))
        start = int(torch.randint(logmel.shape[1] - self.crop_frames + 1, ()))
        return logmel[:, start : start + self.crop_frames]


def one_file_per_clip(store: Store, folder: Path, crop_frames: int) -> Files:
    """The clips of a store, written one by one."""
    folder.mkdir()
    paths = [folder / f"{clip}.npy" for clip in range(len(store))]
    for clip, path in enumerate(paths):
        np.save(path, store.clip(clip).T.astype(np.float32))
    return Files(paths, crop_frames)


def _rate(start: Callable[[], Iterator], batch_size: int) -> Callable[[], float]:
    """A work for `measure.in_turns`: samples per second once the first batch has come."""

    def rate() -> float:
        batches = start()
        next(batches)
        begin = time.perf_counter()
        count = sum(1 for _ in batches)
        return count * batch_size / (time.perf_counter() - begin)

    return rate


def _grown(folder: Path, clips: int, sizes: dict[str, int]) -> dict[str, float]:
    """`_open_and_read` in a process of its own, whose memory is not ours."""
    shape = Store(folder / "tiled")
    tiled_store(
        folder / "tiled", clips, num_mels=shape.num_mels, clip_frames=int(shape.num_frames[0])
    )
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as alone:
        return alone.submit(_open_and_read, folder / "tiled", sizes).result()


def _open_and_read(folder: Path, sizes: dict[str, int], updates: int = 16) -> dict[str, float]:
    """Seconds to open a store and its first order; then processor time and memory of crops."""
    torch.set_num_threads(1)
    before, start = measure.memory_gib("RssAnon"), time.perf_counter()
    batches = open_batches(folder, **sizes)
    batches[0]
    opened, ready = time.perf_counter() - start, measure.memory_gib("RssAnon")
    best = float("inf")
    for repeat in range(4):
        start_cpu = time.process_time()
        for update in range(updates):
            batches[1 + repeat * updates + update]
        best = min(best, time.process_time() - start_cpu)
    found = {
        "open_s": round(opened, 3),
        "us_per_sample": round(best / updates / sizes["batch_size"] * 1e6, 1),
    }
    if before is None or ready is None:
        return found
    after = measure.memory_gib("RssAnon")
    return found | {
        "opened_mib": round((ready - before) * 1024, 1),
        "read_mib": round((after - ready) * 1024, 1),
    }
