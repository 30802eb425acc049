"""One file from a host that misbehaves: whole and right in the end, or refused; never half."""

import email.utils
import os
import random
import time
from collections.abc import Iterator
from pathlib import Path

import hosts
import pytest
import requests
from hosts import Host

from matpac.data import transfer
from matpac.data.transfer import Download, Patience, RefusedError

CONTENT = random.Random(0).randbytes(1_000_000)
QUICK = Patience(
    tries=4,
    first_tries=2,
    first_wait_s=0.001,
    longest_wait_s=2.0,
    connect_timeout_s=1.0,
    read_timeout_s=0.2,
)


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    monkeypatch.setenv("MATPAC_PROGRESS", "silent")
    monkeypatch.setenv("NO_PROXY", "*")
    with hosts.serving(CONTENT) as host:
        yield host


def fetch(host: Host, folder: Path, url: str | None = None, **known: object) -> bytes:
    """Downloads with a checksum known, unless told otherwise, and returns the result."""
    known = {"num_bytes": len(CONTENT), "checked": True, "patience": QUICK} | known
    download = Download(folder / "a.zip.part", **known)  # type: ignore[arg-type]
    download(url or f"{host.address}/a.zip", folder / "a.zip")
    return (folder / "a.zip").read_bytes()


def test_a_good_host_is_asked_once(host: Host, tmp_path: Path) -> None:
    assert fetch(host, tmp_path) == CONTENT
    assert host.asked == [("/a.zip", None, None)]
    assert host.encodings == ["identity"], "bytes are counted as they are in the file"


def test_goes_on_where_the_connection_was_cut(host: Host, tmp_path: Path) -> None:
    host.script = [hosts.cut(300_000), hosts.cut(400_000)]
    assert fetch(host, tmp_path) == CONTENT
    assert [each[2] for each in host.asked] == [None, '"first"', '"first"']
    starts = [int(each.removeprefix("bytes=").removesuffix("-")) for each in host.ranges[1:]]
    # What was under way in the last block is asked for again.
    assert 300_000 - transfer.BLOCK <= starts[0] <= 300_000
    assert 700_000 - 2 * transfer.BLOCK <= starts[1] <= 700_000


def test_a_later_process_goes_on_too(host: Host, tmp_path: Path) -> None:
    host.script = [hosts.cut(300_000), *[hosts.answer(503)] * 3]
    with pytest.raises(RefusedError, match=r"503 Service Unavailable \(tried 3 times\)"):
        fetch(host, tmp_path, patience=Patience(tries=3, first_wait_s=0.001))
    assert not (tmp_path / "a.zip").exists()
    have = (tmp_path / "a.zip.part").stat().st_size
    assert 200_000 < have <= 300_000
    assert fetch(host, tmp_path) == CONTENT
    assert host.ranges[-1] == f"bytes={have}-"


def test_silence_counts_as_a_cut(host: Host, tmp_path: Path) -> None:
    host.script = [hosts.stall(300_000), hosts.stall(0)]
    assert fetch(host, tmp_path) == CONTENT
    assert len(host.asked) == 3


def test_gives_up_when_nothing_comes(host: Host, tmp_path: Path) -> None:
    host.script = [hosts.cut(300_000)] + [hosts.cut(0)] * 9
    with pytest.raises(RefusedError, match="tried 4 times"):
        fetch(host, tmp_path)
    assert len(host.asked) == 5  # the first brought something


def test_a_host_that_always_cuts_at_the_same_place_is_given_up(host: Host, tmp_path: Path) -> None:
    """It ignores Range, so every try brings bytes, but none that are new."""

    def behave(request: hosts.Request) -> None:
        request.head(200, Content_Length=len(CONTENT))
        request.wfile.write(CONTENT[:300_000])

    host.script = [behave] * 20
    with pytest.raises(RefusedError, match="tried 4 times"):
        fetch(host, tmp_path)
    assert len(host.asked) <= 5


def test_a_host_that_ignores_range_sends_all_again(host: Host, tmp_path: Path) -> None:
    host.script = [hosts.cut(300_000), hosts.whole]
    assert fetch(host, tmp_path) == CONTENT
    assert host.ranges[1] is not None and len(host.asked) == 2


@pytest.mark.parametrize(
    "place", ["bytes 5-999999/1000000", "bytes 200000-999999/2000000", "5", None]
)
def test_a_wrong_content_range_is_not_joined(host: Host, tmp_path: Path, place: str | None) -> None:
    headers = {"Content_Range": place} if place else {}
    wrong = hosts.answer(206, CONTENT[5:], **headers)
    host.script = [hosts.cut(300_000), wrong, hosts.cut(300_000)]
    assert fetch(host, tmp_path) == CONTENT
    assert host.ranges[2:] == [None, None], "its ranges are not asked for again"


def test_a_206_for_the_whole_file_is_refused(host: Host, tmp_path: Path) -> None:
    host.script = [hosts.answer(206, CONTENT, Content_Range="bytes 0-999999/1000000")]
    with pytest.raises(RefusedError, match="206"):
        fetch(host, tmp_path)


