"""One file from a host that misbehaves: whole and right in the end, or refused; never half."""

import email.utils
import random
import time
from collections.abc import Iterator
from pathlib import Path

import hosts
import pytest
import requests
from hosts import Host

from matpac.data import transfer
from matpac.data.transfer import Download, RefusedError

CONTENT = random.Random(0).randbytes(1_000_000)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    quick = {"TRIES": 4, "WAIT_S": 0.001, "LONGEST_WAIT_S": 2.0, "SILENCE_S": 0.2}
    for name, value in quick.items():
        monkeypatch.setattr(transfer, name, value)


@pytest.fixture
def host() -> Iterator[Host]:
    with hosts.serving(CONTENT) as host:
        yield host


def fetch(host: Host, folder: Path, name: str = "a.zip", **known: object) -> bytes:
    """Downloads with size and a checksum known, unless told otherwise, and returns the result."""
    known = {"num_bytes": len(CONTENT), "checked": True} | known
    download = Download(f"{host.address}/{name}", folder / "a.zip.part", **known)  # type: ignore[arg-type]
    download.finish()
    return download.part.read_bytes()


UNKNOWN = {"num_bytes": None, "checked": False}


def starts(host: Host) -> list[int]:
    """Where each request wanted to begin."""
    return [int((each or "bytes=0-").removeprefix("bytes=")[:-1]) for each in host.ranges]


# -------------------------------------------------------------------------------- interruptions


def test_a_good_host_is_asked_once(host: Host, tmp_path: Path) -> None:
    assert fetch(host, tmp_path) == CONTENT
    assert host.asked == [("/a.zip", None, None)]
    assert host.encodings == ["identity"], "bytes are counted as they are in the file"
    assert fetch(host, tmp_path) == CONTENT and len(host.asked) == 1, "it is whole"


def trickle(request: hosts.Request) -> None:
    """A byte now and then keeps a connection open for ever."""
    for byte in request.announce():
        request.wfile.write(bytes([byte]))
        time.sleep(0.05)


def always_cut(request: hosts.Request) -> None:
    """It ignores Range, so every try brings bytes, but none that are new."""
    request.head(200, Content_Length=len(CONTENT))
    request.wfile.write(CONTENT[:300_000])


def cut_without_length(request: hosts.Request) -> None:
    request.head(200)
    request.wfile.write(CONTENT[:300_000])


CUT = hosts.cut(300_000)
WHOLE: dict[str, tuple[list, dict, list[int]]] = {
    "cut twice": ([CUT, hosts.cut(400_000)], {}, [0, 300_000, 700_000]),
    "silence": ([hosts.stall(300_000), hosts.stall(0)], {}, [0, 300_000, 300_000]),
    "Range ignored": ([CUT, hosts.whole], {}, [0, 300_000]),
    "cut, of known size": ([cut_without_length], {}, [0, 300_000]),
    "chunks without an end": ([hosts.chunked(300_000), hosts.whole], UNKNOWN, [0, 300_000]),
    "chunks": ([hosts.chunked()], UNKNOWN, [0]),
    "more than announced": (
        [hosts.answer(200, CONTENT + b"more", Content_Length=len(CONTENT))], {}, [0]
    ),
    # Some servers announce a .tar.gz as a tar that is gzip-encoded on the way.
    "encoded": ([hosts.answer(200, CONTENT, Content_Encoding="gzip")], {}, [0]),
    "no Content-Range": ([CUT, hosts.answer(206, CONTENT[5:])], {}, [0, 300_000, 0]),
} | {
    place: ([CUT, hosts.answer(206, CONTENT[5:], Content_Range=place)], {}, [0, 300_000, 0])
    for place in ("bytes 5-999999/1000000", "bytes 300000-999999/2000000", "5")
}  # fmt: skip
"""What a host does first, what is known of the file, and where each request wants to begin."""


@pytest.mark.parametrize("name", WHOLE)
def test_it_is_whole_in_the_end(host: Host, tmp_path: Path, name: str) -> None:
    script, known, places = WHOLE[name]
    host.script = list(script)
    assert fetch(host, tmp_path, **known) == CONTENT
    assert starts(host) == places
    assert {each[2] for each in host.asked[1:] if each[1]} <= {'"first"'}, "If-Range"


