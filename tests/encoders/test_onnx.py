"""An encoder as ONNX: what the runtime gives is what torch gives."""

import json
from pathlib import Path

import encoder_checks
import numpy as np
import pytest
import torch

from matpac.cli import export
from matpac.encoders.vit import ViTEncoder

runtime = pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
pytest.importorskip("onnxscript", reason="the extra onnx is not installed")


@pytest.mark.parametrize("num_samples", [None, 3001])
def test_the_runtime_gives_the_columns_for_any_batch(
    tmp_path: Path, num_samples: int | None
) -> None:
    encoder = ViTEncoder(encoder_checks.tiny_net(), reflect=200)
    export.save(encoder, tmp_path / "encoder.onnx", num_samples)
    session = runtime.InferenceSession(tmp_path / "encoder.onnx")
    described = json.loads(session.get_modelmeta().custom_metadata_map["matpac.json"])
    assert described == export.details(encoder, num_samples)
    generator = torch.Generator().manual_seed(0)
    for num in (1, 2, 7):  # exported with 3
        waves = 0.1 * torch.randn(num, described["num_samples"], generator=generator)
        (columns,) = session.run(["columns"], {"waves": waves.numpy()})
        expected = encoder.columns(waves).numpy()
        # The runtime's Fourier transform is a product with a table, in single precision.
        np.testing.assert_allclose(columns, expected, rtol=0, atol=1e-3 * expected.std())
    assert [path.name for path in tmp_path.iterdir()] == ["encoder.onnx"]
