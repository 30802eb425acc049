"""The probe stage: which encoder, which labels, embeddings computed once."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from matpac import config, embeddings, files, probe
from matpac.trainer import Trainer

import smoke


@pytest.fixture
def params(smoke_root: Path) -> config.Params:
    return config.parse(config.Params, smoke.sections())


def test_the_random_encoder_is_the_base_run_before_its_first_update(params) -> None:
    ours = probe.random_encoder(params)
    index = files.read_json(config.small(params) / "logmel" / "pretraining.json")
    mean, std = (index["normalisation"][name] for name in ("mean", "std"))
    started = Trainer(config.resolve(params, "base"), 80, mean=mean, std=std).student
    trained = probe.list_features(params, "base")[0].encoder
    assert (ours.mean, ours.std) == (mean, std) == (trained.mean, trained.std)
    assert ours.front_end == trained.front_end == index["front_end"]
    for name, tensor in ours.encoder.state_dict().items():
        assert torch.equal(tensor, started.encoder.state_dict()[name])
    same = [
        torch.equal(tensor, trained.encoder.state_dict()[name])
        for name, tensor in ours.encoder.state_dict().items()
    ]
    assert not any(same), "training changes every tensor"


def test_likelihoods_become_labels_at_one_half_and_nan_stays() -> None:
    manifest = pd.DataFrame({"labels": [[0.5, 0.49, np.nan], [1.0, 0.0, 0.51]]})
    expected = [[1, 0, np.nan], [1, 0, 1]]
    np.testing.assert_array_equal(probe.target_array(manifest, "multilabel"), expected)
    labels = probe.target_array(pd.DataFrame({"label": [3, 0]}), "multiclass")
    assert labels.tolist() == [3, 0] and labels.dtype == np.int64


def test_embeddings_are_computed_once_per_encoder_and_store(params, monkeypatch) -> None:
    features = probe.list_features(params, "base")[0]
    store = probe.open_store(params, "nsynth")
    first = probe.embeddings(params, features, store)
    expected = embeddings.embed_clips(features.encoder, store, range(len(store)))
    np.testing.assert_array_equal(first, expected)
    calls = []
    monkeypatch.setattr(probe, "embed_clips", lambda *args: calls.append(args) or first)
    assert np.array_equal(probe.embeddings(params, features, store), first) and not calls
    with torch.no_grad():
        features.encoder.encoder.norm.bias[0] += 1e-3
    probe.embeddings(params, features, store)
    assert len(calls) == 1, "another encoder is another key"
    probe.embeddings(params, features, probe.open_store(params, "esc50"))
    assert len(calls) == 2, "so is another store"


def test_normalisation_belongs_to_the_encoders_identity(params) -> None:
    encoder = probe.random_encoder(params)
    before = probe.identity(encoder)
    encoder.mean += 0.1
    assert probe.identity(encoder) != before


def test_one_row_per_fold_and_repeat_of_every_task(params) -> None:
    scores = pd.read_csv(config.small(params) / "probe" / "base" / "scores.csv")
    rows = scores.groupby("task", sort=False).size().to_dict()
    assert rows == {"nsynth": 2, "fsd50k": 2, "esc50": 10}  # two repeats; five folds
    assert scores["score"].between(0, 1).all() and set(scores["encoder"]) == {"base"}
    metrics = files.read_json(config.small(params) / "metrics" / "probe" / "base.json")
    expected = scores[scores["task"] == "esc50"]["score"].mean()
    assert metrics["esc50"] == pytest.approx(expected, abs=1e-6)


def test_what_is_missing_names_the_stage(params, monkeypatch, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="encoder: got 'bse', allowed: base, alpha1"):
        probe.probe("bse", params)
    monkeypatch.setenv("MATPAC_ROOT", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="the pretrain stage writes it"):
        probe.probe("base", params)
    with pytest.raises(FileNotFoundError, match="run the stage logmel@smoke"):
        probe.probe("random", params)
