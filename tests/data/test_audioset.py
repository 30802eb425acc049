"""AudioSet in its three layouts, in miniature: folders, WebDataset tars, parquet shards."""

import io
import json
import os
import re
import tarfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import faults
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
import tiny
from test_archives import RECORDED, TRAPS, memory_for

from matpac.audio import containers, finding, listings, reading
from matpac.core.parallel import Workers
from matpac.data import audit, packed, sources
from matpac.data import manifests as datasets
from matpac.data.config import FetchParams
from matpac.data.fetch import fetch
from matpac.data.packed import packed_manifest
from matpac.features.preprocess import preprocess
from matpac.features.store import Store
from matpac.params import parse
from matpac.pretraining.pretrain import pretrain

SHORT = 0.2
"""Seconds: fewer than the 32 frames (335 ms) of a crop."""
CLIPS = {  # YouTube's id -> start of the excerpt (s), its length (s), rate (Hz), channels, format
    "--PJHxphWEs": (30, 0.6, 16000, 1, "wav"),
    "-0RWZT-miFs": (420, 0.5, 44100, 2, "flac"),
    "05VaQUdEQU4": (0, SHORT, 16000, 1, "wav"),
    "0G_vtzOJxyM": (20, 0.7, 48000, 2, "flac"),
    "_1nsbgYdQ8k": (10, 0.4, 32000, 1, "ogg"),
    "a9ImTBYKdlQ": (160, 0.4, 16000, 1, "mp3"),
    "zzZ_-0123Ab": (5, 0.5, 8000, 1, "wav"),
}
LOGMEL = tiny.FRONT_END | {"mean": None, "std": None, "workers": 1}
LOGMEL |= {"max_bad_fraction": 0.5, "shard_mb": 100}
SINGLE = Workers(1, preload="matpac.data.audit")


def content(clip: str) -> bytes:
    """A clip's file: a chirp in noise."""
    _, duration_s, rate, channels, form = CLIPS[clip]
    random = np.random.default_rng(list(clip.encode()))
    seconds = np.arange(round(rate * duration_s)) / rate
    wave = 0.3 * np.sin(2 * np.pi * (300 + random.uniform(0, 2000) * seconds) * seconds)
    wave = wave[:, None] + random.normal(0, 0.02, (len(seconds), channels))
    return faults.encoded(wave, form.upper(), rate=rate)


def segment(clip: str) -> str:
    """The name that most downloaders give to a file, without its extension."""
    return f"{clip}_{CLIPS[clip][0]}.000"


def write_folders(root: Path, clips: Iterable[str] = CLIPS) -> Path:
    """As M2D and most downloaders leave it; the evaluation part is not for pretraining."""
    for number, clip in enumerate([*clips, "eval"]):
        part = "eval" if clip == "eval" else ("balanced_train", "unbalanced_train")[number % 2]
        folder = root / f"{part}_segments"
        folder.mkdir(parents=True, exist_ok=True)
        if clip == "eval":
            (folder / "not_for_training_0.000.wav").write_bytes(content(next(iter(CLIPS))))
        else:
            (folder / f"{segment(clip)}.{CLIPS[clip][4]}").write_bytes(content(clip))
    return root


def write_tar(path: Path, members: dict[str, bytes], **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", **options) as tar:
        for name, data in members.items():
            header = tarfile.TarInfo(name)
            header.size = len(data)
            tar.addfile(header, io.BytesIO(data))
    return path


def samples(clips: Iterable[str], place: str = "") -> dict[str, bytes]:
    """The members of WebDataset samples: audio with labels beside it, and a file manager's dust."""
    members: dict[str, bytes] = {}
    for clip in clips:
        key = place + segment(clip)
        members[f"{key}.{CLIPS[clip][4]}"] = content(clip)
        members[f"{key}.json"] = json.dumps({"id": clip, "label": ["Speech"]}).encode()
        members[f"{key}.cls"] = b"17"
        members[f"{place}._{segment(clip)}.wav"] = b"\0\5\x16\7"
    return members


def write_tars(root: Path) -> Path:
    """Two shards in two folders, one of them made by ``tar cf shard.tar .``."""
    names = list(CLIPS)
    write_tar(root / "2m/train/000000.tar", samples(names[:4]))
    write_tar(root / "2m/train/more/000001.tar", samples(names[4:], "./"))
    (root / "2m/train/sizes.json").write_text("{}")
    return root / "2m"


def write_parquets(root: Path) -> Path:
    """As Hugging Face's libraries write it: bytes and a path, a few rows per row group."""
    names = list(CLIPS)
    for shard, some in (("bal_train/00", names[:5]), ("unbal_train/000", names[5:])):
        rows = [
            {"bytes": content(c), "path": f"audio/{shard.split('/')[0]}/{c}.{CLIPS[c][4]}"}
            for c in some
        ]
        write_parquet(root / f"data/{shard}.parquet", {"video_id": some, "audio": rows})
    return root / "data"


def write_parquet(path: Path, columns: dict[str, Any], rows_per_group: int = 2) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path, row_group_size=rows_per_group)
    return path


