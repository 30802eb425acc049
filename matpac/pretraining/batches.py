"""Which crops and masks an update sees: a function of (seed, update, index in the global batch).

So they do not depend on the number of processes or loader workers, and a resumed run sees what it
would have seen. An epoch is a fresh permutation; a corpus of weight w gives each clip w times
(a fractional part gives that fraction of its clips, others each epoch).

Shapes: B clips of this process, F mel bins, T frames of a crop, N patches.
"""

import signal
from collections.abc import Generator, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from matpac.features.store import Store

ORDER, CROP, MASK = range(3)
"""What a stream of random numbers is for: streams of different purpose never overlap."""


class Corpus(NamedTuple):
    """A pretraining data set."""

    store: Store
    weight: float
    """How often each clip is seen per epoch."""


class Batch(NamedTuple):
    """This process's part of one update."""

    logmel: Tensor
    """Crops before normalisation, half precision, (B, F, T)."""
    noise: Tensor
    """Uniform numbers for `matpac.method.masking.random_mask`, (B, N)."""


def generator(seed: int, purpose: int, update: int = 0, index: int = 0) -> np.random.Generator:
    """The counter-based (Philox) generator of one seed, purpose, update and index."""
    return np.random.Generator(np.random.Philox(key=[seed, purpose], counter=[0, 0, index, update]))


class Stream:
    """The generators of one seed and purpose, at a third of the cost of making each anew."""

    def __init__(self, seed: int, purpose: int) -> None:
        self._generator = generator(seed, purpose)
        self._state = self._generator.bit_generator.state

    def at(self, update: int, index: int) -> np.random.Generator:
        """As `generator`; it is the same object each time."""
        self._state["state"]["counter"][2:] = index, update
        self._generator.bit_generator.state = self._state
        return self._generator


class Sampler:
    """The global order of clips.

    Args:
        usable: per corpus, indices of the clips long enough for a crop.
        weights: per corpus.
        seed: of the permutations.
    """

    def __init__(
        self, usable: Sequence[np.ndarray], weights: Sequence[float], *, seed: int
    ) -> None:
        self.usable, self.weights, self.seed = usable, weights, seed
        self.epoch_length = sum(round(len(u) * w) for u, w in zip(usable, weights, strict=True))
        if self.epoch_length == 0:
            raise ValueError("the pretraining corpora hold no clip as long as a crop")
        self._made: dict[int, np.ndarray] = {}

    def clips(self, first: int, count: int) -> np.ndarray:
        """(count, 2) pairs corpus, clip at positions ``first``, ... of the endless order."""
        positions = np.arange(first, first + count)
        epochs = positions // self.epoch_length
        picked = np.empty((count, 2), dtype=np.int64)
        for epoch in np.unique(epochs):
            of_epoch = epochs == epoch
            picked[of_epoch] = self._epoch(int(epoch))[positions[of_epoch] % self.epoch_length]
        return picked

    def _epoch(self, epoch: int) -> np.ndarray:
        """The order of one epoch, (epoch_length, 2); the last two are kept."""
        if epoch not in self._made:
            self._made = dict(list(self._made.items())[-1:]) | {epoch: self._make_epoch(epoch)}
        return self._made[epoch]

    def _make_epoch(self, epoch: int) -> np.ndarray:
        random = generator(self.seed, ORDER, epoch)
        parts = []
        for corpus, (usable, weight) in enumerate(zip(self.usable, self.weights, strict=True)):
            count = round(len(usable) * weight)
            repeats, extra = divmod(count, len(usable)) if len(usable) else (0, 0)
            chosen = [usable] * repeats + [random.permutation(usable)[:extra]]
            clips = np.concatenate(chosen).astype(np.int32)  # every loader process keeps them
            parts.append(np.stack([np.full_like(clips, corpus), clips], axis=1))
        return random.permutation(np.concatenate(parts))  # (epoch_length, 2)


