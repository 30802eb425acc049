"""Audio files, good and bad, and CSVs become manifests that name what is left out and why."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile

from matpac.audio import reading
from matpac.core import files
from matpac.core.parallel import Workers
from matpac.data import audit, manifests
from matpac.data.config import FetchParams
from matpac.data.fetch import fetch
from matpac.data.folders import folder_manifest, plain_manifest
from matpac.data.labels import in_order, not_trained
from matpac.data.tables import read_rows, read_table
from matpac.params import parse

TASK = "filename,class,fold\na.wav,owl,1\nb.wav,owl,1\nc.wav,owl,2\nd.wav,owl,2\n"
TASK += "e.wav,jay,1\nf.wav,jay,2\n"
"""The smallest that every fold can be trained on without the other."""
LOGMEL = {"sample_rate": 16000, "window_ms": 25.0, "hop_ms": 10.0, "num_mels": 80}
LOGMEL |= {"fmin_hz": 50.0, "fmax_hz": 8000.0, "mean": None, "std": None, "workers": 1}
LOGMEL |= {"max_bad_fraction": 0.5, "shard_mb": 100}


def write_tone(
    path: Path, *, rate: int = 16000, channels: int = 1, duration_s: float = 0.2
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    wave = 0.3 * np.sin(np.arange(round(rate * duration_s)) / 7)
    soundfile.write(path, np.stack([wave] * channels, axis=1), rate)


def write_csv(folder: Path, text: str) -> Path:
    path = folder / "clips.csv"
    path.write_text(text)
    return path


def place(folder: Path) -> dict[str, Any]:
    """Where and by whom files are checked."""
    return {"cache": folder / "cache", "workers": Workers(1, preload="matpac.data.audit")}


def manifest_of(folder: Path, text: str, **columns: Any) -> tuple[pd.DataFrame, dict[str, Any]]:
    """The manifest of ``folder``/audio and a CSV of this text."""
    given = place(folder) | {"audio_folder": folder / "audio", "csv": write_csv(folder, text)}
    return folder_manifest("birds", **given, **columns)


def plain(relative_to: Path, *folders: Path) -> tuple[pd.DataFrame, dict[str, Any]]:
    """The manifest of folders without a CSV."""
    given = place(relative_to / ".hidden") | {"relative_to": relative_to}
    return plain_manifest("birds", folders=list(folders), **given)


def parse_params(folder: Path, **logmel: Any) -> FetchParams:
    """A profile with one folder data set, "birds"."""
    birds = {"source": "folder", "audio": "audio", "csv": "clips.csv"}
    birds |= {"labels": "class", "kind": "multiclass", "fold": "fold"}
    sections = {"profile": "mini", "storage": None, "datasets": {"birds": birds}}
    sections |= {"corpora": {"birds": 1.0}, "tasks": ["birds"], "logmel": LOGMEL | logmel}
    return parse(FetchParams, sections)


@pytest.fixture
def four_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The project, too."""
    monkeypatch.setenv("MATPAC_ROOT", str(tmp_path))
    for name in "abcd":
        write_tone(tmp_path / "audio" / f"{name}.wav")
    return tmp_path


@pytest.fixture
def task_files(four_files: Path) -> Path:
    """With those of `TASK`."""
    write_csv(four_files, TASK)
    for name in "ef":
        write_tone(four_files / "audio" / f"{name}.wav")
    return four_files


