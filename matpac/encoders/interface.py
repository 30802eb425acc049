"""What every row of Table II is to the rest of the library: waveforms in, embeddings out.

A clip longer than an encoder takes at once is cut into pieces, each encoded on its own; every piece
gives one embedding per time column, and a clip's embedding is the mean over all columns of all its
pieces (MATPAC Sec. IV-A). An encoder says how long pieces are and what its columns are; `embed`
reads, cuts, batches and averages.

Shapes: B pieces of equal length, S samples, n time columns, D embedding size, N clips.
"""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from itertools import chain
from os import PathLike
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from matpac.audio import finding
from matpac.audio.chunking import Audio, pieces
from matpac.encoders.heads import Activation, Head
from matpac.encoders.pooling import Piece, encoded, mean

Precision = Literal["float32", "bfloat16", "float16"]
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class Frames(NamedTuple):
    """A clip's embeddings over time."""

    embeddings: Tensor
    """(n, D), float32."""
    times: Tensor
    """(n,) seconds from the clip's start to the centre of each column, float64."""


class WaveEncoder(nn.Module, ABC):
    """A frozen encoder with its own front end; on construction in eval mode and without gradients.

    The attributes are set by the subclass, the first three always.
    """

    sample_rate: int
    """Hz, of the waveforms given to `columns`."""
    width: int
    """D."""
    piece_samples: int
    """Longest waveform taken at once."""
    piece_hop: int = 0
    """From the start of a piece to the next one's; 0: ``piece_samples``, no overlap."""
    min_samples: int = 1
    """Shortest waveform taken; what is left of a clip after its last piece is less than this."""
    reflect: int = 0
    """Samples mirrored at both ends of a *clip* before it is cut, as a centred STFT wants it."""
    fills: bool = False
    """Whether a clip shorter than ``min_samples`` gets silence behind it instead of an error."""
    num_layers: int = 1
    """How many layers `columns` can give."""
    precision: Precision = "float32"
    """Of the encoder's products in `embed` (autocast)."""
    heads: Mapping[str, Head] = MappingProxyType({})
    """By name, for `label`."""

    @abstractmethod
    def columns(self, waves: Tensor, *, layer: int = -1) -> Tensor:
        """Embeddings per time column.

        Args:
            waves: mono, (B, S), nominal range -1 to 1, at ``sample_rate``, with ``min_samples`` <=
                S <= ``piece_samples``; float32, on the encoder's device.
            layer: which one, -num_layers to num_layers - 1; the last is the paper's.
        Returns: (B, n, D), in chronological order. A row must not depend on the others.
        Raises: ValueError for a layer or a length that there is not (`check_piece`).
        """

    @abstractmethod
    def times(self, num_samples: int) -> Tensor:
        """Centres of the columns of a piece: S -> (n,) seconds from the piece's start, float64."""

    def embed(
        self,
        source: Audio | Iterable[Audio],
        *,
        sample_rate: int | None = None,
        frames: bool = False,
        layer: int = -1,
        batch_size: int = 16,
    ) -> Tensor | Frames | list[Frames] | dict[str, Tensor] | dict[str, Frames]:
        """Embeddings of audio of any kind, length and sample rate.

        Args:
            source: a file; a mono waveform (S,), an array or tensor, floating-point between -1 and
                1; a list of files or of waveforms; or a folder, for every audio file in it and
                below. Files may have any number of channels: their mean is taken.
            sample_rate: Hz, of waveforms; files tell their own.
            frames: True: `Frames`, one embedding per time column; False: their mean over the clip.
            layer: which one, -num_layers to num_layers - 1; the last is the paper's.
            batch_size: pieces that go through the encoder at once. It, and what else is embedded in
                the same call, changes results by no more than rounding; with 1 by nothing.
        Returns: for a clip (D,) or Frames; for a list (N, D) or a list of Frames; for a folder a
            dictionary from a file's path below the folder to what a clip gives. All on the CPU.
        Raises: FileNotFoundError; ValueError naming the file, or the argument, and what is wrong.
        """
        options = {"frames": frames, "layer": layer, "batch_size": batch_size}
        self.check(layer=layer, batch_size=batch_size)
        if isinstance(source, str) and not source:
            raise ValueError('audio: got "", allowed: a file, a waveform, a list, a folder')
        if isinstance(source, str | PathLike) and Path(source).is_dir():
            names = list_audio(Path(source))
            results = self._each([Path(source) / name for name in names], **options)
            return dict(zip(names, results, strict=True))
        if isinstance(source, str | PathLike | np.ndarray | Tensor):
            return next(self._each([source], sample_rate=sample_rate, **options))
        if not isinstance(source, Iterable):
            kind = type(source).__name__
            raise ValueError(f"audio: got {kind}, allowed: a file, a waveform, a list, a folder")
        results = list(self._each(source, sample_rate=sample_rate, **options))
        if frames:
            return results
        return torch.stack(results) if results else torch.zeros(0, self.width)

    def label(
        self,
        source: Audio | Iterable[Audio],
        *,
        head: str | None = None,
        top: int | None = 5,
        present: bool = False,
        activation: Activation | None = None,
        sample_rate: int | None = None,
        frames: bool = False,
        batch_size: int = 16,
    ) -> Any:
        """What is to be heard: labels with their probabilities, the most probable first.

        Args:
            source, sample_rate, batch_size: as of `embed`.
            head: which of `heads`; None: the only one.
            top, present, activation: as of `matpac.encoders.heads.Head.labels`.
            frames: True: the labels of every time column.
        Returns: for a clip a dictionary from label to probability, or with ``frames`` a list of
            (seconds to the column's centre, such a dictionary); for a list a list of these; for a
            folder a dictionary from path to these.
        Raises: as `embed`; ValueError naming the heads that there are.
        """
        chosen = self.head(head)

        def told(found: Tensor | Frames) -> Any:
            options = {"top": top, "present": present, "activation": activation}
            if isinstance(found, Tensor):
                return chosen.labels(found, **options)
            columns = zip(found.times.tolist(), found.embeddings, strict=True)
            return [(time_s, chosen.labels(column, **options)) for time_s, column in columns]

        found = self.embed(source, sample_rate=sample_rate, frames=frames, batch_size=batch_size)
        if isinstance(found, dict):
            return {path: told(each) for path, each in found.items()}
        several = isinstance(found, list) or (isinstance(found, Tensor) and found.ndim == 2)
        return [told(each) for each in found] if several else told(found)

    def head(self, name: str | None = None) -> Head:
        """One of `heads`. Args: name: None: the only one. Raises: ValueError naming all."""
        if name is None and len(self.heads) == 1:
            return next(iter(self.heads.values()))
        if name not in self.heads:
            there = ", ".join(self.heads) or "none; matpac.load(..., head=FILE) brings one"
            got = repr(name) if name else "none"
            raise ValueError(f"head: got {got}, allowed: {there}")
        return self.heads[name]

    def add_head(self, name: str, head: Head) -> None:
        """Adds one to `heads`. Raises: ValueError if it is of embeddings of another size."""
        if head.weight.shape[1] != self.width:
            got = head.weight.shape[1]
            raise ValueError(f"head {name}: got one of {got} numbers, allowed: {self.width}")
        self.heads = {**self.heads, name: head}

    def check(self, *, layer: int = -1, batch_size: int = 1) -> None:
        """Raises: ValueError saying what is allowed for arguments that `embed` does not take."""
        if not -self.num_layers <= layer < self.num_layers:
            allowed = f"{-self.num_layers} to {self.num_layers - 1}"
            raise ValueError(f"layer: got {layer}, allowed: {allowed}")
        if batch_size < 1:
            raise ValueError(f"batch_size: got {batch_size}, allowed: 1 or more")

    def check_piece(self, waves: Tensor, layer: int) -> None:
        """Raises: ValueError for a layer, or a length of pieces, that `columns` does not take."""
        self.check(layer=layer)
        if not self.min_samples <= waves.shape[1] <= self.piece_samples:
            allowed = f"{self.min_samples} to {self.piece_samples}"
            raise ValueError(f"samples of a piece: got {waves.shape[1]}, allowed: {allowed}")

    def embed_each(
        self,
        sources: Iterable[Audio],
        *,
        sample_rate: int | None = None,
        frames: bool = False,
        layer: int = -1,
        batch_size: int = 16,
    ) -> Iterator[Tensor | Frames | ValueError | OSError]:
        """`embed` clip by clip, in order, while few of them are held.

        Returns: for each clip its embedding, or the error that `embed` would raise.
        """
        names: list[str] = []

        def drawn() -> Iterator[Iterator[Tensor]]:
            for source in sources:
                names.append("waveform" if isinstance(source, np.ndarray | Tensor) else str(source))
                yield pieces(source, self, sample_rate=sample_rate)

        encode = partial(self._encode, layer=layer)
        for found in encoded(drawn(), encode, batch_size=batch_size, columns=frames):
            name = names.pop(0)
            if isinstance(found, Exception):
                yield found
            elif not all(piece.values.isfinite().all() for piece in found):
                yield ValueError(f"{name}: got NaN or infinite numbers in its embedding")
            else:
                yield self._joined(found) if frames else mean(found)

    def _each(self, sources: Iterable[Audio], **options: Any) -> Iterator[Tensor | Frames]:
        """As `embed_each`; the first error is raised."""
        for found in self.embed_each(sources, **options):
            if isinstance(found, Exception):
                raise found
            yield found

    @torch.no_grad()  # not inference mode: what comes out may go into a network that is trained
    def _encode(self, waves: Tensor, layer: int) -> Tensor:
        of = next(chain(self.parameters(), self.buffers()), None)
        device = torch.device("cpu") if of is None else of.device
        dtype = PRECISIONS[self.precision]
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            columns = self.columns(waves.to(device), layer=layer).float()
        if columns.ndim != 3 or columns.shape[::2] != (len(waves), self.width):
            raise ValueError(
                f"{type(self).__name__}: got columns of shape {tuple(columns.shape)}, needed: "
                f"({len(waves)}, any, {self.width})"
            )
        return columns

    def _joined(self, found: list[Piece]) -> Frames:
        """The columns of all pieces of a clip, and when they are."""
        hop = self.piece_hop or self.piece_samples
        starts = [(k * hop - self.reflect) / self.sample_rate for k in range(len(found))]
        times = [
            start + self.times(piece.length) for start, piece in zip(starts, found, strict=True)
        ]
        return Frames(torch.cat([piece.values for piece in found]), torch.cat(times))


def centres(num_samples: int, rate: int, *, window: int, hop: int, frames: int = 1) -> Tensor:
    """`WaveEncoder.times` of columns of whole frames; what fills no column is left out.

    Args:
        rate: Hz.
        window, hop: of a frame, and from one to the next, in samples.
        frames: of a column.
    """
    num_columns = (1 + (num_samples - window) // hop) // frames
    middles = frames * torch.arange(num_columns, dtype=torch.float64) + (frames - 1) / 2
    return (middles * hop + window / 2) / rate


def list_audio(folder: Path) -> list[str]:
    """Paths of the audio files in a folder and below, relative to it, sorted.

    Warns of what is left out: files of other extensions, folders that cannot be opened.

    Raises: ValueError if there are none.
    """
    names, left_out = finding.audio_files(folder)
    told = f"{folder}: left out: {left_out}" if left_out else ""
    if not names:
        looked = f"{folder}: no audio files; looked for {', '.join(finding.EXTENSIONS)}"
        raise ValueError("\n".join(filter(None, [looked, told])))
    if told:
        warnings.warn(told, stacklevel=2)
    return names
