"""Is an encoder with 8-bit weights worth it on this processor? (extra ``onnx``)

    python -m benchmarks.int8 --esc10 /path/to/ESC-10

Prints, in one run: seconds of ViT-Base for four waveforms by torch, by onnxruntime in float32, and
with 8-bit products (dynamic quantisation, per channel, the front end left as it is); and what a
ridge classifier makes of the encoder ``mini`` on ESC-10, five folds, in both precisions.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pandas as pd
import torch
from onnxruntime import InferenceSession, SessionOptions
from onnxruntime.quantization import quantize_dynamic
from sklearn.linear_model import RidgeClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import matpac
from matpac.cli.export import save
from matpac.encoders.frozen import AudioEncoder
from matpac.encoders.vit import ViTEncoder
from matpac.features.preprocess import front_end
from matpac.params import load

PAPER = Path(__file__).parents[1] / "params.paper.yaml"
WAVES, REPEATS = 4, 7


def session(encoder: ViTEncoder, num_samples: int, *, int8: bool) -> InferenceSession:
    """Of waveforms of one length, on as many threads as torch has."""
    options = SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "encoder.onnx"
        save(encoder, path, num_samples)
        if int8:
            nodes = onnx.load(path).graph.node
            products = [node for node in nodes if node.op_type in ("MatMul", "Gemm")]
            # The log-mel's filters are the first one.
            kept = [products[0].name]
            quantize_dynamic(path, path, per_channel=True, nodes_to_exclude=kept)
        return InferenceSession(path, options)


def through(encoder: ViTEncoder, *, int8: bool) -> Callable[..., torch.Tensor]:
    """`ViTEncoder.columns` by onnxruntime, a program for each length that comes."""
    made: dict[int, InferenceSession] = {}
    plain = ViTEncoder(encoder.net, reflect=encoder.reflect)

    def columns(waves: torch.Tensor, *, layer: int = -1) -> torch.Tensor:
        length = waves.shape[1]
        if length not in made:
            made[length] = session(plain, length, int8=int8)
        return torch.from_numpy(made[length].run(None, {"waves": waves.numpy()})[0])

    return columns


def seconds() -> dict[str, float]:
    """Medians of turns, ViT-Base with random weights."""
    params = load(PAPER)
    net = AudioEncoder(params.model, front_end(params.logmel), mean=-7.0, std=4.0)
    encoder = ViTEncoder(net)
    waves = 0.1 * torch.randn(WAVES, encoder.piece_samples)
    ways = {
        "torch": encoder.columns,
        "onnxruntime": through(encoder, int8=False),
        "onnxruntime, int8": through(encoder, int8=True),
    }
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(REPEATS + 1):
        for name, compute in ways.items():
            start = time.perf_counter()
            compute(waves)
            taken[name].append(time.perf_counter() - start)
    return {name: statistics.median(each[1:]) for name, each in taken.items()}


def accuracy(folder: Path, *, int8: bool) -> float:
    """Mean over the five folds of ESC-10."""
    table = pd.read_csv(folder / "meta" / "esc10.csv")
    encoder = matpac.load("mini", device="cpu")
    if int8:
        encoder.columns = through(encoder, int8=True)
    features = encoder.embed([folder / "audio" / name for name in table["filename"]]).numpy()
    right = []
    for fold in sorted(table["fold"].unique()):
        test = (table["fold"] == fold).to_numpy()
        model = make_pipeline(StandardScaler(), RidgeClassifier(len(features[0])))
        model.fit(features[~test], table["category"][~test])
        right.append((model.predict(features[test]) == table["category"][test]).mean())
    return float(np.mean(right))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser("python -m benchmarks.int8", description=__doc__)
    parser.add_argument("--esc10", type=Path, required=True)
    given = parser.parse_args()
    for name, taken in seconds().items():
        print(f"{name}: {taken:.2f} s for {WAVES} waveforms of ViT-Base")
    for int8, name in ((False, "float32"), (True, "int8")):
        print(f"mini on ESC-10, {name}: {accuracy(given.esc10, int8=int8):.4f}")


if __name__ == "__main__":
    main()
