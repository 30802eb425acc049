"""Progress of long work: a bar for a person watching, plain lines for a log, silence for tests.

Under ``dvc repro`` what a notebook prints is kept in its executed copy, too, where a bar would be
redrawn on page after page; under nbval any output would be compared. So there are three modes,
chosen by ``MATPAC_PROGRESS``: ``bar`` (default; tqdm's notebook or console bar), ``lines`` and
``silent``.
"""

import os
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm as console_tqdm
from tqdm.auto import tqdm

MODES = ("bar", "lines", "silent")
Item = TypeVar("Item")

SECONDS_BETWEEN_LINES = 5.0


def mode() -> str:
    """The mode asked for by ``MATPAC_PROGRESS``. Raises: ValueError if it is not one of MODES."""
    value = os.environ.get("MATPAC_PROGRESS", "bar")
    if value not in MODES:
        raise ValueError(f"MATPAC_PROGRESS: got {value!r}, allowed: {', '.join(MODES)}")
    return value


class Progress:
    """Counts work done and shows it in the mode of the environment.

    Args:
        total: how many units there are in all.
        desc: what is being done, e.g. ``"pretrain base"``.
        unit: what is counted, e.g. ``"step"``; ``"B"``, bytes, are shown as kB, MB, GB.
        initial: units already done before (a resumed run).
        enabled: False silences it (ranks other than 0).
    """

    def __init__(
        self, total: int, desc: str, *, unit: str = "it", initial: int = 0, enabled: bool = True
    ) -> None:
        self.total, self.desc, self.unit = total, desc, unit
        self.initial, self.done, self.note = initial, initial, ""
        self.scaled = unit == "B"
        shown = mode() if enabled else "silent"
        self.lines = shown == "lines"
        options = {"unit": unit, "unit_scale": self.scaled, "initial": initial}
        self.bar = tqdm(total=total, desc=desc, **options) if shown == "bar" else None
        self.start = self.last_line = time.monotonic()

    def update(self, units: int = 1, note: str = "") -> None:
        """Adds ``units`` of finished work; ``note`` (e.g. the loss) is shown behind the rate."""
        self.done += units
        self.note = note or self.note
        if self.bar is not None:
            self.bar.set_postfix_str(self.note, refresh=False)
            self.bar.update(units)
        elif self.lines and time.monotonic() - self.last_line >= SECONDS_BETWEEN_LINES:
            self._print_line()

    def say(self, text: str) -> None:
        """Shows a line of text that stays, above the bar; nothing where progress is silent."""
        if self.bar is not None:
            console_tqdm.write(text)
        elif self.lines:
            print(text, flush=True)

    def close(self) -> None:
        """Shows the last state once more and ends the bar."""
        if self.bar is not None:
            self.bar.close()
        elif self.lines:
            self._print_line()

    def _print_line(self) -> None:
        self.last_line = time.monotonic()
        meter = console_tqdm.format_meter(
            self.done,
            self.total,
            self.last_line - self.start,
            initial=self.initial,
            prefix=self.desc,
            unit=self.unit,
            unit_scale=self.scaled,
            postfix=self.note or None,
            bar_format="{l_bar}{n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_fmt}{postfix}]",
        )
        print(meter, flush=True)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def track(iterable: Iterable[Item], total: int, desc: str, *, unit: str = "it") -> Iterator[Item]:
    """Yields the items of ``iterable`` while a Progress counts them."""
    with Progress(total, desc, unit=unit) as progress:
        for item in iterable:
            yield item
            progress.update()
