"""Encoders with a front end of their own on the clips of a data set: what decides, what fails."""

import pickle
import textwrap
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import tiny
import torch
from torch import Tensor, nn

from matpac.encoders import atst, user
from matpac.encoders.frozen import frozen, save_encoder
from matpac.encoders.interface import WaveEncoder
from matpac.method.student import Student
from matpac.probing import identity
from matpac.probing.embedders import Recorded
from matpac.probing.extract import extract

import command

pytestmark = pytest.mark.usefixtures("one_thread")


class Pooled(WaveEncoder):
    """A tenth of a second's mean or largest value, twice."""

    sample_rate, width, piece_samples, min_samples = 8000, 2, 16000, 800

    def __init__(self, pool: str = "mean", *, gain: float = 1.0, copies: int = 2) -> None:
        super().__init__()
        self.pool, self.copies = pool, copies
        self.scale = nn.Parameter(torch.tensor(1.0))
        self.norm = nn.BatchNorm1d(1)  # its count of batches is a single number
        self.register_buffer("gain", torch.tensor([gain]), persistent=False)
        self.requires_grad_(False)
        self.eval()

    def columns(self, waves: Tensor, *, layer: int = -1) -> Tensor:
        tenths = waves[:, : waves.shape[1] // 800 * 800].unflatten(1, (-1, 800))
        found = tenths.amax(dim=2) if self.pool == "largest" else tenths.mean(dim=2)
        return (self.scale * self.gain * found)[..., None].repeat(1, 1, self.copies)

    def times(self, num_samples: int) -> Tensor:
        return 0.05 + 0.1 * torch.arange(num_samples // 800, dtype=torch.float64)


class Other(Pooled):
    """The same in another class."""


@pytest.fixture
def clips(tmp_path: Path) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    for number in range(3):
        soundfile.write(tmp_path / f"{number}.wav", 0.1 * rng.normal(size=8000), 8000)
    rows = [
        {"clip": str(n), "path": f"{n}.wav", "start_s": 0.0, "duration_s": 1.0, "sha256": str(n)}
        for n in range(3)
    ]
    return pd.DataFrame(rows)


def test_what_an_encoder_does_with_the_same_tensors_decides(
    clips: pd.DataFrame, tmp_path: Path
) -> None:
    means = extract(Recorded(Pooled(), clips, tmp_path), tmp_path / "kept", name="x")
    largest = extract(Recorded(Pooled("largest"), clips, tmp_path), tmp_path / "kept", name="x")
    waves = [soundfile.read(tmp_path / f"{n}.wav")[0].reshape(10, 800) for n in range(3)]
    # Both by hand; the files hold 16-bit samples, the sums are single precision.
    expected = np.array([[w.mean(), w.max(axis=1).mean()] for w in waves])
    np.testing.assert_allclose(means, expected[:, [0, 0]], atol=1e-6)
    np.testing.assert_allclose(largest, expected[:, [1, 1]], atol=1e-6)


def test_all_that_decides_is_in_the_identity(clips: pd.DataFrame, tmp_path: Path) -> None:
    def told(encoder: WaveEncoder, code: str = "") -> str:
        origin = Recorded(encoder, clips, tmp_path, code=code).origin()
        return f"{origin['identity']} {origin['code']}"

    precise = Pooled()
    precise.precision = "bfloat16"
    sizes = {"width": 24, "depth": 3, "heads": 2}
    torch.manual_seed(0)
    one = atst.make(None, model="frame", blocks=1, **sizes)
    two = atst.make(None, model="frame", blocks=2, **sizes)
    two.load_state_dict(one.state_dict())
    others = [Pooled("largest"), Pooled(gain=2.0), Other(), precise, one, two]
    found = [told(Pooled()), told(Pooled(), "theirs"), *map(told, others)]
    assert len(set(found)) == len(found)
    assert found[0] == told(Pooled())


def test_versions_of_other_packages_are_in_the_identity(
    clips: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded = Recorded(Pooled(), clips, tmp_path)
    monkeypatch.setattr(Pooled, "__module__", "numpy.tests")
    before = recorded.origin()
    monkeypatch.setattr(identity, "version", lambda name: "0.1")
    assert recorded.origin()["identity"] != before["identity"]


def test_a_clip_that_cannot_be_embedded_is_named(clips: pd.DataFrame, tmp_path: Path) -> None:
    (tmp_path / "2.wav").write_text("no audio")
    with pytest.raises(ValueError, match=r"2\.wav: not audio"):
        Recorded(Pooled(), clips, tmp_path).embed(range(2, 3))
    clips["duration_s"] = [1.0, 0.05, 1.0]
    with pytest.raises(ValueError, match=r"1\.wav: got 0\.05 s, allowed: at least 0\.1 s"):
        Recorded(Pooled(), clips, tmp_path).embed(range(2))


def test_embeddings_that_cannot_be_are_refused(clips: pd.DataFrame, tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"Pooled: got columns of shape \(3, \d+, 3\), needed: .*, 2\)"
    ):
        extract(Recorded(Pooled(copies=3), clips, tmp_path), tmp_path / "kept", name="x")
    with pytest.raises(ValueError, match=r"0\.wav: got NaN or infinite numbers in its embedding"):
        extract(Recorded(Pooled(gain=np.inf), clips, tmp_path), tmp_path / "kept", name="x")
    assert not list((tmp_path / "kept").glob("*.npy"))


def test_a_worker_process_finds_the_users_module(
    clips: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is started anywhere and knows the project's root only."""
    monkeypatch.setenv("MATPAC_ROOT", str(tmp_path))
    lines = "from matpac.encoders.vit import ViTEncoder\nclass Theirs(ViTEncoder): pass\n"
    made = "def make(weights):\n    from matpac import load\n"
    made += "    return Theirs(load(weights, device='cpu').net)\n"
    (tmp_path / "sent_to_workers.py").write_text(lines + made)
    torch.manual_seed(0)
    save_encoder(frozen(Student(tiny.run().model, 16), tiny.FRONT_END, mean=-8, std=4), tmp_path)
    recorded = Recorded(user.from_function("sent_to_workers:make", tmp_path), clips, tmp_path)
    (tmp_path / "sent.pickle").write_bytes(pickle.dumps(recorded))
    code = """
        import pickle, sys, numpy
        recorded = pickle.load(open("sent.pickle", "rb"))
        numpy.save("found.npy", recorded.embed(range(3)))
    """
    elsewhere = f"import os, sys; os.chdir({str(tmp_path)!r}); sys.path.remove('')\n"
    command.code(elsewhere + textwrap.dedent(code))
    # The same process or another, with as many threads: the same numbers to rounding.
    found = np.load(tmp_path / "found.npy")
    np.testing.assert_allclose(found, recorded.embed(range(3)), atol=1e-5)


def test_an_encoder_that_cannot_be_sent_is_embedded_by_this_process(
    clips: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = extract(Recorded(Pooled(), clips, tmp_path), tmp_path / "one", name="x")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    encoder = Pooled()
    encoder.activation = lambda x: x  # as s3prl's networks keep one
    with pytest.warns(UserWarning, match="x: embedded on one GPU, not sent to others: .*lambda"):
        found = extract(
            Recorded(encoder, clips, tmp_path), tmp_path / "two", name="x", part_clips=2
        )
    np.testing.assert_array_equal(found, expected)