def test_each_bad_file_is_named_with_its_reason(tmp_path: Path) -> None:
    """What else can be wrong with a file: tests/audio/test_faults.py."""
    folder = tmp_path / "audio"
    write_tone(folder / "good.wav")
    write_tone(folder / "stereo96.wav", rate=96000, channels=2)
    write_tone(folder / "exact_window.wav", duration_s=0.025)
    write_tone(folder / "short.wav", duration_s=0.01)
    (folder / "cut.wav").write_bytes((folder / "good.wav").read_bytes()[:-1000])
    (folder / "empty.wav").write_bytes(b"")
    (folder / "text.wav").write_text("this is no audio\n" * 20)
    reasons = {
        "good.wav": "", "stereo96.wav": "", "exact_window.wav": "",
        "short.wav": "shorter than one window (10.0 ms, needed 25 ms)",
        "cut.wav": "truncated", "empty.wav": "zero bytes", "text.wav": "not audio",
        "nowhere.wav": "missing file",
    }  # fmt: skip
    manifest, info = manifest_of(tmp_path, "\n".join(["filename", *reasons, "good.wav"]))
    found = dict(zip(manifest["clip"], manifest["excluded"], strict=True))
    assert found.pop("good.wav (line 10)") == "duplicate row: the file is already in the table"
    assert found.keys() == reasons.keys()
    for clip, reason in reasons.items():
        assert found[clip].startswith(reason) and bool(found[clip]) == bool(reason), clip
    used = manifest[manifest["excluded"] == ""].set_index("clip")
    assert used.loc["stereo96.wav", "duration_s"] == 0.2
    assert used.loc["good.wav", "sha256"] == files.sha256(folder / "good.wav")
    assert (manifest["sha256"] != "").sum() == len(used) + 2  # and the short and the repeated one
    assert info["kind"] == "unlabelled" and info["metric"] is None


def test_multiclass_folds(four_files: Path) -> None:
    text = "filename,class,fold,take\na.wav,owl,3,x\nb.wav,crow,10,y\nc.wav,,3,z\nd.wav,owl,,x\n"
    manifest, info = manifest_of(
        four_files, text, labels="class", kind="multiclass", fold="fold", group="take"
    )
    assert info["classes"] == ["crow", "owl"] and info["num_folds"] == 2
    assert (info["metric"], info["split_scheme"]) == ("accuracy", "folds")
    assert manifest["label"].tolist() == [1, 0, -1, 1]
    assert manifest["fold"].tolist() == [1, 2, 1, 0]  # 3 comes before 10
    assert manifest["group"].tolist() == ["x", "y", "z", "x"]
    assert manifest["excluded"].tolist() == [
        "", "", "blank label in column 'class'", "blank fold in column 'fold'"
    ]  # fmt: skip
    info = manifests.summarise(manifest, info)
    assert info["folds"] == [1, 1] and info["validation"] == "drawn" and info["num_clips"] == 2


def test_multilabel_columns_with_unobserved_cells(four_files: Path) -> None:
    write_tone(four_files / "audio/e.wav")
    text = "filename,owl,crow,part\na.wav,1,,train\nb.wav,0,1,val\nc.wav,,,test\nd.wav,2,1,eval\n"
    manifest, info = manifest_of(
        four_files, text + "e.wav,1,1,test", labels=["owl", "crow"], kind="multilabel", split="part"
    )
    np.testing.assert_array_equal(np.stack(manifest["labels"][:2]), [[1, np.nan], [0, 1]])
    assert manifest["split"].tolist() == ["train", "valid", "test", "test", "test"]
    assert manifest["excluded"][2] == "blank label: no class is observed"
    assert manifest["excluded"][3].startswith("unknown label: allowed in a 0/1 column")
    assert info["classes"] == ["owl", "crow"] and info["metric"] == "map"
    assert manifests.summarise(manifest, info)["validation"] == "given"


def test_multilabel_in_one_column(four_files: Path) -> None:
    text = 'filename\ttags\tpart\na\t"owl; crow"\ttrain\nb.wav\t\ttest\n'
    manifest, info = manifest_of(
        four_files, text, labels="tags", separator=";", kind="multilabel", split="part"
    )
    assert info["classes"] == ["crow", "owl"]
    np.testing.assert_array_equal(np.stack(manifest["labels"]), [[1, 1], [0, 0]])
    assert manifest["path"].tolist() == ["a.wav", "b.wav"]  # a name without its extension
    assert (manifest["excluded"] == "").all()  # no tag is an observation
    assert manifests.summarise(manifest, info)["validation"] == "drawn"


