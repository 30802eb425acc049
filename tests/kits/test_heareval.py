"""HEAR's own programs, `heareval`: embeddings of two tasks in its format, and predictions."""

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from kit_sounds import CLASSES, SAMPLE_RATE, Sound, sound

import matpac
from matpac import hear

pytest.importorskip("heareval", reason="heareval is not installed")

GRID = {"hidden_layers": [0], "lr": [1e-2], "batch_size": [128], "patience": [20]}
"""Of its predictions: a linear layer; epochs are the task's."""
POSTPROCESSING = {"event_postprocessing_grid": {"median_filter_ms": [250], "min_duration": [125]}}
EVENTS = ("hiss", "tone")


def write_task(folder: Path, files: dict[str, Any], labels: tuple[str, ...], **told: Any) -> None:
    """A task as hearpreprocess leaves it.

    Args:
        files: of a split, by name: waveform and labels.
        told: the task's metadata; ``grid`` of its predictions besides `GRID`.
    """
    folder.mkdir(parents=True)
    told |= {"task_name": folder.name, "version": "made", "split_mode": "trainvaltest"}
    grid = {"task_specific_param_grid": GRID | told.pop("grid")}
    told |= {"splits": list(files), "evaluation_params": POSTPROCESSING | grid}
    (folder / "task_metadata.json").write_text(json.dumps(told))
    rows = [f"{i},{label}" for i, label in enumerate(labels)]
    (folder / "labelvocabulary.csv").write_text("\n".join(["idx,label", *rows]) + "\n")
    for split, content in files.items():
        audio = folder / str(SAMPLE_RATE) / split
        audio.mkdir(parents=True)
        for name, (wave, _) in content.items():
            soundfile.write(audio / name, wave, SAMPLE_RATE)
        found = {name: labels for name, (_, labels) in content.items()}
        (folder / f"{split}.json").write_text(json.dumps(found))


def scenes(splits: dict[str, list[Sound]]) -> dict[str, Any]:
    """A sound and its class, in every split."""
    return {
        split: {f"{split}{i}.wav": (wave, [label]) for i, (label, wave) in enumerate(content)}
        for split, content in splits.items()
    }


def scenery(rng: np.random.Generator) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """Four seconds of soft noise in which two sounds of 0.7 s begin, with their times in ms."""
    wave = (0.001 * rng.standard_normal(4 * SAMPLE_RATE)).astype(np.float32)
    events = []
    for second in (rng.uniform(0.2, 1.0), rng.uniform(2.2, 3.0)):
        label, start = rng.choice(EVENTS), int(second * SAMPLE_RATE)
        part = sound(label, rng, 0.7)
        wave[start : start + len(part)] += part
        events.append({"label": str(label), "start": 1000 * second, "end": 1000 * (second + 0.7)})
    return wave, events


def run(module: str, *arguments: Any, folder: Path) -> None:
    """One of the kit's two commands, in a process of its own."""
    # Its checkpoints hold classes, which torch.load has refused by default since torch 2.6.
    environment = os.environ | {"TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1"}
    command = [sys.executable, "-m", module, *map(str, arguments)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


@pytest.fixture(scope="module")
def root(
    tmp_path_factory: pytest.TempPathFactory, splits: dict[str, list[Sound]], encoder_folder: Path
) -> Path:
    """Both tasks, their embeddings by HEAR's runner, and predictions from them."""
    root, rng = tmp_path_factory.mktemp("hear"), np.random.default_rng(1)
    write_task(
        root / "tasks" / "scenes",
        scenes(splits),
        CLASSES,
        embedding_type="scene",
        prediction_type="multiclass",
        sample_duration=1.0,
        evaluation=["top1_acc", "mAP"],
        grid={"max_epochs": [200], "check_val_every_n_epoch": [20]},
    )
    sizes = {"train": 24, "valid": 8, "test": 8}
    write_task(
        root / "tasks" / "events",
        {s: {f"{s}{i}.wav": scenery(rng) for i in range(num)} for s, num in sizes.items()},
        EVENTS,
        embedding_type="event",
        prediction_type="multilabel",
        sample_duration=4.0,
        evaluation=["event_onset_200ms_fms", "segment_1s_er"],
        grid={"max_epochs": [40], "check_val_every_n_epoch": [10]},
        # Otherwise it looks up the post-processing by the best epoch, where Lightning since 1.6
        # tells it the last one.
        use_scoring_for_early_stopping=False,
    )
    run("heareval.embeddings.runner", "matpac.hear", "--model", encoder_folder, folder=root)
    tasks = sorted((root / "embeddings" / "matpac.hear").iterdir())
    run("heareval.predictions.runner", *tasks, "--grid-points", 1, folder=root)
    return root


def scores(root: Path, task: str) -> dict[str, float]:
    """As it predicted the test split."""
    path = root / "embeddings" / "matpac.hear" / task / "test.predicted-scores.json"
    found = json.loads(path.read_text())["test"]
    print(task, found)
    return found


def test_embeddings_of_scenes_are_the_encoders(root: Path, encoder_folder: Path) -> None:
    encoder = matpac.load(encoder_folder, device="cpu")
    for path in sorted((root / "tasks" / "scenes" / str(SAMPLE_RATE) / "test").iterdir()):
        theirs = np.load(
            root / "embeddings" / "matpac.hear" / "scenes" / "test" / f"{path.name}.embedding.npy"
        )
        # Rounding: batches of other sizes sum in another order.
        np.testing.assert_allclose(theirs, encoder.embed(path), rtol=0, atol=1e-5)


def test_embeddings_of_events_are_the_encoders_with_their_times(
    root: Path, encoder_folder: Path
) -> None:
    model = hear.load_model(str(encoder_folder))
    name = "test0.wav"
    audio, _ = soundfile.read(
        root / "tasks" / "events" / str(SAMPLE_RATE) / "test" / name, dtype="float32"
    )
    columns, stamps = hear.get_timestamp_embeddings(torch.from_numpy(audio)[None], model)
    folder = root / "embeddings" / "matpac.hear" / "events"
    np.testing.assert_allclose(
        np.load(folder / "test" / f"{name}.embedding.npy"), columns[0], rtol=0, atol=1e-5
    )
    times = json.loads((folder / "test" / f"{name}.timestamps.json").read_text())
    np.testing.assert_allclose(times, stamps[0], rtol=1e-6)
    labels = pickle.loads((folder / "test.target-labels.pkl").read_bytes())
    assert len(labels) == 8 * len(times)
    assert {name for each in labels for name in each} == set(EVENTS)


def test_predictions_of_scenes_are_right(root: Path) -> None:
    found = scores(root, "scenes")
    assert found["test_top1_acc"] > 0.8  # chance: 0.25


def test_predictions_of_events_are_right(root: Path) -> None:
    found = scores(root, "events")
    # By chance 0.1: two events, 0.4 s of 4 around an onset, one of two labels.
    assert found["test_event_onset_200ms_fms"] > 0.5
