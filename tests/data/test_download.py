"""Whole data sets: from hosts and mirrors that work or do not, and from users who have a part."""

import gzip
import hashlib
import io
import random
import shutil
import tarfile
import zipfile
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path

import hosts
import pytest
from hosts import Host
from test_archives import SPLIT as SPLIT_MEMBERS
from test_archives import build

from matpac.data import catalogue, download, members, transfer
from matpac.data.catalogue import Archive, File, Source

RNG = random.Random(0)
AUDIO = {f"part/{i}.wav": RNG.randbytes(20_000) for i in range(30)}


def tarred(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as packed:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            packed.addfile(info, io.BytesIO(content))
    return gzip.compress(buffer.getvalue(), mtime=0)


def zipped(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as packed:
        for name, content in members.items():
            packed.writestr(zipfile.ZipInfo(name), content)
    return buffer.getvalue()


def md5(data: bytes) -> str:
    return f"md5:{hashlib.md5(data).hexdigest()}"


TAR, ZIP = tarred(AUDIO), zipped({"meta/esc50.csv": b"filename\n"})
SLICES = [
    zipped({"sliced/x.mp3": bytes(5000)})[a:b] for a, b in ((0, 900), (900, 3000), (3000, None))
]
SPLIT = build([10_000, 20_000])
WHOLE = AUDIO | SPLIT_MEMBERS
WHOLE |= {"meta/esc50.csv": b"filename\n", "sliced/x.mp3": bytes(5000), "list.csv": b"1,2\n"}
PUBLISHED = {"a.tar.gz": TAR, "b.zip": ZIP, "list.csv": b"1,2\n"}
PUBLISHED |= {f"c.zip.00{i + 1}": part for i, part in enumerate(SLICES)}
PUBLISHED |= dict(zip(["d.z01", "d.z02", "d.zip"], SPLIT, strict=True))


def published(host: Host, name: str, **changed: object) -> File:
    content = PUBLISHED[name]
    facts: dict = {"num_bytes": len(content), "checksums": (md5(content),)}
    return File(
        name, (f"{host.address}/one/{name}", f"{host.address}/two/{name}"), **facts | changed
    )


def single(file: File, kind: catalogue.Kind = "tar") -> Archive:
    return Archive(file.name, kind, (file,), 700_000)


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    monkeypatch.setenv("MATPAC_PROGRESS", "silent")
    monkeypatch.setenv("NO_PROXY", "*")
    for name, value in {"TRIES": 2, "WAIT_S": 0.001, "LONGEST_WAIT_S": 1, "SILENCE_S": 0.5}.items():
        monkeypatch.setattr(transfer, name, value)
    with hosts.serving(b"") as host:
        host.files = dict(PUBLISHED)
        yield host


@pytest.fixture
def publish(host: Host) -> object:
    """Makes these archives the data set ``toy``."""

    def behave(*packed: Archive) -> None:
        global TOY
        TOY = Source("Toy", "http://toy/page", "CC BY 4.0", "A. U. Thor, 2025", packed, "Ask.")

    behave(single(published(host, "a.tar.gz")))
    return behave


def obtain(folder: Path, **others: object) -> Path:
    """Where the data set ``toy`` then lies."""
    download.obtain("toy", TOY, folder=folder / "toy", **others)
    return folder / "toy"


def tree(folder: Path) -> dict[str, bytes]:
    """The unpacked files of a data set."""
    own = {"archives", ".unpacked", ".checked.json"}
    found = [path for path in folder.rglob("*") if not own & {*path.relative_to(folder).parts}]
    return {str(p.relative_to(folder)): p.read_bytes() for p in found if not p.is_dir()}


def everything(host: Host) -> list[Archive]:
    slices = tuple(published(host, f"c.zip.00{i}") for i in (1, 2, 3))
    parts = tuple(published(host, name) for name in ("d.z01", "d.z02", "d.zip"))
    return [
        single(published(host, "a.tar.gz")),
        single(published(host, "b.zip"), "zip"),
        single(published(host, "list.csv"), "file"),
        Archive("c.zip", "zip", slices, 6000, (md5(b"".join(SLICES)),)),
        Archive("d.zip", "zip", parts, 100_000),
    ]


@pytest.mark.parametrize("keep", [True, False])
def test_every_kind_of_archive_once(
    host: Host, publish, tmp_path: Path, keep: bool, capsys: pytest.CaptureFixture, recwarn
) -> None:
    publish(*everything(host))
    for again in (False, True):
        assert tree(obtain(tmp_path, keep_archives=keep)) == WHOLE
        assert len(host.asked) == len(PUBLISHED) and not recwarn.list
        assert (capsys.readouterr().out == "") == again
    left = {path.name for path in (tmp_path / "toy/archives").iterdir()} - {"incoming"}
    assert left == (set(PUBLISHED) if keep else set())
    assert list((tmp_path / "toy/archives/incoming").iterdir()) == []


def test_tells_what_will_happen_first(
    host: Host, publish, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    publish(*everything(host))
    obtain(tmp_path)
    packed, unpacked = sum(map(len, PUBLISHED.values())), 2 * 700_000 + 700_000 + 106_000
    needed = packed + unpacked
    text = capsys.readouterr().out
    assert text.startswith("Toy: a.tar.gz, b.zip, list.csv, c.zip.001,")
    assert f"packed    {packed / 1e6:.1f} MB, of which 0.0 MB are here" in text
    assert f"free, {needed / 1e6:.1f} MB needed" in text
    assert "licence   CC BY 4.0" in text and "cite      A. U. Thor, 2025" in text
    assert "http://toy/page" in text and str(tmp_path / "toy") in text


def test_a_disk_that_is_too_small_is_told_before_anything_is_downloaded(
    host: Host, publish, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "free")
    needed = len(TAR) + 700_000
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(needed - 1))
    with pytest.raises(OSError, match=r"toy needs 1\.3 MB, 1\.3 MB are free"):
        obtain(tmp_path)
    assert host.asked == [] and not (tmp_path / "toy").exists()
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(needed))
    obtain(tmp_path)


def test_archives_that_are_not_kept_need_less_room(
    publish, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    two = [
        Archive("a", "file", (File("a", (), 100),), 1_000_000),
        Archive("b", "file", (File("b", (), 2_000_000),), 10),
    ]
    publish(*two)
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(0))
    (tmp_path / "mirror").mkdir()

    def needed(folder: Path, **others: object) -> str:
        with pytest.raises(OSError, match="toy needs") as caught:
            obtain(folder, **others)
        return caught.value.strerror

    assert needed(tmp_path, keep_archives=True).startswith("toy needs 3.0 MB")
    assert needed(tmp_path, keep_archives=False).startswith("toy needs 3.0 MB")
    two.reverse()
    publish(*two)
    assert needed(tmp_path, keep_archives=False).startswith("toy needs 2.0 MB")
    (tmp_path / "mirror/b").write_bytes(bytes(2_000_000))
    mirrored = {"mirror": str(tmp_path / "mirror"), "keep_archives": False}
    assert needed(tmp_path, **mirrored).startswith("toy needs 1.0 MB"), "nothing of it is copied"


# --------------------------------------------------------------------------------------- hosts


def test_the_next_address_is_tried(
    host: Host, publish, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    host.missing = {"/one/a.tar.gz"}
    assert tree(obtain(tmp_path)) == AUDIO
    assert [each[0] for each in host.asked] == ["/one/a.tar.gz", "/two/a.tar.gz"]
    assert "404 Not Found" in capsys.readouterr().out


def test_when_no_address_helps_it_says_what_to_do(host: Host, publish, tmp_path: Path) -> None:
    wrong = TAR[:-1] + b"x"
    host.script = [hosts.answer(200, wrong), hosts.answer(404)]
    with pytest.raises(FileNotFoundError) as caught:
        obtain(tmp_path)
    text = str(caught.value)
    assert "toy: a.tar.gz cannot be downloaded" in text
    values = [value.removeprefix("md5:") for value in (md5(TAR), md5(wrong))]
    assert f"a.tar.gz.part: expected md5 {values[0]}, got {values[1]}" in text
    assert "two/a.tar.gz: the server answers 404 Not Found" in text
    assert "Ask. The page: http://toy/page" in text
    assert f"Put a.tar.gz into {tmp_path / 'toy/archives'} and run this again" in text
    assert [path for path in (tmp_path / "toy").rglob("*") if path.is_file()] == []
    assert tree(obtain(tmp_path)) == AUDIO
    assert host.asked[-1] == ("/one/a.tar.gz", None, None), "from the start"


def test_a_later_run_goes_on(
    host: Host, publish, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    host.script = [hosts.cut(400_000), *[hosts.cut(0)] * 2, hosts.answer(404)]
    with pytest.raises(FileNotFoundError, match="400000 bytes are here"):
        obtain(tmp_path)
    assert tree(tmp_path / "toy") == {}
    capsys.readouterr()
    assert tree(obtain(tmp_path)) == AUDIO
    assert f"{len(TAR) / 1e6:.1f} MB, of which 0.4 MB are here" in capsys.readouterr().out
    assert host.ranges[-1] == "bytes=400000-"


def test_killed_while_checking(
    host: Host, publish, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was downloaded is not downloaded again."""

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as context:
        context.setattr(hashlib, "new", stop)
        with pytest.raises(KeyboardInterrupt):
            obtain(tmp_path)
    assert tree(obtain(tmp_path)) == AUDIO
    assert len(host.asked) == 1


def test_a_doubtful_checksum_warns_with_both_values(host: Host, publish, tmp_path: Path) -> None:
    file = published(host, "a.tar.gz", checksums=(), doubtful=(md5(b"other"),))
    publish(single(file))
    values = [value.removeprefix("md5:") for value in (md5(b"other"), md5(TAR))]
    with pytest.warns(UserWarning, match=f"expected md5 {values[0]}, got {values[1]}"):
        obtain(tmp_path)
    assert tree(tmp_path / "toy") == AUDIO


def test_a_doubtful_checksum_beside_a_certain_one(host: Host, publish, tmp_path: Path) -> None:
    sha256 = f"sha256:{hashlib.sha256(TAR).hexdigest()}"
    publish(single(published(host, "a.tar.gz", doubtful=(sha256[:-1] + "_",))))
    with pytest.warns(UserWarning, match=f"got {sha256.removeprefix('sha256:')}"):
        obtain(tmp_path)
    host.script = [hosts.answer(200, TAR[:-1] + b"x")] * 2
    with pytest.raises(FileNotFoundError, match="expected md5"):
        obtain(tmp_path / "b")


def test_a_doubtful_checksum_of_joined_parts(host: Host, publish, tmp_path: Path) -> None:
    slices = tuple(published(host, f"c.zip.00{i}") for i in (1, 2, 3))
    publish(Archive("c.zip", "zip", slices, 6000, (md5(b"other"),)))
    joined = md5(b"".join(SLICES)).removeprefix("md5:")
    with pytest.warns(UserWarning, match=rf"c\.zip, joined: expected md5 .*, got {joined}"):
        obtain(tmp_path)
    assert tree(tmp_path / "toy") == {"sliced/x.mp3": bytes(5000)}


def test_a_second_certain_checksum_counts_too(host: Host, publish, tmp_path: Path) -> None:
    sha256 = f"sha256:{hashlib.sha256(b'other').hexdigest()}"
    publish(single(published(host, "a.tar.gz", checksums=(md5(TAR), sha256))))
    with pytest.raises(FileNotFoundError, match="expected sha256"):
        obtain(tmp_path)
    assert [path for path in (tmp_path / "toy").rglob("*.gz*") if path.is_file()] == []


def test_a_hostile_archive_with_the_right_checksum(host: Host, publish, tmp_path: Path) -> None:
    host.files["a.tar.gz"] = evil = tarred({"../../out": b"x"})
    publish(single(published(host, "a.tar.gz", num_bytes=len(evil), checksums=(md5(evil),))))
    with pytest.raises(members.UnsafeError, match="leads out"):
        obtain(tmp_path)
    assert tree(tmp_path) == {} and sorted(p.name for p in tmp_path.iterdir()) == ["toy"]


def test_an_archive_far_larger_than_its_estimate_is_refused(
    host: Host, publish, tmp_path: Path
) -> None:
    publish(Archive("a.tar.gz", "tar", (published(host, "a.tar.gz"),), 600_000 // 4 - 1))
    with pytest.raises(members.UnsafeError, match="more than"):
        obtain(tmp_path)
    publish(Archive("a.tar.gz", "tar", (published(host, "a.tar.gz"),), 600_000 // 4))
    assert tree(obtain(tmp_path)) == AUDIO


def test_an_archive_never_fills_the_disk(
    host: Host, publish, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody else filled it since it was found large enough."""
    free = iter([10**9, 599_999])
    monkeypatch.setattr(download, "_free", lambda _: next(free))
    with pytest.raises(members.UnsafeError, match=r"more than 0\.001 GB, .* expected or free"):
        obtain(tmp_path)
    assert tree(tmp_path / "toy") == {}


def test_a_damaged_archive_that_nobody_can_check_is_fetched_anew(
    host: Host, publish, tmp_path: Path
) -> None:
    publish(single(published(host, "a.tar.gz", checksums=(), num_bytes=None, about_bytes=700_000)))
    host.script = [hosts.answer(200, TAR[:-9])]
    with pytest.raises(members.DamagedError, match=r"a\.tar\.gz"):
        obtain(tmp_path)
    assert (tmp_path / "toy/archives/a.tar.gz.wrong").exists()
    assert tree(obtain(tmp_path)) == AUDIO and len(host.asked) == 2


# ------------------------------------------------------------------------- what is here already


def test_a_file_that_the_user_put_there_is_used(host: Host, publish, tmp_path: Path) -> None:
    (tmp_path / "toy/archives").mkdir(parents=True)
    (tmp_path / "toy/archives/a.tar.gz").write_bytes(TAR)
    assert tree(obtain(tmp_path)) == AUDIO and host.asked == []


@pytest.mark.parametrize("wrong", [TAR[:-1] + b"x", TAR[:-1]], ids=["content", "size"])
def test_a_wrong_file_that_the_user_put_there_is_kept_aside(
    host: Host, publish, tmp_path: Path, wrong: bytes, capsys: pytest.CaptureFixture
) -> None:
    folder = tmp_path / "toy/archives"
    folder.mkdir(parents=True)
    (folder / "a.tar.gz").write_bytes(wrong)
    assert tree(obtain(tmp_path)) == AUDIO
    assert (folder / "a.tar.gz.wrong").read_bytes() == wrong
    text = capsys.readouterr().out
    what = "md5" if len(wrong) == len(TAR) else f"{len(TAR)} bytes, got {len(wrong)};"
    assert f"a.tar.gz: expected {what}" in text and "kept as a.tar.gz.wrong" in text


# --------------------------------------------------------------------------- without a checksum


def unsure(host: Host, name: str = "a.tar.gz", **known: object) -> File:
    return published(host, name, **{"checksums": (), "num_bytes": None} | known)


PAGES = {
    "html": b"<!DOCTYPE html><title>Log in</title>" * 20_000,
    "blank lines first": b"\r\n  <html>" + bytes(600_000),
    "json": b'{"error": "quota exceeded"}' * 20_000,
    "short": TAR[:1000],
}


@pytest.mark.parametrize("page", PAGES)
def test_a_page_is_never_kept_as_an_archive(host: Host, publish, tmp_path: Path, page: str) -> None:
    publish(single(unsure(host, about_bytes=700_000)))
    host.script = [hosts.answer(200, PAGES[page]), hosts.answer(404)]
    with pytest.raises(FileNotFoundError, match=r"a\.tar\.gz\.part: (begins|expected)"):
        obtain(tmp_path)
    assert [path for path in (tmp_path / "toy").rglob("*") if path.is_file()] == []
    assert tree(obtain(tmp_path)) == AUDIO


def test_another_archive_than_at_first_use_is_not_taken(
    host: Host, publish, tmp_path: Path
) -> None:
    publish(single(unsure(host)))
    shutil.rmtree(obtain(tmp_path, keep_archives=False) / "part")
    other = tarred({"part/other.wav": bytes(9)})
    host.files["a.tar.gz"] = other
    first, now = (hashlib.sha256(each).hexdigest() for each in (TAR, other))
    with pytest.raises(FileNotFoundError) as caught:
        obtain(tmp_path)
    pin = tmp_path / "toy/.unpacked/a.tar.gz.json"
    assert f"expected sha256 {first}, got {now}" in str(caught.value)
    assert f"was pinned at its first use; remove {pin} to take another" in str(caught.value)
    pin.unlink()
    assert tree(obtain(tmp_path)) == {"part/other.wav": bytes(9)}


def test_a_plain_file_that_was_changed_is_fetched_again(
    host: Host, publish, tmp_path: Path
) -> None:
    publish(single(unsure(host, "list.csv"), "file"))
    kept = obtain(tmp_path, keep_archives=False) / "list.csv"
    obtain(tmp_path)
    assert len(host.asked) == 1
    kept.write_bytes(b"1,3\n")
    assert tree(obtain(tmp_path)) == {"list.csv": b"1,2\n"}


def test_what_cannot_be_read_at_first_use_is_fetched_again(
    host: Host, publish, tmp_path: Path
) -> None:
    publish(single(unsure(host, "list.csv"), "file"))

    def use(fail: type[Exception] | None) -> None:
        with download.first_use(TOY, obtain(tmp_path, keep_archives=False)):
            if fail:
                raise fail("of the reader")

    with pytest.raises(ImportError):
        use(ImportError)
    assert tree(tmp_path / "toy") == {"list.csv": b"1,2\n"}, "the file cannot help it"
    with pytest.raises(ValueError, match="of the reader"):
        use(ValueError)
    assert tree(tmp_path / "toy") == {"list.csv.wrong": b"1,2\n"}
    use(None)
    assert len(host.asked) == 2
    with pytest.raises(ValueError, match="of the reader"):
        use(ValueError)
    assert (tmp_path / "toy/list.csv").exists(), "it was read before"
    publish(single(published(host, "b.zip"), "zip"))
    with pytest.raises(ValueError, match="of the reader"):
        use(ValueError)
    assert (tmp_path / "toy/meta").exists(), "its checksum is certain"


# -------------------------------------------------------------------------------------- mirrors


@pytest.mark.parametrize("below", ["toy", "."])
@pytest.mark.parametrize("form", ["{}", "file://{}"])
def test_a_folder_stands_in_for_every_host(
    host: Host, publish, tmp_path: Path, below: str, form: str
) -> None:
    publish(*everything(host))
    folder = tmp_path / "the mirror"
    (folder / below).mkdir(parents=True)
    for name, content in PUBLISHED.items():
        (folder / below / name).write_bytes(content)
    mirror = form.format(str(folder).replace(" ", "%20") if "file" in form else folder)
    assert tree(obtain(tmp_path, mirror=mirror, keep_archives=False)) == WHOLE
    assert host.asked == []
    assert {p.name for p in (folder / below).iterdir()} == set(PUBLISHED), "not ours to remove"
    assert not (tmp_path / "toy/archives").exists(), "no copies"


def test_a_wrong_file_of_ours_does_not_hide_the_one_of_the_mirror(
    host: Host, publish, tmp_path: Path
) -> None:
    (tmp_path / "toy/archives").mkdir(parents=True)
    (tmp_path / "toy/archives/a.tar.gz").write_bytes(b"wrong")
    (tmp_path / "a.tar.gz").write_bytes(TAR)
    assert tree(obtain(tmp_path, mirror=str(tmp_path))) == AUDIO


def test_what_a_mirror_folder_lacks_is_not_fetched_elsewhere(
    host: Host, publish, tmp_path: Path
) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        obtain(tmp_path, mirror=str(tmp_path))
    assert f"{tmp_path}/toy/a.tar.gz: no such file\n  {tmp_path}/a.tar.gz: no" in str(caught.value)
    assert host.asked == []


def test_a_wrong_file_in_a_mirror_folder_is_told_and_left(publish, tmp_path: Path) -> None:
    (tmp_path / "a.tar.gz").write_bytes(wrong := TAR[:-1] + b"x")
    with pytest.raises(ValueError, match=rf"a\.tar\.gz: expected md5 .*, got {md5(wrong)[4:]}"):
        obtain(tmp_path, mirror=str(tmp_path))
    assert (tmp_path / "a.tar.gz").read_bytes() == wrong


@pytest.mark.parametrize("below", ["toy/", ""])
def test_a_server_stands_in_for_every_host(host: Host, publish, tmp_path: Path, below: str) -> None:
    publish(single(File("a.tar.gz", ("http://127.0.0.1:9/a.tar.gz",), checksums=(md5(TAR),))))
    host.missing = {"/base/toy/a.tar.gz", "/base/a.tar.gz"} - {f"/base/{below}a.tar.gz"}
    assert tree(obtain(tmp_path, mirror=f"{host.address}/base/")) == AUDIO
    tried = ["/base/toy/a.tar.gz", "/base/a.tar.gz"]
    assert [each[0] for each in host.asked] == (tried[:1] if below else tried)


def test_a_mirror_that_is_none(publish, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MATPAC_ROOT", str(tmp_path))
    with pytest.raises(
        FileNotFoundError, match=r"no folder .*ftp:/x/y, allowed: a folder, file://"
    ):
        obtain(tmp_path, mirror="ftp://x/y")
    with pytest.raises(FileNotFoundError, match=r"mirror: no folder .*/nowhere"):
        obtain(tmp_path, mirror="nowhere")


def test_a_mirror_is_relative_to_the_project(
    publish, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MATPAC_ROOT", str(tmp_path))
    (tmp_path / "mirror").mkdir()
    (tmp_path / "mirror/a.tar.gz").write_bytes(TAR)
    assert tree(obtain(tmp_path, mirror="mirror")) == AUDIO


# -------------------------------------------------------------------------------------- by hand


@pytest.mark.parametrize("name", catalogue.SOURCES)
def test_every_data_set_says_what_to_get_and_where_to_put_it(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(download, "_free", lambda _: 10**12)
    source = catalogue.source(name)
    first = source.archives[0].files[0].name
    host.missing = {f"/{first}", f"/{name}/{first}"}
    with pytest.raises(FileNotFoundError) as caught:
        download.obtain(name, source, folder=tmp_path, mirror=host.address)
    assert f"{name}: {first} cannot be downloaded" in str(caught.value)
    assert source.by_hand in str(caught.value) and source.page in str(caught.value)
    assert str(tmp_path / "archives") in str(caught.value)
