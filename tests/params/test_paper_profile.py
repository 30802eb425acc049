"""The paper's profile at its true size: ViT-Base starts, trains, stops and resumes on a CPU."""

import csv
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml

from matpac.data.fetch import fetch
from matpac.encoders.frozen import load_encoder
from matpac.features.preprocess import preprocess
from matpac.params import Params, parse
from matpac.pretraining import pretrain
from matpac.pretraining.config import PretrainConfig
from matpac.pretraining.trainer import Trainer

ROOT = Path(__file__).parents[2]
CLIPS = 6


def paper_profile(folder: Path) -> dict:
    """``params.paper.yaml`` on a folder of ten-second clips, for two updates of one clip."""
    sections = yaml.safe_load((ROOT / "params.paper.yaml").read_text())
    folder.mkdir()
    random, rows = np.random.default_rng(0), ["filename,label,split"]
    for number in range(CLIPS):
        wave = np.cumsum(random.normal(0, 0.01, 10 * 16000))
        soundfile.write(folder / f"{number}.flac", np.sin(wave) / 2, 16000)
        rows.append(f"{number}.flac,{number % 2},{('train', 'valid', 'test')[number // 2]}")
    table = folder.parent / "clips.csv"
    table.write_text("\n".join(rows) + "\n")
    mine = {"source": "folder", "audio": str(folder), "csv": str(table)}
    mine |= {"labels": "label", "kind": "multiclass", "split": "split"}
    sections |= {"datasets": {"mine": mine}, "corpora": {"mine": 1.0}, "tasks": ["mine"]}
    sections["pretrain"] |= {"batch_size": 1, "epochs": 2.5 / CLIPS, "warmup_epochs": 0.0}
    # Compiling for a CPU takes minutes; loader processes gain nothing here.
    sections["pretrain"] |= {"compile": False, "workers": 0, "precision": "float32"}
    return sections


@pytest.mark.slow
def test_vit_base_starts_stops_resumes_and_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("MATPAC_ROOT", str(tmp_path))
    params = parse(Params, paper_profile(tmp_path / "audio"))
    fetch(params)
    preprocess(params)
    whole, steps = Trainer.step, []

    def stopped(self: Trainer, batch: object, step: int, *args: object, **named: object):
        steps.append(step)
        if steps == [0, 1]:
            raise MemoryError("stopped by the test")
        return whole(self, batch, step, *args, **named)

    monkeypatch.setattr(Trainer, "step", stopped)
    frequent = parse(Params, params.model_dump() | {"pretrain": _every_step(params.pretrain)})
    with pytest.raises(MemoryError):
        pretrain.pretrain("base", frequent)
    metrics = pretrain.pretrain("base", frequent)["seed_0"]
    assert steps == [0, 1, 1]
    assert "base: resuming at step 1" in capsys.readouterr().out
    assert metrics["steps"] == 2 and metrics["clips"] == CLIPS
    small = tmp_path / "data" / "paper"
    with (small / "logs" / "base" / "seed_0" / "log.csv").open() as file:
        log = [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]
    assert [row["step"] for row in log] == [0, 1]
    assert all(math.isfinite(value) for row in log for value in row.values())
    # At the start predictions point anywhere; the teacher's entropy is at most ln K.
    assert 1.5 < log[0]["prediction_loss"] < 2.5
    assert log[0]["classification_loss"] < 1.2 * math.log(2048)
    encoder = load_encoder(small / "pretrain" / "base" / "seed_0")
    assert encoder.width == 5 * 768 and (encoder.mean, encoder.std) == (-7.056, 4.193)
    shutil.rmtree(small / "checkpoints")  # gigabytes


def _every_step(section: PretrainConfig) -> dict:
    return section.model_dump() | {"checkpoint_every_s": 0.0, "keep_checkpoints": 1}
