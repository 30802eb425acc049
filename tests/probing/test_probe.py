"""The probe stage: which encoder, which labels, which settings."""

import shutil
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
import torch

import matpac
from matpac.core import files, paths
from matpac.data import manifests
from matpac.encoders import heads
from matpac.params import Params, parse
from matpac.pretraining import config
from matpac.pretraining.trainer import Trainer
from matpac.probing import kept, metrics, probe, rows
from matpac.probing.config import EncoderConfig
from matpac.probing.fewshot import few_shot
from matpac.probing.identity import identity
from matpac.probing.knn import knn
from matpac.probing.linear import choose, train_probes
from matpac.probing.rows import Features, list_features

import command
import smoke
from probes import alone


@pytest.fixture
def params(smoke_root: Path) -> Params:
    return parse(Params, smoke.sections())


def linear(params: Params, features: Features, task: str) -> pd.DataFrame:
    """Scores of the linear probes of one task."""
    return probe.probe_task(params, features, task).linear


def test_the_random_encoder_is_the_base_run_before_its_first_update(params) -> None:
    ours = rows.random_encoder(params, "base", params.pretrain.seed)
    index = files.read_json(paths.small(params) / "logmel" / "pretraining.json")
    mean, std = (index["normalisation"][name] for name in ("mean", "std"))
    started = Trainer(config.resolve(params, "base"), 80, mean=mean, std=std).student
    trained = list_features(params, "base")[0].encoder
    assert (ours.mean, ours.std) == (mean, std) == (trained.mean, trained.std)
    assert ours.front_end == trained.front_end == index["front_end"]
    for name, tensor in ours.encoder.state_dict().items():
        assert torch.equal(tensor, started.encoder.state_dict()[name])
    same = [
        torch.equal(tensor, trained.encoder.state_dict()[name])
        for name, tensor in ours.encoder.state_dict().items()
    ]
    assert not any(same), "training changes every tensor"


def test_random_initialisation_may_have_several_seeds(params) -> None:
    found = list_features(with_encoder(kind="random", seeds=[0, 1]), "x")
    assert [each.seed for each in found] == [0, 1]
    first, second = (identity(each.encoder) for each in found)
    assert first == identity(list_features(params, "random")[0].encoder) != second
    for wrong in ({"kind": "logmel_statistics", "seeds": [0]}, {"kind": "random", "seeds": [1, 1]}):
        with pytest.raises(ValueError, match="allowed: of the kind random, each once"):
            with_encoder(**wrong)


def test_likelihoods_become_labels_at_one_half_and_nan_stays() -> None:
    manifest = pd.DataFrame({"labels": [[0.5, 0.49, np.nan], [1.0, 0.0, 0.51]]})
    expected = [[1, 0, np.nan], [1, 0, 1]]
    np.testing.assert_array_equal(probe.target_array(manifest, "multilabel"), expected)
    labels = probe.target_array(pd.DataFrame({"label": [3, 0]}), "multiclass")
    assert labels.tolist() == [3, 0] and labels.dtype == np.int64


def test_encoders_on_the_way_make_a_curve_and_no_scores(params) -> None:
    folder = paths.small(params) / "probe" / "base"
    scores, curve = (pd.read_csv(folder / f"{name}.csv") for name in ("scores", "curve"))
    assert curve["fraction"].unique().tolist() == [0.5] and "fraction" not in scores
    keys = ["seed", "task", "fold", "repeat"]
    assert curve[keys].equals(scores[keys]) and not curve["score"].equals(scores["score"])
    assert set(pd.read_csv(folder / "quick.csv")["task"]) == set(params.tasks)
    assert not rows.on_the_way(params, "logmel") and not rows.on_the_way(params, "alpha1")


