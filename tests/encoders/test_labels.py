"""From embeddings to labels: published heads, against recorded numbers, and our own."""

from pathlib import Path

import encoder_checks
import numpy as np
import pytest
import torch
import yaml
from encoder_checks import released
from safetensors.torch import save_file

import matpac
from matpac.encoders import heads, vit
from matpac.encoders.frozen import save_encoder
from matpac.encoders.heads import Head
from matpac.encoders.hub import Pretrained
from matpac.encoders.published import ROWS

FIXTURE = Path(__file__).parents[3] / "shared/parity/heads_public.npz"
SMALL = {"encoder_width": 48, "encoder_depth": 2, "encoder_heads": 3}


def wave(seconds: float = 1.0) -> torch.Tensor:
    return 0.1 * torch.randn(int(16000 * seconds), generator=torch.Generator().manual_seed(3))


def made(num_classes: int = 3, width: int = 32, **more: object) -> Head:
    drawn = torch.Generator().manual_seed(num_classes)
    weight = torch.randn(num_classes, width, generator=drawn)
    names = tuple(f"class {n}" for n in range(num_classes))
    options = {"activation": "softmax", "about": {"task": "made"}} | more
    bias, mean, scale = torch.arange(num_classes) / 4, torch.full((width,), 0.5), torch.ones(width)
    return Head(names, weight, bias, mean, scale, **options)


@pytest.fixture
def encoder() -> Pretrained:
    torch.manual_seed(0)
    return Pretrained(encoder_checks.tiny_net())


# ----------------------------------------------------------------------------------- published


@pytest.mark.skipif(not FIXTURE.exists(), reason="needs the recordings of shared/parity")
@pytest.mark.parametrize("task", ["audioset", "esc50", "openmic", "fsd50k"])
def test_published_heads_give_the_recorded_probabilities(task: str, tmp_path: Path) -> None:
    recorded = np.load(FIXTURE)
    mark = f"{task}/state::"
    state = {
        name.removeprefix(mark): torch.from_numpy(recorded[name])
        for name in recorded.files
        if name.startswith(mark)
    }
    torch.save(state, tmp_path / "whole.pt")
    crop = 992 if task == "audioset" else 608
    head = task == "audioset"
    encoder = vit.make(tmp_path / "whole.pt", head=head, crop_frames=crop, **SMALL)
    if not head:
        torch.save({n: t for n, t in state.items() if "probe" in n}, tmp_path / f"{task}.pth")
        encoder.add_head(task, heads.of_probe(tmp_path / f"{task}.pth"))
    for seconds in ("2.0", "7.5", "12.0"):
        sound = torch.from_numpy(recorded[f"wave__{seconds}s"])
        found = encoder.head().probabilities(encoder.embed(sound, sample_rate=16000))
        expected = torch.from_numpy(recorded[f"{task}/probabilities__{seconds}s"][0])
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
        best = encoder.label(sound, sample_rate=16000)
        said = [f"{name} ({probability:.2f})" for name, probability in best.items()]
        assert said == recorded[f"{task}/top5__{seconds}s"][0].tolist()


def test_classes_are_those_of_the_tasks_in_number() -> None:
    every = yaml.safe_load(Path(heads.__file__).with_name("classes.yaml").read_text("utf-8"))
    numbers = {"audioset": 527, "fsd50k": 200, "esc50": 50, "openmic": 20, "mtg_genre": 87}
    numbers |= {"mtg_instrument": 40, "mtg_mood": 56, "mtg_top50": 50}
    assert {name: len(classes) for name, classes in every.items()} == numbers
    assert all(len(set(classes)) == len(classes) for classes in every.values())
    assert {*ROWS["matpac_plus"].probes, "audioset"} == set(every)


