"""Each data set of Table I in miniature, in its exact layout: fetch, log-mel, probe; every trap."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd
import pytest
import yaml

from matpac.core.parallel import Workers
from matpac.data import manifests
from matpac.data.config import Official
from matpac.data.fetch import fetch
from matpac.data.layouts import LOADERS, esc50, gtzan, layout, mtt, nsynth, openmic
from matpac.data.official import official_manifest, shortfalls
from matpac.features.preprocess import preprocess
from matpac.params import Params, load, parse
from matpac.probing.probe import probe, target_array
from matpac.reporting import figures
from matpac.reporting.paper import TABLE1

import layouts
import smoke

ESC10 = Path(__file__).parents[3] / "shared/datasets/esc10"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project without any data; data sets lie in ``tmp_path/data``."""
    monkeypatch.setenv("MATPAC_ROOT", str(tmp_path / "project"))
    (tmp_path / "data").mkdir()
    return tmp_path


def parameters(
    dataset: dict[str, Any], *, downloads: dict[str, Any] | None = None, **logmel: Any
) -> Params:
    """The smoke parameters with one data set, "mini", that is corpus and task."""
    sections = smoke.sections() | {"downloads": downloads or {}}
    sections |= {"datasets": {"mini": dataset}, "corpora": {"mini": 1.0}, "tasks": ["mini"]}
    sections["logmel"] |= logmel
    sections["probe"] |= {"epochs": 60, "learning_rate": 0.02, "repeats": 1}
    return parse(Params, sections)


def part_of(source: str, folder: Path) -> dict[str, Any]:
    return {"source": source, "path": str(folder), "subset": True}


