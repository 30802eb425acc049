"""An encoder as a torch.export program: equal to the encoder, and independent of this library."""

import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import tiny
import torch

from matpac.cli import export
from matpac.encoders.frozen import AudioEncoder, save_encoder
from matpac.encoders.interface import WaveEncoder
from matpac.encoders.vit import ViTEncoder

import command

CLOSE = {"rtol": 0, "atol": 1e-5}
"""The same operations on the same machine; torch may fuse them, which sums in another order."""


@pytest.fixture(autouse=True)
def published(monkeypatch: pytest.MonkeyPatch) -> None:
    """No published rows."""
    stub = ModuleType("matpac.encoders.published")
    stub.ROWS = {}
    monkeypatch.setitem(sys.modules, "matpac.encoders.published", stub)


@pytest.fixture(scope="module")
def encoder() -> ViTEncoder:
    torch.manual_seed(0)
    net = AudioEncoder(tiny.run().model, tiny.FRONT_END, mean=-8.0, std=4.0)
    for parameter in net.encoder.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return ViTEncoder(net, reflect=200)


def waves(num: int, num_samples: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(num)
    return 0.1 * torch.randn(num, num_samples, generator=generator)


@pytest.mark.parametrize("num_samples", [None, 400, 3001])
def test_the_program_gives_the_columns_for_any_batch(
    encoder: ViTEncoder, num_samples: int | None
) -> None:
    run = export.export(encoder, num_samples).module()
    for num in (1, 2, 3, 7):  # exported with 3
        audio = waves(num, num_samples or encoder.piece_samples)
        torch.testing.assert_close(run(audio), encoder.columns(audio), **CLOSE)
    with pytest.raises(AssertionError, match="Guard failed"):
        run(waves(1, 5000))  # it is of one length


USE = """
import json, sys
import torch
extra = {"matpac.json": ""}
program = torch.export.load(sys.argv[1], extra_files=extra)
waves = torch.load(sys.argv[2])
torch.save(program.module()(waves), sys.argv[3])
ours = [name for name in sys.modules if name.startswith(("matpac", "torchaudio"))]
print(json.dumps([json.loads(extra["matpac.json"]), ours]))
"""


def test_the_file_runs_without_the_library(encoder: ViTEncoder, tmp_path: Path) -> None:
    save_encoder(encoder.net, tmp_path / "encoder", reflect=200)
    out, audio = tmp_path / "encoder.pt2", waves(2, encoder.piece_samples)
    assert command.matpac("export", tmp_path / "encoder", "-o", out) == 0
    torch.save(audio, tmp_path / "waves.pt")
    arguments = [str(out), str(tmp_path / "waves.pt"), str(tmp_path / "columns.pt")]
    done = subprocess.run(
        [sys.executable, "-c", USE, *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    described, ours = json.loads(done.stdout)
    assert ours == []
    times = described.pop("times_s")
    np.testing.assert_allclose(times, encoder.times(encoder.piece_samples), rtol=0, atol=1e-12)
    assert described == {
        "sample_rate": 16000,
        "num_samples": encoder.piece_samples,
        "piece_hop": 32 * 160,
        "reflect": 200,
        "width": 32,
    }
    columns = torch.load(tmp_path / "columns.pt")
    torch.testing.assert_close(columns, encoder.columns(audio), **CLOSE)


def test_exporting_leaves_the_encoder_as_it_was(encoder: ViTEncoder) -> None:
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    pointers = [tensor.data_ptr() for tensor in encoder.parameters()]
    export.export(encoder)
    assert pointers == [tensor.data_ptr() for tensor in encoder.parameters()]
    for name, tensor in encoder.state_dict().items():
        assert torch.equal(tensor, before[name])


class Other(WaveEncoder):
    """An encoder that is none of ours."""

    def columns(self, waves: torch.Tensor, *, layer: int = -1) -> torch.Tensor:
        return waves[:, None]

    def times(self, num_samples: int) -> torch.Tensor:
        return torch.zeros(1)


def test_what_cannot_be_exported_is_refused(
    encoder: ViTEncoder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ValueError, match="encoder: got Other, allowed: one of our own ViT"):
        export.export(Other())
    for num_samples in (399, encoder.piece_samples + 1):
        with pytest.raises(ValueError, match=f"samples: got {num_samples}, allowed: 400 to 5360"):
            export.export(encoder, num_samples)
    save_encoder(encoder.net, tmp_path / "encoder")
    assert command.matpac("export", tmp_path / "encoder", "-o", tmp_path / "e.onnx") == 1
    assert "allowed: a name that ends in .pt2" in capsys.readouterr().err
    assert not (tmp_path / "e.onnx").exists()
