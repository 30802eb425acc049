"""Log-mel stores: what comes out is what went in, whatever the workers and interruptions."""

import pickle
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch

from matpac.audio import logmel
from matpac.core import files
from matpac.data import manifests
from matpac.data.fetch import fetch
from matpac.features import shards
from matpac.features.preprocess import preprocess, statistics
from matpac.features.store import Store, verify

from noise import (
    FRONT_END,
    LENGTHS_S,
    Corpus,
    content,
    expected,
    folder_params,
    make_corpus,
    make_folders,
)


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    return make_corpus(tmp_path / "audio", LENGTHS_S)


@pytest.fixture
def store_folder(tmp_path: Path) -> Path:
    return tmp_path / "mini/logmel/noise"


def test_round_trip_within_half_precision(corpus: Corpus, store_folder: Path) -> None:
    corpus.manifest.loc[1, "excluded"] = "made up"
    index, made = corpus.build(store_folder)
    store = Store(store_folder)
    assert made and len(store) == 3 and index["num_excluded"] == 1
    assert store.num_frames.tolist() == [98, 1, 48]  # 1 + (S - 400) // 160
    assert store.rows.tolist() == [0, 2, 3] and store.clip_ids.tolist() == ["a", "c", "d"]
    for number, name in enumerate("acd"):
        frames = store.clip(number)
        assert frames.dtype == np.float16 and not frames.flags.writeable
        np.testing.assert_array_equal(
            frames, expected(corpus.folder / f"{name}.wav").astype(np.float16)
        )


def test_statistics_are_those_of_the_stored_values(corpus: Corpus, store_folder: Path) -> None:
    index, _ = corpus.build(store_folder)
    store = Store(store_folder)
    every = np.concatenate([store.clip(i) for i in range(4)]).astype(np.float64)
    assert index["num_frames"] == len(every)
    mean, std = statistics([(1.0, index)])
    assert mean == pytest.approx(every.mean(), abs=1e-12)
    assert std == pytest.approx(every.std(), abs=1e-9)


def test_statistics_weigh_clips_as_often_as_they_are_seen() -> None:
    def index(value: float, frames: int) -> dict[str, Any]:
        total = value * frames * 2
        return {"front_end": {"num_mels": 2}, "num_frames": frames} | {
            "sum": total, "sum_squares": total * value
        }  # fmt: skip

    # 3 frames of 0 seen twice and 2 frames of 4 seen once: mean 8 / 8, mean square 32 / 8.
    assert statistics([(2.0, index(0.0, 3)), (1.0, index(4.0, 2))]) == pytest.approx((1, 3**0.5))


def test_crops_are_slices(corpus: Corpus, store_folder: Path) -> None:
    corpus.build(store_folder)
    store = Store(store_folder)
    crops = store.crops(np.array([3, 0, 0]), np.array([0, 60, 5]), 38)
    assert crops.shape == (3, 80, 38) and crops.dtype == np.float16
    for crop, (clip, start) in zip(crops, [(3, 0), (0, 60), (0, 5)], strict=True):
        np.testing.assert_array_equal(crop, store.clip(clip)[start : start + 38].T)
    with pytest.raises(ValueError, match="got 61 for 38 frames of clip 0, allowed: 0 to 60"):
        store.crops(np.array([0]), np.array([61]), 38)
    with pytest.raises(ValueError, match="got -1 for 38"):
        store.crops(np.array([0]), np.array([-1]), 38)


def test_part_of_a_file(corpus: Corpus, store_folder: Path) -> None:
    corpus.manifest.loc[0, ["start_s", "duration_s"]] = [0.4, 0.2]
    corpus.build(store_folder)
    samples, _ = soundfile.read(corpus.folder / "a.wav", dtype="float32")
    frames = logmel.log_mel(torch.from_numpy(samples[6400:9600])).T
    np.testing.assert_array_equal(Store(store_folder).clip(0), frames.numpy().astype(np.float16))


def test_long_clip_is_computed_in_blocks(
    corpus: Corpus, store_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "BLOCK_FRAMES", 40)
    corpus.build(store_folder)
    # Other numbers of frames at a time may round differently, within half precision's last digit.
    np.testing.assert_allclose(
        Store(store_folder).clip(0), expected(corpus.folder / "a.wav"), rtol=2e-3
    )


