"""Encoders of the user's: functions that make one, modules of the HEAR 2021 API."""

import hashlib
import sys
import textwrap
from pathlib import Path

import pytest
import torch
import yaml

from matpac.core.fingerprints import source_digest
from matpac.encoders import user
from matpac.probing.config import EncoderConfig

BANDS = """
    import torch
    from matpac.encoders.interface import WaveEncoder

    class Bands(WaveEncoder):
        '''Mean absolute value and peak of every tenth of a second.'''
        sample_rate, width, piece_samples, min_samples = 8000, 2, 16000, 800

        def __init__(self, scale):
            super().__init__()
            self.scale = torch.nn.Parameter(torch.tensor(scale))

        def columns(self, waves, *, layer=-1):
            tenths = self.scale * waves[:, : waves.shape[1] // 800 * 800].unflatten(1, (-1, 800))
            return torch.stack([tenths.abs().mean(dim=2), tenths.amax(dim=2)], dim=2)

        def times(self, num_samples):
            return 0.05 + 0.1 * torch.arange(num_samples // 800, dtype=torch.float64)

    def make(weights):
        return Bands(2.0 if weights is None else float(weights.read_text()))

    def wrong(weights):
        return torch.nn.Linear(1, 1)

    def hopping(weights):
        bands = Bands(1.0)
        bands.piece_hop = 20000
        return bands

    def sizeless(weights):
        bands = Bands(1.0)
        bands.width = None
        return bands
"""
HEAR = """
    import torch

    class Model(torch.nn.Module):
        sample_rate, scene_embedding_size, timestamp_embedding_size = 16000, 3, 2

        def __init__(self, gain):
            super().__init__()
            self.gain = gain

    def load_model(model_file_path=""):
        return Model(float(model_file_path or 1.0))

    def get_timestamp_embeddings(audio, model):
        halves = audio.shape[1] // 8000
        means = model.gain * audio[:, : halves * 8000].unflatten(1, (-1, 8000)).mean(dim=2)
        times = 250.0 + 500.0 * torch.arange(halves).expand(len(audio), -1)
        return torch.stack([means, -means], dim=2), times

    def get_scene_embeddings(audio, model):
        return torch.zeros(len(audio), 3)
"""


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MATPAC_ROOT", str(tmp_path))
    for name, text in (("bands_of_mine", BANDS), ("hear_of_mine", HEAR)):
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(text))
        monkeypatch.delitem(sys.modules, name, raising=False)
    return tmp_path


def test_a_function_of_the_projects(project: Path) -> None:
    encoder = user.from_function("bands_of_mine:make")
    assert not encoder.training and not encoder.scale.requires_grad
    wave = torch.full((2000,), 0.25)
    wave[1500] = 0.5  # in the second of two whole tenths
    expected = torch.tensor([0.5, 0.75]) + torch.tensor([0.5 / 1600, 0])  # twice mean and peak
    torch.testing.assert_close(encoder.embed(wave, sample_rate=8000), expected)
    (project / "scale.txt").write_text("4")
    louder = user.from_function("bands_of_mine:make", project / "scale.txt")
    torch.testing.assert_close(louder.embed(wave, sample_rate=8000), 2 * expected)


@pytest.mark.parametrize(
    ("where", "error", "match"),
    [
        ("nowhere:make", ImportError, r"nowhere: no such module, neither installed nor in /"),
        ("bands_of_mine:mak", ValueError, r"bands_of_mine\.py has no function 'mak'"),
        ("bands_of_mine:wrong", ValueError, r"got a Linear, needed: a matpac\.encoders\.interface"),
        ("bands_of_mine:hopping", ValueError, r"piece_hop: got 20000, allowed: 1 to 16000"),
        ("bands_of_mine:sizeless", ValueError, r"width: got None, allowed: positive integers"),
    ],
)
def test_functions_that_make_no_encoder(where: str, error: type, match: str) -> None:
    with pytest.raises(error, match=match):
        user.from_function(where)


def test_what_a_module_of_the_users_lacks_is_told_as_it_is(project: Path) -> None:
    (project / "needs_more.py").write_text("import not_installed_anywhere")
    with pytest.raises(ModuleNotFoundError, match="'not_installed_anywhere'"):
        user.from_function("needs_more:make")