class Batches(Dataset):
    """Map from an update to this process's `Batch`.

    Args:
        corpora: opened stores and weights.
        batch_size: clips of all processes per update; a multiple of ``world_size``.
        crop_frames: T; num_patches: N.
        seed: decides order, crops and masks.
        rank, world_size: which part is this process's.
        same_masks: every process draws the masks of the first (the released code's behaviour).
    Raises: ValueError if no clip is long enough, or the batch cannot be divided.
    """

    def __init__(
        self,
        corpora: Sequence[Corpus],
        *,
        batch_size: int,
        crop_frames: int,
        num_patches: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        same_masks: bool = False,
    ) -> None:
        if batch_size % world_size:
            raise ValueError(
                f"pretrain.batch_size: got {batch_size}, allowed: multiples of the {world_size} "
                "processes"
            )
        self.corpora, self.batch_size, self.crop_frames = corpora, batch_size, crop_frames
        self.num_patches, self.seed, self.same_masks = num_patches, seed, same_masks
        self._crops, self._masks = Stream(seed, CROP), Stream(seed, MASK)
        self.local = range(rank * batch_size // world_size, (rank + 1) * batch_size // world_size)
        usable = [np.flatnonzero(c.store.num_frames >= crop_frames) for c in corpora]
        self.num_clips = sum(len(c.store.num_frames) for c in corpora)
        self.num_usable = sum(len(u) for u in usable)
        self.sampler = Sampler(usable, [c.weight for c in corpora], seed=seed)

    def steps(self, epochs: float) -> int:
        """Whole updates in so many epochs.

        Raises: ValueError if there is not even one.
        """
        steps = int(epochs * self.sampler.epoch_length / self.batch_size)
        if epochs and not steps:
            raise ValueError(
                f"pretrain.batch_size: got {self.batch_size}, allowed: at most the clips of "
                f"{epochs:g} epoch(s), {int(epochs * self.sampler.epoch_length)}"
            )
        return steps

    def __getitem__(self, update: int) -> Batch:
        """This process's part of an update."""
        first = update * self.batch_size + self.local.start
        picked = self.sampler.clips(first, len(self.local))  # (B, 2)
        rows, parts = [], []
        for corpus, (store, _) in enumerate(self.corpora):
            rows.append(np.flatnonzero(picked[:, 0] == corpus))
            clips = picked[rows[-1], 1]
            starts = [
                self._start(update, self.local[row], frames)
                for row, frames in zip(rows[-1], store.num_frames[clips], strict=True)
            ]
            parts.append(store.crops(clips, starts, self.crop_frames))  # (rows, F, T)
        if len(parts) == 1:
            crops = parts[0]  # megabytes that need not be copied
        else:
            crops = np.concatenate(parts)[np.argsort(np.concatenate(rows))]  # (B, F, T)
        return Batch(torch.from_numpy(crops), self._noise(update))

    def names(self, update: int) -> list[str]:
        """Which clips this process's part of an update holds: corpus/clip, (B,)."""
        first = update * self.batch_size + self.local.start
        picked = self.sampler.clips(first, len(self.local))  # (B, 2)
        stores = [corpus.store for corpus in self.corpora]
        return [f"{stores[c].folder.name}/{stores[c].clip_ids[clip]}" for c, clip in picked]

    def _start(self, update: int, index: int, num_frames: int) -> int:
        places = int(num_frames) - self.crop_frames + 1
        return int(self._crops.at(update, index).integers(places))

    def _noise(self, update: int) -> Tensor:
        first = 0 if self.same_masks else self.local.start
        rows = [
            self._masks.at(update, first + i).random(self.num_patches, np.float32)
            for i in range(len(self.local))
        ]
        return torch.from_numpy(np.stack(rows))  # (B, N)


def loader(
    batches: Batches, *, first: int, last: int, workers: int
) -> Generator[Batch, None, None]:
    """Batches of updates ``first`` to ``last`` - 1, in order, read ahead by worker processes.

    ``close`` ends the processes. Whoever does not call it after an error may wait for ever when
    Python ends: a traceback keeps them, and they heed no signal.
    """
    data = DataLoader(
        batches,
        batch_size=None,
        sampler=range(first, last),
        num_workers=workers,
        pin_memory=torch.cuda.is_available(),
        worker_init_fn=_leave_signals_to_the_trainer,
    )
    return _closing(iter(data))


def _closing(data: Iterator[Batch]) -> Generator[Batch, None, None]:
    yield from data  # this frame alone holds the iterator; with it go its processes


def _leave_signals_to_the_trainer(_: int) -> None:
    """Ctrl-C reaches all processes; the loop needs its loaders until its state is saved."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
