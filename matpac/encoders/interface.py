"""What every row of Table II is to the rest of the library: waveforms in, embeddings out.

A clip longer than an encoder takes at once is cut into pieces, each encoded on its own; every piece
gives one embedding per time column, and a clip's embedding is the mean over all columns of all its
pieces (MATPAC Sec. IV-A). An encoder says how long pieces are and what its columns are;
`matpac.embed` reads, cuts, batches and averages.

Shapes: B pieces of equal length, S samples, n time columns of a piece, D embedding size.
"""

from abc import ABC, abstractmethod

from torch import Tensor, nn


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
    num_layers: int = 1
    """How many layers `columns` can give."""

    @abstractmethod
    def columns(self, waves: Tensor, *, layer: int = -1) -> Tensor:
        """Embeddings per time column.

        Args:
            waves: mono, (B, S), nominal range -1 to 1, at ``sample_rate``, with ``min_samples`` <=
                S <= ``piece_samples``; float32, on the encoder's device.
            layer: which one, -num_layers to num_layers - 1; the last is the paper's.
        Returns: (B, n, D), in chronological order. A row must not depend on the others.
        """

    @abstractmethod
    def times(self, num_samples: int) -> Tensor:
        """Centres of the columns of a piece: S -> (n,) seconds from the piece's start, float64."""