def test_a_hear_module(project: Path) -> None:
    encoder = user.from_hear("hear_of_mine", Path("3"))
    wave = torch.cat([torch.full((8000,), 0.1), torch.full((8000,), 0.3), torch.zeros(100)])
    found = encoder.embed(wave, sample_rate=16000, frames=True)
    expected = torch.tensor([[0.3, -0.3], [0.9, -0.9]])
    torch.testing.assert_close(found.embeddings, expected)
    assert found.times.tolist() == [0.25, 0.75]
    torch.testing.assert_close(
        user.from_hear("hear_of_mine").embed(wave, sample_rate=16000), torch.tensor([0.2, -0.2])
    )
    long = torch.linspace(0, 1, 61 * 16000)  # pieces of 30 s
    assert (
        user.from_hear("hear_of_mine").embed(long, sample_rate=16000, frames=True).times[-1]
        == 60.75
    )


def test_a_hear_module_gets_no_few_samples(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = user.from_hear("hear_of_mine")
    given, original = [], encoder.columns

    def columns(waves: torch.Tensor, *, layer: int = -1) -> torch.Tensor:
        given.append(waves.shape[1])
        return original(waves, layer=layer)

    monkeypatch.setattr(encoder, "columns", columns)
    encoder.embed(torch.zeros(30 * 16000 + 213), sample_rate=16000)  # as long as GTZAN's clips
    assert given == [30 * 16000]
    encoder.embed(torch.zeros(800), sample_rate=16000)  # as long as UrbanSound8K's shortest
    assert given[1:] == [1600]


def test_what_is_no_hear_module(project: Path) -> None:
    with pytest.raises(
        ValueError, match=r"no load_model, get_timestamp_embeddings: not of the HEAR"
    ):
        user.from_hear("bands_of_mine")
    text = textwrap.dedent(HEAR)
    (project / "no_rate.py").write_text(text.replace("sample_rate,", "rate,"))
    with pytest.raises(ValueError, match="no_rate: the model has no sample_rate"):
        user.from_hear("no_rate")
    (project / "no_module.py").write_text(text.replace("return Model(", "return str("))
    with pytest.raises(ValueError, match=r"load_model gave a str, needed: a torch\.nn\.Module"):
        user.from_hear("no_module")
    (project / "flat.py").write_text(
        text.replace("means, -means], dim=2)", "means, -means], dim=1)")
    )
    with pytest.raises(ValueError, match=r"got shape \(1, 2, 1\), needed: \(1, timestamps, 2\)"):
        user.from_hear("flat").embed(torch.zeros(8000), sample_rate=16000)


def test_the_source_of_a_module_without_importing_it(project: Path) -> None:
    first = source_digest("bands_of_mine", project)
    assert len(first) == 64 and source_digest("nowhere", project) == ""
    with (project / "bands_of_mine.py").open("a") as file:
        file.write("raise RuntimeError\n")
    assert source_digest("bands_of_mine", project) not in (first, "")
    (project / "pack_of_mine").mkdir()
    (project / "pack_of_mine/__init__.py").write_text("raise RuntimeError('run')")
    (project / "pack_of_mine/inner.py").write_text("x = 1")
    inner = source_digest("pack_of_mine.inner", project)
    assert inner == hashlib.sha256(b"x = 1").hexdigest()
    assert source_digest("pack_of_mine.none", project) == ""


@pytest.mark.parametrize("samples", [400, 100_000, 400_000])
def test_the_ten_lines_of_the_docs(project: Path, samples: int) -> None:
    page = (Path(__file__).parents[2] / "docs" / "new-encoder.md").read_text()
    (project / "my_encoder.py").write_text(page.split("```python\n")[1].split("```")[0])
    sys.modules.pop("my_encoder", None)
    encoder = user.from_function("my_encoder:MyEncoder")
    found = encoder.embed(torch.linspace(-1, 1, samples), sample_rate=16000, frames=True)
    assert found.embeddings.shape == (len(found.times), 128)
    assert found.times[0] == 0.0125 and found.times[-1] < samples / 16000
    section = yaml.safe_load(page.split("```yaml\n")[1].split("```")[0])["encoders"]["mine"]
    assert EncoderConfig.model_validate(section).module == "my_encoder:MyEncoder"
    for part in page.split("```yaml\n")[2:]:
        for each in yaml.safe_load(part.split("```")[0])["encoders"].values():
            EncoderConfig.model_validate(each)
