"""An encoder as a torch.export program: equal to the encoder, and independent of this library."""

import json
import subprocess
import sys
from pathlib import Path

import encoder_checks
import numpy as np
import pytest
import torch

from matpac.cli import export
from matpac.encoders.frozen import save_encoder
from matpac.encoders.vit import ViTEncoder

import command

CLOSE = {"rtol": 0, "atol": 1e-5}
"""The same operations on the same machine; torch may fuse them, which sums in another order."""


@pytest.fixture(scope="module")
def encoder() -> ViTEncoder:
    return ViTEncoder(encoder_checks.tiny_net(), reflect=200)


def waves(num: int, num_samples: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(num)
    return 0.1 * torch.randn(num, num_samples, generator=generator)


@pytest.mark.parametrize("num_samples", [None, 400, 3001])
def test_the_program_gives_the_columns_for_any_batch(
    encoder: ViTEncoder, num_samples: int | None
) -> None:
    """The encoder stays as it was."""
    before = {name: (t.data_ptr(), t.clone()) for name, t in encoder.state_dict().items()}
    run = export.export(encoder, num_samples).module()
    for name, tensor in encoder.state_dict().items():
        assert tensor.data_ptr() == before[name][0] and torch.equal(tensor, before[name][1])
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
    done = subprocess.check_output([sys.executable, "-c", USE, *arguments], cwd=tmp_path)
    described, ours = json.loads(done)
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


def test_onnx_names_the_extra(
    encoder: ViTEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ImportError, match=r"matpac\[onnx\]"):
        export.save(encoder, tmp_path / "encoder.onnx")
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_exported_is_refused(
    encoder: ViTEncoder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ValueError, match="encoder: got Identity, allowed: one of our own ViT"):
        export.export(torch.nn.Identity())
    for num_samples in (399, encoder.piece_samples + 1):
        with pytest.raises(ValueError, match=f"samples: got {num_samples}, allowed: 400 to 5360"):
            export.export(encoder, num_samples)
    save_encoder(encoder.net, tmp_path / "encoder")
    assert command.matpac("export", tmp_path / "encoder", "-o", tmp_path / "e.pt") == 1
    assert "allowed: a name that ends in .pt2 or .onnx" in capsys.readouterr().err
    assert not (tmp_path / "e.pt").exists()
