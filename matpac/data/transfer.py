"""One file over HTTP: goes on where it broke off, waits, tries again, and knows when it is whole.

A download grows in a ``.part`` file. Beside it, ``.part.json`` says from which address its bytes
came and which version of the file they were (its ETag or date), so that bytes of two versions are
never joined. Whether the content is right is for the caller to check.
"""

import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3.exceptions import HTTPError
from urllib3.util import Retry

from matpac.core import files
from matpac.core.progress import Progress

BLOCK = 1 << 18
"""Most bytes written at once, and the fewest that count as a gain."""
SLOWEST = 1000
"""Bytes per second; a slower server is left like a silent one."""
TRIES = 8
"""In a row without a gain; of a host that cannot be reached, three."""
WAIT_S = 1.0
"""Doubled after every try in vain."""
LONGEST_WAIT_S = 120.0
"""A server that asks for more (Retry-After) is given up."""
SILENCE_S = 60.0
"""Silence after which a connection counts as cut."""
PASSING = (408, 425, 429, 500, 502, 503, 504)
"""HTTP statuses of servers that may answer later."""


class RefusedError(Exception):
    """The file is not to be had from this address, now or later."""


class _CutError(Exception):
    """This try failed; another may not."""


class _Waits(Retry):
    def get_retry_after(self, response: Any) -> float | None:
        seconds = super().get_retry_after(response)
        if seconds is not None and seconds > self.backoff_max:
            raise RefusedError(f"the server asks to wait {seconds:.0f} s")
        return seconds


@dataclass(frozen=True)
class Download:
    """A file on its way."""

    url: str
    part: Path
    """Grows, and is the file in the end."""
    num_bytes: int | None = None
    """Its size, if known."""
    limit: int | None = None
    """Bytes after which a server that announces no length is taken for a wrong one."""
    checked: bool = False
    """Whether a checksum is known; otherwise a server has to say how long the file is and which
    version, since neither a cut nor a mixture could be noticed."""

    def finish(self) -> Path:
        """The part, when it is whole.

        Raises: RefusedError when it cannot be had; `requests.RequestException` for a host that
            cannot be reached, an address that is none, or one that leads in circles.
        """
        self.part.parent.mkdir(parents=True, exist_ok=True)
        best, vain = self._have(), 0
        with _session() as session:
            while True:
                try:
                    self._once(session)
                    return self.part
                except (_CutError, HTTPError) as problem:
                    have, vain = self._have(), vain + 1
                    if have >= best + BLOCK:
                        best, vain = have, 0
                    if vain >= TRIES:
                        tried = f"tried {vain} times, {have} bytes are here"
                        raise RefusedError(f"{problem} ({tried})") from None
                time.sleep(min(WAIT_S * 2**vain / 2, LONGEST_WAIT_S))

    def discard(self) -> None:
        """Removes what has been downloaded."""
        self.part.unlink(missing_ok=True)
        self._state_file.unlink(missing_ok=True)

    @property
    def _state_file(self) -> Path:
        return self.part.with_name(f"{self.part.name}.json")

    def _state(self) -> dict[str, Any]:
        """What is known of the bytes in the part, empty if they cannot be continued from here."""
        if not (self._state_file.exists() and self.part.exists()):
            return {}
        state = files.read_json(self._state_file)
        return state if state["url"] == self.url and (state["version"] or self.checked) else {}

    def _have(self) -> int:
        return self.part.stat().st_size if self._state() else 0

    def _once(self, session: requests.Session) -> None:
        """One request, from where the part ends if its bytes came from here."""
        state, have = self._state(), self._have()
        if have and have == state["total"]:
            return
        headers = {"Accept-Encoding": "identity"}
        if have:
            headers["Range"] = f"bytes={have}-"
            headers |= {"If-Range": state["version"]} if state["version"] else {}
        with session.get(self.url, headers=headers, stream=True, timeout=SILENCE_S) as response:
            if have and response.status_code in (206, 416):
                total = self._rest(response, have, state)
            elif response.status_code == 200:
                have, total = 0, self._length(response)
                self.discard()
                state = {"url": self.url, "version": _version(response), "total": total}
                files.write_json(self._state_file, state)
            else:
                raise RefusedError(f"the server answers {response.status_code} {response.reason}")
            self._receive(response, have, total)

    def _rest(self, response: requests.Response, have: int, state: dict[str, Any]) -> int:
        """The whole file's size, if this is the rest of it; otherwise starts over.

        A server without such a rest (416) may have another file, whatever size it gives.
        """
        place, version = response.headers.get("Content-Range", ""), _version(response)
        found = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", place)
        same = version == state["version"] or (version is None and self.checked)
        if found and same and int(found[1]) == have and state["total"] in (None, int(found[2])):
            return int(found[2])
        self.discard()
        raise _CutError(f"asked for bytes from {have} of {state['total']}, got {place or 'none'}")

    def _length(self, response: requests.Response) -> int | None:
        """Raises: RefusedError when the server announces another file, or too little to go by."""
        length = response.headers.get("Content-Length", "")
        total = int(length) if length.isdecimal() else self.num_bytes
        if self.num_bytes not in (None, total):
            raise RefusedError(f"expected {self.num_bytes} bytes, the server announces {total}")
        chunked = response.headers.get("Transfer-Encoding", "").lower() == "chunked"
        if total is None and not (chunked or self.checked):
            raise RefusedError("the server does not say how long the file is")
        return total

    def _receive(self, response: requests.Response, have: int, total: int | None) -> None:
        """Writes the body behind the ``have`` bytes that are there."""
        most, name = total or self.limit, self.part.name.removesuffix(".part")
        began, before = time.monotonic(), have
        with (
            files.blaming(self.part),
            self.part.open("ab" if have else "wb") as file,
            Progress(most or have, f"download {name}", unit="B", initial=have) as progress,
        ):
            # Not decoded: some servers call a .tar.gz a gzip-encoded tar.
            while block := response.raw.read1(BLOCK, decode_content=False):
                have += len(block)
                if most is not None and have > most:
                    self.discard()
                    raise RefusedError(f"more than the {most} bytes expected")
                file.write(block)
                progress.update(len(block))
                if (seconds := time.monotonic() - began) > SILENCE_S:
                    if have - before < SLOWEST * seconds:
                        raise _CutError(f"slower than {SLOWEST} bytes per second")
                    began, before = began + seconds, have
        if total is not None and have < total:
            raise _CutError(f"the connection ended after {have} of {total} bytes")


def _session() -> requests.Session:
    """One that waits, and tries again until an answer begins."""
    tries = {"total": TRIES - 1, "connect": min(2, TRIES - 1)}
    waits = {"backoff_factor": WAIT_S, "backoff_jitter": WAIT_S, "backoff_max": LONGEST_WAIT_S}
    retries = _Waits(**tries, **waits, status_forcelist=PASSING, raise_on_status=False)
    session = requests.Session()
    for scheme in ("http://", "https://"):
        session.mount(scheme, HTTPAdapter(max_retries=retries))
    return session


def _version(response: requests.Response) -> str | None:
    """A strong ETag, else the date of change: what If-Range may hold."""
    tag = response.headers.get("ETag", "")
    return tag if tag.startswith('"') else response.headers.get("Last-Modified")