def test_several_rates_one_is_taken_per_fold_and_told(
    smoke_root, params, tmp_path: Path, monkeypatch
) -> None:
    rates = {"learning_rate": [3.0e-2, 3.0e-5, 3.0e-3], "epochs": 3}
    one = {"probe": params.probe.model_copy(update=rates), "tasks": ["esc50"]}
    changed = params.model_copy(update=one)
    root = tmp_path / "copy"
    shutil.copytree(smoke_root, root, ignore=shutil.ignore_patterns("audio", "embeddings"))
    monkeypatch.setenv("MATPAC_ROOT", str(root))
    probe.probe("logmel", changed)
    esc50 = pd.read_csv(paths.small(changed) / "probe" / "logmel" / "scores.csv")
    assert esc50.groupby("fold")["learning_rate"].nunique().eq(1).all()
    assert esc50["learning_rate"].nunique() > 1, "folds differ here"
    task = probe.load_task(changed, list_features(changed, "logmel")[0], "esc50")[0]
    for row, result in zip(
        esc50.to_dict("records"), choose(train_probes(task, changed.probe)), strict=True
    ):
        for name in ("fold", "repeat", "learning_rate", "score", "valid_loss"):
            assert row[name] == pytest.approx(getattr(result, name), abs=1e-5)


def test_one_row_per_fold_and_repeat_of_every_task(params) -> None:
    scores = pd.read_csv(paths.small(params) / "probe" / "base" / "scores.csv")
    rows = scores.groupby("task", sort=False).size().to_dict()
    assert rows == {"nsynth": 2, "fsd50k": 2, "esc50": 10}  # two repeats; five folds
    assert scores["score"].between(0, 1).all() and set(scores["encoder"]) == {"base"}
    metrics = files.read_json(paths.small(params) / "metrics" / "probe" / "base.json")
    expected = scores[scores["task"] == "esc50"]["score"].mean()
    assert metrics["esc50"] == pytest.approx(expected, abs=1e-6)


def of_base(params: Params, name: str) -> pd.DataFrame:
    path = paths.small(params) / "probe" / "base" / name
    return pd.read_parquet(path) if name.endswith("parquet") else pd.read_csv(path)


def test_predictions_give_the_scores_again_and_name_every_test_clip(params) -> None:
    scores = of_base(params, "scores.csv").set_index(["task", "fold", "repeat"])
    predictions = of_base(params, "predictions.parquet")
    assert set(predictions["encoder"]) == {"base"} and set(predictions["seed"]) == {0}
    probes = predictions.groupby(["task", "fold", "repeat"])
    assert set(probes.groups) == set(scores.index)
    for probed, part in probes:
        task, fold, _ = probed
        if task == "fsd50k":
            logits, targets = (np.stack(part[name].to_list()) for name in ("scores", "labels"))
            found = metrics.score(logits, targets)[0]
        else:
            found = (part["label"] == part["predicted"]).mean()
        # Exactly, but for the six decimals of the file.
        assert f"{found:.6f}" == f"{scores.loc[probed, 'score']:.6f}"
        manifest = manifests.load(params, task)[0].set_index("clip")
        tested = (manifest["split"] == "test") if fold == 0 else (manifest["fold"] == fold)
        assert sorted(part["clip"]) == sorted(manifest.index[tested])
        assert (manifest["group"].astype(str)[part["clip"]] == part["group"].to_numpy()).all()


