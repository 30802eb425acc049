"""A run as a folder for others: its encoder, and a model card of what its files say."""

import math
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from huggingface_hub import ModelCard

import matpac
from matpac.cli import release
from matpac.core import files, paths
from matpac.encoders.frozen import load_encoder
from matpac.encoders.vit import ViTEncoder
from matpac.params import Params, parse
from matpac.probing.identity import identity

import command
import smoke


@pytest.fixture
def params(smoke_root: Path) -> Params:
    return parse(Params, smoke.sections())


@pytest.fixture
def project(smoke_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the small results of the prepared root, to change."""
    root = tmp_path / "project"
    for name in ("manifests", "metrics", "pretrain", "probe"):
        shutil.copytree(smoke_root / "data/smoke" / name, root / "data/smoke" / name)
    (root / "data/smoke/logmel").mkdir()
    shutil.copy(smoke_root / "data/smoke/logmel/pretraining.json", root / "data/smoke/logmel")
    (root / "params.yaml").write_text(yaml.safe_dump(smoke.sections(), sort_keys=False))
    (root / "dvc.yaml").touch()
    monkeypatch.setenv("MATPAC_ROOT", str(root))
    return root


def rows(card: str) -> dict[str, list[str]]:
    """First cell -> other cells of every row of a card's tables."""
    found = {}
    for line in card.splitlines():
        if line.startswith("| ") and not line.startswith("| ---"):
            first, *others = [cell.strip() for cell in line.strip("|").split("|")]
            found[first] = others
    return found


def contents(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()]


def test_the_folder_is_the_runs_encoder(params: Params, tmp_path: Path) -> None:
    release.release("base", params, tmp_path / "out")
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["README.md", "config.json", "heads", "model.safetensors"]
    written = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert len({path.stat().st_mode for path in written}) == 1, "who may read one may read all"
    encoder = matpac.load(tmp_path / "out")
    wave = np.random.default_rng(0).normal(0, 0.1, 30_000).astype(np.float32)
    trained = load_encoder(paths.small(params) / "pretrain/base/seed_0")
    expected = ViTEncoder(trained).embed(wave, sample_rate=16000)
    assert torch.equal(encoder.embed(wave, sample_rate=16000), expected)
    before = contents(tmp_path / "out")
    release.release("base", params, tmp_path / "out")
    assert before == contents(tmp_path / "out")


def test_a_readme_of_something_else_is_left_alone(params: Params, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("# A project\n")
    (tmp_path / "heads").mkdir()
    with pytest.raises(ValueError, match=r"README\.md: is no card of this library"):
        release.release("base", params, tmp_path)
    assert (tmp_path / "README.md").read_text() == "# A project\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["README.md", "heads"]


def test_a_folder_of_something_else_is_left_alone(params: Params, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("theirs")
    with pytest.raises(ValueError, match=r"got a folder with config\.json in it, allowed: a new"):
        release.release("base", params, tmp_path)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["theirs"]
    release.release("base", params, tmp_path, ours=True)  # as that of `matpac pretrain FOLDER`
    for name in ("notes.txt", "older.safetensors"):
        (tmp_path / "heads" / name).touch()
    release.release("base", params, tmp_path)  # over the older one
    assert (tmp_path / "heads/notes.txt").exists()
    assert list(matpac.load(tmp_path).heads) == sorted(params.tasks)


def test_the_card_says_what_the_files_say(params: Params, tmp_path: Path) -> None:
    facts = release.release("base", params, tmp_path, licence="cc-by-4.0")
    text = (tmp_path / "README.md").read_text()
    table, small = rows(text), paths.small(params)
    info = files.read_json(small / "manifests/embedded.json")
    clips, hours, weight, _ = table["embedded"][1:]
    assert (clips, weight) == (str(info["num_clips"]), "1")
    assert float(hours) == pytest.approx(info["hours"], abs=0.005)  # frames lack a window's rest
    finals = files.read_json(small / "metrics/pretrain/base.json")["seed_0"]
    assert table["updates"] == [str(finals["steps"])] and table["clips used"] == ["96"]
    assert float(table["total loss, Eq. (5)"][0]) == pytest.approx(finals["total_loss"], rel=1e-3)
    in_use = table["prototypes that are some patch's most likely"]
    assert float(in_use[0]) == finals["prototypes_in_use"]
    bound = table["number of prototypes, and the logarithm, which bounds the entropies"]
    assert bound == [f"32, {math.log(32):.4g}"]
    sections = smoke.sections()
    for section, names in (("model", ["crop_frames", "encoder_width"]), ("objective", ["alpha"])):
        for name in names:
            assert table[name] == [str(sections[section][name])]
    constants = files.read_json(small / "logmel/pretraining.json")["normalisation"]
    for name in ("mean", "std"):
        assert f"{constants[name]:.4f}" in text
    assert facts["width"] == 160 and "embedding of 160 numbers" in text and "160 ms" in text
    assert "The weights: cc-by-4.0." in text and "It has heard synthetic sounds only" in text


def test_the_card_has_the_probes_means_and_intervals(params: Params, tmp_path: Path) -> None:
    facts = release.release("base", params, tmp_path)
    table = rows((tmp_path / "README.md").read_text())
    scores = pd.read_csv(paths.small(params) / "probe/base/scores.csv")
    for task, part in scores.groupby("task"):
        repeats = part.groupby("repeat")["score"].mean()
        # Student's t of one degree of freedom: 12.706.
        half = 12.706 * repeats.std(ddof=1) / math.sqrt(2)
        mean, ci95 = map(float, table[task][2].split(" ± "))
        assert mean == pytest.approx(100 * repeats.mean(), abs=0.051)
        assert ci95 == pytest.approx(100 * half, abs=0.06)
    assert facts["not_probed"] == [] and len(facts["scores"]) == 3
    assert table["esc50"][:2] == ["a miniature made by this project", "accuracy"]


def test_heads_of_the_probes_come_along(params: Params, tmp_path: Path) -> None:
    facts = release.release("base", params, tmp_path)
    encoder = matpac.load(tmp_path)
    assert list(encoder.heads) == sorted(params.tasks) == sorted(facts["heads"])
    wave = 0.1 * torch.randn(16000, generator=torch.Generator().manual_seed(0))
    said = encoder.label(wave, head="esc50", sample_rate=16000)
    assert set(said) <= set(encoder.heads["esc50"].classes) and len(said) == 5
    shown = rows((tmp_path / "README.md").read_text())
    assert f"{100 * encoder.heads['esc50'].about['score']:.1f}" in shown["`esc50`"]


def test_the_hub_can_read_the_cards_metadata(params: Params, tmp_path: Path) -> None:
    release.release("base", params, tmp_path, licence="mit")
    data = ModelCard.load(tmp_path / "README.md").data
    assert data.library_name == "matpac" and data.license == "mit"
    assert data.pipeline_tag == "feature-extraction" and "audio" in data.tags
    release.release("base", params, tmp_path)
    text = (tmp_path / "README.md").read_text()
    assert ModelCard(text).data.license is None and "Nobody has chosen a licence" in text


def test_the_cards_three_lines_work(
    params: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import soundfile

    release.release("base", params, tmp_path / "out")
    text = (tmp_path / "out/README.md").read_text()
    code = re.search(r"```python\n(.*?)```", text, re.DOTALL)[1]
    code = code.replace("FOLDER", str(tmp_path / "out"))
    soundfile.write(tmp_path / "recording.wav", np.zeros(44100), 44100)
    monkeypatch.chdir(tmp_path)
    given: dict[str, Any] = {}
    exec(code, given)
    assert given["embedding"].shape == (160,) and len(code.splitlines()) == 3


def test_what_was_not_probed_is_said_to_be_missing(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = project / "data/smoke/probe/base/scores.csv"
    table = pd.read_csv(path)
    table[table["task"] != "esc50"].to_csv(path, index=False)
    facts = release.release("base", smoke.sections(), tmp_path / "out")
    assert facts["not_probed"] == ["esc50"] and len(facts["scores"]) == 2
    assert "Not probed: esc50. Scores are missing" in (tmp_path / "out/README.md").read_text()
    shutil.rmtree(project / "data/smoke/probe")
    assert command.matpac("release", "base", "-o", tmp_path / "out") == 0
    text = (tmp_path / "out/README.md").read_text()
    assert "Not probed: nsynth, fsd50k, esc50." in text and "| task |" not in text
    assert "not probed, which the card says: nsynth, fsd50k, esc50" in capsys.readouterr().out


def test_another_seed_is_another_encoder(project: Path, tmp_path: Path) -> None:
    small = project / "data/smoke"
    shutil.copytree(small / "pretrain/base/seed_0", small / "pretrain/base/seed_7")
    described = files.read_json(small / "pretrain/base/seed_7/config.json")
    described["pretrain"]["seed"] = 7
    files.write_json(small / "pretrain/base/seed_7/config.json", described)
    finals = files.read_json(small / "metrics/pretrain/base.json")
    changed = finals["seed_0"] | {"total_loss": 1.25}
    files.write_json(small / "metrics/pretrain/base.json", finals | {"seed_7": changed})
    sections = smoke.sections()
    sections["runs"]["base"]["seeds"] = [0, 7]
    facts = release.release("base", sections, tmp_path / "out", seed=7)
    assert facts["seed"] == 7 and facts["finals"]["total_loss"] == 1.25
    assert facts["not_probed"] == ["nsynth", "fsd50k", "esc50"]  # the scores are of seed 0
    with pytest.raises(ValueError, match="seed: got 1, allowed: 0, 7"):
        release.release("base", sections, tmp_path / "out", seed=1)


def test_files_of_another_training_are_refused(project: Path, tmp_path: Path) -> None:
    sections = smoke.sections()
    wider = sections | {"model": sections["model"] | {"encoder_depth": 1}}
    with pytest.raises(ValueError, match="base: trained with other parameters"):
        release.release("base", wider, tmp_path / "out")
    longer = sections | {"pretrain": sections["pretrain"] | {"learning_rate": 0.5}}
    with pytest.raises(ValueError, match="base: trained with other parameters"):
        release.release("base", longer, tmp_path / "out")
    faster = sections | {"pretrain": sections["pretrain"] | {"workers": 1}}
    release.release("base", faster, tmp_path / "same")  # decides no weight
    path = project / "data/smoke/logmel/pretraining.json"
    index = files.read_json(path)
    index["normalisation"]["mean"] += 0.1
    files.write_json(path, index)
    with pytest.raises(ValueError, match="base: trained on other log-mels"):
        release.release("base", sections, tmp_path / "out")
    path.unlink()
    with pytest.raises(
        FileNotFoundError, match=r"pretraining\.json: .* run `dvc repro logmel@smoke`"
    ):
        release.release("base", sections, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_scores_of_an_earlier_training_are_refused(project: Path, tmp_path: Path) -> None:
    sections = smoke.sections()
    kept = paths.bulk(parse(Params, sections)) / "embeddings" / "base"
    assert not kept.exists()  # and nothing can be told: the other tests of this file
    files.write_json(kept / "1.json", {"identity": "of an earlier training"})
    with pytest.raises(ValueError, match="base: probed before it was trained anew; run the stage"):
        release.release("base", sections, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    encoder = load_encoder(project / "data/smoke/pretrain/base/seed_0")
    files.write_json(kept / "2.json", {"identity": identity(encoder)})
    assert release.release("base", sections, tmp_path / "out")["not_probed"] == []


def test_a_run_that_is_not_there_names_the_stage(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.matpac("release", "nobody", "-o", tmp_path / "out") == 1
    assert "run: got 'nobody', allowed: base, alpha1" in capsys.readouterr().err
    shutil.rmtree(project / "data/smoke/pretrain/base")
    assert command.matpac("release", "base", "-o", tmp_path / "out") == 1
    assert "run `dvc repro pretrain@smoke-base`" in capsys.readouterr().err


def test_a_large_corpus_of_recordings_has_other_limits(params: Params, tmp_path: Path) -> None:
    facts = release.release("base", params, tmp_path)
    audioset = {"name": "audioset", "what": "AudioSet", "licence": "whoever uploaded it"}
    audioset |= {"num_clips": 2_000_000, "hours": 5500.0, "weight": 1.0}
    facts |= {"profile": "paper", "corpora": [audioset], "model": {"num_prototypes": 2048}}
    facts["model"]["crop_frames"] = 608
    text = release.card(facts)
    assert "tiny corpus" not in text and "synthetic" not in text and "pieces of 6.08 s" in text
    assert "| audioset | AudioSet | 2,000,000 | 5500.00 | 1 | whoever uploaded it |" in text
