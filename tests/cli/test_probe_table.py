"""`matpac probe TABLE.csv --audio FOLDER --encoder ENCODER`."""

import re
from pathlib import Path

import encoder_checks
import numpy as np
import pandas as pd
import pytest
import soundfile

from matpac.encoders.frozen import save_encoder

import command

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def sounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pd.DataFrame:
    """Noises and high tones by six speakers, outside any project, in ``table.csv``."""
    monkeypatch.chdir(tmp_path)
    save_encoder(encoder_checks.tiny_net(), tmp_path / "encoder")
    random, rows = np.random.default_rng(0), []
    for number in range(36):
        word, speaker = ("noise", "tone")[number % 2], f"s{number % 6}{number % 2}"
        wave = random.normal(0, 0.1, 8000)
        if word == "tone":
            wave = 0.1 * wave + 0.3 * np.sin(2 * np.pi * 3000 * np.arange(8000) / 16000)
        (tmp_path / "audio").mkdir(exist_ok=True)
        soundfile.write(tmp_path / "audio" / f"{number}.wav", wave, 16000)
        fold, split = 1 + number // 2 % 3, ("train", "valid", "test")[number // 2 % 3]
        rows.append((f"{number}.wav", word, f"{word},loud", fold, split, speaker))
    columns = ["filename", "label", "labels", "fold", "split", "speaker"]
    table = pd.DataFrame(rows, columns=columns)
    table.to_csv(tmp_path / "table.csv", index=False)
    return table


def probed(*options: str) -> int:
    return command.matpac(
        "probe", "table.csv", "--audio", "audio", "--encoder", "encoder", *options
    )


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "5 folds), 36 clips, 2 classes"),
        (["--fold", "fold"], "3 folds), 36 clips, 2 classes"),
        (["--split", "split"], "3 repeats of the probe), 36 clips, 2 classes"),
        (["--separator", ",", "--label", "labels", "--fold", "fold"], "3 folds), 36 clips, 3"),
    ],
)
def test_a_score_with_its_interval(
    sounds: pd.DataFrame, capsys: pytest.CaptureFixture[str], options: list[str], said: str
) -> None:
    before = sorted(path.name for path in Path().iterdir())
    assert probed(*options) == 0
    *hints, line = capsys.readouterr().out.splitlines()
    unasked = "table.csv: columns not used unless asked for (--fold or --split, --group): "
    assert hints == [unasked + "['fold', 'split']"] * (not options)
    metric = "mAP" if "--separator" in options else "accuracy"
    mean, half = map(float, re.match(rf"{metric} ([\d.]+) ± ([\d.]+) % ", line).groups())
    assert mean > 90 and half < 20 and said in line  # a tone is no noise, to any network
    assert sorted(path.name for path in Path().iterdir()) == before


def test_files_that_cannot_be_used_are_told(
    sounds: pd.DataFrame, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("audio/0.wav").write_bytes(b"no audio")
    assert probed() == 0
    out = capsys.readouterr().out
    assert "1 clips are left out:\n  0.wav: " in out and "35 clips, 2 classes" in out


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--label", "word"], "no column 'word'"),
        (["--separator", ",", "--label", "labels"], "needed: a column with the fold or the split"),
        (["--fold", "fold", "--split", "split"], "both a fold and a split"),
        (["--group", "label"], "classes of fewer than 5 clips or groups: noise, tone"),
    ],
)
def test_what_cannot_be_probed_is_said(
    sounds: pd.DataFrame, capsys: pytest.CaptureFixture[str], options: list[str], said: str
) -> None:
    assert probed(*options) == 1
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("options", [[], ["--fold", "fold"], ["--split", "split"]])
def test_one_class_is_no_task(
    sounds: pd.DataFrame, capsys: pytest.CaptureFixture[str], options: list[str]
) -> None:
    sounds.assign(label="tone").to_csv("table.csv", index=False)
    assert probed(*options) == 1
    assert "table.csv: column 'label': 1 class (tone)" in capsys.readouterr().err


def test_without_audio_it_is_a_name_of_params_yaml(
    sounds: pd.DataFrame, capsys: pytest.CaptureFixture[str]
) -> None:
    options = (["--encoder", "encoder"], ["--weights", "file.pt"])
    for given in (["table.csv"], *(["logmel", *each] for each in options)):
        assert command.matpac("probe", *given) == 2
        assert "--audio is missing" in capsys.readouterr().err
