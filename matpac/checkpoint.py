"""Training states on disk: written whole or not at all, and never taken for another run's.

A state lives in ``<bulk>/checkpoints/<run>/<fingerprint>/``; the fingerprint hashes the resolved
configuration, the data and the library code that trains. The same fingerprint resumes; another
starts afresh and says so, leaving the old folder until ``make clean-checkpoints``.

The logs grow beside the state. A resumed run cuts them back to the state's step, so that they end
up as an uninterrupted run's.
"""

import csv
import os
import shutil
from pathlib import Path
from typing import Any

import torch

from matpac import config
from matpac.provenance import code_digest

STATE = "state-*.pt"


def fingerprint(resolved: config.ResolvedRun, data: str) -> str:
    """Identity of a training run.

    Args:
        resolved: its configuration.
        data: content of the pretraining index (which stores, their checksums, normalisation).
    """
    deciding = config.deciding(resolved.model_dump())
    return config.digest({"config": deciding, "data": data, "code": code_digest("pretrain")})


class Checkpoints:
    """The states and logs of one training run.

    Args:
        folder: of this fingerprint; made when first written to.
        keep: how many states to keep, at least 1.
    """

    def __init__(self, folder: Path, *, keep: int) -> None:
        self.folder, self.keep = folder, keep

    def others(self) -> list[Path]:
        """Folders of the same run with another fingerprint."""
        if not self.folder.parent.exists():
            return []
        return sorted(f for f in self.folder.parent.iterdir() if f != self.folder)

    def save(self, state: dict[str, Any], step: int) -> None:
        """Writes a state under a temporary name, renames it, and drops the oldest ones."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / STATE.replace("*", f"{step:09d}")
        temporary = path.with_suffix(".tmp")
        with temporary.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        for old in self._states()[: -self.keep]:
            old.unlink()

    def load(self) -> dict[str, Any] | None:
        """The newest readable state, without executing pickled code; None if there is no file.

        A file that cannot be read is named, and the state before it is taken.

        Raises: RuntimeError naming the files if none can be read.
        """
        unreadable = []
        for path in reversed(self._states()):
            try:
                return torch.load(path, map_location="cpu", weights_only=True)
            except Exception as error:  # whatever the damage, it is said and nothing is lost
                unreadable.append(f"{path}: not a readable training state: {error}")
                print(unreadable[-1])
        if unreadable:
            raise RuntimeError("\n".join(unreadable) + "\nremove these files to start afresh")
        return None

    def log(self, name: str) -> Path:
        """The growing log ``name``."""
        return self.folder / f"{name}.csv"

    def append(self, name: str, columns: list[str], rows: list[list[float]]) -> None:
        """Adds rows to a log; the first column is the step."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.log(name)
        new = not path.exists()
        with path.open("a", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            if new:
                writer.writerow(columns)
            writer.writerows([int(row[0]), *(f"{value:.7g}" for value in row[1:])] for row in rows)

    def cut_logs(self, step: int) -> None:
        """Drops log rows of ``step`` and later: they are about to be made again."""
        for path in self.folder.glob("*.csv"):
            # A line without its end was being written when the process died.
            whole = [r for r in path.read_text().splitlines(keepends=True) if r.endswith("\n")]
            kept = [r for r in whole[1:] if int(r.split(",", 1)[0]) < step]
            if not kept:
                path.unlink()  # with its header, which may be missing too
                continue
            temporary = path.with_suffix(".tmp")
            temporary.write_text("".join([whole[0], *kept]))
            temporary.replace(path)

    def _states(self) -> list[Path]:
        return sorted(self.folder.glob(STATE))


def main() -> None:
    """Removes all training states of the profile in ``params.yaml``."""
    folder = config.bulk(config.load()) / "checkpoints"
    shutil.rmtree(folder, ignore_errors=True)
    print(f"removed {folder}")


if __name__ == "__main__":
    main()
