"""MTEB: a classification task of audio, made here, evaluated with the encoder of `examples/`."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from kit_sounds import CLASSES, SAMPLE_RATE, Sound

import matpac

mteb = pytest.importorskip("mteb", reason="mteb is not installed")

EXAMPLE = Path(__file__).parents[2] / "examples" / "mteb_matpac.py"


@pytest.fixture(scope="module")
def example() -> ModuleType:
    """The file that a user copies."""
    spec = importlib.util.spec_from_file_location("mteb_matpac", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def rows(sounds: list[Sound], sample_rate: int = SAMPLE_RATE) -> Any:
    """As MTEB's audio tasks hold them once they are decoded."""
    from datasets import Dataset

    audio = [{"array": wave, "sampling_rate": sample_rate} for _, wave in sounds]
    labels = [CLASSES.index(label) for label, _ in sounds]
    return Dataset.from_dict({"audio": audio, "label": labels}).with_format("numpy")


def made_task(splits: dict[str, list[Sound]]) -> Any:
    """A task like MTEB's own, but for where its sounds are from."""
    from datasets import DatasetDict
    from mteb.abstasks.classification import AbsTaskClassification
    from mteb.abstasks.task_metadata import TaskMetadata

    class MadeSounds(AbsTaskClassification):
        metadata = TaskMetadata(
            name="MadeSounds",
            description="Which of four kinds of made sounds.",
            reference=None,
            dataset={"path": "none/made", "revision": "made"},
            type="AudioClassification",
            category="a2c",
            eval_splits=["test"],
            eval_langs=["zxx-Zxxx"],
            main_score="accuracy",
            modalities=["audio"],
        )
        input_column_name, label_column_name = "audio", "label"

        def load_data(self, **_: Any) -> None:
            self.dataset = DatasetDict({s: rows(splits[s]) for s in ("train", "test")})
            self.data_loaded = True

    return MadeSounds()


def test_an_audio_task_is_evaluated(
    example: ModuleType,
    encoder_folder: Path,
    splits: dict[str, list[Sound]],
    tmp_path: Path,
) -> None:
    model = example.MatpacEncoder(str(encoder_folder), device="cpu")
    assert isinstance(model, mteb.models.EncoderProtocol)
    found = mteb.evaluate(
        model, made_task(splits), cache=None, co2_tracker=False, prediction_folder=tmp_path
    )
    scores = found.task_results[0].scores["test"][0]
    print({name: scores[name] for name in ("main_score", "accuracy", "f1")}, mteb.__version__)
    assert scores["main_score"] > 0.8  # chance: 0.25
    predictions = json.loads((tmp_path / "MadeSounds_predictions.json").read_text())
    assert np.shape(predictions["default"]["test"]) == (10, 32)  # 10 draws of 8 clips per class


@pytest.mark.parametrize("sample_rate", [SAMPLE_RATE, 44_100])
def test_its_embeddings_are_the_encoders(
    example: ModuleType, encoder_folder: Path, splits: dict[str, list[Sound]], sample_rate: int
) -> None:
    from mteb._create_dataloaders import create_dataloader

    sounds = [*splits["test"][::8], ("tone", splits["test"][-1][1][:50])]  # and one much too short
    model = example.MatpacEncoder(str(encoder_folder), device="cpu")
    metadata = made_task(splits).metadata
    loader = create_dataloader(rows(sounds, sample_rate), metadata, input_column="audio")
    found = model.encode(loader, task_metadata=metadata, hf_split="test", hf_subset="default")
    assert found.shape == (5, model.encoder.width) and np.isfinite(found).all()
    encoder = matpac.load(encoder_folder, device="cpu")
    theirs = encoder.embed([wave for _, wave in sounds[:4]], sample_rate=sample_rate)
    # Rounding; at another rate also another resampler.
    near = 1e-5 if sample_rate == SAMPLE_RATE else 0.3 * float(theirs.std())
    np.testing.assert_allclose(found[:4], theirs, rtol=0, atol=near)