def test_classes_are_those_of_clips_that_can_be_used(four_files: Path) -> None:
    rows = "a.wav,owl;crow,1\nb.wav,owl,2\nnowhere.wav,eagle;owl,1\nc.wav,kite,\n"
    columns = {"labels": "class", "fold": "fold"}
    text = "filename,class,fold\n" + rows
    manifest, info = manifest_of(four_files, text, separator=";", kind="multilabel", **columns)
    assert info["classes"] == ["crow", "owl"]
    assert manifest["path"].tolist() == ["a.wav", "b.wav", "c.wav", "nowhere.wav"]
    assert np.stack(manifest["labels"]).tolist() == [[1, 1], [0, 1], [0, 0], [0, 1]]
    manifest, info = manifest_of(four_files, text, kind="multiclass", **columns)
    assert info["classes"] == ["owl", "owl;crow"]
    assert manifest["label"].tolist() == [1, 0, -1, -1]
    assert manifest["excluded"].tolist() == ["", "", "blank fold in column 'fold'", "missing file"]


def test_the_order_of_rows_decides_nothing(four_files: Path) -> None:
    lines = ["a.wav,owl,1,x", "b.wav,crow,2,y", "c.wav,,2,y", "d.wav,crow,1,x", "gone.wav,owl,2,z"]
    columns = {"labels": "class", "kind": "multiclass", "fold": "fold", "group": "take"}
    header = "filename,class,fold,take\n"
    before = manifest_of(four_files, header + "\n".join(lines), **columns)
    after = manifest_of(four_files, header + "\n".join(lines[::-1]), **columns)
    pd.testing.assert_frame_equal(before[0], after[0])
    assert before[1] == after[1] and before[0]["group"].tolist() == ["x", "y", "y", "x", "z"]


def test_folders_without_a_csv(four_files: Path, tmp_path: Path) -> None:
    """Every audio file in any of them once; other and hidden files are not looked at."""
    for path in ("more/x/e.flac", "more/f.OGG", "more/.hidden.wav", "audio/deep/er/g.mp3"):
        write_tone(tmp_path / path)
    (tmp_path / "more/notes.txt").write_text("not audio")
    (tmp_path / "more/bad.wav").write_text("not audio")
    folders = [tmp_path / name for name in ("audio", "more", "audio/deep")]
    manifest, info = plain(tmp_path, *folders)
    assert manifest["path"].tolist() == [
        "audio/a.wav", "audio/b.wav", "audio/c.wav", "audio/d.wav", "audio/deep/er/g.mp3",
        "more/bad.wav", "more/f.OGG", "more/x/e.flac",
    ]  # fmt: skip
    bad = manifest[manifest["excluded"] != ""]
    assert bad["path"].tolist() == ["more/bad.wav"] and bad["excluded"].item().startswith("not aud")
    info = manifests.summarise(manifest, info)
    assert (info["num_clips"], info["kind"], info["split_scheme"]) == (7, "unlabelled", None)
    alone, _ = plain(folders[1], folders[1])
    assert alone["path"].tolist() == ["bad.wav", "f.OGG", "x/e.flac"]
    (tmp_path / "empty").mkdir()
    said = r"no audio file in .*/empty, allowed: \.wav.*source packed"
    with pytest.raises(ValueError, match=said):
        plain(tmp_path, tmp_path / "empty")
    with pytest.raises(FileNotFoundError, match="birds: no audio folder"):
        plain(tmp_path, tmp_path / "gone")


def test_a_file_whose_name_is_not_utf8_is_named_and_left_out(four_files: Path) -> None:
    try:
        (four_files / "audio/d.wav").rename(four_files / "audio" / os.fsdecode(b"caf\xe9.wav"))
    except OSError:
        pytest.skip("this file system has no such names")
    manifest, info = plain(four_files / "audio", four_files / "audio")
    assert manifest["path"].tolist() == ["a.wav", "b.wav", "c.wav", r"caf\udce9.wav"]
    assert manifest["excluded"].tolist() == ["", "", "", "its name is not UTF-8"]
    manifests.save(four_files, manifest, info)