def fetched(source: str, folder: Path, **logmel: Any) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Manifest by clip, and information, of a part of a data set."""
    params = parameters(part_of(source, folder), **logmel)
    info = fetch(params)["mini"]
    return manifests.load(params, "mini")[0].set_index("clip"), info


def manifest_of(source: str, folder: Path, **changes: Any) -> tuple[pd.DataFrame, dict[str, Any]]:
    return official_manifest(
        "mini", source, folder=folder, **{"subset": False} | changes,
        cache=folder.parent / "cache", workers=Workers(1, preload="matpac.data.audit"),
    )  # fmt: skip


MAKERS: dict[str, Callable[[Path], Path]] = {name: getattr(layouts, name) for name in LOADERS}


GIVEN, DRAWN = {"validation": "given"}, {"validation": "drawn"}
BROKEN = "known to be broken: "
FSD50K_EVAL = "FSD50K.eval_audio/FSD50K.eval_audio"  # folders inside folders of the same name
EXPECTED: dict[str, tuple[dict[str, Any], dict[str, dict[str, Any]]]] = {
    "openmic": (
        DRAWN | {"splits": {"train": 6, "valid": 0, "test": 2}, "classes": openmic.CLASSES},
        {
            "071826_215040": {"path": "openmic-2018/audio/071/071826_215040.ogg", "split": "test"},
            "000135_483840": {"group": "000135", "split": "train"},
        },
    ),
    "nsynth": (  # a family that is never tested keeps its output
        GIVEN | {"splits": {"train": 10, "valid": 2, "test": 2}, "classes": nsynth.CLASSES},
        {
            "synth_lead_acoustic_005-040-075": {
                "path": "nsynth-train/audio/synth_lead_acoustic_005-040-075.wav",
                "label": 9, "group": "5", "split": "train",
            },
            "bass_acoustic_900-045-075": {"group": "900", "split": "valid"},
            "bass_acoustic_900-050-075": {"group": "900", "split": "test"},
        },
    ),
    "gtzan": (  # jazz.00054 costs nothing; what is not in the lists is no track
        GIVEN | {
            "splits": {"train": 4, "valid": 3, "test": 3}, "classes": gtzan.CLASSES,
            "excluded": [
                {"clip": "jazz.00054", "excluded": BROKEN + "not audio (Format not recognised.)"}
            ],
        },
        {"rock.00010": {"path": "genres/rock/rock.00010.wav", "label": 9, "split": "test"}},
    ),
    "mtt": (  # of a part of the data set, broken files that are not there are nothing to tell
        GIVEN | {
            "splits": {"train": 4, "valid": 3, "test": 3}, "classes": mtt.CLASSES,
            "excluded": [{"clip": "35644", "excluded": BROKEN + "zero bytes"}],
        },
        {
            "13": {"split": "train"}, "22": {"split": "valid"},
            "10": {"group": "0/some_band-some_record-01-some_song"},
            "11": {"group": "0/some_band-some_record-01-some_song"},
            "12": {"group": "b/an_orchestra-a_record-02-a_piece"},
        },
    ),
    "fsd50k": (
        GIVEN | {"splits": {"train": 4, "valid": 2, "test": 2}},
        {
            "37199": {"path": f"{FSD50K_EVAL}/37199.wav", "group": "37199", "split": "test"},
            "00123": {"path": "FSD50K.dev_audio/00123.wav", "group": "00123", "split": "train"},
            "16401": {"split": "valid"},
        },
    ),
    "esc50": (
        DRAWN | {"folds": [6] * 5, "classes": ["airplane", "dog", "rain"]},
        {
            "3-10030-A-10.wav": {
                "path": "ESC-50-master/audio/3-10030-A-10.wav",
                "label": 2, "group": "10030", "fold": 3,
            },
            "3-10030-B-10.wav": {"group": "10030"},
        },
    ),
    "us8k": (  # files of every kind, folders of folds, slices of one recording
        DRAWN | {"folds": [6] * 10, "classes": list(layouts.US8K.values()), "excluded": []},
        {
            "100703-3-0-1.wav": {
                "path": "UrbanSound8K/audio/fold7/100703-3-0-1.wav",
                "label": 1, "group": "100703", "fold": 7,
            },
            "100703-3-0-0.wav": {"group": "100703"},
        },
    ),
}  # fmt: skip
LABELS = {
    "mtt": {clip: set(tags) - {"rare tag"} for clip, (_, tags) in layouts.MTT.items()},
    "fsd50k": {clip: set(labels) for clip, (_, labels) in layouts.FSD50K.items()},
}


@pytest.mark.parametrize("source", LOADERS)
def test_from_its_layout_to_scores(root: Path, source: str) -> None:
    """The tones of the classes are told apart, so labels and audio belong together."""
    params = parameters(part_of(source, MAKERS[source](root / "data")))
    info = fetch(params)["mini"]
    assert info["official_clips"] == TABLE1[source]["clips"] and info["source"] == source
    manifest = manifests.load(params, "mini")[0].set_index("clip")
    about, rows = EXPECTED[source]
    assert {key: info[key] for key in about} == about
    assert {clip: manifest.loc[clip, list(row)].to_dict() for clip, row in rows.items()} == rows
    assert manifest["path"].is_monotonic_increasing  # whatever the order of the table
    if source in LABELS:
        for clip, labels in manifest["labels"].items():
            assert {info["classes"][i] for i in np.flatnonzero(labels)} == LABELS[source][clip]
    preprocess(params)
    scores = probe("logmel", params)
    assert set(scores["metric"]) == {TABLE1[source]["metric"].lower().replace("acc.", "accuracy")}
    assert len(scores) == {"esc50": 5, "us8k": 10}.get(source, 1)
    assert scores["score"].mean() > 0.95, scores["score"].tolist()


@pytest.mark.parametrize("name", ["Data/genres_original", "."])
def test_other_folders_for_the_audio(root: Path, name: str) -> None:
    manifest, _ = fetched("gtzan", layouts.gtzan(root / "data", name=name))
    prefix = "" if name == "." else f"{name}/"
    assert manifest.loc["rock.00010", "path"] == f"{prefix}rock/rock.00010.wav"
    manifest, _ = fetched("fsd50k", layouts.fsd50k(root / "flat", nested=False))
    assert manifest.loc["37199", "path"] == "FSD50K.eval_audio/37199.wav"


def test_the_sizes_are_those_of_table_1() -> None:
    for name, clips in layout.CLIPS.items():
        reported = TABLE1[name]
        assert sum(clips.values()) == reported["clips"]
        assert layout.NUM_CLASSES[name] == reported["classes"]
        assert reported["split"] == (f"{len(clips)}-Fold" if 1 in clips else "TVT")
    assert list(layout.CLIPS) == list(get_args(Official)) == list(LOADERS) == list(TABLE1)
    for module in (openmic, nsynth, gtzan, mtt):
        name = module.__name__.split(".")[-1]
        assert len(set(module.CLASSES)) == layout.NUM_CLASSES[name]


# ---------------------------------------------------------------------------------- each data set


def test_openmic(root: Path) -> None:
    """Likelihoods and masks: what nobody answered is NaN, half is positive. Where their table is
    missing, the arrays, which only unpickling restores, are not read instead."""
    home = layouts.openmic(root / "data") / "openmic-2018"
    clips = openmic.read(home).clips.set_index("clip")
    likelihoods = np.stack(clips["labels"])
    for values in (likelihoods, target_array(clips, "multilabel")):
        found = pd.DataFrame(values, index=clips.index, columns=openmic.CLASSES)
        for key, (_, asked) in layouts.OPENMIC.items():
            if values is not likelihoods:
                asked = {name: float(heard >= 0.5) for name, heard in asked.items()}
            assert found.loc[key].dropna().to_dict() == asked
    (home / openmic.TABLE).unlink()
    with pytest.raises(FileNotFoundError, match=r"aggregated-labels\.csv: no such table"):
        openmic.read(home)


def test_openmic_leaves_out_clips_that_nobody_was_asked_about(root: Path) -> None:
    path = layouts.openmic(root / "data") / "openmic-2018" / openmic.TABLE
    path.write_text(re.sub(r"000139_119040,.*\n", "", path.read_text()))
    manifest, info = fetched("openmic", root / "data", max_bad_fraction=0.2)
    assert info["excluded"] == [
        {"clip": "000139_119040", "excluded": "blank label: no class is observed"}
    ]
    assert info["num_clips"] == len(manifest) - 1


def test_the_gtzan_lists_are_those_of_the_literature() -> None:
    clips = gtzan.read(Path("nowhere")).clips
    table = {  # genre: train, valid, test
        "blues": (46, 23, 31), "classical": (48, 20, 31), "country": (45, 23, 30),
        "disco": (42, 22, 29), "hiphop": (47, 18, 27), "jazz": (43, 17, 27), "metal": (44, 20, 27),
        "pop": (41, 13, 30), "reggae": (43, 17, 26), "rock": (44, 24, 32),
    }  # fmt: skip
    counts = clips.groupby(["label", "split"]).size()
    for label, genre in enumerate(gtzan.CLASSES):
        assert tuple(counts[label][list(manifests.SPLITS)]) == table[genre]
    assert set(clips["clip"].str.fullmatch(r"[a-z]+\.\d{5}")) == {True}
    assert clips.set_index("clip").loc["jazz.00054", "split"] == "train"


def test_mtt_allows_three_broken_files_and_no_others(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = layouts.mtt(root / "data")
    monkeypatch.setitem(layout.CLIPS, "mtt", {"train": 7, "valid": 3, "test": 3})
    monkeypatch.setattr(mtt, "deviations", lambda given: [])
    manifest, _ = manifest_of("mtt", home)
    bad = manifest[manifest["excluded"] != ""].set_index("clip")["excluded"]
    assert bad.to_dict() == {
        "35644": "known to be broken: zero bytes",
        "55753": "known to be broken: missing file",
        "57881": "known to be broken: missing file",
    }
    path = layouts.MTT["13"][0]
    content = (home / path).read_bytes()
    (home / path).write_bytes(b"")
    manifest, _ = manifest_of("mtt", home)
    assert manifest.set_index("clip").loc["13", "excluded"] == "zero bytes"
    problem = manifests.too_many_bad("mtt", manifests.excluded_clips(manifest), len(manifest), 0.0)
    assert problem.startswith("mtt: 1 of 13 clips cannot be used")
    (home / path).unlink()
    with pytest.raises(ValueError, match=r"train: 7 clips expected, 7 in its tables, 6 of these"):
        manifest_of("mtt", home)
    (home / path).write_bytes(content)
    (home / "mp3").mkdir()  # another folder for the audio
    for folder in {each[0].split("/")[0] for each in layouts.MTT.values()} - {"8", "9"}:
        (home / folder).rename(home / "mp3" / folder)
    moved, _ = manifest_of("mtt", home)
    assert set(moved["path"]) >= {f"mp3/{path}"} and (moved["excluded"] != "").sum() == 3


def test_the_mtt_tags_are_compared_as_a_set() -> None:
    names = [*mtt.CLASSES, *layouts.RARE_TAGS]
    counts = np.array([3] * 50 + [2] * 138)
    given = pd.DataFrame(np.arange(4)[:, None] < counts, columns=names)
    assert mtt.deviations(given) == []
    assert mtt.deviations(given[sorted(names)]) == []  # whatever their order
    given.loc[:, ["rare tag", "tag 1"]] = True
    assert mtt.deviations(given.drop(columns="tag 0")) == [
        "187 tags, expected 188",
        "the 50 most frequent tags are others than in the literature: 'rare tag', 'tag 1' occur "
        "more often than 'guitar'",
    ]


def test_esc10_is_what_is_there(root: Path) -> None:
    home = layouts.esc50(root / "data")
    for path in (home / "ESC-50-master/audio").glob("*-47.wav"):
        path.unlink()
    manifest, info = fetched("esc50", home)
    assert info["classes"] == ["dog", "rain"] and info["folds"] == [4] * 5
    assert manifest.loc["3-10030-A-10.wav", "label"] == 1


ANSWERS = "num_responses\n000046_3840,"
ALLOWED_ANSWERS = "allowed: one relevance from 0 to 1"
MTT_ROW = "clip 2: allowed: 0 or 1 for each tag, and an mp3_p"
NOTES = "nsynth-train/examples.json"
UNFIT = [
    ("openmic", openmic.TABLE, "num_responses\n", ANSWERS + "guitar,0.7,3\n", ALLOWED_ANSWERS),
    ("openmic", openmic.TABLE, "num_responses\n", ANSWERS + "harp,0.7,3\n", ALLOWED_ANSWERS),
    ("openmic", openmic.TABLE, "num_responses\n", ANSWERS + "bass,1.7,3\n", ALLOWED_ANSWERS),
    (
        "openmic", "class-map.json", '"accordion": 0', '"accordion": 5',
        r"class-map\.json: got .* allowed: 0 to 19 in this order: acc",
    ),
    (
        "nsynth", NOTES, '"instrument": 1,', '"instrument": 900,',
        "'900' in several splits or folds, allowed: one each",
    ),
    ("nsynth", NOTES, '"bass"', '"base"', "got family 0 'base', allowed: 0 to 10 in this order: b"),
    ("nsynth", NOTES, '_family"', '"', "allowed: notes with instrument, instrument_family"),
    ("mtt", mtt.MARKER, '"2"\t"0"', '"2"\t"7"', MTT_ROW),
    ("mtt", mtt.MARKER, '"f/american', '"g/american', MTT_ROW),
    ("mtt", mtt.MARKER, '"sitar"', '"sitars"', r"annotations_final\.csv: no column 'sitar'"),
    (
        "fsd50k", "dev.csv", "Bark,Dog,Rain", "Bark,Dogs,Rain",
        r"got labels \['Dogs'\] that vocabulary.csv has not",
    ),
    ("fsd50k", "dev.csv", ",val", ",valid", r"split: got \{'valid'\}, allowed: train, val"),
    ("us8k", "UrbanSound8K.csv", ",10,0,air", ",11,0,air", r"fold: got \['11'\], allowed: 1 to 10"),
    ("us8k", "UrbanSound8K.csv", ",10,0,air_", ",10,0,hair_", "allowed: one name per classID"),
]  # fmt: skip


@pytest.mark.parametrize(("source", "table", "old", "new", "message"), UNFIT)
def test_a_table_that_does_not_fit_is_refused(
    root: Path, source: str, table: str, old: str, new: str, message: str
) -> None:
    home = MAKERS[source](root / "data")
    (path,) = home.rglob(table)
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(ValueError, match=message):
        fetched(source, home)


@pytest.mark.parametrize(("source", "column"), [("esc50", "src_file"), ("us8k", "fsID")])
def test_recordings_do_not_cross_folds(root: Path, source: str, column: str) -> None:
    home = MAKERS[source](root / "data")
    path = next(home.glob(f"*/{LOADERS[source].MARKER}"))
    table = pd.read_csv(path, dtype=str)
    table.loc[table["fold"] == "2", column] = table.loc[table["fold"] == "1", column].to_numpy()
    table.to_csv(path, index=False)
    with pytest.raises(ValueError, match="in several splits or folds, allowed: one each; these"):
        fetched(source, home)


# ------------------------------------------------------------------------------- counts and places


def whole(source: str) -> layout.Layout:
    """A layout of the official size, with groups and labels that mean nothing."""
    column = "fold" if 1 in layout.CLIPS[source] else "split"
    parts = [part for part, number in layout.CLIPS[source].items() for _ in range(number)]
    clips = pd.DataFrame({"clip": [str(i) for i in range(len(parts))], column: parts})
    clips["path"] = clips["clip"] + ".wav"
    return layout.Layout(clips, [str(i) for i in range(layout.NUM_CLASSES[source])])


@pytest.mark.parametrize("source", ["gtzan", "esc50"])
def test_every_missing_clip_and_class_is_told(source: str) -> None:
    complete = whole(source)
    column = "fold" if "fold" in complete.clips else "split"
    there = np.ones(len(complete.clips), dtype=bool)
    assert shortfalls(source, column, complete, there) == []
    there[:25] = False
    part, expected = next(iter(layout.CLIPS[source].items()))
    named = ", ".join(f"{i}.wav" for i in range(20))
    assert shortfalls(source, column, complete, there) == [
        f"  {column} {part}: {expected} clips expected, {expected} in its tables, "
        f"{expected - 25} of these on the disk",
        f"  25 files are missing: {named} and 5 more",
    ]
    shorter = layout.Layout(complete.clips[1:], complete.classes[1:], problems=["of its own"])
    found = shortfalls(source, column, shorter, np.ones(len(shorter.clips), dtype=bool))
    assert found == [
        f"  {column} {part}: {expected} clips expected, {expected - 1} in its tables, "
        f"{expected - 1} of these on the disk",
        f"  {len(complete.classes)} classes expected, {len(shorter.classes)} found",
        "  of its own",
    ]


def test_whole_gtzan_passes_and_a_lost_file_is_named(root: Path) -> None:
    """At full size, every file a link to one of a tenth of a second."""
    one, home = root / "one.wav", root / "data/gtzan"
    layouts.tone(one, [440], duration_s=0.1)
    for clip, path in gtzan.read(home).clips[["clip", "path"]].itertuples(index=False):
        (home / "genres" / path).parent.mkdir(parents=True, exist_ok=True)
        if clip != "jazz.00054":
            (home / "genres" / path).hardlink_to(one)
    manifest, info = manifest_of("gtzan", home)
    info = manifests.summarise(manifest, info)
    assert info["splits"] == {"train": 442, "valid": 197, "test": 290}
    assert info["excluded"] == [
        {"clip": "jazz.00054", "excluded": "known to be broken: missing file"}
    ]
    (home / "genres/rock/rock.00010.wav").unlink()
    with pytest.raises(ValueError) as error:
        manifest_of("gtzan", home)
    assert str(error.value).splitlines() == [
        f"mini: {home}/genres is not the whole data set (datasets.mini.subset: true takes what is "
        "there):",
        "  split test: 290 clips expected, 290 in its tables, 289 of these on the disk",
        "  1 files are missing: rock/rock.00010.wav",
    ]


def esc10_as_esc50(folder: Path, table: pd.DataFrame) -> Path:
    """ESC-10 in ESC-50's layout, with 1,600 clips of 40 other classes in the table alone."""
    home = folder / "ESC-50-master"
    (home / "meta").mkdir(parents=True)
    (home / "audio").symlink_to(ESC10 / "audio")
    other = [
        [f"{1 + i % 5}-{i}-A-{100 + i % 40}.ogg", str(1 + i % 5), "", f"other {i % 40}", "", i, "A"]
        for i in range(1600)
    ]
    table = pd.concat([pd.DataFrame(other, columns=table.columns), table])
    table = table.sort_values("filename", ascending=False)
    table.to_csv(home / esc50.MARKER, index=False)
    return folder


