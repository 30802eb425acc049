"""Audio of any kind -> pieces of a waveform, in bounded memory.

Files, arrays and tensors become a stream of mono blocks at the wanted rate, which is cut into
pieces as an encoder takes them. Of an hour of audio a few minutes are held at any time.
"""

from collections.abc import Iterable, Iterator
from itertools import chain
from os import PathLike
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from matpac.audio import logmel, reading

Audio = str | PathLike[str] | np.ndarray | Tensor
"""A file, or a mono waveform (S,), floating-point, nominal range -1 to 1."""


class Cutting(Protocol):
    """How an encoder wants a clip to be cut; see `matpac.encoders.interface.WaveEncoder`."""

    sample_rate: int
    piece_samples: int
    piece_hop: int
    min_samples: int
    reflect: int
    fills: bool


def pieces(source: Audio, cutting: Cutting, *, sample_rate: int | None = None) -> Iterator[Tensor]:
    """The pieces of a clip: the k-th starts k hops after the first.

    Args:
        source: a file, or a waveform with its ``sample_rate`` in Hz.
        cutting: the encoder.
    Returns: waveforms (S,), float32 on the CPU, all ``piece_samples`` long but the last.
    Raises: FileNotFoundError; ValueError naming what is wrong with the audio, or that it is shorter
        than ``min_samples``, unless the encoder fills it up.
    """
    name, blocks = _blocks(source, cutting.sample_rate, sample_rate)
    received = found = 0

    def counted() -> Iterator[Tensor]:
        nonlocal received
        for block in blocks:
            received += len(block)
            yield block

    stream = _reflected(counted(), cutting.reflect) if cutting.reflect else counted()
    for piece in _cut(stream, cutting):
        found += 1
        yield piece
    if not found:
        raise ValueError(
            f"{name}: got {received / cutting.sample_rate:g} s, allowed: at least "
            f"{shortest(cutting) / cutting.sample_rate:g} s"
        )


def shortest(cutting: Cutting) -> int:
    """Samples of the shortest clip that gives a piece."""
    if not cutting.reflect:
        return cutting.min_samples
    return max(cutting.reflect + 1, cutting.min_samples - 2 * cutting.reflect)


def _blocks(
    source: Audio, target_rate: int, sample_rate: int | None
) -> tuple[str, Iterable[Tensor]]:
    """What to call a source in an error, and its blocks at another rate."""
    if isinstance(source, np.ndarray | Tensor):
        if sample_rate is None:
            raise ValueError("sample_rate: missing; a waveform does not tell its own, in Hz")
        rate = _positive(sample_rate)
        return "waveform", logmel.resampled([_waveform(source)], rate, target_rate)
    if not isinstance(source, str | PathLike):
        raise ValueError(f"audio: got {type(source).__name__}, allowed: a file, an array, a tensor")
    if sample_rate is not None:
        raise ValueError(f"sample_rate: got {sample_rate} for {source}, which tells its own")
    return str(source), _of_file(Path(source), target_rate)


def _of_file(path: Path, target_rate: int) -> Iterator[Tensor]:
    """A file as blocks at another rate."""
    if path.is_dir():
        raise ValueError(f"{path}: got a folder, allowed here: one file")
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        stream = reading.blocks(path)
        first, rate = next(stream, (np.zeros(0, np.float32), target_rate))
        samples = chain([first], (block for block, _ in stream))
        yield from logmel.resampled(map(torch.from_numpy, samples), rate, target_rate)
    except reading.UnusableAudioError as error:
        raise ValueError(f"{path}: {error}") from None


def _waveform(source: np.ndarray | Tensor) -> Tensor:
    """A waveform as float32 on the CPU. Raises: ValueError for what is none."""
    if isinstance(source, np.ndarray):
        # torch takes no negative strides, no foreign byte order, and warns of what is read-only.
        dtype = np.float32 if np.issubdtype(source.dtype, np.floating) else source.dtype
        source = np.array(source, dtype=dtype, order="C")
    waveform = torch.as_tensor(source).detach().cpu()
    if waveform.ndim != 1:
        raise ValueError(
            f"waveform: got shape {tuple(waveform.shape)}, allowed: (samples,), mono; average the "
            "channels, and give several clips as a list"
        )
    if not waveform.is_floating_point():
        raise ValueError(
            f"waveform: got {waveform.dtype}, allowed: floating point between -1 and 1 (16-bit "
            "integers divided by 32768)"
        )
    waveform = waveform.float()
    if not waveform.isfinite().all():
        raise ValueError("waveform: got NaN or infinite samples")
    return waveform


def _positive(sample_rate: Any) -> int:
    whole = isinstance(sample_rate, int | float | np.number) and float(sample_rate).is_integer()
    if not whole or sample_rate < 1:
        raise ValueError(f"sample_rate: got {sample_rate!r}, allowed: whole numbers of Hz above 0")
    return int(sample_rate)


def _reflected(blocks: Iterable[Tensor], reflect: int) -> Iterator[Tensor]:
    """Puts the mirror image of the first and last samples (without the outermost) at the ends.

    What is shorter than that comes without, and is then too short for any encoder that asks for it.
    """
    held = torch.zeros(0)
    started = False
    for block in blocks:
        held = torch.cat([held, block])
        if not started and len(held) > reflect:
            yield held[1 : reflect + 1].flip(0)
            started = True
        if started and len(held) > reflect + 1:
            yield held[: -(reflect + 1)]
            held = held[-(reflect + 1) :]
    yield held
    if started:
        yield held[:-1].flip(0)[:reflect]


def _cut(blocks: Iterable[Tensor], cutting: Cutting) -> Iterator[Tensor]:
    """Pieces of a stream; what is left in the end is one, too, if it is long enough."""
    hop = cutting.piece_hop or cutting.piece_samples
    waiting, whole = torch.zeros(0), True
    for block in blocks:
        waiting = torch.cat([waiting, block])
        while len(waiting) >= cutting.piece_samples:
            yield waiting[: cutting.piece_samples].clone()
            waiting, whole = waiting[hop:], False
    if len(waiting) >= cutting.min_samples:
        yield waiting.clone()
    elif cutting.fills and whole and len(waiting):
        yield torch.cat([waiting, waiting.new_zeros(cutting.min_samples - len(waiting))])