def test_side_by_side_gives_what_one_after_the_other_gives(
    params, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also from processes of a server that was started with another project."""
    features = list_features(params, "logmel")[0]
    work = [(params, features, task) for task in ("nsynth", "fsd50k")]
    alone = [probe.probe_task(*each) for each in work]
    monkeypatch.setattr(joblib, "cpu_count", lambda: 2)
    monkeypatch.setattr(probe, "FEWEST_CLIPS", 0)
    together = list(probe._each(work))
    for ours, expected in zip(together, alone, strict=True):
        for table, other in zip(ours, expected, strict=True):
            pd.testing.assert_frame_equal(table, other, atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", ["esc50", "fsd50k"])
def test_the_kept_head_gives_the_probes_own_score(params, name: str) -> None:
    """In three lines: load, label; here all test clips of the probe that was kept."""
    folder = paths.small(params) / "probe" / "base" / "heads" / "seed_0"
    head = heads.load(folder / f"{name}.safetensors")
    features = list_features(params, "base")[0]
    task, _, info = probe.load_task(params, features, name)
    about = head.about
    split = next(s for s in task.splits if (s.fold, s.repeat) == (about["fold"], about["repeat"]))
    logits = head.logits(task.features[split.test])
    assert metrics.score(logits.numpy(), task.of(split.test).numpy())[0] == about["score"]
    scores = of_base(params, "scores.csv")
    best = scores[scores["task"] == name].sort_values("valid_loss").iloc[0]
    assert about["valid_loss"] == pytest.approx(best["valid_loss"], abs=1e-6)
    assert list(head.classes) == info["classes"] and (name == "esc50") == (head.thresholds is None)


def test_thresholds_have_the_best_f1() -> None:
    targets = np.array([0, 0, 1, 0, 1, np.nan, 1])
    logits = np.array([-3.0, -2.0, -1.0, 0.0, 1.0, 5.0, 2.0])
    # From -1 on: three of three among four, F1 6/7; from 1 on: two of three, F1 4/5.
    assert kept.best_threshold(targets, logits) == -1.0
    assert kept.best_threshold(np.array([0.0, 0.0, np.nan]), logits[:3]) == 0.0


def test_quick_scores_are_those_of_neighbours_and_prototypes(params) -> None:
    quick = of_base(params, "quick.csv")
    task = probe.load_task(params, list_features(params, "base")[0], "esc50")[0]
    expected = pd.DataFrame(knn(task) + few_shot(task, seed=params.probe.seed))
    ours = quick[quick["task"] == "esc50"].reset_index(drop=True)[list(expected)]
    # Six decimals of a file; another run of the same sums may move a clip that was tied.
    pd.testing.assert_frame_equal(ours, expected, atol=1e-6, rtol=0)
    assert set(quick["probe"]) == {"knn", "fewshot"} and set(quick["task"]) == set(params.tasks)


def test_layers_are_probed_each_and_the_last_is_the_probe_stages(
    params, capsys: pytest.CaptureFixture[str], monkeypatch, tmp_path: Path
) -> None:
    few = params.model_copy(update={"tasks": ["nsynth", "fsd50k"]})
    monkeypatch.setattr("matpac.params.load", lambda: few)
    assert command.matpac("layers", "base", "--png", tmp_path) == 2  # a folder: before it computes
    made = ("--csv", tmp_path / "layers.csv", "--png", tmp_path / "layers.png")
    assert command.matpac("layers", "base", *made) == 0
    assert (tmp_path / "layers.png").read_bytes().startswith(b"\x89PNG")
    rows = pd.read_csv(tmp_path / "layers.csv")
    scores = of_base(params, "scores.csv")[:4]
    assert rows["layer"].value_counts().to_dict() == {0: 4, 1: 4}
    first, last = (rows[rows["layer"] == n].reset_index(drop=True) for n in (0, 1))
    names = ["task", "fold", "repeat", "score", "valid_score", "best_epoch"]
    pd.testing.assert_frame_equal(last[names], scores[names], atol=1e-6, rtol=0)
    assert (first["valid_loss"] - last["valid_loss"]).abs().min() > 1e-4
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "| task | 0 | 1 |"
    means = [100 * last.groupby("task")[n].mean().mean() for n in ("valid_score", "score")]
    assert lines[-1].startswith("| mean |")
    assert lines[-1].endswith(f" {means[0]:.1f} / {means[1]:.1f} |")


def test_what_is_missing_names_the_stage(params, monkeypatch, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="encoder: got 'bse', allowed: base, alpha1"):
        probe.probe("bse", params)
    monkeypatch.setenv("MATPAC_ROOT", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="seed_0: missing; run the notebook 03_pretrain"):
        probe.probe("base", params)
    with pytest.raises(FileNotFoundError, match="run the notebook 02_logmel"):
        probe.probe("random", params)


@pytest.mark.parametrize("changed", ["order", "fewer"])
def test_log_mels_of_another_manifest_are_refused(params, monkeypatch, changed: str) -> None:
    """Joined by row, their clips would get the labels of others."""
    manifest, info = manifests.load(params, "esc50")
    other = manifest.iloc[::-1] if changed == "order" else manifest.iloc[1:]
    monkeypatch.setattr(manifests, "load", lambda *args, **more: (other, info))
    with pytest.raises(ValueError, match="esc50: its log-mels are of another manifest: run the"):
        probe.load_task(params, list_features(params, "logmel")[0], "esc50")


# ------------------------------------------------------------------- encoders from elsewhere


def with_encoder(name: str = "x", **encoder: Any) -> Params:
    sections = smoke.sections()
    sections["encoders"] |= {name: {"label": "X", **encoder}}
    sections["tasks"] = ["nsynth"]
    return parse(Params, sections)


def test_a_saved_checkpoint_is_probed_to_the_same_score(
    params, smoke_root: Path, tmp_path: Path
) -> None:
    """A run's encoder saved for the Hub, loaded back, embedded and probed."""
    trained = paths.small(params) / "pretrain" / "base" / "seed_0"
    matpac.load(trained, device="cpu").save_pretrained(tmp_path / "saved")
    changed = with_encoder(kind="pretrained", weights=str(tmp_path / "saved"))
    ours = linear(changed, list_features(changed, "x")[0], "nsynth")
    theirs = linear(params, list_features(params, "base")[0], "nsynth")
    pd.testing.assert_frame_equal(ours.drop(columns="encoder"), theirs.drop(columns="encoder"))
    audio = paths.bulk(params) / "audio" / "nsynth"
    manifest, _ = manifests.load(params, "nsynth")
    store = probe.open_store(params, "nsynth")
    used = manifest.iloc[store.rows]
    assert (used["start_s"] == 0).all()
    embedded = matpac.load(tmp_path / "saved").embed([audio / p for p in used["path"][:20]])
    net = list_features(params, "base")[0].encoder
    expected = alone(net, store)[:20]
    # The stored log-mels have half precision: 3 decimal digits of values around 10.
    np.testing.assert_allclose(embedded, expected, atol=2e-3)
    assert np.abs(expected).max() > 1


MINE = """
from matpac.encoders.vit import ViTEncoder
from matpac.encoders.hub import load

def make(weights):
    # A front end of its own: the audio is read, not the stored log-mels.
    return ViTEncoder(load(weights, device="cpu").net, reflect=200)
"""


def test_an_encoder_with_another_front_end_reads_the_audio(
    params, smoke_root: Path, monkeypatch
) -> None:
    (smoke_root / "mine_to_probe.py").write_text(MINE)
    trained = paths.small(params) / "pretrain" / "base" / "seed_0"
    changed = with_encoder("mine", kind="module", module="mine_to_probe:make", weights=str(trained))
    features = list_features(changed, "mine")[0]
    assert len(features.code) == 64
    scores = linear(changed, features, "nsynth")
    assert set(scores["encoder"]) == {"mine"} and scores["score"].between(0, 1).all()
    (kept,) = (paths.bulk(changed) / "embeddings" / "mine").glob("*.npy")
    manifest, _ = manifests.load(params, "nsynth")
    used = manifest.iloc[probe.open_store(params, "nsynth").rows]
    audio = paths.bulk(params) / "audio" / "nsynth"
    expected = features.encoder.embed([audio / path for path in used["path"]])
    np.testing.assert_allclose(np.load(kept), expected, atol=1e-5)
    # Embedded once; another source is another encoder.
    monkeypatch.setattr(type(features.encoder), "embed_each", None)
    again = linear(changed, features, "nsynth")
    pd.testing.assert_frame_equal(again, scores)
    with pytest.raises(TypeError, match="not callable"):
        linear(changed, features._replace(code="other"), "nsynth")


def test_published_rows_ask_for_their_weights(smoke_root: Path, monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("MATPAC_CACHE", str(tmp_path))
    changed = with_encoder(kind="matpac", weights="nowhere/matpac_10_2048.pt")
    with pytest.raises(FileNotFoundError, match=r"matpac: no weights at .*nowhere/matpac_10_2048"):
        list_features(changed, "x")
    changed = with_encoder(kind="pretrained", weights="m2d")
    with pytest.raises(ValueError, match="weights: got 'm2d', a published row; allowed: kind: m2d"):
        list_features(changed, "x")


def test_function_source_and_weights_decide_a_users_encoder(
    smoke_root: Path, tmp_path: Path
) -> None:
    source, weights = smoke_root / "two_to_probe.py", tmp_path / "gain.txt"
    source.write_text("")
    weights.write_text("1")

    def told(**more: str) -> str:
        section = {"kind": "module", "label": "X", "module": "two_to_probe:one"} | more
        return rows.users_code(EncoderConfig.model_validate(section))

    found = [told(), told(module="two_to_probe:two"), told(weights=str(weights))]
    weights.write_text("2")
    found.append(told(weights=str(weights)))
    source.write_text("# edited")
    found += [told(), told(weights=str(tmp_path))]
    assert len(set(found)) == len(found)
    assert told(weights=str(tmp_path)) == found[-1]
