"""What notebook 07 plays and draws, and that it speaks of the mini profile as it is."""

import io
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import yaml

from matpac.reporting import listening

PROJECT = Path(__file__).parents[2]


def test_excerpt_is_the_loudest_stretch_at_one_level() -> None:
    waveform = np.full(32000, 0.001)
    waveform[16000:24000] = 0.01  # the second from 1.0 s to 1.5 s
    piece = listening.excerpt(waveform, 0.5)
    assert len(piece) == 8000
    assert np.sqrt(np.mean(piece**2)) == pytest.approx(listening.LEVEL)
    assert piece[0] == 0 and piece[-1] == 0
    # all of it is the loud part: flat between the fades of 320 samples
    assert np.ptp(piece[320:-320]) == 0


def test_excerpt_of_a_click_does_not_clip() -> None:
    waveform = np.zeros(16000)
    waveform[8000] = 1.0
    assert np.abs(listening.excerpt(waveform, 1.0)).max() == pytest.approx(0.9)


def test_mp3_holds_the_sound_in_three_kilobytes_a_second() -> None:
    tone = 0.5 * np.sin(2 * np.pi * 1000 * np.arange(32000) / 16000)
    encoded = listening.mp3(tone)
    assert 5500 < len(encoded) < 7000
    decoded, rate = soundfile.read(io.BytesIO(encoded))
    assert rate == 16000 and abs(len(decoded) - 32000) < 2000
    spectrum = np.abs(np.fft.rfft(decoded[8000:24000]))
    assert spectrum.argmax() == 1000  # bins of 1 Hz


def test_splits_counts_parts() -> None:
    table = listening.splits({"pretraining": 30, "nsynth": 220, "esc50": 200})
    nsynth = ["multiclass", 11, "accuracy", 220, "110 train / 22 valid / 88 test"]
    assert table.loc["nsynth"].tolist() == nsynth
    assert table.loc["esc50", "parts"] == "5 folds of 40"
    assert table.loc["pretraining", "parts"] == ""


def test_answers_tell_heard_from_not_heard_and_not_asked() -> None:
    target = [0.8, 0.2, float("nan"), 0.61] + [float("nan")] * 16
    table = listening.answers("openmic", pd.DataFrame({"target": [target]}))
    assert table.iloc[0].tolist() == ["accordion 0.8, cello 0.6", 1, 17]


def test_masked_shows_each_patch_to_one_of_the_two() -> None:
    waveform = np.random.default_rng(0).normal(size=16000)
    figure, counts = listening.masked(waveform, crop_frames=96, patch_size=16, mask_ratio=0.7)
    assert counts.tolist() == [5, 6, 30, 9, 21]  # rows, columns, patches, visible, masked
    whole, student, teacher = (panel.images[0].get_array() for panel in figure.axes)
    hidden = np.ma.getmaskarray(student), np.ma.getmaskarray(teacher)
    assert not np.ma.getmaskarray(whole).any()
    assert np.array_equal(hidden[0], ~hidden[1])
    assert hidden[0].mean() == pytest.approx(21 / 30)


def test_the_notebook_has_the_sizes_and_seeds_of_the_mini_profile() -> None:
    notebook = (PROJECT / "notebooks" / "07_corpus.ipynb").read_text()
    sources = [PROJECT / name for name in ("params.mini.yaml", "params.yaml")]
    params = yaml.safe_load(next(path for path in sources if path.exists()).read_text())
    for name, dataset in params["datasets"].items():
        recipe = dataset["recipe"]
        assert re.search(rf'{recipe}\\": {dataset["num_clips"]}\b', notebook), name
        assert re.search(rf'listen\(\\"{recipe}\\", seed={dataset["seed"]}\b', notebook), name