def test_the_stage_takes_several_folders(four_files: Path) -> None:
    write_tone(four_files / "b/audio/e.wav")
    birds = {"source": "folder", "audio": ["audio", "b/audio"]}
    sections = parse_params(four_files).model_dump() | {"datasets": {"birds": birds}}
    sections |= {"tasks": ["mine"]}
    mine = {"source": "folder", "audio": "audio", "csv": "clips.csv", "labels": "class"}
    sections["datasets"]["mine"] = mine | {"kind": "multiclass", "split": "part"}
    rows = "a.wav,owl,train\nb.wav,owl,valid\nc.wav,jay,train\nd.wav,jay,test\n"
    write_csv(four_files, f"filename,class,part\n{rows}")
    params = parse(FetchParams, sections)
    assert fetch(params)["birds"]["num_clips"] == 5
    assert manifests.audio_folder(params, "birds") == four_files
    assert manifests.audio_folder(params, "mine") == four_files / "audio"
    manifest, _ = manifests.load(params, "birds")
    assert manifest["path"].iloc[[0, -1]].tolist() == ["audio/a.wav", "b/audio/e.wav"]


def test_a_file_under_two_spellings_of_its_name_is_a_duplicate(four_files: Path) -> None:
    write_tone(four_files / "audio/below/e.wav")
    names = ["a.wav", "./a.wav", "below//e.wav", "e", "b", "b.wav", "below/../c.wav", ""]
    text = "filename,\n" + ",\n".join(names) + ",\n"
    manifest, _ = manifest_of(four_files, text)
    located = ["", "a.wav", "a.wav", "b.wav", "b.wav", "below/e.wav", "below/e.wav", "c.wav"]
    assert manifest["path"].tolist() == located
    again = "duplicate row: the file is already in the table"
    assert manifest["excluded"].tolist() == ["blank file name", *["", again] * 3, ""]
    assert manifest["clip"].tolist()[:3] == ["(line 9)", "a.wav", "./a.wav (line 3)"]
    assert manifest["clip"].is_unique


def test_bare_names_are_found_in_folders_below_if_unique(tmp_path: Path) -> None:
    for path in ("fold1/a.wav", "fold2/b.wav", "fold3/b.wav"):
        write_tone(tmp_path / "audio" / path)
    manifest, _ = manifest_of(tmp_path, "filename\na.wav\nb.wav\nfold2/b.wav\n")
    problems = manifest.set_index("path")["excluded"].to_dict()
    several = "several files below have this name"
    assert problems == {"fold1/a.wav": "", "b.wav": several, "fold2/b.wav": ""}
    write_tone(tmp_path / "other disk/c.wav")
    (tmp_path / "audio/fold4").symlink_to(tmp_path / "other disk")
    assert manifest_of(tmp_path, "filename\nc\n")[0]["path"].item() == "fold4/c.wav"


def test_names_that_differ_as_other_systems_do_are_found(tmp_path: Path) -> None:
    """macOS decomposes accents, Windows writes backslashes, and neither tells case."""
    composed = "caf\u00e9.wav"
    for name in [composed, "sub/b.WAV", "C.wav", "both.wav", "Both.wav", "x/d.wav", "y/D.wav"]:
        write_tone(tmp_path / "audio" / name)
    names = ["cafe\u0301.wav", "SUB\\b.wav", "c", "both.wav", "BOTH.wav", "d.WAV", "d.wav", "e.wav"]
    text = "\n".join(["filename", *names, "n" * 5000]) + "\n"
    manifest, _ = manifest_of(tmp_path, text)
    found = manifest.set_index("clip")["path"]
    assert found[names[0]] == composed and found[names[1]] == "sub/b.WAV"
    assert found["c"] == "C.wav" and found["both.wav"] == "both.wav" and found["d.wav"] == "x/d.wav"
    told = manifest.set_index("clip")["excluded"]
    assert told["BOTH.wav"] == told["d.WAV"] == "several files below have this name"
    assert told["e.wav"] == "missing file" and told["n" * 5000]


NOT_DRAWN = "no validation part can be drawn from"


