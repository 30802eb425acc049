"""YAMNet (Plakal and Ellis, 2020), Google's published network, run as the file that it is.

A piece is one of its windows of 0.96 s, every 0.48 s, and gives one embedding; a shorter one is
filled up with silence, as the network does itself at the end of a clip. The file is a program of
tensor operations, not of code: the interpreter (LiteRT) can only compute with it.

Shapes: B pieces, S samples.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from matpac.encoders import needing
from matpac.encoders.interface import WaveEncoder

WINDOW, HOP = 15600, 7680
"""Samples of 96 frames of 25 ms every 10 ms, and from one window to the next."""
EMBEDDING = 1024


class YAMNet(WaveEncoder):
    """The encoder; it computes on the CPU, wherever it is moved.

    Args: content: of the file, (bytes,) uint8.
    Raises: ImportError naming the extra to install; ValueError for another network.
    """

    sample_rate, width = 16000, EMBEDDING
    piece_samples, piece_hop, min_samples = WINDOW, HOP, 400

    def __init__(self, content: Tensor) -> None:
        super().__init__()
        # So that it is copied, sent to other processes and told apart like any weights.
        self.content = nn.Parameter(content, requires_grad=False)
        self._running: Any = None
        self.eval()
        self._run(np.zeros(WINDOW, np.float32))

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {"_running": None}  # made again where it is needed

    def columns(self, waves: Tensor, *, layer: int = -1) -> Tensor:
        """As `WaveEncoder.columns`: (B, S) -> (B, 1, 1024)."""
        self.check_piece(waves, layer)
        whole = F.pad(waves, (0, WINDOW - waves.shape[1])).cpu().numpy()
        found = np.stack([self._run(np.ascontiguousarray(wave)) for wave in whole])
        return torch.from_numpy(found).to(waves.device)[:, None]

    def times(self, num_samples: int) -> Tensor:
        """As `WaveEncoder.times`: the middle of what there is of the window."""
        return torch.tensor([num_samples / 2 / self.sample_rate], dtype=torch.float64)

    def _run(self, wave: np.ndarray) -> np.ndarray:
        """(WINDOW,) -> (1024,)."""
        if self._running is None:
            self._running = _interpreter(self.content)
        running, output = self._running
        running.set_tensor(running.get_input_details()[0]["index"], wave)
        running.invoke()
        return running.get_tensor(output)[0].copy()


def make(weights: Path | None) -> YAMNet:
    """The published encoder. Args: weights: its file, ``yamnet.tflite``.

    Raises: FileNotFoundError; ImportError; ValueError for another file.
    """
    if weights is None:
        raise ValueError("yamnet: weights: missing; the network is in the file with them")
    if not weights.is_file():
        raise FileNotFoundError(f"{weights}: no such file")
    content = torch.from_numpy(np.fromfile(weights, np.uint8))
    try:
        return YAMNet(content)
    except (ValueError, RuntimeError) as error:
        raise ValueError(f"{weights}: not YAMNet's network: {error}") from error


def _interpreter(content: Tensor) -> tuple[Any, int]:
    """Ready to run on one window, and where its embedding is. Raises: as `YAMNet`."""
    with needing("yamnet", "ai-edge-litert"):
        from ai_edge_litert.interpreter import Interpreter
    running = Interpreter(model_content=content.detach().cpu().numpy().tobytes(), num_threads=1)
    inputs = running.get_input_details()
    if len(inputs) != 1 or inputs[0]["dtype"] is not np.float32:
        raise ValueError(f"got {len(inputs)} inputs, needed: one waveform")
    running.resize_tensor_input(inputs[0]["index"], [WINDOW])
    running.allocate_tensors()
    shapes = {tuple(each["shape"]): each["index"] for each in running.get_output_details()}
    if (1, EMBEDDING) not in shapes:
        raise ValueError(f"got outputs {list(shapes)}, needed: one of (1, {EMBEDDING})")
    return running, shapes[1, EMBEDDING]
