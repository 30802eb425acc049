"""Live curves in TensorBoard: what the logs get, and how many patches each prototype has."""

from pathlib import Path
from typing import Self

import numpy as np

from matpac.encoders import needing

FOLDER = "tensorboard"
"""Beside the training states."""


class Board:
    """Writes events in a thread of its own; use it as a context.

    Args:
        folder: of all attempts at the run, made if needed.
        first: update that is about to be made; what an attempt before showed from there on goes.
    Raises: ImportError without the package ``tensorboard``.
    """

    def __init__(self, folder: Path, first: int) -> None:
        with needing("tensorboard", "tensorboard"):
            from torch.utils.tensorboard import SummaryWriter
        self.writer = SummaryWriter(folder, purge_step=first)

    def scalars(self, group: str, columns: list[str], row: list[float]) -> None:
        """A row of a log, whose first column is the step."""
        for name, value in zip(columns[1:], row[1:], strict=True):
            self.writer.add_scalar(f"{group}/{name}", value, int(row[0]))

    def prototypes(self, step: int, patches: np.ndarray) -> None:
        """A bar for each prototype: the patches that the teacher gives it, (K,), as fractions."""
        index = np.arange(len(patches))
        self.writer.add_histogram_raw(
            "diagnostics/prototypes",
            min=0,
            max=len(patches),
            num=patches.sum(),
            sum=index @ patches,
            sum_squares=index**2 @ patches,
            bucket_limits=(index + 1).tolist(),
            bucket_counts=patches.tolist(),
            global_step=step,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.writer.close()