@pytest.mark.parametrize(
    ("rows", "columns", "message"),
    [
        ("owl,1,w owl,2,x owl,1,y", {}, r"1 class \(owl\) has clips that can be used"),
        (
            "owl,1,w owl,2,x jay,1,y kea,2,z",
            {},
            "2 of 3 classes have only one clip that can be used, needed: 2, .*: 'jay', 'kea'",
        ),
        (
            "owl,1,w owl,2,x jay,1,w jay,2,x",
            {"group": "group"},
            f"{NOT_DRAWN} all folds but 1, which has 1 groups of clips",
        ),
        (
            "owl,1,w owl,2,x jay,1,y jay,2,z",
            {"kind": "multilabel", "separator": "+"},
            f"{NOT_DRAWN} all folds but 1, which has 2 groups of clips",
        ),
        (
            "owl,train,w owl,test,x jay,train,y jay,test,z",
            {"fold": None, "split": "fold"},
            f"{NOT_DRAWN} the training part, which has 2 groups of clips",
        ),
        (
            "owl,train,w jay,train,x ,test,y ,test,z",
            {"fold": None, "split": "fold", "kind": "multilabel", "separator": "+"},
            "no clip of test has a label, needed: one, to score by",
        ),
    ],
    ids=["one class", "one clip", "one group", "several labels", "splits", "no label"],
)
def test_a_task_that_no_probe_can_learn_is_refused(
    four_files: Path, rows: str, columns: dict, message: str
) -> None:
    lines = [f"{name},{row}" for name, row in zip("abcd", rows.split(), strict=False)]
    write_csv(four_files, "\n".join(["filename,class,fold,group", *lines]) + "\n")
    sections = parse_params(four_files).model_dump()
    sections["datasets"]["birds"] |= columns
    with pytest.raises(ValueError, match=f"birds: column 'class': {message}"):
        fetch(sections)


def test_a_label_spelt_otherwise_in_the_test_part_is_told() -> None:
    info = {"classes": ["jay", "owl", "Owl"], "kind": "multiclass"}
    clips = pd.DataFrame({"label": [0, 1, 0, 2], "excluded": "", "split": "", "fold": 0})
    split = clips.assign(split=["train", "train", "test", "test"])
    assert not_trained(split, info) == ["Owl"]
    assert not_trained(clips.assign(fold=[1, 1, 2, 2]), info) == ["owl", "Owl"]
    tags = split.assign(labels=[[1, 0, 0], [0, 1, 0], [1, 0, 0], [0, 1, 1]])
    assert not_trained(tags, info | {"kind": "multilabel"}) == ["Owl"]


def test_classes_that_are_equal_as_numbers_have_one_order() -> None:
    assert in_order({"1", "10", "001", "2", "01"}) == ["001", "01", "1", "2", "10"]


ONE = {"labels": "class", "kind": "multiclass"}
FOLDS, PARTS = ONE | {"fold": "fold"}, ONE | {"split": "part"}
TAGS = {"labels": "tags", "kind": "multilabel", "separator": ",", "fold": "fold"}
AS_TEXT = "a list written as text"
UNFIT: list[tuple[str, dict[str, Any], str]] = [
    ("file,x|a.wav,1", {}, r"clips.csv: no column 'filename', found: file, x"),
    ("filename,filename|a.wav,1", {}, "more than one column 'filename'"),
    ("filename", {}, "clips.csv: no rows"),
    ("", {}, "no column 'filename'"),
    (
        "filename,tags,fold|a.wav,x,1|b.wav,\"['x', 'y']\",2",
        TAGS,
        rf"column 'tags': got \"\['x', 'y'\]\", {AS_TEXT}, allowed: labels with ','",
    ),
    (
        "filename,tags,fold|a.wav,[x;y],1|b.wav,x,2",
        TAGS | {"separator": ";"},
        rf"column 'tags': got '\[x;y\]', {AS_TEXT}",
    ),
    ("filename,x|a.wav,1|b.wav,1,2", {}, "line 3: got 3 cells, allowed: 2"),
    (
        "filename,class,part|a.wav,owl,train|b.wav,owl,holdout",
        PARTS,
        "clips.csv: column 'part': got 'holdout', allowed: train, training, valid, val",
    ),
    ("filename,class,part|a.wav,owl,train|b.wav,owl,valid", PARTS, "column 'part': no test clip"),
    (
        "filename,class,part|a.wav,owl,train|x.wav,owl,valid|b.wav,owl,test",
        PARTS,
        r"clips.csv: column 'part': no clip of split 'valid' can be used:\n  x.wav: missing",
    ),
    (
        "filename,class,fold|a.wav,owl,07|x.wav,owl,9|b.wav,,9|c.wav,owl,8",
        FOLDS,
        r"fold '9' can be used:\n  b.wav: blank label in column 'class'\n  x.wav: missing file",
    ),
    (
        "filename,class,fold|a.wav,owl,1|b.wav,owl,1",
        FOLDS,
        "column 'fold': got 1 folds, allowed: 2 or more",
    ),
    (
        "filename,class,fold,take|a.wav,owl,1,x|b.wav,owl,2,x",
        FOLDS | {"group": "take"},
        "column 'take': 'x' in several splits or folds",
    ),
]


