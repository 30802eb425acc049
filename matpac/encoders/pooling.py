"""From pieces to clips: encoded together, averaged over all columns (MATPAC Sec. IV-A).

A clip comes as its pieces: waveforms, or log-mels of at most a training crop. Pieces of equal
length, of whatever clips, go through the encoder together; none is padded to another. Every piece
gives one embedding per time column, and a clip's embedding is the mean over all columns of all its
pieces, so that a short last piece does not count more.

Shapes: B pieces of equal length, n time columns, D embedding size.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

HELD = 4
"""Batches of pieces, of which anything is held at a time."""


class Piece(NamedTuple):
    """What is kept of an encoded piece, on the CPU."""

    values: Tensor
    """Its columns (n, D), or their sum (1, D)."""
    num_columns: int
    length: int
    """Before it was encoded: of its last axis."""


def encoded(
    clips: Iterable[Iterable[Tensor]],
    encode: Callable[[Tensor], Tensor],
    *,
    batch_size: int,
    columns: bool = False,
) -> Iterator[list[Piece] | Exception]:
    """The encoded pieces of every clip, in order, or what went wrong while they were drawn.

    Args:
        clips: pieces of each, drawn when they are needed; they may raise ValueError or OSError.
        encode: (B, ...) -> columns (B, n, D).
        batch_size: most pieces that are encoded at once.
        columns: True: all columns are kept; False: their sum.
    """
    batches = _Batches(encode, batch_size, columns)
    held: list[dict[int, Piece] | Exception] = []
    for pieces in clips:
        held.append({})
        for number, piece in enumerate(_guarded(pieces)):
            if isinstance(piece, Exception):
                held[-1] = piece
            else:
                batches.add(piece, held[-1], number)
        if batches.num_pieces >= HELD * batch_size:
            batches.finish()
            yield from map(_in_order, held)
            held = []
    batches.finish()
    yield from map(_in_order, held)


def mean(pieces: Iterable[Piece]) -> Tensor:
    """The clip's embedding, (D,): every column counts the same."""
    pieces = list(pieces)
    total = torch.stack([piece.values.double().sum(dim=0) for piece in pieces]).sum(dim=0)
    return (total / sum(piece.num_columns for piece in pieces)).float()


class _Batches:
    """Pieces that wait for others of their length."""

    def __init__(self, encode: Callable[[Tensor], Tensor], batch_size: int, columns: bool) -> None:
        self.encode, self.batch_size, self.columns = encode, batch_size, columns
        self.waiting: dict[int, list[tuple[dict[int, Piece], int, Tensor]]] = defaultdict(list)
        self.num_pieces = 0

    def add(self, piece: Tensor, found: dict[int, Piece], number: int) -> None:
        """What comes of the piece goes to ``found[number]``, at the latest with `finish`."""
        self.num_pieces += 1
        self.waiting[piece.shape[-1]].append((found, number, piece))
        if len(self.waiting[piece.shape[-1]]) == self.batch_size:
            self._encode(piece.shape[-1])

    def finish(self) -> None:
        """Encodes what is left."""
        self.num_pieces = 0
        for length in list(self.waiting):
            self._encode(length)

    def _encode(self, length: int) -> None:
        group = self.waiting.pop(length)
        given = self.encode(torch.stack([piece for _, _, piece in group]))  # (B, n, D)
        kept = given if self.columns else given.sum(dim=1, keepdim=True)
        for (found, number, _), values in zip(group, kept.cpu(), strict=True):
            found[number] = Piece(values, given.shape[1], length)


def _guarded(pieces: Iterable[Tensor]) -> Iterator[Tensor | Exception]:
    try:
        yield from pieces
    except (ValueError, OSError) as error:
        yield error


def _in_order(found: dict[int, Piece] | Exception) -> list[Piece] | Exception:
    return found if isinstance(found, Exception) else [found[number] for number in sorted(found)]
