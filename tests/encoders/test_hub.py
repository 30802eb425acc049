"""`matpac.load`, and our encoders as models of the Hugging Face Hub."""

import sys
from pathlib import Path

import encoder_checks
import numpy as np
import pytest
import torch
from huggingface_hub.errors import LocalEntryNotFoundError

import matpac
from matpac.core import files
from matpac.encoders import hub
from matpac.encoders.frozen import AudioEncoder, save_encoder
from matpac.encoders.hub import Pretrained


@pytest.fixture(autouse=True)
def nothing_is_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    """As without internet, but at once."""

    def fail(repo_id: str, *_: object, **__: object) -> str:
        raise LocalEntryNotFoundError(f"cannot reach the Hub for {repo_id}")

    monkeypatch.setattr(hub, "snapshot_download", fail)
    monkeypatch.setattr(sys.modules["huggingface_hub.hub_mixin"], "hf_hub_download", fail)


@pytest.fixture
def net() -> AudioEncoder:
    return encoder_checks.tiny_net()


def wave(num_samples: int = 9000) -> np.ndarray:
    return np.random.default_rng(0).normal(0, 0.1, num_samples).astype(np.float32)


def test_a_folder_of_the_pretrain_stage_is_loaded(net: AudioEncoder, tmp_path: Path) -> None:
    save_encoder(net, tmp_path / "encoder")
    expected = Pretrained(net).embed(wave(), sample_rate=16000)
    for source in (tmp_path / "encoder", str(tmp_path / "encoder")):
        encoder = matpac.load(source)
        assert torch.equal(encoder.embed(wave(), sample_rate=16000), expected)
        assert not encoder.training and encoder.precision == "float32"
        assert next(encoder.parameters()).device.type == "cpu"  # the tests hide every GPU


@pytest.mark.parametrize("device", ["foo", "meta", "cuda:7"])
def test_a_device_that_is_not_here_is_named(device: str) -> None:
    with pytest.raises(ValueError, match=f"device: got '{device}', allowed: cpu"):
        matpac.load("mini", device=device)


