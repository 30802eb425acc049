"""One file over HTTP: goes on where it broke off, waits, tries again, and knows when it is whole.

A download grows in ``<name>.part``. Beside it, ``<name>.part.json`` says from which address its
bytes came and which version of the file they were (its ETag or date), so that bytes of two
versions are never joined. Whether the content is right is for the caller to check.
"""

import email.utils
import os
import random
import re
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import requests
import urllib3

from matpac.core import files
from matpac.core.progress import Bytes

BLOCK = 1 << 16
"""Bytes written at once; a cut loses fewer than these."""
PASSING = {408, 425, 429, 500, 502, 503, 504}
"""HTTP statuses of servers that may answer later."""
INTERRUPTIONS = (
    requests.ConnectionError,
    requests.Timeout,
    requests.exceptions.ChunkedEncodingError,
    urllib3.exceptions.HTTPError,
)


@dataclass(frozen=True)
class Patience:
    """How long to wait for a server."""

    tries: int = 8
    """In a row without a byte gained."""
    first_tries: int = 3
    """The same, of a host that has not answered at all."""
    first_wait_s: float = 1.0
    """Doubled after every try in vain, and shortened at random by up to a half."""
    longest_wait_s: float = 120.0
    """A server that asks for more (Retry-After) is given up."""
    connect_timeout_s: float = 20.0
    read_timeout_s: float = 60.0
    """Silence after which a connection counts as cut."""


class RefusedError(ConnectionError):
    """The file is not to be had from this address, now or later."""


class _InterruptedError(Exception):
    """This try failed; another may not."""

    def __init__(self, reason: object, *, wait_s: float = 0.0) -> None:
        super().__init__(str(reason))
        self.wait_s = wait_s