def test_a_file_that_changed_between_two_tries_is_not_joined(host: Host, tmp_path: Path) -> None:
    new = CONTENT[::-1]

    def change(request: hosts.Request) -> None:
        host.content, host.etag = new, '"second"'
        hosts.serve(request)

    host.script = [hosts.cut(300_000), change]
    assert fetch(host, tmp_path) == new
    assert host.asked[1][2] == '"first"', "If-Range"


def test_a_change_that_the_host_overlooks_shows_in_the_length(host: Host, tmp_path: Path) -> None:
    def change(request: hosts.Request) -> None:
        host.content = CONTENT + b"more"  # with the same ETag
        hosts.serve(request)

    host.script = [hosts.cut(300_000), change]
    assert fetch(host, tmp_path, num_bytes=None) == CONTENT + b"more"
    assert host.ranges[2] is None


def test_without_a_version_or_a_checksum_nothing_is_continued(host: Host, tmp_path: Path) -> None:
    host.etag = ""
    host.script = [hosts.cut(300_000)] * 2
    assert fetch(host, tmp_path, checked=False) == CONTENT
    assert host.ranges == [None, None, None]
    host.script, host.asked = [hosts.cut(300_000)], []
    (tmp_path / "a.zip.part").unlink()
    assert fetch(host, tmp_path, checked=True) == CONTENT
    assert host.ranges[1] is not None, "a checksum will tell"


def test_a_weak_etag_does_not_go_into_if_range(host: Host, tmp_path: Path) -> None:
    host.etag = 'W/"first"'
    host.script = [hosts.cut(300_000)]
    assert fetch(host, tmp_path) == CONTENT
    assert host.asked[1][1] is not None and host.asked[1][2] is None


def test_bytes_of_another_address_are_not_continued(host: Host, tmp_path: Path) -> None:
    host.script = [hosts.cut(300_000), hosts.answer(404)]
    with pytest.raises(RefusedError, match="404"):
        fetch(host, tmp_path)
    assert (tmp_path / "a.zip.part").exists()
    host.script, host.asked = [hosts.answer(404)], []
    with pytest.raises(RefusedError, match="404"):
        fetch(host, tmp_path, f"{host.address}/other")
    assert (tmp_path / "a.zip.part").stat().st_size > 200_000, "kept: the other sent nothing"
    assert fetch(host, tmp_path, f"{host.address}/other") == CONTENT
    assert host.ranges == [None, None]


def test_bytes_of_another_address_are_no_measure_of_progress(host: Host, tmp_path: Path) -> None:
    host.script = [hosts.cut(300_000), hosts.answer(404), hosts.cut(200_000)]
    with pytest.raises(RefusedError, match="404"):
        fetch(host, tmp_path)
    once = Patience(tries=1, first_wait_s=0.001)
    assert fetch(host, tmp_path, f"{host.address}/other", patience=once) == CONTENT