def manifest_of(root: Path, **options: Any) -> tuple[pd.DataFrame, dict[str, Any]]:
    """The manifest of all containers below a folder."""
    given = {"max_bad_fraction": 0.5, "workers": SINGLE, "cache": root.parent / "cache"}
    given["shards"] = [root / name for name in finding.walk(root)]
    return packed_manifest("set", relative_to=root, **given | options)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A root with a task of four clips: a profile has at least one."""
    monkeypatch.setenv("MATPAC_ROOT", str(tmp_path))
    clips = ["--PJHxphWEs", "-0RWZT-miFs", "0G_vtzOJxyM", "_1nsbgYdQ8k"]
    write_folders(tmp_path / "task", clips)
    rows = zip(clips, "abab", ("train", "train", "valid", "test"), strict=True)
    lines = [f"{segment(clip)}.{CLIPS[clip][4]},{label},{part}" for clip, label, part in rows]
    (tmp_path / "task.csv").write_text("\n".join(["filename,class,part", *lines]))
    return tmp_path


def sections(corpora: dict[str, float], **sets: dict[str, Any]) -> dict[str, Any]:
    """The sections of the first two stages, with the task."""
    task = {"source": "folder", "audio": "task", "csv": "task.csv", "labels": "class"}
    task |= {"kind": "multiclass", "split": "part"}
    return {"profile": "tiny", "storage": None, "datasets": sets | {"task": task}} | {
        "corpora": corpora, "tasks": ["task"], "logmel": LOGMEL
    }  # fmt: skip


def prepare(corpora: dict[str, float], **sets: dict[str, Any]) -> dict[str, Any]:
    """Runs the stages ``fetch`` and ``logmel``. Returns: the information of every data set."""
    given = sections(corpora, **sets)
    infos = fetch(given)
    preprocess(given)
    return infos


def logmels(root: Path, name: str) -> dict[str, np.ndarray]:
    """YouTube's id -> log-mel, from a store."""
    store = Store(root / "data/tiny/logmel" / name)
    ids = [next(each for each in CLIPS if each in clip) for clip in store.clip_ids]
    return {clip: store.clip(i) for i, clip in enumerate(ids)}


# ------------------------------------------------------------------------------ the three routes


def test_three_layouts_of_the_same_clips_give_the_same_logmels(
    project: Path, capsys: pytest.CaptureFixture
) -> None:
    folders = write_folders(project / "a")
    parts = [f"{folders}/balanced_train_segments", f"{folders}/unbalanced_train_segments"]
    shared = project / "kaggle"  # Y<id>.wav, as in the 32 kHz collection
    shared.mkdir()
    for clip in CLIPS:
        (shared / f"Y{clip}.{CLIPS[clip][4]}").write_bytes(content(clip))
    sets = {
        "folders": {"source": "folder", "audio": parts},
        "flat": {"source": "folder", "audio": str(shared)},
        "tars": {"source": "packed", "shards": str(write_tars(project / "b"))},
        "shards": {"source": "packed", "shards": str(write_parquets(project / "c"))},
    }
    infos = prepare(dict.fromkeys(sets, 1.0), **sets)
    reference = logmels(project, "folders")
    assert reference.keys() == CLIPS.keys()
    for name in sets:
        found = logmels(project, name)
        assert found.keys() == reference.keys()
        for clip, expected in reference.items():
            np.testing.assert_array_equal(found[clip], expected)
        info = infos[name]
        assert (info["num_clips"], info["num_excluded"], info["kind"]) == (7, 0, "unlabelled")
        assert info["hours"] == round(sum(each[1] for each in CLIPS.values()) / 3600, 4)
        assert info["seconds"] == {"shortest": SHORT, "median": 0.5, "longest": 0.7}
    assert infos["tars"]["shards"] == infos["shards"]["shards"] == 2
    assert "tars: 7 clips, 0.00 h, 0.2 to 0.7 s each (median 0.5 s)\n" in capsys.readouterr().out
    manifest, _ = datasets.load(parse(FetchParams, sections({"t": 1}, **sets) | {
        "corpora": {"tars": 1.0}}), "tars")  # fmt: skip
    assert manifest["clip"].tolist()[::6] == [
        "train/000000.tar/--PJHxphWEs_30.000.wav", "train/more/000001.tar/zzZ_-0123Ab_5.000.wav"
    ]  # fmt: skip
    place = containers.member(project / "b/2m" / manifest["path"][0])
    assert place == (project / "b/2m/train/000000.tar", 512, len(content("--PJHxphWEs")))
    assert manifest["sha256"].nunique() == 7 and (manifest["group"] == manifest["clip"]).all()


