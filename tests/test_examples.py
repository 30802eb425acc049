"""The examples work as they are; what they plug into is replaced by a stand-in."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import tiny
import torch
import yaml

from matpac.encoders import hub  # noqa: F401 (before the rows that it reads are replaced)
from matpac.encoders.frozen import AudioEncoder, save_encoder
from matpac.encoders.vit import ViTEncoder

EXAMPLES = Path(__file__).parents[1] / "examples"


class Base(torch.nn.Module):
    """As EVAR's base class: a module that keeps its configuration."""

    def __init__(self, cfg: dict[str, Any]) -> None:
        super().__init__()
        self.cfg = dict(cfg)


@pytest.fixture
def adapter(monkeypatch: pytest.MonkeyPatch) -> type:
    """The class of the example, with a stand-in for EVAR."""
    package, base = ModuleType("evar"), ModuleType("evar.ar_base")
    package.__path__, base.BaseAudioRepr = [], Base
    published = ModuleType("matpac.encoders.published")
    published.ROWS = {}
    stubs = {"evar": package, "evar.ar_base": base, "matpac.encoders.published": published}
    for name, module in stubs.items():
        monkeypatch.setitem(sys.modules, name, module)
    spec = importlib.util.spec_from_file_location("evar_matpac", EXAMPLES / "evar_matpac.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.AR_MATPAC


@pytest.fixture
def net(tmp_path: Path) -> AudioEncoder:
    torch.manual_seed(0)
    net = AudioEncoder(tiny.run().model, tiny.FRONT_END, mean=-8.0, std=4.0)
    for parameter in net.encoder.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    save_encoder(net, tmp_path / "encoder")
    return net


def configuration(tmp_path: Path, **changes: Any) -> dict[str, Any]:
    """The example's YAML for the encoder of the tests."""
    content = yaml.safe_load((EXAMPLES / "evar_matpac.yaml").read_text())
    return content | {"weight_file": str(tmp_path / "encoder"), "feature_d": 32} | changes


def test_evar_gets_embeddings_of_clips_and_columns(
    adapter: type, net: AudioEncoder, tmp_path: Path
) -> None:
    model = adapter(configuration(tmp_path))
    model.precompute(torch.device("cpu"), [])
    audio = torch.from_numpy(np.random.default_rng(0).normal(0, 0.1, (3, 12_000))).float()
    embeddings, columns = model(audio), model.encode_frames(audio)
    assert embeddings.shape == (3, 32) and columns.shape[:2] == (3, 32)
    encoder = ViTEncoder(net)
    for i in range(3):  # rounding: batches of other sizes sum in another order
        clip = encoder.embed(audio[i], sample_rate=16000)
        np.testing.assert_allclose(embeddings[i], clip, rtol=0, atol=1e-6)
        over_time = encoder.embed(audio[i], sample_rate=16000, frames=True).embeddings
        np.testing.assert_allclose(columns[i].T, over_time, rtol=0, atol=1e-6)
    np.testing.assert_allclose(columns.mean(dim=2), embeddings, rtol=0, atol=1e-6)
    assert model(audio[:, :10]).shape == (3, 32)


def test_evar_is_told_what_does_not_fit(adapter: type, net: AudioEncoder, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="feature_d: got 3840, allowed: 32, the encoder's"):
        adapter(configuration(tmp_path, feature_d=3840))
    with pytest.raises(ValueError, match="sample_rate: got 32000, allowed: 16000"):
        adapter(configuration(tmp_path, sample_rate=32000))


def test_evars_configuration_names_the_class_and_the_papers_front_end(adapter: type) -> None:
    content = yaml.safe_load((EXAMPLES / "evar_matpac.yaml").read_text())
    assert content["audio_repr"].split(".")[1] == adapter.__name__
    text = (EXAMPLES / "evar_matpac.py").read_text()
    assert f"evar/{content['audio_repr'].split('.')[0]}.py" in text
    paper = yaml.safe_load((EXAMPLES.parent / "params.paper.yaml").read_text())
    rows = paper["logmel"]["num_mels"] // paper["model"]["patch_size"]
    assert content["feature_d"] == rows * paper["model"]["encoder_width"]
    assert content["sample_rate"] == paper["logmel"]["sample_rate"]
    assert content["n_mels"] == paper["logmel"]["num_mels"]
    assert content["hop_size"] == paper["logmel"]["hop_ms"] * content["sample_rate"] / 1000


def test_the_list_of_examples_is_complete() -> None:
    listed = set(re.findall(r"\]\(([^)]+)\)", (EXAMPLES / "README.md").read_text()))
    assert listed == {path.name for path in EXAMPLES.glob("*.*")} - {"README.md"}


WORDS = Path(__file__).parents[2] / "shared/datasets/arabic-commands"


@pytest.mark.skipif(not WORDS.exists(), reason="the recordings are not here")
def test_the_tables_of_make_real_have_the_published_split(tmp_path: Path) -> None:
    (tmp_path / "audio").symlink_to(WORDS / "audio")
    command = [sys.executable, EXAMPLES / "arabic_commands.py", tmp_path]
    subprocess.run(command, check=True)
    assert (tmp_path / "clips.csv").read_bytes() == (WORDS / "clips.csv").read_bytes()
    assert len((tmp_path / "train.csv").read_text().splitlines()) == 2161
    (tmp_path / "audio").unlink()
    failed = subprocess.run(command, capture_output=True, text=True)
    assert failed.returncode == 1 and "0 clips of rounds 1 to 3, expected 3600" in failed.stderr