@pytest.mark.parametrize("status", [429, 503])
def test_waits_as_long_as_asked(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    date = email.utils.formatdate(time.time() + 1.9, usegmt=True)
    host.script = [hosts.answer(status, Retry_After=1), hosts.answer(status, Retry_After=date)]
    waited: list[float] = []
    monkeypatch.setattr(transfer.time, "sleep", waited.append)
    assert fetch(host, tmp_path) == CONTENT
    assert waited[0] == 1.0 and 0 < waited[1] <= 1.9


def test_waits_longer_and_longer_when_not_asked(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []
    monkeypatch.setattr(transfer.time, "sleep", waited.append)
    host.script = [hosts.answer(500)] * 7
    assert fetch(host, tmp_path, patience=Patience(first_wait_s=1.0, longest_wait_s=20.0))
    expected = [1, 2, 4, 8, 16, 32, 64]
    for seconds, full in zip(waited, expected, strict=True):
        assert min(full / 2, 20) <= seconds <= min(full, 20)
    assert len({round(s / f, 6) for s, f in zip(waited[:5], expected[:5], strict=True)}) == 5


def test_a_host_that_asks_to_wait_for_an_hour_is_given_up(host: Host, tmp_path: Path) -> None:
    host.script = [hosts.answer(503, Retry_After=3600)]
    with pytest.raises(RefusedError, match="wait 3600 s"):
        fetch(host, tmp_path)


def test_a_missing_file_is_not_asked_for_twice(host: Host, tmp_path: Path) -> None:
    host.missing = {"/a.zip"}
    with pytest.raises(RefusedError, match="404 Not Found"):
        fetch(host, tmp_path)
    assert len(host.asked) == 1 and not (tmp_path / "a.zip.part").exists()


def test_a_dead_host_is_given_up_soon(host: Host, tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match=r"[^)]*Connection refused \(tried 2 times\)$"):
        fetch(host, tmp_path, "http://127.0.0.1:9/a.zip")


def test_redirects_are_followed(host: Host, tmp_path: Path) -> None:
    to = {"Location": f"{host.address}/elsewhere"}
    host.script = [hosts.answer(302, **to), hosts.cut(300_000), hosts.answer(307, **to)]
    assert fetch(host, tmp_path) == CONTENT
    assert [each[0] for each in host.asked] == ["/a.zip", "/elsewhere"] * 2
    assert host.ranges[3] is not None


@pytest.mark.parametrize(
    ("location", "error"),
    [("/a.zip", requests.TooManyRedirects), ("ftp://nowhere/a.zip", requests.RequestException)],
)
def test_redirects_in_circles_and_to_nowhere_end(
    host: Host, tmp_path: Path, location: str, error: type[Exception]
) -> None:
    host.script = [hosts.answer(302, Location=location)] * 100
    with pytest.raises(error):
        fetch(host, tmp_path)
    assert not (tmp_path / "a.zip").exists()


def test_a_host_that_announces_another_size_is_refused_at_once(host: Host, tmp_path: Path) -> None:
    host.content = CONTENT + b"x"
    with pytest.raises(RefusedError, match="expected 1000000 bytes, the server announces 1000001"):
        fetch(host, tmp_path)
    assert not (tmp_path / "a.zip.part").exists()


def test_more_bytes_than_announced_are_not_taken(host: Host, tmp_path: Path) -> None:
    host.script = [hosts.answer(200, CONTENT + b"more", Content_Length=len(CONTENT))]
    assert fetch(host, tmp_path) == CONTENT
    host.script = [hosts.chunked()]
    host.content = CONTENT + b"more"
    with pytest.raises(RefusedError, match="more than the 1000000 bytes"):
        fetch(host, tmp_path, f"{host.address}/chunked")
    assert not (tmp_path / "a.zip.part").exists()


def test_an_endless_answer_is_cut_off(host: Host, tmp_path: Path) -> None:
    host.script = [hosts.chunked()]
    with pytest.raises(RefusedError, match="more than the 400000 bytes"):
        fetch(host, tmp_path, num_bytes=None, limit=400_000)


def test_chunks_end_properly_or_are_taken_for_cut(host: Host, tmp_path: Path) -> None:
    host.script = [hosts.chunked(300_000), hosts.chunked(500_000), hosts.chunked()]
    assert fetch(host, tmp_path, num_bytes=None, checked=False) == CONTENT
    assert len(host.asked) == 3


def test_an_end_that_may_be_a_cut_is_refused_unless_something_tells(
    host: Host, tmp_path: Path
) -> None:
    host.script = [hosts.without_length] * 3
    with pytest.raises(RefusedError, match="does not say how long"):
        fetch(host, tmp_path, num_bytes=None, checked=False)
    assert fetch(host, tmp_path, num_bytes=None, checked=True) == CONTENT
    (tmp_path / "a.zip.part").unlink()
    assert fetch(host, tmp_path, checked=False) == CONTENT


def test_a_known_size_tells_an_end_from_a_cut(host: Host, tmp_path: Path) -> None:
    def cut_without_length(request: hosts.Request) -> None:
        request.head(200)
        request.wfile.write(CONTENT[:300_000])

    host.script = [cut_without_length]
    assert fetch(host, tmp_path) == CONTENT
    assert host.ranges == [None, "bytes=300000-"]


def test_content_encoding_is_left_alone(host: Host, tmp_path: Path) -> None:
    """Some servers announce a .tar.gz as a tar that is gzip-encoded on the way."""
    host.script = [hosts.answer(200, CONTENT, Content_Encoding="gzip")]
    assert fetch(host, tmp_path) == CONTENT
    assert len(host.asked) == 1


def test_a_whole_part_is_not_downloaded_again(host: Host, tmp_path: Path) -> None:
    fetch(host, tmp_path)
    (tmp_path / "a.zip").unlink()
    assert fetch(host, tmp_path) == CONTENT and len(host.asked) == 1


def test_a_whole_part_of_unknown_length_is_confirmed(host: Host, tmp_path: Path) -> None:
    host.script = [hosts.chunked()]
    fetch(host, tmp_path, num_bytes=None)
    assert fetch(host, tmp_path, num_bytes=None) == CONTENT
    assert host.ranges == [None, "bytes=1000000-"]
    host.content = CONTENT[:-5]  # now it is shorter: 416 with another length
    assert fetch(host, tmp_path, num_bytes=None) == CONTENT[:-5]


def test_discard_removes_everything(host: Host, tmp_path: Path) -> None:
    download = Download(tmp_path / "a.part", patience=QUICK)
    download(f"{host.address}/a", tmp_path / "a")
    download.discard()
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_bytes() == CONTENT


def test_without_hard_links_the_part_is_moved(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError("no links here")

    monkeypatch.setattr(os, "link", fail)
    assert fetch(host, tmp_path) == CONTENT
    assert not (tmp_path / "a.zip.part").exists()