def test_two_corpora_with_weights_train_together(
    project: Path, capsys: pytest.CaptureFixture
) -> None:
    write_tar(project / "audioset/0.tar", samples(CLIPS))
    (project / "own").mkdir()
    for number in range(4):
        wave = np.sin(np.arange(8000) / (5 + number)) / 3
        soundfile.write(project / f"own/{number}.wav", wave, 16000)
    sets = {"audioset": {"source": "packed", "shards": "audioset"}}
    sets |= {"own": {"source": "folder", "audio": "own"}}
    prepare({"audioset": 1.0, "own": 2.5}, **sets)
    short = tiny.sections(pretrain={"epochs": 1.0})
    params = {"profile": "tiny", "storage": None, "runs": {"base": {}}} | short
    metrics = pretrain("base", params)["seed_0"]
    assert (metrics["steps"], metrics["clips"], metrics["clips_shorter_than_a_crop"]) == (4, 10, 1)
    assert np.isfinite(metrics["total_loss"])
    told = "base: 1 of 11 clips are left out: shorter than the 32 frames of a crop\n"
    assert told in capsys.readouterr().out


# --------------------------------------------------------------------------------------- members


def bad_and_good() -> dict[str, bytes]:
    """Name -> content of a file that can be read, or cannot."""
    made = {"header.wav": b"RIFF" + bytes(16), "text.wav": b"this is no audio\n" * 20}
    nan = np.full((3200, 1), np.nan)
    made |= {"empty.wav": b"", "nan.wav": faults.encoded(nan, "WAV", "FLOAT")}
    for kind, data in faults.kinds(faults.RATE // 4).items():
        suffix = kind.replace(",", " ").replace("-", " ").split()[0]
        for fault in ("whole", "cut in half", "last byte missing", "says half"):
            made[f"{kind}, {fault}.{suffix}"] = faults.FAULTS[fault](data)
    return made


def test_members_are_judged_as_files_are(tmp_path: Path) -> None:
    """Same duration, checksum and reason; what is found in a tar and in a parquet file is equal."""
    made = bad_and_good()
    write_tar(tmp_path / "all.tar", made)
    column = [{"bytes": data, "path": name} for name, data in made.items()]
    write_parquet(tmp_path / "all.parquet", {"audio": column}, rows_per_group=5)
    for shard in ("all.tar", "all.parquet"):
        listing = listings.scan(tmp_path / shard)
        assert [name for name, *_ in listing.members] == list(made) and listing.problem == ""
        for name, first, second in listing.members:
            (tmp_path / name).write_bytes(made[name])
            expected = reading.check(tmp_path / name)
            found = reading.check(tmp_path / f"{shard}::{first}+{second}")
            assert (found.duration_s, found.sha256) == (expected.duration_s, expected.sha256), name
            if found.problem.startswith("not audio"):  # libsndfile's words differ
                assert expected.problem.startswith("not audio")
            else:
                assert found.problem == expected.problem
            assert not found.problem or ", whole" not in name, name
            if not found.problem:
                path = tmp_path / f"{shard}::{first}+{second}"
                for part in ({}, {"start_s": 0.05, "duration_s": 0.05}):
                    ours, theirs = reading.read(path, **part), reading.read(tmp_path / name, **part)
                    assert ours[1] == theirs[1]
                    np.testing.assert_array_equal(ours[0], theirs[0])
    assert reading.check(tmp_path / "gone.tar::512+4").problem == "missing file"
    assert reading.check(tmp_path / "gone.parquet::0+0").problem == "missing file"


@pytest.mark.parametrize("make", [pa.binary(), pa.large_binary(), pa.binary_view()], ids=str)
def test_plain_columns_of_bytes(tmp_path: Path, make: pa.DataType) -> None:
    """Without names a clip is called by its row; a converted WebDataset has keys."""
    some = list(CLIPS)[:5]
    data = pa.array([content(clip) for clip in some], type=make)
    write_parquet(tmp_path / "in/a.parquet", {"flac": data, "label": [1, 2, 3, 4, 5]})
    write_parquet(tmp_path / "in/b.parquet", {"__key__": [f"k{i}" for i in range(5)], "x": data})
    manifest, info = manifest_of(tmp_path / "in")
    assert manifest["clip"].tolist() == [
        *(f"a.parquet::{group}+{row}" for group, row in [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0)]),
        *(f"b.parquet/k{i}" for i in range(5)),
    ]  # fmt: skip
    assert (manifest["excluded"] == "").all() and info["names_of_several_clips"] == 0
    assert manifest["duration_s"].tolist()[:3] == pytest.approx([0.6, 0.5, SHORT])


