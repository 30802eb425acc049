"""X-ARES: its check of an encoder, and a task made in its format, by its own command."""

import importlib.util
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
from kit_sounds import SAMPLE_RATE, Sound

import matpac

pytest.importorskip("xares", reason="xares is not installed")

EXAMPLE = Path(__file__).parents[2] / "examples" / "xares_matpac.py"
TASK = '''
"""A task like X-ARES's own, whose archives are here already."""
import soundfile
import torch
import torchaudio
from xares.task import TaskConfig

CLASSES = ("clicks", "hiss", "sweep", "tone")


def load(path):
    wave, sample_rate = soundfile.read(path, dtype="float32", always_2d=True)
    return torch.from_numpy(wave.T.copy()), sample_rate


# Its own reads files with torchcodec and FFmpeg's libraries, which cannot be had from PyPI.
torchaudio.load = load


def made_config(encoder):
    return TaskConfig(
        name="made",
        encoder=encoder,
        label_processor=lambda told: CLASSES.index(told["label"]),
        output_dim=len(CLASSES),
        epochs=30,
        learning_rate=1e-2,
        batch_size_train=16,
        eval_weight=32,
    )
'''


def write_archive(path: Path, sounds: list[Sound]) -> None:
    """A WebDataset shard: a WAV and a JSON of each sound."""
    with tarfile.open(path, "w") as archive:
        for i, (label, wave) in enumerate(sounds):
            audio = io.BytesIO()
            soundfile.write(audio, wave, SAMPLE_RATE, format="WAV")
            told = json.dumps({"label": label}).encode()
            for suffix, content in (("wav", audio.getvalue()), ("json", told)):
                entry = tarfile.TarInfo(f"{path.stem}_{i:03}.{suffix}")
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))


def test_its_check_of_an_encoder_passes(
    encoder_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from xares.audio_encoder_checker import check_audio_encoder

    monkeypatch.setenv("MATPAC_ENCODER", str(encoder_folder))
    spec = importlib.util.spec_from_file_location("xares_matpac", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    encoder = module.MatpacEncoder()
    assert check_audio_encoder(encoder)
    assert encoder.hop_size_in_ms == pytest.approx(80)  # patches of 8 frames of 10 ms


def test_a_task_is_run(
    encoder_folder: Path, splits: dict[str, list[Sound]], tmp_path: Path
) -> None:
    shutil.copy(EXAMPLE, tmp_path)
    (tmp_path / "made_task.py").write_text(TASK)
    data = tmp_path / "env" / "made"
    data.mkdir(parents=True)
    (data / ".audio_tar_ready").touch()
    for split, sounds in splits.items():
        write_archive(data / f"{split}.tar", sounds)

    command = [sys.executable, "-m", "xares.run", EXAMPLE.name, "made_task.py", "--max-jobs", "0"]
    environment = os.environ | {"MATPAC_ENCODER": str(encoder_folder)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    print(done.stdout[done.stdout.index("Results:") :])

    results = data / "checkpoints" / "MatpacEncoder"
    for name in ("mlp_score.txt", "knn_score.txt"):
        score, num = (results / name).read_text().split()
        assert float(score) > 0.5 and num == "32"  # chance: 0.25
    encoder = matpac.load(encoder_folder, device="cpu")
    shards = sorted((data / "embeddings" / "MatpacEncoder").glob("wds-encoded-test*.tar"))
    with tarfile.open(shards[0]) as archive:
        first = min(name for name in archive.getnames() if name.endswith(".npy"))
        theirs = np.load(io.BytesIO(archive.extractfile(first).read()))
    audio = io.BytesIO()
    soundfile.write(audio, splits["test"][0][1], SAMPLE_RATE, format="WAV")
    wave, _ = soundfile.read(io.BytesIO(audio.getvalue()), dtype="float32")
    ours = encoder.embed(wave, sample_rate=SAMPLE_RATE, frames=True).embeddings
    # Rounding: batches of other sizes sum in another order. A column behind the end is left out.
    np.testing.assert_allclose(theirs, ours[: len(theirs)], rtol=0, atol=1e-5)
