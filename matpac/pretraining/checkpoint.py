"""The training states of a run: the newest survive, and none is taken for another run's.

They live in ``<bulk>/checkpoints/<run>/<fingerprint>/``; the fingerprint hashes the resolved
configuration, the data and the library code that trains. The same fingerprint resumes; another
starts afresh and says so, leaving the old folder until ``make clean-checkpoints``.

A state is copied between two updates and written by a thread meanwhile, one at a time.
"""

import time
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

from matpac.core import distributed, files, fingerprints
from matpac.core.fingerprints import code_digest
from matpac.pretraining import states
from matpac.pretraining.config import ResolvedRun
from matpac.pretraining.states import Identity, Snapshot

DECIDING = (
    "method",
    "pretraining/batches.py",
    "pretraining/schedules.py",
    "pretraining/trainer.py",
    "features/store.py",
)
"""The code that decides a run's weights: not its messages, its bar, its logs."""
STATES = f"state-{9 * '[0-9]'}"
"""Pattern of their names."""


def identity(resolved: ResolvedRun, index: dict[str, Any]) -> Identity:
    """Of a training run.

    Args:
        resolved: its configuration.
        index: content of ``pretraining.json``.
    """
    return Identity(resolved.deciding(), fingerprints.digest(index), code_digest(*DECIDING))


class Checkpoints:
    """The states of one training run; only the first process writes them.

    As a context it waits for the state that is being written, however the block ends.

    Args:
        folder: of this run; made when first written to.
        identity: of this run.
        keep: how many states to keep, at least 1.
        every_s: seconds between two states.
    """

    def __init__(
        self, folder: Path, identity: Identity, *, keep: int, every_s: float = 0.0
    ) -> None:
        self.folder, self.identity, self.keep, self.every_s = folder, identity, keep, every_s
        self.begun = time.monotonic()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._writing: Future[None] | None = None
        self._claimed = ExitStack()

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.wait()
        finally:
            self._thread.shutdown()
            self._claimed.close()

    def others(self) -> list[Path]:
        """Folders with states of the same run, but of other parameters, data or code."""
        newest = {path.parent: path for path in sorted(self.folder.parent.glob(f"*/{STATES}.pt"))}
        newest.pop(self.folder, None)
        return [folder for folder, path in newest.items() if not self._of_another_seed(path)]

    def due(self) -> bool:
        """Whether it is time for the next state."""
        return time.monotonic() - self.begun >= self.every_s

    def save(self, state: dict[str, Any], step: int, *, after: Iterable[Path] = ()) -> None:
        """Copies a state and begins to write it.

        Args:
            state: see `Snapshot`; with ``order``, the place in the data.
            step: updates made.
            after: the logs it refers to: on the disk before it appears.
        Raises: as `wait`, of the state before, for which it waits.
        """
        self.wait()
        self.begun = time.monotonic()
        own = {"step": step, "identity": asdict(self.identity), "versions": states.versions()}
        self._writing = self._thread.submit(self._write, Snapshot(state | own), step, list(after))

    def wait(self) -> None:
        """Waits for the state that is being written.

        Raises: OSError naming the file if it could not be; the states before it are still there.
        """
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def load(self, chosen: Path | None = None) -> dict[str, Any] | None:
        """The newest state that is whole and this run's, or the chosen one; None if there is none.

        The first process decides, and all read the same file. A state that cannot be used is named
        with the reason, and the one before it taken. States newer than the one taken are put aside,
        since training will come to their steps again.

        From here on no other process can train this run, until the block or this process ends.

        Raises: RuntimeError naming the files if there are some and none can be used;
            BlockingIOError if another process trains this run; for a chosen state
            FileNotFoundError, or ValueError if it is damaged or another run's.
        """
        path = state = None
        if distributed.rank() == 0:
            locked = files.locked(self.folder / "lock", "trains this run")
            self._claimed.enter_context(locked)
            self._remove_leftovers()
            path, state = (chosen, self._read(chosen)) if chosen else self._newest()
            if state is not None:
                self._put_aside(state["step"])
        path = distributed.gather(path)[0]
        return state if state is not None or path is None else states.read(path)

    def _write(self, snapshot: Snapshot, step: int, after: list[Path]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"state-{step:09d}.pt"
        states.write(path, snapshot.content(), after=after)
        for old in self._states()[: -self.keep]:
            old.unlink()
            old.with_suffix(".json").unlink(missing_ok=True)

    def _newest(self) -> tuple[Path | None, dict[str, Any] | None]:
        unusable = []
        for path in reversed(self._states()):
            try:
                return path, self._read(path)
            except (OSError, ValueError) as error:
                unusable.append(str(error))
                print(unusable[-1])
        if unusable:
            raise RuntimeError("\n".join([*unusable, "remove these files to start afresh"]))
        return None, None

    def _read(self, path: Path) -> dict[str, Any]:
        """A state of this run. Raises: as `states.read`, and ValueError for another run's."""
        state = states.read(path)
        if differences := self.identity.differences(Identity(**state["identity"])):
            raise ValueError("\n  ".join([f"{path}: belongs to another run:", *differences]))
        return state

    def _of_another_seed(self, path: Path) -> bool:
        """Whether it is this run's state but for the seed: nothing that anybody would remove."""
        try:
            there = states.describe(path).identity
        except (OSError, ValueError):
            return False
        apart = self.identity.differences(there)
        return len(apart) == 1 and apart[0].startswith("pretrain.seed:")

    def _put_aside(self, step: int) -> None:
        """Moves later states out of the way: they would pass for newer than those to come."""
        aside = self.folder / "aside"
        for path in self._states():
            if int(path.stem.removeprefix("state-")) > step:
                aside.mkdir(exist_ok=True)
                for each in (path.with_suffix(".json"), path):
                    if each.exists():
                        each.replace(aside / each.name)
                print(f"{path}: after step {step}, put aside in {aside}")

    def _remove_leftovers(self) -> None:
        """Removes what killed processes were writing or removing."""
        files.remove_temporaries(self.folder)
        for described in self.folder.glob(f"{STATES}.json"):
            if not described.with_suffix(".pt").exists():
                described.unlink()

    def _states(self) -> list[Path]:
        return sorted(self.folder.glob(f"{STATES}.pt"))
