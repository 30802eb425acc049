"""No bars, nobody's data, and which files are read."""

from collections.abc import Callable
from pathlib import Path

import pytest

from matpac.audio import listings, reading


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MATPAC_PROGRESS", "silent")
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.delenv("MATPAC_DATA", raising=False)


class Names(list[str]):
    """Of the files that a function was given; at the one called ``until`` it is interrupted."""

    until = ""

    def noting(self, function: Callable) -> Callable:
        def noted(path: Path, *others: object) -> object:
            if path.name == self.until:
                raise KeyboardInterrupt
            self.append(path.name)
            return function(path, *others)

        return noted


@pytest.fixture
def checked(monkeypatch: pytest.MonkeyPatch) -> Names:
    """Audio that is read to be judged."""
    names = Names()
    monkeypatch.setattr(reading, "check", names.noting(reading.check))
    return names


@pytest.fixture
def scanned(monkeypatch: pytest.MonkeyPatch) -> Names:
    """Containers that are listed."""
    names = Names()
    monkeypatch.setattr(listings, "scan", names.noting(listings.scan))
    return names