def test_audio_is_made_mono_and_resampled(corpus: Corpus, store_folder: Path) -> None:
    wave = np.random.default_rng(5).uniform(-0.5, 0.5, (19200, 2))
    soundfile.write(corpus.folder / "a.wav", wave, 96000)  # 0.2 s
    corpus.manifest.loc[0, "duration_s"] = 0.2
    corpus.build(store_folder)
    samples, _ = soundfile.read(corpus.folder / "a.wav", dtype="float32")
    mono = logmel.resample(torch.from_numpy(samples.mean(axis=1)), 96000, 16000)
    assert Store(store_folder).num_frames[0] == 18  # 1 + (3200 - 400) // 160
    np.testing.assert_allclose(
        Store(store_folder).clip(0), logmel.log_mel(mono).T.numpy(), rtol=2e-3
    )


def test_unchanged_store_is_kept_and_a_changed_one_made_anew(
    corpus: Corpus, store_folder: Path, capsys: pytest.CaptureFixture
) -> None:
    corpus.build(store_folder)
    shard = store_folder / "shard-00000.f16"
    before = shard.stat().st_mtime_ns, content(store_folder)
    _, made = corpus.build(store_folder)
    assert not made and (shard.stat().st_mtime_ns, content(store_folder)) == before
    corpus.manifest.loc[0, "sha256"] = "another file"
    assert corpus.build(store_folder)[1]
    assert corpus.build(store_folder, front_end=FRONT_END | {"num_mels": 64})[1]
    assert Store(store_folder).clip(0).shape == (98, 64)
    shard.write_bytes(shard.read_bytes()[:-2])
    assert corpus.build(store_folder, front_end=FRONT_END | {"num_mels": 64})[1]
    assert "made again" in capsys.readouterr().out
    assert [path.name for path in store_folder.parent.iterdir()] == ["noise"]


def test_clips_that_fail_now_are_listed_and_tried_again(corpus: Corpus, store_folder: Path) -> None:
    hidden = corpus.folder / "hidden"
    (corpus.folder / "b.wav").rename(hidden)
    with pytest.raises(ValueError, match=r"noise: 1 of 4 clips(.|\n)*b: missing file"):
        corpus.build(store_folder, max_bad_fraction=0.2)
    index, _ = corpus.build(store_folder, max_bad_fraction=0.25)
    assert index["excluded"] == [{"clip": "b", "excluded": "missing file"}]
    assert Store(store_folder).clip_ids.tolist() == ["a", "c", "d"]
    np.testing.assert_allclose(
        Store(store_folder).clip(2), expected(corpus.folder / "d.wav"), rtol=1e-3
    )
    corpus.manifest.loc[0, "sha256"] = "starts anew"
    with pytest.raises(ValueError, match="cannot be used"):
        corpus.build(store_folder, max_bad_fraction=0.0)
    hidden.rename(corpus.folder / "b.wav")
    index, _ = corpus.build(store_folder, max_bad_fraction=0.0)
    assert index["num_clips"] == 4
    corpus.manifest["excluded"] = "made up"
    with pytest.raises(ValueError, match="noise: 4 of 4 clips cannot be used"):
        corpus.build(store_folder, max_bad_fraction=1.0)


def test_shards_follow_from_durations() -> None:
    manifest = pd.DataFrame({"duration_s": [100.0] * 40, "excluded": [""] * 40})
    manifest.loc[3, "excluded"] = "made up"
    # 10,000 frames of 160 bytes are 1.6 MB; 39 clips are 62.4 MB, a sixteenth of it is 3.9 MB.
    plan = shards.plan_shards(manifest, FRONT_END, 10**9)
    assert plan[3] == -1 and plan.max() == 15
    assert np.bincount(plan[plan >= 0]).max() == 3
    # The clips begin at 0, 1.6, 3.2, 4.8, 6.4, 8.0 and 9.6 MB, and a shard at every 2 MB.
    plan = shards.plan_shards(manifest, FRONT_END, 2 * 10**6)
    assert plan[:8].tolist() == [0, 0, 1, -1, 2, 3, 4, 4]
    assert shards.plan_shards(manifest, FRONT_END, 10**6)[[0, 1, 2, 39]].tolist() == [0, 1, 2, 38]


