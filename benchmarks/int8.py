"""Is an encoder with 8-bit weights worth it on this processor? (extra ``onnx``)

    python -m benchmarks.int8 params.yaml params.esc10.yaml

Prints, in one run: seconds of ViT-Base for four waveforms by torch, by onnxruntime in float32, and
with 8-bit products (dynamic quantisation, per channel, the front end left as it is); and the scores
of the encoder ``mini`` on the tasks of profiles that have been run, in both precisions.
"""

import argparse
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pandas as pd
import torch
from onnxruntime import InferenceSession, SessionOptions
from onnxruntime.quantization import quantize_dynamic

import matpac
from benchmarks import measure
from matpac.cli.export import save
from matpac.core import section
from matpac.encoders.frozen import AudioEncoder
from matpac.encoders.vit import ViTEncoder
from matpac.features.preprocess import front_end
from matpac.params import load
from matpac.probing.config import ProbeParams
from matpac.probing.linear import choose, train_probes
from matpac.probing.probe import load_task
from matpac.probing.rows import Features

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


class Exported(ViTEncoder):
    """An encoder by onnxruntime, from waveforms, with a program for each length that comes."""

    def __init__(self, encoder: ViTEncoder, *, int8: bool) -> None:
        super().__init__(encoder.net, reflect=encoder.reflect)
        self.int8, self.made = int8, dict[int, InferenceSession]()

    def is_fed_by(self, front_end: dict[str, Any]) -> bool:
        return False

    def columns(self, waves: torch.Tensor, *, layer: int = -1) -> torch.Tensor:
        length = waves.shape[1]
        if length not in self.made:
            plain = ViTEncoder(self.net, reflect=self.reflect)
            self.made[length] = session(plain, length, int8=self.int8)
        return torch.from_numpy(self.made[length].run(None, {"waves": waves.numpy()})[0])


def seconds() -> dict[str, float]:
    """Medians of turns, ViT-Base with random weights."""
    params = load(PAPER)
    net = AudioEncoder(params.model, front_end(params.logmel), mean=-7.0, std=4.0)
    encoder = ViTEncoder(net)
    waves = 0.1 * torch.randn(WAVES, encoder.piece_samples)
    ways = {
        "torch": encoder.columns,
        "onnxruntime": Exported(encoder, int8=False).columns,
        "onnxruntime, int8": Exported(encoder, int8=True).columns,
    }
    works = {n: partial(measure.seconds, partial(way, waves)) for n, way in ways.items()}
    return {n: measure.median(each) for n, each in measure.in_turns(works, REPEATS).items()}


def scores(file: Path) -> pd.DataFrame:
    """Of the encoder ``mini`` on a profile's tasks, in %: one column per precision."""
    params = section.parse(ProbeParams, load(file))
    encoder = matpac.load("mini", device="cpu")
    table = pd.DataFrame(index=params.tasks, columns=["float32", "int8"], dtype=float)
    for precision in table:
        exported = Exported(encoder, int8=precision == "int8")
        features = Features(precision, 0, exported, code=precision)
        for name in params.tasks:
            results = choose(train_probes(load_task(params, features, name)[0], params.probe))
            table.loc[name, precision] = 100 * np.mean([each.score for each in results])
    return table


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser("python -m benchmarks.int8", description=__doc__)
    parser.add_argument("params", type=Path, nargs="*", help="of profiles whose log-mels are there")
    given = parser.parse_args()
    for name, taken in seconds().items():
        print(f"{name}: {taken:.2f} s for {WAVES} waveforms of ViT-Base")
    for file in given.params:
        print(scores(file).round(2))


if __name__ == "__main__":
    main()