def test_headers_are_stripped_and_brackets_alone_make_no_list(four_files: Path) -> None:
    text = " filename , class,fold \na.wav, owl,1\nb.wav,owl ,2\n"
    manifest, info = manifest_of(four_files, text, **FOLDS)
    assert info["classes"] == ["owl"] and manifest["fold"].tolist() == [1, 2]
    text = "filename;tags;fold\na.wav;[noise], [music];1\nb.wav;(cat), dog's;2\n"
    _, info = manifest_of(four_files, text, **TAGS)
    assert info["classes"] == ["(cat)", "[music]", "[noise]", "dog's"]


@pytest.mark.parametrize(("text", "columns", "message"), UNFIT)
def test_unfit_csv_gives_one_clear_error(
    four_files: Path, text: str, columns: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        manifest_of(four_files, text and text.replace("|", "\n") + "\n", **columns)


def test_tables_without_a_first_line_of_names(tmp_path: Path) -> None:
    path = tmp_path / "vocabulary.csv"
    path.write_text("0,Dog,/m/0\n\n1, Rain ,/m/1\n")
    table = read_rows(path, ["index", "label", "mid"])
    assert table.to_numpy().tolist() == [["0", "Dog", "/m/0"], ["1", "Rain", "/m/1"]]
    assert read_table(path).columns.tolist() == ["0", "Dog", "/m/0"]
    with pytest.raises(ValueError, match=r"line 1: got 3 cells, allowed: 2 \(index, label\)"):
        read_rows(path, ["index", "label"])
    path.write_text("\n")
    with pytest.raises(ValueError, match=r"vocabulary\.csv: no rows"):
        read_rows(path, ["index"])


def test_missing_csv_and_audio_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"clips\.csv: no such table"):
        read_table(tmp_path / "clips.csv", ["filename"])
    with pytest.raises(FileNotFoundError, match="birds: no audio folder"):
        manifest_of(tmp_path, "filename\na.wav\n")


def test_stage_writes_and_reloads_manifests(
    task_files: Path, capsys: pytest.CaptureFixture
) -> None:
    write_csv(task_files, TASK + "x.wav,crow,1\n")
    params = parse_params(task_files)
    with pytest.raises(FileNotFoundError, match="run the notebook 01_fetch"):
        manifests.load(params, "birds")
    infos = fetch(params)
    manifest, info = manifests.load(params, "birds")
    assert info == infos["birds"]
    assert info["excluded"] == [{"clip": "x.wav", "excluded": "missing file"}]
    assert (info["num_clips"], info["folds"], info["audio"]) == (6, [3, 3], "audio")
    assert manifest["excluded"].tolist() == [""] * 6 + ["missing file"]
    assert "1 excluded:\n  x.wav: missing file" in capsys.readouterr().out


def test_stage_fails_when_too_many_clips_are_bad(four_files: Path) -> None:
    write_csv(four_files, "filename,class,fold\na.wav,owl,1\nb.wav,owl,2\nx.wav,crow,1\n")
    with pytest.raises(ValueError, match=r"birds: 1 of 3 .*max_bad_fraction 0\.3\n  x\.wav: miss"):
        fetch(parse_params(four_files, max_bad_fraction=0.3))
    assert not (four_files / "data/mini/manifests/birds.parquet").exists()