def test_parquet_files_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    root = tmp_path / "in"
    good = [{"bytes": content("--PJHxphWEs"), "path": "a.wav"}]
    blank = [{"bytes": None, "path": "b.wav"}, None, {"bytes": b"", "path": None}]
    write_parquet(root / "good.parquet", {"audio": good + blank, "thumbnail": [b"1"] * 4})
    write_parquet(root / "two.parquet", {"left": [b"1"], "right": [b"2"]})
    write_parquet(root / "none.parquet", {"text": ["a"]})
    (root / "cut.parquet").write_bytes((root / "good.parquet").read_bytes()[:-100])
    (root / "zero.parquet").touch()
    (root / "nowhere.parquet").symlink_to("gone")
    manifest, _ = manifest_of(root, max_bad_fraction=0.9)
    found = manifest.set_index("clip")["excluded"]
    assert found["good.parquet/a.wav"] == ""
    assert found[-3:].tolist() == ["no bytes in this row"] * 2 + ["zero bytes"]
    wanted = "needed: one column of bytes, or one called 'audio')"
    assert found["two.parquet"] == f"cannot be read (got left, right; {wanted}"
    assert found["none.parquet"] == f"cannot be read (got none; {wanted}"
    for name in ("cut", "zero", "nowhere"):
        assert found[f"{name}.parquet"].startswith("cannot be read (")
    assert len(found) == 4 + 5
    with pytest.raises(ValueError, match=r"5 of 6 shards cannot be used, .*max_bad_fraction 0\.8"):
        manifest_of(root, max_bad_fraction=0.8)


def test_a_damaged_row_group_loses_its_own_rows(tmp_path: Path) -> None:
    rows = [{"bytes": content("--PJHxphWEs"), "path": f"{i}.wav"} for i in range(6)]
    path = write_parquet(tmp_path / "in/a.parquet", {"audio": rows})
    chunk = pq.ParquetFile(path).metadata.row_group(1).column(0)
    data = bytearray(path.read_bytes())
    begin = chunk.dictionary_page_offset or chunk.data_page_offset
    data[begin : begin + 2000] = b"\xff" * 2000
    path.write_bytes(data)
    manifest, _ = manifest_of(tmp_path / "in")
    reasons = manifest["excluded"].str.partition(" (")[0].tolist()
    assert reasons == ["", "", "cannot be read", "cannot be read", "", ""]
    assert "row group 1" in manifest["excluded"][2]


# -------------------------------------------------------------------------------------- damaged


def headers(path: Path) -> dict[str, tuple[int, int]]:
    """Name -> where its header and its content begin."""
    with tarfile.open(path) as tar:
        return {each.name: (each.offset, each.offset_data) for each in tar}


