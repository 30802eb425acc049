"""The probe stage: which encoder, which labels, which settings."""

import shutil
from pathlib import Path
from typing import Any

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


def test_embeddings_of_a_task_are_kept_under_the_encoders_name(params) -> None:
    features = probe.list_features(params, "base")[0]
    probe.task_scores(params, features, "nsynth")
    store = probe.open_store(params, "nsynth")
    expected = embeddings.embed_clips(features.encoder, store, range(len(store)))
    kept = [np.load(p) for p in (config.bulk(params) / "embeddings" / "base").glob("*.npy")]
    assert any(np.array_equal(each, expected) for each in kept)


def with_probe(params: config.Params, **changes: Any) -> config.Params:
    sections = smoke.sections()
    return config.parse(config.Params, sections | {"probe": sections["probe"] | changes})


def test_several_rates_one_is_taken_per_fold_and_told(
    smoke_root, params, tmp_path: Path, monkeypatch
) -> None:
    rates = [3.0e-2, 3.0e-5, 3.0e-3]
    changed = with_probe(params, learning_rate=rates, epochs=3)
    logmel = probe.list_features(params, "logmel")[0]
    alone = {
        rate: probe.task_scores(with_probe(params, learning_rate=rate, epochs=3), logmel, "esc50")
        for rate in rates
    }
    means = {rate: frame.groupby("fold")["valid_loss"].mean() for rate, frame in alone.items()}
    best = pd.DataFrame(means).idxmin(axis=1)  # by fold
    root = tmp_path / "copy"
    shutil.copytree(smoke_root, root, ignore=shutil.ignore_patterns("audio", "embeddings"))
    monkeypatch.setenv("MATPAC_ROOT", str(root))
    probe.probe("logmel", changed)
    scores = pd.read_csv(config.small(changed) / "probe" / "logmel" / "scores.csv")
    assert len(scores) == 14
    esc50 = scores[scores["task"] == "esc50"]
    assert set(best) < set(rates) and len(set(best)) > 1, "folds differ here"
    for _, row in esc50.iterrows():
        assert row["learning_rate"] == best[row["fold"]]
        other = alone[row["learning_rate"]]
        same = other[(other["fold"] == row["fold"]) & (other["repeat"] == row["repeat"])]
        assert row["score"] == pytest.approx(same["score"].item(), abs=1e-6)
        assert row["valid_loss"] == pytest.approx(same["valid_loss"].item(), abs=1e-5)


def test_every_setting_of_the_section_reaches_the_probes(params, monkeypatch) -> None:
    given = {}
    monkeypatch.setattr(probe, "train_probes", lambda *args, **options: given.update(options) or {})
    changes = {"batch_size": 16, "learning_rate": [0.1, 0.2], "epochs": 7, "patience": 3}
    changes |= {"weight_decay": 0.01, "standardize": False}
    settings = with_probe(params, **changes).probe
    probe.task_results(params, probe.list_features(params, "logmel")[0], "nsynth", settings)
    changes["learning_rates"] = changes.pop("learning_rate")
    assert {name: given[name] for name in changes} == changes
    assert given["kind"] == "multiclass" and given["num_classes"] == 11


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
