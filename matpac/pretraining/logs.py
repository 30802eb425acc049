"""What a training run logs: every update's losses and schedules, and the collapse diagnostics.

Two tables grow beside the training states, ``log`` and ``diagnostics``. A resumed run cuts them
back to its state's step, so that they end up as an uninterrupted run's.
"""

import csv
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import torch

from matpac.core import files, fingerprints
from matpac.pretraining.board import Board
from matpac.pretraining.schedules import Scheduled
from matpac.pretraining.trainer import LOSSES, Measured

LOG = ["step", "epoch", *Scheduled._fields, *LOSSES]
STEPS_BETWEEN_FLUSHES = 25
"""Rows are written this many at a time."""
CURVE_ROWS = 1000


class Logs:
    """Growing tables, ``<name>.csv``, whose first column is the step.

    Args: folder: made when first written to.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, name: str) -> Path:
        """The file of a table."""
        return self.folder / f"{name}.csv"

    def paths(self) -> list[Path]:
        """The files that exist."""
        return sorted(self.folder.glob("[!.]*.csv"))

    def append(self, name: str, columns: list[str], rows: list[list[float]]) -> None:
        """Adds rows; numbers with seven digits."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.path(name)
        new = not path.exists()
        with files.blaming(path), path.open("a", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            if new:
                writer.writerow(columns)
            writer.writerows([int(row[0]), *(f"{value:.7g}" for value in row[1:])] for row in rows)

    def cut(self, step: int) -> None:
        """Drops the rows of ``step`` and later: they are about to be made again.

        Anything behind the first line that is not whole goes too: the process, or the machine, died
        while it was written.
        """
        found = 0
        for path in self.paths():
            kept = _before(path, step)
            if path == self.path("log"):
                found = len(kept) - 1
            if len(kept) == 1:
                path.unlink()  # with its header, which may not be whole either
                continue
            with files.replacing(path) as temporary:
                temporary.write_text("".join(kept))
        if found < step:
            print(f"{self.path('log')}: has {found} of {step} rows; the others are lost")

    def digests(self, step: int) -> dict[str, str]:
        """Of what each log says of the steps before ``step``; belongs to the state of that step."""
        kept = {path.name: _before(path, step) for path in self.paths()}
        return {name: fingerprints.digest(rows) for name, rows in kept.items() if len(rows) > 1}

    def tell_changes(self, step: int, digests: dict[str, str]) -> None:
        """Says which logs are not those that the state of ``step`` was saved with."""
        found = self.digests(step)
        for name in sorted(digests):
            if found.get(name) != digests[name]:
                print(
                    f"{self.folder / name}: changed since the state was saved, which is as it was"
                )


def _before(path: Path, step: int) -> list[str]:
    """The first line of a log and its whole rows before a step."""
    header, *rows = path.read_text("utf-8", errors="replace").splitlines(keepends=True) or [""]
    kept = [header]
    for row in rows:
        number = row.split(",", 1)[0]
        if not row.endswith("\n") or not number.isdecimal() or int(number) >= step:
            break
        kept.append(row)
    return kept


class LogRows(NamedTuple):
    """Rows that were written together."""

    log: list[list[float]]
    """Columns `LOG`."""
    diagnostics: list[tuple[int, dict[str, float]]]
    """Steps, and what was measured at them."""


class LogWriter:
    """Gathers what steps measured, on the device, and writes it to the logs now and then.

    Args:
        logs: where to; None writes nothing (ranks other than 0).
        steps_per_epoch: for the epoch column.
        board: shows the same as curves; None: there is none.
    """

    def __init__(
        self, logs: Logs | None, steps_per_epoch: float, board: Board | None = None
    ) -> None:
        self.logs, self.steps_per_epoch, self.board = logs, steps_per_epoch, board
        self.rows: list[tuple[int, Scheduled, Measured]] = []
        self.note = ""

    def add(self, step: int, at: Scheduled, measured: Measured) -> None:
        """Takes the measurements of one step."""
        self.rows.append((step, at, measured))

    def flush(self, *, everything: bool = True) -> LogRows:
        """Writes what was gathered, for which it waits for the device.

        Args: everything: False: only if enough rows are there for it to be worth the wait.
        Returns: what it wrote, or would have; mostly nothing.
        """
        if not self.rows or not (everything or len(self.rows) >= STEPS_BETWEEN_FLUSHES):
            return LogRows([], [])
        rows, self.rows = self.rows, []
        losses = torch.stack([m.losses for _, _, m in rows]).tolist()
        log = [
            [step, step / self.steps_per_epoch, *at, *loss]
            for (step, at, _), loss in zip(rows, losses, strict=True)
        ]
        collapse = [(step, m.collapse.values()) for step, _, m in rows if m.collapse is not None]
        if self.logs is not None:
            self.logs.append("log", LOG, log)
            if collapse:
                columns = ["step", *collapse[0][1]]
                values = [[step, *measured.values()] for step, measured in collapse]
                self.logs.append("diagnostics", columns, values)
        if self.board is not None:
            self._show(self.board, log, collapse, rows)
        self.note = f"loss {losses[-1][2]:.3f}"
        return LogRows(log, collapse)

    @staticmethod
    def _show(
        board: Board,
        log: list[list[float]],
        collapse: list[tuple[int, dict[str, float]]],
        rows: list[tuple[int, Scheduled, Measured]],
    ) -> None:
        for row in log:
            board.scalars("log", LOG, row)
        for step, measured in collapse:
            board.scalars("diagnostics", ["step", *measured], [step, *measured.values()])
        for step, _, measured in rows:
            if measured.collapse is not None:
                board.prototypes(step, measured.collapse.sums["teacher_sum"].cpu().numpy())


def write_curve(log: Path, out: Path) -> None:
    """What ``dvc plots`` draws: a log averaged over equal stretches, at most `CURVE_ROWS` rows."""
    columns = pd.read_csv(log) if log.exists() else pd.DataFrame({"step": []})
    stretch = columns.index // max(1, -(-len(columns) // CURVE_ROWS))
    with files.replacing(out) as temporary:
        columns.groupby(stretch).mean().to_csv(temporary, index=False, float_format="%.6g")