HARM: dict[str, tuple[Callable, str, str]] = {
    "content": (lambda data, at: data[: at["c.wav"][1] + 1000], "abC", "cut off"),
    "header": (lambda data, at: data[: at["c.wav"][0] + 100], "ab", "perhaps cut off"),
    "between": (lambda data, at: data[: at["c.wav"][0]], "ab", "perhaps cut off"),
    "of json": (lambda data, at: data[: at["c.json"][1] + 1], "abc", "cut off"),
    "one": (
        lambda data, at: data[: at["b.wav"][0]] + b"\xff" * 512 + data[at["b.wav"][1] :],
        "acd", r"damaged between the bytes \d+ and \d+",
    ),
    "hole": (
        lambda data, at: data[: at["c.wav"][0]] + bytes(512) + data[at["c.wav"][1] :],
        "abd", "damaged between",
    ),
    "end": (
        lambda data, at: data[: at["d.wav"][0]] + b"\xff" * (len(data) - at["d.wav"][0]),
        "abc", r"damaged from byte \d+ on",
    ),
    "preallocated": (
        lambda data, at: data[: at["b.wav"][0]] + bytes(2 << 20), "a", "damaged from byte"
    ),
}  # fmt: skip
"""What is done to a tar, the members that are found (one in capitals is cut), and what is said."""


@pytest.mark.parametrize("name", HARM)
def test_a_damaged_tar_loses_only_what_is_unreadable(tmp_path: Path, name: str) -> None:
    harm, found, problem = HARM[name]
    members, clips = {}, [list(CLIPS)[number] for number in (0, 2, 1, 3)]  # c is FLAC
    for letter, clip in zip("abcd", clips, strict=True):
        members[f"{letter}.wav"], members[f"{letter}.json"] = content(clip), b"{}"
    path = write_tar(tmp_path / "in/bad.tar", members)
    write_tar(tmp_path / "in/good.tar", samples(["zzZ_-0123Ab"]))
    path.write_bytes(harm(path.read_bytes(), headers(path)))
    manifest, info = manifest_of(tmp_path / "in")
    rows = manifest.set_index("clip")["excluded"]
    assert re.match(problem, rows["bad.tar"]) and manifest["clip"][0] == "bad.tar"
    reasons = {clip[8]: reason for clip, reason in rows.items() if clip.startswith("bad.tar/")}
    assert list(reasons) == list(found.lower())
    for letter in found:
        reason = reasons[letter.lower()]
        assert reason.startswith("truncated: the last ") if letter.isupper() else reason == ""
    assert datasets.summarise(manifest, info)["excluded"][0]["clip"] == "bad.tar"


def test_one_block_of_zeros_ends_a_tar(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", {"a.wav": bytes(1000)})
    whole = path.read_bytes()[: 512 + 1024]
    for zeros, problem in ((512, ""), (511, "perhaps cut off: it ends without the mark of its e")):
        path.write_bytes(whole + bytes(zeros))
        found = listings.scan(path).problem
        assert found.startswith(problem) and bool(found) == bool(problem)


def test_what_tars_are_made_of(tmp_path: Path) -> None:
    """Long and foreign names, headers about all members, joined tars, links, folders."""
    long = "x" * 150 + "/" + "ü" * 60 + "_30.000.wav"
    data = content("--PJHxphWEs")
    members = {"./a.wav": data, long: data, "b.WAV": data, ".hidden/c.wav": data}
    for name, options in {
        "gnu": {"format": tarfile.GNU_FORMAT},
        "pax": {"format": tarfile.PAX_FORMAT, "pax_headers": {"comment": "made by git"}},
    }.items():
        path = write_tar(tmp_path / f"{name}.tar", members, **options)
        listing = listings.scan(path)
        assert [found for found, *_ in listing.members] == ["./a.wav", long, "b.WAV"], name
        assert listing.problem == "", name
    one, two = (tmp_path / f"{name}.tar" for name in ("gnu", "pax"))
    (tmp_path / "joined.tar").write_bytes(one.read_bytes() + two.read_bytes())
    joined = listings.scan(tmp_path / "joined.tar")
    assert len(joined.members) == 6 and joined.problem == ""
    for _, first, second in joined.members:
        place = containers.Member(tmp_path / "joined.tar", first, second)
        assert containers.read(place) == data
    with tarfile.open(tmp_path / "odd.tar", "w") as tar:
        for name, kind, link in [
            ("folder.wav", tarfile.DIRTYPE, ""), ("hard.wav", tarfile.LNKTYPE, "a.wav"),
            ("soft.wav", tarfile.SYMTYPE, "a.wav"), ("pipe.wav", tarfile.FIFOTYPE, ""),
            ("device.wav", tarfile.CHRTYPE, ""),
        ]:  # fmt: skip
            header = tarfile.TarInfo(name)
            header.type, header.linkname = kind, link
            tar.addfile(header)
        header = tarfile.TarInfo("holes.wav")  # as `tar -S` leaves what is mostly silence
        header.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}
        header.pax_headers |= {"GNU.sparse.name": "holes.wav", "GNU.sparse.realsize": "9000"}
        header.size = 512 + 5
        tar.addfile(header, io.BytesIO(b"1\n8995\n5\n".ljust(512, b"\0") + b"sound"))
    odd = listings.scan(tmp_path / "odd.tar")
    assert odd.members == [] and odd.problem == (
        "hard.wav: a link, or stored with holes; soft.wav: a link, or stored with holes; "
        "pipe.wav: a link, or stored with holes; and 2 more"
    )
    assert odd.problems[-1].startswith("holes.wav")