def test_unchanged_files_are_not_read_again(four_files: Path, checked: list[str]) -> None:
    text = "filename\na.wav\nb.wav\nc.wav\n"

    def read_now(text: str) -> tuple[list[str], list[float]]:
        checked.clear()
        manifest, _ = manifest_of(four_files, text)
        return list(checked), manifest["duration_s"].tolist()

    read_now(text)
    assert read_now(text)[0] == []
    write_tone(four_files / "audio/b.wav", duration_s=0.3)
    assert read_now(text + "d.wav\n") == (["b.wav", "d.wav"], [0.2, 0.3, 0.2, 0.2])
    (four_files / "audio").rename(four_files / "moved")
    (four_files / "audio").symlink_to("moved")  # another folder by the same name
    assert read_now(text)[0] == ["a.wav", "b.wav", "c.wav"]


def test_what_the_system_refused_to_read_is_tried_again(
    four_files: Path, monkeypatch: pytest.MonkeyPatch, checked: list[str]
) -> None:
    def refused(path: Path) -> soundfile.SoundFile:
        raise soundfile.LibsndfileError(reading.SYSTEM_ERROR)

    (four_files / "audio/b.wav").write_text("not audio")
    with monkeypatch.context() as patch:
        patch.setattr(soundfile, "SoundFile", refused)
        manifest, _ = manifest_of(four_files, "filename\na.wav\n")
        assert manifest["excluded"].item().startswith("cannot be read (")
    manifest, _ = manifest_of(four_files, "filename\na.wav\nb.wav\n")
    assert manifest["excluded"].str.partition(" (")[0].tolist() == ["", "not audio"]
    checked.clear()  # the rest is kept
    manifest_of(four_files, "filename\na.wav\nb.wav\n")
    assert checked == []


def test_interrupted_check_is_continued(
    four_files: Path, monkeypatch: pytest.MonkeyPatch, checked: list[str]
) -> None:
    monkeypatch.setattr(audit, "FILES_PER_JOB", 1)
    monkeypatch.setattr(audit, "SECONDS_BETWEEN_SAVES", 0.0)
    text = "filename\na.wav\nb.wav\nc.wav\nd.wav\n"
    checked.until = "c.wav"
    with pytest.raises(KeyboardInterrupt):
        manifest_of(four_files, text)
    checked.until = ""
    manifest, _ = manifest_of(four_files, text)
    assert checked == ["a.wav", "b.wav", "c.wav", "d.wav"]
    assert (manifest["duration_s"] == 0.2).all()


def test_embedded_data_set_is_rendered_once(task_files: Path) -> None:
    folder = task_files / "data/mini/audio/notes"

    def written() -> dict[str, int]:
        return {path.name: path.stat().st_mtime_ns for path in folder.glob("*.wav")}

    def run(seed: int) -> dict[str, Any]:
        notes = {"source": "embedded", "recipe": "pretraining", "num_clips": 3, "seed": seed}
        sections = parse_params(task_files).model_dump() | {"corpora": {"notes": 1.0}}
        sections["datasets"]["notes"] = notes
        return fetch(sections)["notes"]

    info = run(1)
    assert (info["num_clips"], info["audio"], info["name"]) == (3, "audio/notes", "notes")
    assert info["source"] == "embedded"
    assert info["made_by"].startswith("embedded corpus, seed 1, code ")
    first = written()
    assert run(1) == info and written() == first
    run(2)
    second = written()
    assert not second.items() & first.items()
    (folder / "pretraining-00001.wav").unlink()
    run(2)
    assert written().keys() == second.keys()  # lost audio is rendered again


def test_content_hash_ignores_labels_but_not_files() -> None:
    columns = {"clip": ["a", "b"], "path": ["a", "b"], "start_s": 0.0, "duration_s": 1.0}
    manifest = pd.DataFrame(columns | {"sha256": ["1", "2"], "excluded": "", "label": [0, 1]})
    before = manifests.content_hash(manifest)
    assert manifests.content_hash(manifest.assign(label=[1, 1])) == before
    assert manifests.content_hash(manifest.assign(sha256=["1", "3"])) != before
    assert manifests.content_hash(manifest.iloc[::-1]) != before
