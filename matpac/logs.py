"""What a training run logs: every update's losses and schedules, and the collapse diagnostics.

Two tables grow beside the training state, ``log`` and ``diagnostics``; `Checkpoints` writes them.
"""

from pathlib import Path

import pandas as pd
import torch

from matpac import diagnostics, files
from matpac.checkpoint import Checkpoints
from matpac.schedules import Scheduled
from matpac.trainer import LOSSES, Measured

LOG = ["step", "epoch", *Scheduled._fields, *LOSSES]
DIAGNOSTICS = ["step", *diagnostics.NAMES]
STEPS_BETWEEN_FLUSHES = 25
"""Rows are written this many at a time."""


class LogWriter:
    """Gathers what steps measured and writes it to the logs now and then.

    Args:
        checkpoints: where the logs are; None writes nothing (ranks other than 0).
        steps_per_epoch: for the epoch column.
    """

    def __init__(self, checkpoints: Checkpoints | None, steps_per_epoch: float) -> None:
        self.checkpoints, self.steps_per_epoch = checkpoints, steps_per_epoch
        self.rows: list[tuple[int, Scheduled, Measured]] = []
        self.note = ""

    def add(self, step: int, at: Scheduled, measured: Measured) -> None:
        """Takes the measurements of one step."""
        self.rows.append((step, at, measured))
        if len(self.rows) == STEPS_BETWEEN_FLUSHES:
            self.flush()

    def flush(self) -> None:
        """Writes what was gathered."""
        rows, self.rows = self.rows, []
        if not rows or self.checkpoints is None:
            return
        values = torch.stack([m.losses for _, _, m in rows]).tolist()
        log = [
            [step, step / self.steps_per_epoch, *at, *value]
            for (step, at, _), value in zip(rows, values, strict=True)
        ]
        self.checkpoints.append("log", LOG, log)
        collapse = [[s, *m.collapse.tolist()] for s, _, m in rows if m.collapse is not None]
        if collapse:
            self.checkpoints.append("diagnostics", DIAGNOSTICS, collapse)
        self.note = f"loss {values[-1][2]:.3f}"


def write_curve(log: Path, out: Path, *, most: int = 1000) -> None:
    """What ``dvc plots`` draws: a log averaged over equal stretches, at most ``most`` rows."""
    columns = pd.read_csv(log) if log.exists() else pd.DataFrame({"step": []})
    stretch = columns.index // max(1, -(-len(columns) // most))
    with files.replacing(out) as temporary:
        columns.groupby(stretch).mean().to_csv(temporary, index=False, float_format="%.6g")