def test_a_published_probe_by_name_or_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its archive is as the authors' is; nothing of it is run."""
    monkeypatch.setenv("MATPAC_CACHE", str(tmp_path))
    state = {"probe.weight": torch.randn(50, 3840), "probe.bias": torch.zeros(50)}
    inside = tmp_path / "made" / "matpac++_general_audio" / "esc50"
    inside.mkdir(parents=True)
    torch.save(state, inside / "esc50.pth")
    monkeypatch.setattr("matpac.encoders.weights._fetched", lambda *_: tmp_path / "made")
    whole = vit.make(None)
    monkeypatch.setattr("matpac.encoders.weights.make", lambda *_: whole)
    for head in ("esc50", inside / "esc50.pth"):
        encoder = matpac.load("matpac_plus", head=head)
        assert list(encoder.heads) == ["esc50"]
        assert len(encoder.label(wave(), sample_rate=16000)) == 5
    with pytest.raises(FileNotFoundError, match=r"holds no matpac\+\+_music/esc50/esc50.pth"):
        matpac.load("matpac_plus_music", head="esc50")


def test_models_of_the_hub_in_the_authors_form(encoder: Pretrained, tmp_path: Path) -> None:
    """Their tensors alone, under a wrapper's names; sizes follow from the shapes."""
    torch.manual_seed(1)
    whole = vit.make(None, crop_frames=64, **SMALL | {"encoder_heads": 1})
    state = {f"model.{name}": t for name, t in released(whole.net).items()}
    state |= {"audioset.head_norm.running_mean": torch.randn(48)}
    state |= {"audioset.head_norm.running_var": torch.rand(48) + 0.5}
    state |= {"audioset.head_norm.num_batches_tracked": torch.tensor(7)}
    state |= {"audioset.head.weight": torch.randn(527, 48), "audioset.head.bias": torch.zeros(527)}
    save_file({name: t.contiguous() for name, t in state.items()}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text('{"model_type": "theirs", "auto_map": {}}')
    loaded = matpac.load(tmp_path)
    assert torch.equal(
        loaded.embed(wave(), sample_rate=16000), whole.embed(wave(), sample_rate=16000)
    )
    assert list(loaded.heads) == ["audioset"]
    save_file({"something.else": torch.zeros(3)}, tmp_path / "model.safetensors")
    with pytest.raises(
        ValueError, match=r"model.safetensors: no tensors of an encoder of the auth"
    ):
        matpac.load(tmp_path)


# -------------------------------------------------------------------------------------- our own


def test_logits_are_those_of_the_standardised_embedding() -> None:
    head, embedding = made(), torch.randn(2, 32)
    expected = (embedding.double() - 0.5) @ head.weight.double().T + head.bias
    torch.testing.assert_close(head.logits(embedding).double(), expected, rtol=0, atol=1e-4)
    torch.testing.assert_close(head.probabilities(embedding).sum(dim=1), torch.ones(2))
    of_each = head.probabilities(embedding, "sigmoid")
    torch.testing.assert_close(of_each.double(), expected.sigmoid(), rtol=0, atol=1e-5)


def test_which_labels_are_there() -> None:
    several = made(activation="sigmoid", thresholds=torch.tensor([0.2, 0.9, 0.5]))
    embedding = several.weight.pinverse() @ (torch.tensor([-1.0, 1.0, 2.0]) - several.bias) + 0.5
    said = several.labels(embedding)
    assert list(said) == ["class 2", "class 1", "class 0"]
    assert said["class 2"] == pytest.approx(1 / (1 + np.exp(-2)), abs=1e-4)
    assert list(several.labels(embedding, top=2)) == ["class 2", "class 1"]
    assert list(several.labels(embedding, present=True)) == ["class 2", "class 0"]
    as_softmax = several.labels(embedding, present=True, activation="softmax")
    assert list(as_softmax) == ["class 2", "class 0"], "thresholds are of sigmoids"
    assert list(made().labels(embedding, present=True)) == [next(iter(made().labels(embedding)))]


def test_a_head_in_a_file_is_the_same(tmp_path: Path) -> None:
    head = made(thresholds=torch.tensor([0.1, 0.2, 0.3]))
    head.save(tmp_path / "new" / "made.safetensors")
    again = heads.load(tmp_path / "new" / "made.safetensors")
    assert torch.equal(again.logits(torch.ones(32)), head.logits(torch.ones(32)))
    assert (again.classes, again.about) == (head.classes, head.about)
    assert torch.equal(again.thresholds, head.thresholds)


def test_heads_go_where_their_encoder_goes(encoder: Pretrained, tmp_path: Path) -> None:
    save_encoder(encoder.net, tmp_path / "one")
    made().save(tmp_path / "one" / "heads" / "made.safetensors")
    loaded = matpac.load(tmp_path / "one")
    loaded.save_pretrained(tmp_path / "two")
    again = matpac.load(tmp_path / "two")
    said = again.label(wave(), sample_rate=16000)
    assert said == loaded.label(wave(), sample_rate=16000) and len(said) == 3
    assert sum(said.values()) == pytest.approx(1)


def test_clips_lists_folders_and_time(encoder: Pretrained, tmp_path: Path) -> None:
    import soundfile

    encoder.add_head("made", made())
    soundfile.write(tmp_path / "a.wav", wave(2.0).numpy(), 16000)
    whole = encoder.label(tmp_path / "a.wav", top=1)
    assert encoder.label(str(tmp_path)) == {"a.wav": encoder.label(tmp_path / "a.wav")}
    assert encoder.label([tmp_path / "a.wav"], top=1) == [whole]
    columns = encoder.label(tmp_path / "a.wav", frames=True, top=1)
    found = encoder.embed(tmp_path / "a.wav", frames=True)
    assert [time_s for time_s, _ in columns] == found.times.tolist()
    assert columns[3][1] == encoder.head().labels(found.embeddings[3], top=1)
    assert encoder.label([tmp_path / "a.wav"], frames=True, top=1) == [columns]


def test_errors(encoder: Pretrained, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"head: got none, allowed: none; matpac.load"):
        encoder.label(wave(), sample_rate=16000)
    encoder.add_head("one", made())
    encoder.add_head("two", made())
    with pytest.raises(ValueError, match="head: got none, allowed: one, two"):
        encoder.label(wave(), sample_rate=16000)
    with pytest.raises(ValueError, match="head narrow: got one of 8 numbers, allowed: 32"):
        encoder.add_head("narrow", made(width=8))
    save_encoder(encoder.net, tmp_path)
    with pytest.raises(FileNotFoundError, match=r"nowhere.pth: no such checkpoint"):
        matpac.load(tmp_path, head=tmp_path / "nowhere.pth")
    torch.save(
        {"probe.weight": torch.zeros(3, 32), "probe.bias": torch.zeros(3)}, tmp_path / "a.pth"
    )
    with pytest.raises(ValueError, match=r"a.pth: got the task 'a', allowed: audioset, fsd50k"):
        matpac.load(tmp_path, head=tmp_path / "a.pth")
    (tmp_path / "a.pth").rename(tmp_path / "esc50.pth")
    with pytest.raises(ValueError, match=r"shape of weight: got \(3, 32\), allowed: \(50, 32\)"):
        matpac.load(tmp_path, head=tmp_path / "esc50.pth")


@pytest.mark.parametrize("fault", ["no head", "cut", "nan", "classes"])
def test_damaged_heads_are_named(fault: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.safetensors"
    head = made()
    if fault == "nan":
        head.weight[0, 0] = float("nan")
    if fault == "classes":
        head = made(4)
        head = Head(head.classes[:3], head.weight, head.bias, head.mean, head.scale, "softmax")
    head.save(path)
    if fault == "no head":
        save_file({"weight": torch.zeros(2)}, path)
    if fault == "cut":
        path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(ValueError, match=r"bad.safetensors: (not a head|shape of|NaN)"):
        heads.load(path)