def test_tars_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    root = tmp_path / "in"
    write_tar(root / "good.tar", samples(CLIPS))
    write_tar(root / "labels.tar", {"a.json": b"{}"})
    for name, compression in (("a.tar.gz", "gz"), ("b.tgz", "gz"), ("lying.tar", "gz")):
        with tarfile.open(root / name, f"w:{compression}") as tar:
            tar.add(root / "good.tar", "a.wav")
    (root / "empty.tar").touch()
    (root / "text.tar").write_text("this is no tar\n" * 100)
    manifest, info = manifest_of(root, max_bad_fraction=0.9)
    lost = manifest.set_index("clip")["excluded"][:6].to_dict()
    for name in ("lying.tar", "text.tar"):
        assert lost.pop(name).startswith("cannot be read (")
    compressed = "cannot be read (compressed, so its members cannot be reached one by one)"
    assert lost == {
        "a.tar.gz": compressed, "b.tgz": compressed,
        "empty.tar": "cannot be read (empty file)", "labels.tar": "no audio in it",
    }  # fmt: skip
    assert (manifest["excluded"][6:] == "").all() and info["shards"] == 7
    with pytest.raises(ValueError, match=r"set: 6 of 7 shards cannot be used.*\n  a.tar.gz: cann"):
        manifest_of(root)
    with pytest.raises(ValueError, match=r"set: no shards, needed: \.tar, \.parquet files"):
        manifest_of(root, shards=[])


@pytest.mark.parametrize("name", TRAPS)
def test_records_of_a_shard_decide_neither_memory_nor_time(tmp_path: Path, name: str) -> None:
    """Each took gigabytes, minutes or forever, or came without the name of the shard."""
    good = write_tar(tmp_path / "good.tar", {"a.wav": b"1"})
    trapped = write_tar(tmp_path / "trapped.tar", {"b.wav": b"2" * 600})
    path = tmp_path / "shard.tar"
    path.write_bytes(good.read_bytes()[:1024] + TRAPS[name] + trapped.read_bytes())
    with memory_for(100_000_000):
        listing = listings.scan(path)
    name, first, second = listing.members[0]
    assert name == "a.wav" and listing.problem
    assert containers.read(containers.Member(path, first, second)) == b"1"


@pytest.mark.parametrize("size", [8 << 30, (1 << 63) - 512, -512, -7168])
def test_the_size_of_a_member_is_bounded_by_its_shard(tmp_path: Path, size: int) -> None:
    header = tarfile.TarInfo("a.wav")
    header.size = size
    path = tmp_path / "shard.tar"
    path.write_bytes(header.tobuf(tarfile.GNU_FORMAT) + bytes(10_240))
    with memory_for(100_000_000):
        listing = listings.scan(path)
        assert listing.problem.startswith(("cut off", "damaged at byte 0: "))
        for _, first, second in listing.members:
            with pytest.raises(reading.UnusableAudioError, match="truncated: the last 8589924352"):
                containers.read(containers.Member(path, first, second))


@pytest.mark.skipif(not RECORDED.exists(), reason="the recorded inputs are not beside the project")
def test_recorded_shards_give_one_problem_each() -> None:
    for path in RECORDED.glob("listing_*"):
        assert listings.scan(path).problem, path