def test_verify_names_what_is_wrong(
    corpus: Corpus, store_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus.build(store_folder)
    shard = store_folder / "shard-00000.f16"
    index = verify(store_folder, again=True)
    assert index["shards"][0]["bytes"] == shard.stat().st_size
    with pytest.raises(ValueError, match="not the index that data/mini/logmel/ names"):
        Store(store_folder, index_sha256="0" * 64)
    original = shard.read_bytes()
    damaged = original[:-1] + bytes([original[-1] ^ 1])
    with monkeypatch.context() as patch:  # a disk that decays changes no times
        patch.setattr(files, "_place", lambda path: [1, 2, 3])
        verify(store_folder, again=True)
        shard.write_bytes(damaged)
        verify(store_folder)
        with pytest.raises(ValueError, match="its checksum is not the index's"):
            verify(store_folder, again=True)
    shard.write_bytes(damaged)
    with pytest.raises(ValueError, match="its checksum is not the index's"):
        verify(store_folder)
    shard.write_bytes(original[:-160])
    with pytest.raises(ValueError, match=f"got {len(original) - 160} bytes, the index says"):
        Store(store_folder)
    shard.unlink()
    with pytest.raises(
        FileNotFoundError, match=r"shard-00000\.f16: missing; run `dvc repro -f logmel@mini`"
    ):
        Store(store_folder)


def test_store_goes_to_another_process_without_its_data(corpus: Corpus, store_folder: Path) -> None:
    corpus.build(store_folder)
    store = Store(store_folder)
    frames = store.clip(0)
    sent = pickle.dumps(store)
    assert len(sent) < 1000
    np.testing.assert_array_equal(pickle.loads(sent).clip(0), frames)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two data sets of four clips, "music" and "birds", each with folds."""
    monkeypatch.setenv("MATPAC_ROOT", str(tmp_path))
    monkeypatch.setenv("MATPAC_DATA", str(tmp_path / "scratch"))
    make_folders(tmp_path)
    return tmp_path


def test_stage_tracks_indices_and_leaves_pretraining_alone(
    project: Path, capsys: pytest.CaptureFixture
) -> None:
    params = folder_params(["music"])
    with pytest.raises(FileNotFoundError, match="run the notebook 01_fetch"):
        preprocess(params)
    fetch(params)
    stage = preprocess(params)
    small = project / "data/mini/logmel"
    before = (small / "pretraining.json").read_bytes()
    assert [path.name for path in (small / "tasks").iterdir()] == ["music.json"]
    corpus = stage["pretraining"]["corpora"][0]
    assert (corpus["name"], corpus["weight"], corpus["num_frames"]) == ("music", 2.0, 98 + 28 + 49)
    store = Store(project / "scratch/mini" / corpus["store"], index_sha256=corpus["index_sha256"])
    mean = np.concatenate([store.clip(i) for i in range(4)]).mean(dtype=np.float64)
    assert stage["pretraining"]["normalisation"]["mean"] == pytest.approx(mean, abs=1e-12)
    assert stage["pretraining"]["normalisation"]["measured"]

    both = folder_params(["birds", "music"])
    fetch(both)
    capsys.readouterr()
    preprocess(both)
    printed = capsys.readouterr().out
    assert "music: 4 clips, 0.00 h, unchanged, kept" in printed and "birds: 4 clips" in printed
    assert (small / "pretraining.json").read_bytes() == before
    assert (small / "tasks/birds.json").exists()
    preprocess(params)
    assert [path.name for path in (small / "tasks").iterdir()] == ["music.json"]


def test_stage_takes_given_normalisation(project: Path) -> None:
    given = {"mean": -7.056, "std": 4.193}
    params = folder_params(["music"], **given)
    fetch(params)
    assert preprocess(params)["pretraining"]["normalisation"] == given | {"measured": False}


@pytest.mark.parametrize("level", [0.0, 0.25], ids=["silent", "constant"])
@pytest.mark.parametrize("given", [{}, {"mean": -7.0, "std": 4.0}], ids=["measured", "given"])
def test_corpora_of_silence_stop_here(project: Path, level: float, given: dict) -> None:
    params = folder_params(["music"], **given)
    folder = manifests.audio_folder(params, "music")
    for path in folder.rglob("*.wav"):
        soundfile.write(path, np.full(16000, level), 16000)
    fetch(params)
    with pytest.raises(ValueError, match="music: nothing to learn from: every clip is silent or"):
        preprocess(params)
    assert not (project / "data/mini/logmel/pretraining.json").exists()


HOLDS = """
    import fcntl, sys, time
    lock = open(sys.argv[1], "a")
    fcntl.lockf(lock, fcntl.LOCK_EX)
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize(("name", "stage"), [("fetch", fetch), ("logmel", preprocess)])
def test_two_stages_do_not_write_into_one_folder(
    project: Path, monkeypatch: pytest.MonkeyPatch, name: str, stage: Any
) -> None:
    params = folder_params(["music"])
    fetch(params)
    monkeypatch.setattr(files, "LOCK_WAIT_S", 0.1)
    lock = project / f"scratch/mini/.{name}.lock"
    command = [sys.executable, "-c", textwrap.dedent(HOLDS), lock]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as other:
        try:
            other.stdout.readline()
            with pytest.raises(BlockingIOError, match=rf"\.{name}\.lock: another process runs"):
                stage(params)
        finally:
            other.kill()
    stage(params)
