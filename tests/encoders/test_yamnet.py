"""YAMNet: the contract, and real, trained weights against a number from elsewhere."""

import pickle
from pathlib import Path

import encoder_checks
import numpy as np
import pandas as pd
import pytest
import torch

from matpac.encoders import yamnet
from matpac.probing.identity import identity

pytest.importorskip("ai_edge_litert", reason="the extra yamnet is not installed")
SHARED = Path(__file__).parents[3] / "shared"
WEIGHTS = SHARED / "weights" / "yamnet.tflite"
pytestmark = pytest.mark.skipif(not WEIGHTS.exists(), reason="needs the published file")


@pytest.fixture(scope="module")
def encoder() -> yamnet.YAMNet:
    return yamnet.make(WEIGHTS)


FOR_A_WINDOW = [c for c in encoder_checks.CHECKS if c is not encoder_checks.columns_follow_time]
"""A piece has one column."""


@pytest.mark.parametrize("check", FOR_A_WINDOW, ids=lambda check: check.__name__)
def test_contract(encoder: yamnet.YAMNet, check: encoder_checks.Check) -> None:
    check(encoder)


def test_windows_of_a_clip_are_those_of_the_network_itself(encoder: yamnet.YAMNet) -> None:
    """Given the whole clip it cuts it alike, but for what it adds to fill the last window."""
    from ai_edge_litert.interpreter import Interpreter

    clip = encoder_checks.waves(encoder, 1, yamnet.WINDOW + 3 * yamnet.HOP)[0]
    whole = Interpreter(str(WEIGHTS))
    whole.resize_tensor_input(whole.get_input_details()[0]["index"], [len(clip)])
    whole.allocate_tensors()
    whole.set_tensor(whole.get_input_details()[0]["index"], clip.numpy())
    whole.invoke()
    outputs = [whole.get_tensor(each["index"]) for each in whole.get_output_details()]
    expected = next(each for each in outputs if each.shape[1] == 1024)
    found = encoder.embed(clip, sample_rate=16000, frames=True)
    np.testing.assert_array_equal(found.embeddings[:4], expected[:4])
    assert found.times[:4].tolist() == pytest.approx([0.4875 + 0.48 * n for n in range(4)])


def test_it_can_be_sent_to_other_processes(encoder: yamnet.YAMNet) -> None:
    again = pickle.loads(pickle.dumps(encoder))
    wave = encoder_checks.waves(encoder, 1, 16_000)[0]
    assert torch.equal(again.embed(wave, sample_rate=16000), encoder.embed(wave, sample_rate=16000))
    assert identity(again) == identity(encoder)


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "cut.tflite").write_bytes(WEIGHTS.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"cut.tflite: not YAMNet's network"):
        yamnet.make(tmp_path / "cut.tflite")
    with pytest.raises(FileNotFoundError, match=r"none.tflite: no such file"):
        yamnet.make(tmp_path / "none.tflite")


def test_esc10_as_measured_elsewhere(encoder: yamnet.YAMNet) -> None:
    """A ridge classifier (1024) on its mean embeddings had 94.5 % over the five folds."""
    from sklearn.linear_model import RidgeClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    folder = SHARED / "datasets" / "esc10"
    if not folder.exists():
        pytest.skip("needs ESC-10")
    table = pd.read_csv(folder / "meta" / "esc10.csv")
    found = encoder.embed([folder / "audio" / name for name in table["filename"]]).numpy()
    scores = []
    for fold in range(1, 6):
        train, test = (table["fold"] != fold).to_numpy(), (table["fold"] == fold).to_numpy()
        model = make_pipeline(StandardScaler(), RidgeClassifier(alpha=1024.0))
        model.fit(found[train], table["target"][train])
        scores.append(model.score(found[test], table["target"][test]))
    # 6 of 400 clips either way: other resampling. It was 95.0 % here.
    assert np.mean(scores) == pytest.approx(0.945, abs=0.015), scores