def test_copies_of_a_clip_are_left_out_but_equal_names_are_not(tmp_path: Path) -> None:
    """Numbers that start anew in each shard are no names of the same clip."""
    one, two = content("--PJHxphWEs"), content("zzZ_-0123Ab")
    write_tar(tmp_path / "in/a.tar", {"000.wav": one, "001.wav": two, "002.wav": b"no audio"})
    write_tar(
        tmp_path / "in/b/b.tar", {"x/000.wav": two, "y/001.flac": two, "002.wav": b"no audio"}
    )
    rows = [{"bytes": one, "path": "000.wav"}, {"bytes": one, "path": None}]
    write_parquet(tmp_path / "in/c.parquet", {"audio": rows})
    again = tmp_path / "in/d.tar"
    with tarfile.open(again, "w") as tar:  # the same name twice, as after `tar -r`
        for data in (one, two):
            header = tarfile.TarInfo("003.wav")
            header.size = len(data)
            tar.addfile(header, io.BytesIO(data))
    manifest, info = manifest_of(tmp_path / "in")
    assert manifest["clip"].is_unique
    found = manifest.set_index("clip")["excluded"].to_dict()
    second = 512 + (len(one) + 511) // 512 * 512 + 512
    assert {clip: reason for clip, reason in found.items() if not clip.endswith("002.wav")} == {
        "a.tar/000.wav": "",
        "a.tar/001.wav": "",
        "b/b.tar/x/000.wav": "",
        "b/b.tar/y/001.flac": "duplicate: name and content of a.tar/001.wav",
        "c.parquet/000.wav": "duplicate: name and content of a.tar/000.wav",
        "c.parquet::0+1": "",
        f"d.tar/003.wav (512+{len(one)})": "",
        f"d.tar/003.wav ({second}+{len(two)})": "",
    }
    assert found["b/b.tar/002.wav"].startswith("not audio")  # no copy, but useless by itself
    assert info["names_of_several_clips"] == 2  # 000 and 003


def test_the_stage_tells_of_names_and_damage(project: Path, capsys: pytest.CaptureFixture) -> None:
    one, two, three = (content(clip) for clip in list(CLIPS)[:3])
    write_tar(project / "in/a.tar", {"000.wav": one, "001.wav": three})
    path = write_tar(project / "in/b.tar", {"000.wav": two, "001.wav": three, "002.wav": one})
    path.write_bytes(path.read_bytes()[: headers(path)["002.wav"][1] + 5000])
    fetch(sections({"set": 1.0}, set={"source": "packed", "shards": "in"}))
    assert capsys.readouterr().out.startswith(
        "set: 3 clips, 0.00 h, 0.2 to 0.6 s each (median 0.5 s), 3 excluded:\n"
        "  b.tar: cut off\n"
        "  b.tar/001.wav: duplicate: name and content of a.tar/001.wav\n"
        f"  b.tar/002.wav: truncated: the last {len(one) - 5000} bytes are missing\n"
        "  names that several different clips have, all kept: 1\n"
    )


# ------------------------------------------------------------------------------ kept and resumed


def test_unchanged_containers_are_not_read_again(
    tmp_path: Path, scanned: list[str], checked: list[str]
) -> None:
    root, names = tmp_path / "in", list(CLIPS)

    def read_now() -> tuple[pd.DataFrame, list[str], list[str]]:
        scanned.clear(), checked.clear()
        manifest, _ = manifest_of(root)
        return manifest, list(scanned), [name.partition("::")[0] for name in checked]

    write_tar(root / "a.tar", samples(names[:2]))
    write_tar(root / "b.tar", samples(names[2:4]))
    write_parquet(root / "c.parquet", {"audio": [content(clip) for clip in names[4:]]})
    first, containers, members = read_now()
    assert containers == ["a.tar", "b.tar", "c.parquet"] and len(members) == 7
    second, *read = read_now()
    pd.testing.assert_frame_equal(first, second)
    assert read == [[], []]
    write_tar(root / "b.tar", samples(names[2:3]))
    third, *read = read_now()
    assert read == [["b.tar"], ["b.tar"]]
    assert third["clip"].tolist() == [*first["clip"][:3], *first["clip"][4:]]
    (root / "a.tar").unlink()
    (root / "d.tar").write_text("no tar")
    for _ in range(2):  # what gives nothing is tried again
        fourth, containers, _ = read_now()
        assert containers == ["d.tar"]
    assert fourth["clip"].tolist() == ["d.tar", *third["clip"][2:]]