REFUSED: dict[str, tuple[list, dict, str]] = {
    "nothing more": ([CUT] + [hosts.cut(0)] * 9, {}, "tried 4 times, 300000 bytes are here"),
    "always cut there": ([always_cut] * 20, {}, "tried 4 times"),
    "trickle": ([trickle] * 9, {}, r"slower than 1000 bytes per second \(tried 4 times"),
    "asks to wait": ([hosts.answer(503, Retry_After=3600)], {}, "wait 3600 s"),
    "206 for the whole": (
        [hosts.answer(206, CONTENT, Content_Range="bytes 0-999999/1000000")], {}, "206"
    ),
    "endless": ([hosts.chunked()], {"num_bytes": None, "limit": 400_000}, "more than the 400000 b"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_it_is_given_up(host: Host, tmp_path: Path, name: str) -> None:
    script, known, said = REFUSED[name]
    host.script = list(script)
    with pytest.raises(RefusedError, match=said):
        fetch(host, tmp_path, **known)
    assert len(host.asked) <= 5


def test_a_later_process_goes_on_too(host: Host, tmp_path: Path) -> None:
    host.script = [CUT, *[hosts.answer(503)] * 4]
    with pytest.raises(RefusedError, match="503 Service Unavailable"):
        fetch(host, tmp_path)
    assert fetch(host, tmp_path) == CONTENT
    assert starts(host)[-1] == (tmp_path / "a.zip.part").stat().st_size - 700_000 == 300_000


@pytest.mark.parametrize("status", [429, 503])
def test_waits_as_long_as_asked(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    date = email.utils.formatdate(time.time() + 1.9, usegmt=True)
    host.script = [hosts.answer(status, Retry_After=1), hosts.answer(status, Retry_After=date)]
    waited: list[float] = []
    monkeypatch.setattr(time, "sleep", waited.append)
    assert fetch(host, tmp_path) == CONTENT
    assert waited[0] == 1 and all(0 < seconds <= 1.9 for seconds in waited)


def test_a_missing_file_is_not_asked_for_twice(host: Host, tmp_path: Path) -> None:
    host.missing = {"/a.zip"}
    with pytest.raises(RefusedError, match="404 Not Found"):
        fetch(host, tmp_path)
    assert len(host.asked) == 1 and list(tmp_path.iterdir()) == []


def test_a_dead_host_is_given_up_soon(tmp_path: Path) -> None:
    with pytest.raises(requests.ConnectionError, match="refused"):
        Download("http://127.0.0.1:9/a.zip", tmp_path / "a.zip.part").finish()


def test_redirects_are_followed(host: Host, tmp_path: Path) -> None:
    to = {"Location": f"{host.address}/elsewhere"}
    host.script = [hosts.answer(302, **to), CUT, hosts.answer(307, **to)]
    assert fetch(host, tmp_path) == CONTENT
    assert [each[0] for each in host.asked] == ["/a.zip", "/elsewhere"] * 2
    assert starts(host) == [0, 0, 300_000, 300_000]


@pytest.mark.parametrize("location", ["/a.zip", "ftp://nowhere/a.zip"])
def test_redirects_in_circles_and_to_nowhere_end(host: Host, tmp_path: Path, location: str) -> None:
    host.script = [hosts.answer(302, Location=location)] * 100
    with pytest.raises(requests.RequestException):
        fetch(host, tmp_path)
    assert list(tmp_path.iterdir()) == []


# ------------------------------------------------------------------------------- never a mixture


def changed(content: bytes, **headers: object) -> hosts.Behaviour:
    """Has another file at once, and sends the rest of that, whatever If-Range says."""

    def behave(request: hosts.Request) -> None:
        request.host.content, start = content, request.start()
        place = f"bytes {start}-{len(content) - 1}/{len(content)}"
        request.host.etag = str(headers.pop("etag", request.host.etag))
        request.head(206, Content_Range=place, Content_Length=len(content) - start, **headers)
        request.wfile.write(content[start:])

    return behave


NEW = CONTENT[::-1]


def test_a_file_that_changed_between_two_tries_is_not_joined(host: Host, tmp_path: Path) -> None:
    def change(request: hosts.Request) -> None:
        host.content, host.etag = NEW, '"second"'
        hosts.serve(request)

    host.script = [CUT, change]
    assert fetch(host, tmp_path, checked=False) == NEW
    assert host.asked[1][2] == '"first"', "If-Range"


@pytest.mark.parametrize("etag", ['"second"', "", 'W/"first"'])
def test_the_rest_says_itself_of_which_version_it_is(host: Host, tmp_path: Path, etag: str) -> None:
    """The host overlooks If-Range; without a checksum nobody would notice."""
    host.script = [CUT, changed(NEW, etag=etag)]
    assert fetch(host, tmp_path, checked=False) == NEW
    assert starts(host) == [0, 300_000, 0]


def test_a_change_that_the_host_overlooks_shows_in_the_length(host: Host, tmp_path: Path) -> None:
    host.script = [CUT, changed(CONTENT + b"more")]
    assert fetch(host, tmp_path, num_bytes=None) == CONTENT + b"more"


def test_without_a_version_or_a_checksum_nothing_is_continued(host: Host, tmp_path: Path) -> None:
    host.etag = ""
    host.script = [CUT] * 2
    assert fetch(host, tmp_path, checked=False) == CONTENT
    assert starts(host) == [0, 0, 0]
    host.script, host.asked = [CUT], []
    assert fetch(host, tmp_path, "b.zip", checked=True) == CONTENT
    assert starts(host) == [0, 300_000], "a checksum will tell"


def test_a_weak_etag_does_not_go_into_if_range(host: Host, tmp_path: Path) -> None:
    host.etag = 'W/"first"'
    host.script = [CUT]
    assert fetch(host, tmp_path) == CONTENT
    assert starts(host) == [0, 300_000] and host.asked[1][2] is None


def test_bytes_of_another_address_are_not_continued(host: Host, tmp_path: Path) -> None:
    host.script = [CUT, hosts.answer(404), hosts.answer(404)]
    for name in ("a.zip", "b.zip"):
        with pytest.raises(RefusedError, match="404"):
            fetch(host, tmp_path, name)
    assert (tmp_path / "a.zip.part").stat().st_size == 300_000, "kept: the other sent nothing"
    assert fetch(host, tmp_path, "b.zip") == CONTENT
    assert starts(host) == [0, 300_000, 0, 0]


@pytest.mark.parametrize("checked", [True, False])
def test_a_host_that_has_no_more_is_not_believed(host: Host, tmp_path: Path, checked: bool) -> None:
    """Half a file was taken for whole when the answer (416) gave its size as that of the file."""
    half = len(CONTENT) // 2
    host.script = [hosts.chunked(half), hosts.answer(416, Content_Range=f"bytes */{half}")]
    assert fetch(host, tmp_path, num_bytes=None, checked=checked) == CONTENT
    assert starts(host) == [0, half, 0]


# ---------------------------------------------------------------------------------- which length


def test_a_host_that_announces_another_size_is_refused_at_once(host: Host, tmp_path: Path) -> None:
    host.content = CONTENT + b"x"
    with pytest.raises(RefusedError, match="expected 1000000 bytes, the server announces 1000001"):
        fetch(host, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_more_bytes_than_known_are_not_taken(host: Host, tmp_path: Path) -> None:
    host.script, host.content = [hosts.chunked()], CONTENT + b"more"
    with pytest.raises(RefusedError, match="more than the 1000000 bytes"):
        fetch(host, tmp_path, "chunked")
    assert list(tmp_path.iterdir()) == []


def test_an_end_that_may_be_a_cut_is_refused_unless_something_tells(
    host: Host, tmp_path: Path
) -> None:
    host.script = [hosts.without_length] * 3
    with pytest.raises(RefusedError, match="does not say how long"):
        fetch(host, tmp_path, **UNKNOWN)
    assert fetch(host, tmp_path, num_bytes=None) == CONTENT
    assert fetch(host, tmp_path, "b.zip", checked=False) == CONTENT
