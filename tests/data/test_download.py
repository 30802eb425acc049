"""Whole data sets: from hosts and mirrors that work or do not, and from users who have a part."""

import gzip
import hashlib
import io
import random
import shutil
import zipfile
from collections import namedtuple
from collections.abc import Callable, Iterator
from pathlib import Path

import hosts
import pytest
from hosts import Host
from test_archives import SPLIT as SPLIT_MEMBERS
from test_archives import build, tar

from matpac.data import catalogue, download, members, transfer
from matpac.data.catalogue import Archive, File, Source

RNG = random.Random(0)
AUDIO = {f"part/{i}.wav": RNG.randbytes(20_000) for i in range(30)}


def tarred(members: dict[str, bytes]) -> bytes:
    return gzip.compress(tar(members, folder=None), mtime=0)


def zipped(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as packed:
        for name, content in members.items():
            packed.writestr(zipfile.ZipInfo(name), content)
    return buffer.getvalue()


def md5(data: bytes) -> str:
    return f"md5:{hashlib.md5(data).hexdigest()}"


def sha256(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def differ(expected: str, got: str) -> str:
    """What is said of two checksums."""
    return f"expected {expected.replace(':', ' ')}, got {got.partition(':')[2]}"


TAR, ZIP = tarred(AUDIO), zipped({"meta/esc50.csv": b"filename\n"})
WRONG = TAR[:-1] + b"x"
WHOLE_SLICES = zipped({"sliced/x.mp3": bytes(5000)})
SLICES = [WHOLE_SLICES[:900], WHOLE_SLICES[900:3000], WHOLE_SLICES[3000:]]
SPLIT = build([10_000, 20_000])
WHOLE = AUDIO | SPLIT_MEMBERS
WHOLE |= {"meta/esc50.csv": b"filename\n", "sliced/x.mp3": bytes(5000), "list.csv": b"1,2\n"}
PUBLISHED = {"a.tar.gz": TAR, "b.zip": ZIP, "list.csv": b"1,2\n"}
PUBLISHED |= {f"c.zip.00{i + 1}": part for i, part in enumerate(SLICES)}
PUBLISHED |= dict(zip(["d.z01", "d.z02", "d.zip"], SPLIT, strict=True))
UNSURE = {"checksums": (), "num_bytes": None}


class Toy:
    """The data set ``toy`` on a host; at first it is one archive, a.tar.gz."""

    def __init__(self, host: Host, folder: Path) -> None:
        self.host, self.folder, self.home = host, folder, folder / "toy"
        self.is_one("a.tar.gz")

    def publish(self, *packed: Archive) -> None:
        self.source = Source("Toy", "http://toy/page", "CC BY 4.0", "A. U. Thor", packed, "Ask.")

    def file(self, name: str, **changed: object) -> File:
        content = PUBLISHED.get(name, b"")
        facts: dict = {"num_bytes": len(content), "checksums": (md5(content),)} | changed
        return File(name, tuple(f"{self.host.address}/{n}/{name}" for n in ("one", "two")), **facts)

    def is_one(self, name: str, kind: catalogue.Kind = "tar", **changed: object) -> None:
        self.publish(Archive(name, kind, (self.file(name, **changed),), 700_000))

    def is_everything(self) -> None:
        slices = tuple(self.file(f"c.zip.00{i}") for i in (1, 2, 3))
        self.publish(
            Archive("a.tar.gz", "tar", (self.file("a.tar.gz"),), 700_000),
            Archive("b.zip", "zip", (self.file("b.zip"),), 700_000),
            Archive("list.csv", "file", (self.file("list.csv"),), 700_000),
            Archive("c.zip", "zip", slices, 6000, (md5(WHOLE_SLICES),)),
            Archive("d.zip", "zip", tuple(map(self.file, ("d.z01", "d.z02", "d.zip"))), 100_000),
        )

    def obtain(self, folder: str = "toy", **others: object) -> dict[str, bytes]:
        """The unpacked files of the data set."""
        download.obtain("toy", self.source, folder=self.folder / folder, **others)
        return tree(self.folder / folder)

    def files(self) -> list[Path]:
        """All that lies there."""
        return [path for path in self.home.rglob("*") if path.is_file()]


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    for name, value in {"TRIES": 2, "WAIT_S": 0.001, "LONGEST_WAIT_S": 1, "SILENCE_S": 0.5}.items():
        monkeypatch.setattr(transfer, name, value)
    with hosts.serving(b"") as host:
        host.files = dict(PUBLISHED)
        yield host


@pytest.fixture
def toy(host: Host, tmp_path: Path) -> Toy:
    return Toy(host, tmp_path)


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Sets how many bytes the disk has left."""
    usage = namedtuple("usage", "free")
    return lambda left: monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(left))


def tree(folder: Path) -> dict[str, bytes]:
    own = {"archives", ".unpacked", ".checked.json"}
    found = [path for path in folder.rglob("*") if not own & {*path.relative_to(folder).parts}]
    return {str(p.relative_to(folder)): p.read_bytes() for p in found if not p.is_dir()}


@pytest.mark.parametrize("keep", [True, False])
def test_every_kind_of_archive_once(
    toy: Toy, keep: bool, capsys: pytest.CaptureFixture, recwarn
) -> None:
    toy.is_everything()
    for again in (False, True):
        assert toy.obtain(keep_archives=keep) == WHOLE
        assert len(toy.host.asked) == len(PUBLISHED) and not recwarn.list
        assert (capsys.readouterr().out == "") == again
    left = {path.name for path in (toy.home / "archives").iterdir()} - {"incoming"}
    assert left == (set(PUBLISHED) if keep else set())
    assert list((toy.home / "archives/incoming").iterdir()) == []


def test_tells_what_will_happen_first(toy: Toy, capsys: pytest.CaptureFixture) -> None:
    toy.is_everything()
    toy.obtain()
    packed, unpacked = sum(map(len, PUBLISHED.values())), 3 * 700_000 + 106_000
    text = capsys.readouterr().out
    assert text.startswith("Toy: a.tar.gz, b.zip, list.csv, c.zip.001,")
    assert f"packed    {packed / 1e6:.1f} MB, of which 0.0 MB are here" in text
    assert f"free, {(packed + unpacked) / 1e6:.1f} MB needed" in text
    assert "licence   CC BY 4.0" in text and "cite      A. U. Thor" in text
    assert "http://toy/page" in text and str(toy.home) in text


def test_a_disk_that_is_too_small_is_told_before_anything_is_downloaded(toy: Toy, free) -> None:
    needed = len(TAR) + 700_000
    free(needed - 1)
    with pytest.raises(OSError, match=r"toy needs 1\.3 MB, 1\.3 MB are free"):
        toy.obtain()
    assert toy.host.asked == [] and not toy.home.exists()
    free(needed)
    toy.obtain()


def test_archives_that_are_not_kept_need_less_room(toy: Toy, free) -> None:
    two = [
        Archive("a", "file", (File("a", (), 100),), 1_000_000),
        Archive("b", "file", (File("b", (), 2_000_000),), 10),
    ]
    mirror = toy.folder / "mirror"
    mirror.mkdir()
    free(0)

    def needs(amount: str, *packed: Archive, **others: object) -> None:
        toy.publish(*packed)
        with pytest.raises(OSError, match=f"toy needs {amount}"):
            toy.obtain(**others)

    needs("3.0 MB", *two, keep_archives=True)
    needs("3.0 MB", *two, keep_archives=False)
    needs("2.0 MB", *two[::-1], keep_archives=False)
    (mirror / "b").write_bytes(bytes(2_000_000))  # nothing of it is copied
    needs("1.0 MB", *two[::-1], mirror=str(mirror), keep_archives=False)


# --------------------------------------------------------------------------------------- hosts


def test_the_next_address_is_tried(toy: Toy, capsys: pytest.CaptureFixture) -> None:
    toy.host.missing = {"/one/a.tar.gz"}
    assert toy.obtain() == AUDIO
    assert [each[0] for each in toy.host.asked] == ["/one/a.tar.gz", "/two/a.tar.gz"]
    assert "404 Not Found" in capsys.readouterr().out


def test_when_no_address_helps_it_says_what_to_do(toy: Toy) -> None:
    toy.host.script = [hosts.answer(200, WRONG), hosts.answer(404)]
    with pytest.raises(FileNotFoundError) as caught:
        toy.obtain()
    text = str(caught.value)
    assert "toy: a.tar.gz cannot be downloaded" in text
    assert f"a.tar.gz.part: {differ(md5(TAR), md5(WRONG))}" in text
    assert "two/a.tar.gz: the server answers 404 Not Found" in text
    assert "Ask. The page: http://toy/page" in text
    assert f"Put a.tar.gz into {toy.home / 'archives'} and run this again" in text
    assert toy.files() == []
    assert toy.obtain() == AUDIO
    assert toy.host.asked[-1] == ("/one/a.tar.gz", None, None), "from the start"


def test_a_later_run_goes_on(toy: Toy, capsys: pytest.CaptureFixture) -> None:
    toy.host.script = [hosts.cut(400_000), *[hosts.cut(0)] * 2, hosts.answer(404)]
    with pytest.raises(FileNotFoundError, match="400000 bytes are here"):
        toy.obtain()
    assert tree(toy.home) == {}
    capsys.readouterr()
    assert toy.obtain() == AUDIO
    assert f"{len(TAR) / 1e6:.1f} MB, of which 0.4 MB are here" in capsys.readouterr().out
    assert toy.host.ranges[-1] == "bytes=400000-"


def test_killed_while_checking(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was downloaded is not downloaded again."""

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as context:
        context.setattr(hashlib, "new", stop)
        with pytest.raises(KeyboardInterrupt):
            toy.obtain()
    assert toy.obtain() == AUDIO
    assert len(toy.host.asked) == 1


@pytest.mark.parametrize(
    ("certain", "doubtful", "got"),
    [((), md5(b"other"), md5(TAR)), ((md5(TAR),), sha256(b"other"), sha256(TAR))],
    ids=["alone", "beside a certain one"],
)
def test_a_doubtful_checksum_warns_with_both_values(
    toy: Toy, certain: tuple, doubtful: str, got: str
) -> None:
    toy.is_one("a.tar.gz", checksums=certain, doubtful=(doubtful,))
    with pytest.warns(UserWarning, match=differ(doubtful, got)):
        assert toy.obtain() == AUDIO


def test_a_doubtful_checksum_of_joined_parts(toy: Toy) -> None:
    slices = tuple(toy.file(f"c.zip.00{i}") for i in (1, 2, 3))
    toy.publish(Archive("c.zip", "zip", slices, 6000, (md5(b"other"),)))
    said = rf"c\.zip, joined: {differ(md5(b'other'), md5(WHOLE_SLICES))}"
    with pytest.warns(UserWarning, match=said):
        assert toy.obtain() == {"sliced/x.mp3": bytes(5000)}


def test_every_certain_checksum_counts(toy: Toy) -> None:
    toy.is_one("a.tar.gz", checksums=(md5(TAR), sha256(b"other")))
    with pytest.raises(FileNotFoundError, match="expected sha256"):
        toy.obtain()
    toy.is_one("a.tar.gz", doubtful=(sha256(WRONG),))
    toy.host.script = [hosts.answer(200, WRONG)] * 2
    with pytest.raises(FileNotFoundError, match="expected md5"):
        toy.obtain()
    assert [path for path in toy.files() if ".gz" in path.name] == []


def test_a_hostile_archive_with_the_right_checksum(toy: Toy) -> None:
    toy.host.files["a.tar.gz"] = evil = tarred({"../../out": b"x"})
    toy.is_one("a.tar.gz", num_bytes=len(evil), checksums=(md5(evil),))
    with pytest.raises(members.UnsafeError, match="leads out"):
        toy.obtain()
    assert tree(toy.folder) == {} and [p.name for p in toy.folder.iterdir()] == ["toy"]


def test_an_archive_far_larger_than_its_estimate_is_refused(toy: Toy) -> None:
    file = toy.file("a.tar.gz")
    toy.publish(Archive("a.tar.gz", "tar", (file,), 600_000 // 4 - 1))
    with pytest.raises(members.UnsafeError, match="more than"):
        toy.obtain()
    toy.publish(Archive("a.tar.gz", "tar", (file,), 600_000 // 4))
    assert toy.obtain() == AUDIO


def test_an_archive_never_fills_the_disk(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody else filled it since it was found large enough."""
    free = iter([10**9, 599_999])
    monkeypatch.setattr(download, "_free", lambda _: next(free))
    with pytest.raises(members.UnsafeError, match=r"more than 0\.001 GB, .* expected or free"):
        toy.obtain()
    assert tree(toy.home) == {}


def test_a_damaged_archive_that_nobody_can_check_is_fetched_anew(toy: Toy) -> None:
    toy.is_one("a.tar.gz", **UNSURE, about_bytes=700_000)
    toy.host.script = [hosts.answer(200, TAR[:-9])]
    with pytest.raises(members.DamagedError, match=r"a\.tar\.gz"):
        toy.obtain()
    assert (toy.home / "archives/a.tar.gz.wrong").exists()
    assert toy.obtain() == AUDIO and len(toy.host.asked) == 2


# ------------------------------------------------------------------------- what is here already


@pytest.mark.parametrize("here", [TAR, WRONG, TAR[:-1]], ids=["right", "content", "size"])
def test_a_file_that_the_user_put_there_is_used_or_kept_aside(
    toy: Toy, here: bytes, capsys: pytest.CaptureFixture
) -> None:
    folder = toy.home / "archives"
    folder.mkdir(parents=True)
    (folder / "a.tar.gz").write_bytes(here)
    assert toy.obtain() == AUDIO
    if here == TAR:
        assert toy.host.asked == []
        return
    assert (folder / "a.tar.gz.wrong").read_bytes() == here
    text = capsys.readouterr().out
    what = "md5" if len(here) == len(TAR) else f"{len(TAR)} bytes, got {len(here)};"
    assert f"a.tar.gz: expected {what}" in text and "kept as a.tar.gz.wrong" in text


# --------------------------------------------------------------------------- without a checksum


PAGES = {
    "html": b"<!DOCTYPE html><title>Log in</title>" * 20_000,
    "blank lines first": b"\r\n  <html>" + bytes(600_000),
    "json": b'{"error": "quota exceeded"}' * 20_000,
    "short": TAR[:1000],
}


@pytest.mark.parametrize("page", PAGES)
def test_a_page_is_never_kept_as_an_archive(toy: Toy, page: str) -> None:
    toy.is_one("a.tar.gz", **UNSURE, about_bytes=700_000)
    toy.host.script = [hosts.answer(200, PAGES[page]), hosts.answer(404)]
    with pytest.raises(FileNotFoundError, match=r"a\.tar\.gz\.part: (begins|expected)"):
        toy.obtain()
    assert toy.files() == []
    assert toy.obtain() == AUDIO


def test_another_archive_than_at_first_use_is_not_taken(toy: Toy) -> None:
    toy.is_one("a.tar.gz", **UNSURE)
    toy.obtain(keep_archives=False)
    shutil.rmtree(toy.home / "part")
    toy.host.files["a.tar.gz"] = other = tarred({"part/other.wav": bytes(9)})
    with pytest.raises(FileNotFoundError) as caught:
        toy.obtain()
    pin = toy.home / ".unpacked/a.tar.gz.json"
    assert differ(sha256(TAR), sha256(other)) in str(caught.value)
    assert f"was pinned at its first use; remove {pin} to take another" in str(caught.value)
    pin.unlink()
    assert toy.obtain() == {"part/other.wav": bytes(9)}


def test_a_plain_file_that_was_changed_is_fetched_again(toy: Toy) -> None:
    toy.is_one("list.csv", "file", **UNSURE)
    toy.obtain(keep_archives=False)
    toy.obtain()
    assert len(toy.host.asked) == 1
    (toy.home / "list.csv").write_bytes(b"1,3\n")
    assert toy.obtain() == {"list.csv": b"1,2\n"}


def test_what_cannot_be_read_at_first_use_is_fetched_again(toy: Toy) -> None:
    toy.is_one("list.csv", "file", **UNSURE)

    def use(fail: type[Exception] | None) -> None:
        toy.obtain(keep_archives=False)
        with download.first_use(toy.source, toy.home):
            if fail:
                raise fail("of the reader")

    with pytest.raises(ImportError):
        use(ImportError)
    assert tree(toy.home) == {"list.csv": b"1,2\n"}, "the file cannot help it"
    with pytest.raises(ValueError, match="of the reader"):
        use(ValueError)
    assert tree(toy.home) == {"list.csv.wrong": b"1,2\n"}
    use(None)
    assert len(toy.host.asked) == 2
    with pytest.raises(ValueError, match="of the reader"):
        use(ValueError)
    assert (toy.home / "list.csv").exists(), "it was read before"
    toy.is_one("b.zip", "zip")
    with pytest.raises(ValueError, match="of the reader"):
        use(ValueError)
    assert (toy.home / "meta").exists(), "its checksum is certain"


# -------------------------------------------------------------------------------------- mirrors


@pytest.mark.parametrize("below", ["toy", "."])
@pytest.mark.parametrize("form", ["{}", "file://{}"])
def test_a_folder_stands_in_for_every_host(toy: Toy, below: str, form: str) -> None:
    toy.is_everything()
    folder = toy.folder / "the mirror"
    (folder / below).mkdir(parents=True)
    for name, content in PUBLISHED.items():
        (folder / below / name).write_bytes(content)
    mirror = form.format(str(folder).replace(" ", "%20") if "file" in form else folder)
    assert toy.obtain(mirror=mirror, keep_archives=False) == WHOLE
    assert toy.host.asked == []
    assert {p.name for p in (folder / below).iterdir()} == set(PUBLISHED), "not ours to remove"
    assert not (toy.home / "archives").exists(), "no copies"


def test_a_wrong_file_of_ours_does_not_hide_the_one_of_the_mirror(toy: Toy) -> None:
    (toy.home / "archives").mkdir(parents=True)
    (toy.home / "archives/a.tar.gz").write_bytes(b"wrong")
    (toy.folder / "a.tar.gz").write_bytes(TAR)
    assert toy.obtain(mirror=str(toy.folder)) == AUDIO


def test_what_a_mirror_folder_lacks_is_not_fetched_elsewhere(toy: Toy) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        toy.obtain(mirror=str(toy.folder))
    lacking = f"{toy.home}/a.tar.gz: no such file\n  {toy.folder}/a.tar.gz: no"
    assert lacking in str(caught.value) and toy.host.asked == []


def test_a_wrong_file_in_a_mirror_folder_is_told_and_left(toy: Toy) -> None:
    (toy.folder / "a.tar.gz").write_bytes(WRONG)
    with pytest.raises(ValueError, match=rf"a\.tar\.gz: {differ(md5(TAR), md5(WRONG))}"):
        toy.obtain(mirror=str(toy.folder))
    assert (toy.folder / "a.tar.gz").read_bytes() == WRONG


@pytest.mark.parametrize("below", ["toy/", ""])
def test_a_server_stands_in_for_every_host(toy: Toy, below: str) -> None:
    file = File("a.tar.gz", ("http://127.0.0.1:9/a.tar.gz",), checksums=(md5(TAR),))
    toy.publish(Archive("a.tar.gz", "tar", (file,), 700_000))
    toy.host.missing = {"/base/toy/a.tar.gz", "/base/a.tar.gz"} - {f"/base/{below}a.tar.gz"}
    assert toy.obtain(mirror=f"{toy.host.address}/base/") == AUDIO
    tried = ["/base/toy/a.tar.gz", "/base/a.tar.gz"]
    assert [each[0] for each in toy.host.asked] == (tried[:1] if below else tried)


def test_a_mirror_is_relative_to_the_project_or_none(
    toy: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MATPAC_ROOT", str(toy.folder))
    for mirror, said in (
        ("ftp://x/y", r"no folder .*ftp:/x/y, allowed: a folder, file://"),
        ("nowhere", r"mirror: no folder .*/nowhere"),
    ):
        with pytest.raises(FileNotFoundError, match=said):
            toy.obtain(mirror=mirror)
    (toy.folder / "mirror").mkdir()
    (toy.folder / "mirror/a.tar.gz").write_bytes(TAR)
    assert toy.obtain(mirror="mirror") == AUDIO


# -------------------------------------------------------------------------------------- by hand


@pytest.mark.parametrize("name", catalogue.SOURCES)
def test_every_data_set_says_what_to_get_and_where_to_put_it(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(download, "_free", lambda _: 10**12)
    source = catalogue.SOURCES[name]
    first = source.archives[0].files[0].name
    host.missing = {f"/{first}", f"/{name}/{first}"}
    with pytest.raises(FileNotFoundError) as caught:
        download.obtain(name, source, folder=tmp_path, mirror=host.address)
    assert f"{name}: {first} cannot be downloaded" in str(caught.value)
    assert source.by_hand in str(caught.value) and source.page in str(caught.value)
    assert str(tmp_path / "archives") in str(caught.value)