def test_an_interrupted_scan_is_continued(
    tmp_path: Path, scanned: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (packed, audit):
        monkeypatch.setattr(module, "SECONDS_BETWEEN_SAVES", 0.0)
    monkeypatch.setattr(audit, "FILES_PER_JOB", 1)
    for letter, clip in zip("abc", CLIPS, strict=False):
        write_tar(tmp_path / f"in/{letter}.tar", samples([clip]))
    (tmp_path / "in/a.tar").write_bytes((tmp_path / "in/a.tar").read_bytes()[:-10240])
    scanned.until = "c.tar"
    with pytest.raises(KeyboardInterrupt):
        manifest_of(tmp_path / "in")
    scanned.until = ""
    manifest, _ = manifest_of(tmp_path / "in")
    assert scanned == ["a.tar", "b.tar", "c.tar"]
    assert len(manifest) == 4 and "cut off" in manifest["excluded"][0]
    assert manifest["duration_s"].tolist()[2:] == [0.5, SHORT]
    pd.testing.assert_frame_equal(manifest, manifest_of(tmp_path / "in")[0])


def test_a_rewritten_parquet_file_is_read_anew(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    for data in (b"one", b"two"):
        write_parquet(path, {"audio": [data]})
        os.utime(path, ns=(0, int.from_bytes(data)))
        assert containers.read(containers.Member(path, 0, 0)) == data
    with pytest.raises(reading.UnusableAudioError, match="no such row"):
        containers.read(containers.Member(path, 0, 1))
    with pytest.raises(reading.UnusableAudioError, match="no such row group"):
        containers.read(containers.Member(path, 1, 0))


def test_what_is_made_does_not_depend_on_the_workers(project: Path) -> None:
    """Threads here; processes are started for more clips."""
    write_tars(project / "b")
    write_parquets(project / "b")
    given = sections({"set": 1.0}, set={"source": "packed", "shards": "b"})
    shards, manifests = [], []
    for workers in (1, 3):
        given["logmel"] = LOGMEL | {"workers": workers}
        given["storage"] = f"bulk{workers}"
        fetch(given)
        index = preprocess(given)["stores"]["set"]
        shards.append([entry["sha256"] for entry in index["shards"]])
        manifests.append((project / "data/tiny/manifests/set.parquet").read_bytes())
    assert shards[0] == shards[1] and manifests[0] == manifests[1]


# ------------------------------------------------------------------------------------ parameters


def test_what_the_parameters_may_name(project: Path) -> None:
    """Folders, files and patterns, also several; a clip in two of them is one."""
    for name in ("x/a.tar", "x/deep/b.tar", "y/c-1.tar", "y/c-2.tar", "y/.d.tar"):
        write_tar(project / name, samples(CLIPS))
    (project / "y/c-3.tar.tmp").touch()

    def params_of(*entries: str) -> FetchParams:
        dataset = {"source": "packed", "shards": list(entries)}
        return parse(FetchParams, sections({"set": 1.0}, set=dataset))

    def named(*entries: str) -> list[str]:
        params = params_of(*entries)
        assert sources.missing_files(params, names=["set"]) == []
        folder = datasets.audio_folder(params, "set")
        found = {path for entry in entries for path in sources.shards(entry)}
        seen = sources.sources(params)["set"]
        assert [each["num_files"] for each in seen] == [len(sources.shards(e)) for e in entries]
        return [folder.relative_to(project).as_posix()] + [
            path.relative_to(folder).as_posix() for path in sorted(found)
        ]

    assert named("x") == ["x", "a.tar", "deep/b.tar"]
    assert named("x/a.tar") == ["x", "a.tar"]
    assert named("y/c-*.tar*") == ["y", "c-1.tar", "c-2.tar"]
    assert named("y/c-[13].tar") == ["y", "c-1.tar"]
    assert named("?/*.tar", "x/**/b.tar") == [
        ".", "x/a.tar", "x/deep/b.tar", "y/.d.tar", "y/c-1.tar", "y/c-2.tar"
    ]  # fmt: skip
    assert named("x/deep", "x", "y/c-1.tar") == [
        ".", "x/a.tar", "x/deep/b.tar", "y/c-1.tar"
    ]  # fmt: skip
    before = sources.sources(params_of("y/c-*.tar*"))
    (project / "y/notes.txt").write_text("no shard")
    assert sources.sources(params_of("y/c-*.tar*")) == before
    os.utime(project / "y/c-1.tar", ns=(0, 0))
    assert sources.sources(params_of("y/c-*.tar*")) != before
    with pytest.raises(FileNotFoundError) as error:
        sources.sources(params_of("x/c-*.tar", "z"))
    for name in ("x/c-*.tar", "z"):
        said = f"datasets.set.shards: no folder or file {project}/{name}"
        assert said in str(error.value)