def esc10_table() -> pd.DataFrame:
    return pd.read_csv(ESC10 / "meta/esc10.csv", dtype=str)


needs_esc10 = pytest.mark.skipif(not ESC10.exists(), reason="ESC-10 is not on this machine")


@needs_esc10
def test_esc50_says_that_only_esc10_is_there(root: Path) -> None:
    home = esc10_as_esc50(root / "data", esc10_table())
    with pytest.raises(ValueError) as error:
        fetch(parameters({"source": "esc50", "path": str(home)}))
    first, *lines = str(error.value).splitlines()
    assert first.startswith(f"mini: {home}/ESC-50-master is not the whole data set (datasets.mini.")
    assert lines[:5] == [
        f"  fold {fold}: 400 clips expected, 400 in its tables, 80 of these on the disk"
        for fold in range(1, 6)
    ]
    assert lines[5] == "  50 classes expected, 10 found" and len(lines) == 7
    assert re.match(r"  1600 files are missing: audio/5-\S+, .* 1580 more$", lines[6])


@needs_esc10
@pytest.mark.slow
def test_esc10_has_the_same_scores_by_either_route(root: Path) -> None:
    """As a part of ESC-50 and as a folder with a CSV, whose rows have another order."""
    half = esc10_table().groupby(["category", "fold"]).head(4)
    half.to_csv(root / "half.csv", index=False)
    folder = {"source": "folder", "audio": str(ESC10 / "audio"), "csv": str(root / "half.csv")}
    folder |= {"labels": "category", "kind": "multiclass", "fold": "fold", "group": "src_file"}
    both = []
    for dataset in (part_of("esc50", esc10_as_esc50(root / "data", half)), folder):
        params = parameters(dataset)
        fetch(params)
        preprocess(params)
        manifest, info = manifests.load(params, "mini")
        both.append((manifest, info["classes"], probe("logmel", params)))
    (ours, classes, scores), (theirs, same_classes, same_scores) = both
    pd.testing.assert_frame_equal(scores, same_scores, check_exact=True)
    assert classes == same_classes and len(classes) == 10 and len(scores) == 5
    columns = ["clip", "fold", "group", "label", "sha256", "duration_s"]
    pd.testing.assert_frame_equal(ours[columns], theirs[columns], check_dtype=False)
    assert 0.5 < scores["score"].mean() < 1.0  # ten classes