def test_mini_comes_with_the_library(
    net: AudioEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    encoder = matpac.load("mini")
    embedding = encoder.embed(wave(), sample_rate=16000)
    assert embedding.shape == (640,) and embedding.isfinite().all()
    labels = {name: encoder.label(wave(), sample_rate=16000, head=name) for name in encoder.heads}
    assert set(labels) == {"esc10", "words"}
    assert all(len(found) == 5 and 0 < sum(found.values()) <= 1 for found in labels.values())
    assert sum(path.stat().st_size for path in hub.MINI.rglob("*.*")) < 2e6
    save_encoder(net, tmp_path / "mini")  # a folder of this name is what it always was
    assert matpac.load("mini").width == net.width


@pytest.mark.parametrize("reflect", [0, 200])
def test_saving_and_loading_is_exact(net: AudioEncoder, tmp_path: Path, reflect: int) -> None:
    encoder = Pretrained(net, reflect=reflect)
    encoder.save_pretrained(tmp_path / "one")
    loaded = Pretrained.from_pretrained(tmp_path / "one")
    assert loaded.reflect == reflect
    assert loaded.state_dict().keys() == encoder.state_dict().keys()
    for name, tensor in encoder.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name
    ours, theirs = (e.embed(wave(), sample_rate=16000) for e in (loaded, encoder))
    assert torch.equal(ours, theirs)
    loaded.save_pretrained(tmp_path / "two")
    names = ["README.md", "config.json", "model.safetensors"]
    for folder in (tmp_path / "one", tmp_path / "two"):
        assert sorted(p.name for p in folder.iterdir()) == names
        modes = {p.stat().st_mode for p in folder.iterdir()}
        assert len(modes) == 1, "who may read one may read the others"
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_a_card_goes_where_the_encoder_goes(
    net: AudioEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_encoder(net, tmp_path / "one")
    (tmp_path / "one" / "README.md").write_text(
        "---\nlicense: mit\n---\n# Ours: déjà vu\n", "utf-8"
    )
    encoder = matpac.load(tmp_path / "one")
    encoder.save_pretrained(tmp_path / "two")
    card = (tmp_path / "two" / "README.md").read_text("utf-8")
    assert card == (tmp_path / "one" / "README.md").read_text("utf-8")
    pushed = {}

    class Api:
        """What the mixin calls to upload."""

        def __init__(self, **_: object) -> None:
            pass

        def create_repo(self, repo_id: str, **_: object) -> object:
            return type("Repo", (), {"repo_id": repo_id})()

        def upload_folder(self, *, repo_id: str, folder_path: Path, **_: object) -> None:
            pushed[repo_id] = {p.name: p.read_bytes() for p in Path(folder_path).iterdir()}

    monkeypatch.setattr(sys.modules["huggingface_hub.hub_mixin"], "HfApi", Api)
    encoder.push_to_hub("someone/matpac-mini")
    saved = {p.name: p.read_bytes() for p in (tmp_path / "two").iterdir()}
    assert pushed == {"someone/matpac-mini": saved}


def test_a_name_of_the_hub_is_fetched(
    net: AudioEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_encoder(net, tmp_path)
    asked = []

    def fetch(repo: str, *, revision: str, **_: object) -> str:
        asked.append((repo, revision))
        return str(tmp_path)

    monkeypatch.setattr(hub, "snapshot_download", fetch)
    monkeypatch.chdir(tmp_path)
    encoder = matpac.load("someone/matpac-mini", revision="v1")
    assert set(asked) == {("someone/matpac-mini", "v1")}
    expected = Pretrained(net).embed(wave(), sample_rate=16000)
    assert torch.equal(encoder.embed(wave(), sample_rate=16000), expected)


def test_without_internet_a_name_of_the_hub_says_so() -> None:
    with pytest.raises(
        FileNotFoundError,
        match=r"someone/matpac: no such folder, and the Hugging Face Hub does not give it: cannot",
    ):
        matpac.load("someone/matpac")


def test_a_published_row_is_made_with_its_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def make(*given: object) -> torch.nn.Module:
        asked.append(given)
        return torch.nn.Identity()

    monkeypatch.setattr("matpac.encoders.weights.make", make)
    assert matpac.load("passt", weights="file.pt", precision="bfloat16").precision == "bfloat16"
    matpac.load("matpac_plus")
    assert asked == [("passt", Path("file.pt")), ("matpac_plus", None)]


def test_errors_name_what_is_wrong_and_what_is_allowed(net: AudioEncoder, tmp_path: Path) -> None:
    made, empty = tmp_path / "encoder", tmp_path / "empty"
    save_encoder(net, made)
    empty.mkdir()
    for source, options, error, match in (
        ("pasts", {}, FileNotFoundError, "no published row; those are: .*passt"),
        (tmp_path / "nowhere", {}, FileNotFoundError, "no such folder"),
        (empty, {}, FileNotFoundError, r"model\.safetensors"),
        (made / "model.safetensors", {}, ValueError, "got a file, allowed: the folder of model.sa"),
        (made, {"weights": "file.pt"}, ValueError, "weights: .* brings its own; allowed: with .*p"),
        (made, {"precision": "half"}, ValueError, "precision: got 'half', allowed: float32, b"),
    ):
        with pytest.raises(error, match=match):
            matpac.load(source, **options)


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        ("model.safetensors", b"abc", "model.safetensors: does not fit config.json: .*header"),
        ("config.json", b"{", "config.json: not readable as JSON: Expecting property name"),
        ("config.json", b"[]", r"config.json:\n .*valid dictionary"),
        ("config.json", b'{"mean": 0}', r"config.json:\n  model: missing\n  front_end: missing"),
        (("model", "encoder_depth"), 3, r'does not fit .*"encoder\.blocks\.2\.norm1\.weight"'),
        (("model", "encoder_depth"), "3x", "config.json:.*encoder_depth: .*got '3x'"),
        (("front_end", "hop"), 3, "config.json: front_end: .*unexpected .* 'hop'"),
    ],
)
def test_a_damaged_folder_is_named(
    net: AudioEncoder, tmp_path: Path, name: str | tuple[str, str], content: object, match: str
) -> None:
    save_encoder(net, tmp_path)
    if isinstance(name, str):
        (tmp_path / name).write_bytes(content)
    else:
        described = files.read_json(tmp_path / "config.json")
        described[name[0]][name[1]] = content
        files.write_json(tmp_path / "config.json", described)
    with pytest.raises(ValueError, match=f"(?s)^{tmp_path}/.*{match}"):
        matpac.load(tmp_path)


def test_one_flipped_bit_of_the_weights_is_noticed(net: AudioEncoder, tmp_path: Path) -> None:
    save_encoder(net, tmp_path)
    weights = tmp_path / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-2] ^= 1  # within a number's fraction
    weights.write_bytes(content)
    with pytest.raises(ValueError, match=rf"^{weights}: damaged, or another's: SHA-256 "):
        matpac.load(tmp_path)


def test_an_encoder_is_named_by_the_caller_or_by_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MATPAC_ENCODER", "theirs")
    assert hub.chosen("ours") == "ours"
    assert hub.chosen("") == hub.chosen(None) == "theirs"
    monkeypatch.delenv("MATPAC_ENCODER")
    with pytest.raises(ValueError, match=r"encoder: missing; .* or set MATPAC_ENCODER"):
        hub.chosen("")