class Download:
    """Downloads a file; called as pooch calls a downloader.

    Args:
        part: the file that grows; it stays until `discard`, so that whoever is interrupted while
            checking the result need not download again.
        num_bytes: its size when whole, if known.
        limit: bytes after which a server that announces no length is taken for a wrong one.
        checked: whether the caller knows a checksum; otherwise a server has to say how long the
            file is, since a cut could not be noticed.
    """

    def __init__(
        self,
        part: Path,
        *,
        num_bytes: int | None = None,
        limit: int | None = None,
        checked: bool = False,
        patience: Patience | None = None,
    ) -> None:
        self.part, self.state_file = part, part.with_name(f"{part.name}.json")
        self.num_bytes, self.limit, self.checked = num_bytes, num_bytes or limit, checked
        self.patience = patience or Patience()
        self.trust_ranges, self.answered = True, False

    def __call__(self, url: str, output_file: str | Path, _: object = None) -> None:
        """Leaves the whole file at ``output_file``.

        Raises: RefusedError when it cannot be had from ``url``; `requests.RequestException` for an
            address that is none, or leads in circles.
        """
        self.part.parent.mkdir(parents=True, exist_ok=True)
        best, failures = (self._size() if self._state(url) else 0), 0
        with requests.Session() as session:
            while True:
                try:
                    self._once(session, url)
                    break
                except (_InterruptedError, *INTERRUPTIONS) as problem:
                    failures = 0 if self._size() > best else failures + 1
                    best = max(best, self._size())
                    patience = self.patience
                    if failures >= (patience.tries if self.answered else patience.first_tries):
                        reason = self._reason(problem)
                        raise RefusedError(f"{reason} (tried {failures} times)") from None
                    time.sleep(self._wait_s(failures, getattr(problem, "wait_s", 0.0)))
        _share(self.part, Path(output_file))

    def discard(self) -> None:
        """Removes what has been downloaded."""
        self.part.unlink(missing_ok=True)
        self.state_file.unlink(missing_ok=True)

    def _size(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0

    def _wait_s(self, failures: int, asked_s: float) -> float:
        """Seconds until the next try. Raises: RefusedError if the server asks for too many."""
        longest = self.patience.longest_wait_s
        if asked_s > longest:
            raise RefusedError(f"the server asks to wait {asked_s:.0f} s")
        wait_s = self.patience.first_wait_s * 2 ** max(failures - 1, 0) * random.uniform(0.5, 1)
        return max(asked_s, min(wait_s, longest))

    def _reason(self, problem: Exception) -> str:
        """What went wrong, without the layers of libraries around it."""
        if isinstance(problem, _InterruptedError):
            return str(problem)
        if cause := getattr(next(iter(problem.args), None), "reason", None):
            return str(cause)  # of a connection that never was
        return f"the connection was cut or fell silent after {self._size()} bytes"

    def _once(self, session: requests.Session, url: str) -> None:
        """One request, from where the part ends if its bytes came from ``url``."""
        state = self._state(url)
        have = self._size() if state else 0
        if have and have == state["total"]:
            return
        headers = {"Accept-Encoding": "identity"}
        if have:
            headers["Range"] = f"bytes={have}-"
            if state["version"]:
                headers["If-Range"] = state["version"]
        timeout = (self.patience.connect_timeout_s, self.patience.read_timeout_s)
        with session.get(url, headers=headers, stream=True, timeout=timeout) as response:
            self.answered = True
            if response.status_code in PASSING:
                raise _InterruptedError(_status(response), wait_s=_asked_s(response))
            if response.status_code == 416 and have:
                if _range_total(response) == have and self.num_bytes in (None, have):
                    return
                self._distrust("the server has no bytes after those that are here")
            if response.status_code == 206 and have:
                total = self._continued(response, have, state)
            elif response.status_code == 200:
                have, total = 0, _length(response)
            else:
                raise RefusedError(_status(response))
            self._expect(response, total)
            if not have:
                self.discard()
                state = {"url": url, "version": _version(response)}
                files.write_json(self.state_file, state | {"total": total or self.num_bytes})
            self._receive(response, have, total)

    def _state(self, url: str) -> dict[str, Any]:
        """What is known of the bytes in the part, empty if they cannot be continued from here."""
        if not (self.trust_ranges and self.state_file.exists() and self.part.exists()):
            return {}
        state = files.read_json(self.state_file)
        return state if state["url"] == url and (state["version"] or self.checked) else {}

    def _continued(self, response: requests.Response, have: int, state: dict[str, Any]) -> int:
        """The whole file's size, when a 206 continues the part; otherwise starts over."""
        first, total = _range_first(response), _range_total(response)
        if first != have or total is None or state["total"] not in (None, total):
            got = response.headers.get("Content-Range")
            self._distrust(f"asked for bytes from {have} of {state['total']}, got {got}")
        return total  # type: ignore[return-value]

    def _distrust(self, reason: str) -> None:
        """From now on whole files only: this server's ranges cannot be relied on."""
        self.discard()
        self.trust_ranges = False
        raise _InterruptedError(reason)

    def _expect(self, response: requests.Response, total: int | None) -> None:
        """Raises: RefusedError when the server announces another file, or too little to go by."""
        if total is not None and self.num_bytes not in (None, total):
            raise RefusedError(f"expected {self.num_bytes} bytes, the server announces {total}")
        chunked = response.headers.get("Transfer-Encoding", "").lower() == "chunked"
        if total is None and self.num_bytes is None and not (chunked or self.checked):
            raise RefusedError("the server does not say how long the file is")

    def _receive(self, response: requests.Response, have: int, total: int | None) -> None:
        """Writes the body behind the ``have`` bytes that are there."""
        whole = total if total is not None else self.num_bytes
        most = whole if whole is not None else self.limit
        name = self.part.name.removesuffix(".part")
        with (
            self.part.open("ab" if have else "wb") as file,
            Bytes(whole or self.limit or have, f"download {name}", initial=have) as progress,
        ):
            # Not decoded: some servers call a .tar.gz a gzip-encoded tar.
            for block in response.raw.stream(BLOCK, decode_content=False):
                have += len(block)
                if most is not None and have > most:
                    file.close()
                    self.discard()
                    raise RefusedError(f"more than the {most} bytes expected")
                file.write(block)
                progress.update(len(block))
        if whole is not None and have < whole:
            raise _InterruptedError(f"the connection ended after {have} of {whole} bytes")


def _share(part: Path, output: Path) -> None:
    """``output`` becomes the same file as ``part``, which stays if the file system has links."""
    output.unlink(missing_ok=True)
    try:
        os.link(part, output)
    except OSError:
        part.replace(output)


def _status(response: requests.Response) -> str:
    return f"the server answers {response.status_code} {response.reason}"


def _length(response: requests.Response) -> int | None:
    length = response.headers.get("Content-Length", "")
    return int(length) if length.isdecimal() else None


def _version(response: requests.Response) -> str | None:
    """A strong ETag, else the date of change: what If-Range may hold."""
    tag = response.headers.get("ETag", "")
    return tag if tag.startswith('"') else response.headers.get("Last-Modified")


def _range_first(response: requests.Response) -> int | None:
    found = re.match(r"bytes (\d+)-\d+/", response.headers.get("Content-Range", ""))
    return int(found[1]) if found else None


def _range_total(response: requests.Response) -> int | None:
    found = re.search(r"/(\d+)$", response.headers.get("Content-Range", ""))
    return int(found[1]) if found else None


def _asked_s(response: requests.Response) -> float:
    """Seconds that Retry-After asks for, a number or a date; 0 if it does not."""
    value = response.headers.get("Retry-After", "").strip()
    if value.isdecimal():
        return float(value)
    try:
        date = email.utils.parsedate_to_datetime(value)
    except ValueError:
        return 0.0
    return max(0.0, (date.astimezone(UTC) - datetime.now(UTC)).total_seconds())