def test_a_part_without_a_task_and_an_empty_folder_are_told(root: Path) -> None:
    home = layouts.nsynth(root / "data")
    for path in home.glob("nsynth-test/audio/*"):
        path.unlink()
    with pytest.raises(ValueError, match="got clips of train, valid, needed: of train and test"):
        fetched("nsynth", home)
    for name in LOADERS:
        (root / "empty" / name).mkdir(parents=True)
        with pytest.raises(FileNotFoundError, match=f"mini: .*/{name}: no .* in it, or in a fold"):
            fetched(name, root / "empty" / name)


def test_a_data_set_without_a_path_is_downloaded_once(root: Path) -> None:
    """From a mirror that is a folder, with the archive as the host builds it."""
    home = layouts.esc50(root / "data")
    shutil.make_archive(root / "mirror/esc50/ESC-50-master", "zip", home)
    shutil.rmtree(home)
    dataset = {"source": "esc50", "path": None, "subset": True}
    params = parameters(dataset, downloads={"mirror": str(root / "mirror"), "keep_archives": True})
    with pytest.warns(UserWarning, match="ESC-50-master.zip"):
        info = fetch(params)["mini"]
    assert (info["folds"], info["audio"]) == ([6] * 5, "downloads/esc50")
    (root / "mirror/esc50/ESC-50-master.zip").unlink()
    assert fetch(params)["mini"] == info


