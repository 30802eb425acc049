"""An encoder of ours as one file that runs without this library: `torch.export` or ONNX.

    matpac export ENCODER -o encoder.pt2
    matpac export ENCODER -o encoder.onnx

The program takes waveforms of one fixed length, any number at once, and gives their columns; front
end and normalisation are in it. ``torch.export.load("encoder.pt2").module()(waves)`` runs the
first, and AOTInductor and ExecuTorch take it from there; ``onnxruntime`` and others run the second.
Cutting clips into pieces and averaging columns stay with the caller; the file says with what sizes.
"""

import copy
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from matpac.core import files
from matpac.encoders import needing
from matpac.encoders.vit import ViTEncoder

LARGEST_BATCH = 4096
DETAILS = "matpac.json"
"""Extra file in the program: sizes, as JSON."""


class Exported(nn.Module):
    """`ViTEncoder.columns` of the last layer, as `torch.export` can save it.

    Args: encoder: copied to the CPU.
    """

    def __init__(self, encoder: ViTEncoder) -> None:
        super().__init__()
        self.encoder = copy.deepcopy(encoder).cpu()
        # torch's periodic window is a part of a longer tensor, which would be saved in its place.
        for module in self.encoder.front_end.modules():
            for name, buffer in module.named_buffers(recurse=False):
                setattr(module, name, buffer.clone())
        self.eval()

    def forward(self, waves: Tensor) -> Tensor:
        """(B, S) -> (B, n, R * D)."""
        return self.encoder.columns(waves)


def export(encoder: ViTEncoder, num_samples: int | None = None) -> ExportedProgram:
    """The program of an encoder.

    Args:
        encoder: one of ours; in float32.
        num_samples: of the waveforms; None: a whole piece, which is the most.
    Raises: ValueError for another kind of encoder, or a length that it does not take.
    """
    if not isinstance(encoder, ViTEncoder):
        raise ValueError(f"encoder: got {type(encoder).__name__}, allowed: one of our own ViT")
    num_samples = encoder.piece_samples if num_samples is None else num_samples
    if not encoder.min_samples <= num_samples <= encoder.piece_samples:
        allowed = f"{encoder.min_samples} to {encoder.piece_samples}"
        raise ValueError(f"samples: got {num_samples}, allowed: {allowed}")
    batch = {0: Dim("batch", min=1, max=LARGEST_BATCH)}
    example = torch.zeros(3, num_samples)
    return torch.export.export(Exported(encoder), (example,), dynamic_shapes=(batch,))


def to_onnx(program: ExportedProgram, described: str) -> bytes:
    """The same program as ONNX: ``waves`` (B, S) -> ``columns`` (B, n, R * D).

    Args: described: what its metadata hold as `DETAILS`.
    Raises: ImportError without the packages of the extra ``onnx``.
    """
    with needing("onnx", "onnxscript"):
        import onnxscript  # noqa: F401
    names = {"input_names": ["waves"], "output_names": ["columns"]}
    made = torch.onnx.export(program, **names, dynamo=True, verbose=False)
    made.model.metadata_props[DETAILS] = described
    return made.model_proto.SerializeToString()


def details(encoder: ViTEncoder, num_samples: int | None = None) -> dict[str, Any]:
    """What a user of the file has to know."""
    num_samples = num_samples or encoder.piece_samples
    return {
        "sample_rate": encoder.sample_rate,
        "num_samples": num_samples,
        "piece_hop": encoder.piece_hop,
        "reflect": encoder.reflect,
        "width": encoder.width,
        "times_s": encoder.times(num_samples).tolist(),
    }


def save(encoder: ViTEncoder, out: Path, num_samples: int | None = None) -> None:
    """Writes the program with its `details`; the file appears when it is complete.

    Args: as `export`; out: ends in .pt2 or .onnx.
    Raises: as `export` and `to_onnx`; ValueError for another ending.
    """
    if out.suffix not in (".pt2", ".onnx"):
        raise ValueError(f"output: got {out}, allowed: a name that ends in .pt2 or .onnx")
    program = export(encoder, num_samples)
    described = json.dumps(details(encoder, num_samples))
    with files.replacing(out) as temporary, temporary.open("wb") as file:
        if out.suffix == ".onnx":
            file.write(to_onnx(program, described))
        else:
            torch.export.save(program, file, extra_files={DETAILS: described})