def test_tables_say_that_a_task_has_only_a_part_of_its_clips(root: Path) -> None:
    params = parameters(part_of("esc50", layouts.esc50(root / "data")))
    info = fetch(params)["mini"]
    preprocess(params)
    mine = {"num_clips": 3, "num_excluded": 0, "source": "folder"}
    part = figures.make_provenance(params, {"esc50": info, "mine": mine}, steps=1)
    assert part.line.endswith(". Not the whole data set: esc50 (30 of 2,000 clips).")
    assert part.comparable == ()
    info |= {"num_clips": 1999, "num_excluded": 1}
    whole = figures.make_provenance(params, {"esc50": info, "mine": mine}, steps=1)
    assert "Not the whole" not in whole.line and whole.comparable == ("esc50",)


PAGES = Path(__file__).parents[2] / "docs/datasets"


@pytest.mark.parametrize("source", LOADERS)
def test_each_has_a_page_with_its_sizes_and_how_to_use_it(source: str) -> None:
    text = (PAGES / f"{source}.md").read_text()
    sizes = set(layout.CLIPS[source].values()) | {sum(layout.CLIPS[source].values())}
    assert all(re.search(rf"(?<![\d,]){size:,}(?!,?\d)", text) for size in sizes)
    (snippet,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    sections = smoke.sections() | yaml.safe_load(snippet) | {"corpora": {source: 1.0}}
    assert parse(Params, sections).datasets[source].source == source


def test_the_pages_can_be_followed_and_the_papers_profile_has_them_all() -> None:
    for page in PAGES.glob("*.md"):
        for link in re.findall(r"\]\(([^)]+)\)", page.read_text()):
            assert link.startswith("http") or (PAGES / link).exists(), (page.name, link)
    snippets = re.findall(r"```yaml\n(.*?)```", (PAGES / "README.md").read_text(), re.DOTALL)
    birds = yaml.safe_load(snippets[1])["datasets"]
    for snippet in (yaml.safe_load(text) for text in snippets):
        sections = smoke.sections() | {"corpora": {"birds": 1.0}, "tasks": ["birds"]} | snippet
        parse(Params, sections | {"datasets": birds | snippet["datasets"]})
    params = load(PAGES.parents[1] / "params.paper.yaml")
    assert params.tasks == list(TABLE1)
    for name in TABLE1:
        assert params.datasets[name].source == name and not params.datasets[name].subset
