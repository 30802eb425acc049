"""HuBERT (Hsu et al., TASLP 2021) and data2vec (Baevski et al., ICML 2022), of `transformers`.

Both take the waveform itself: convolutions make a column of every 20 ms, a transformer of 12 layers
follows. Network and names of tensors are the package's, its default sizes those of the base models.

Shapes: B pieces, S samples, n columns, D width.
"""

from pathlib import Path

import torch
from torch import Tensor, nn

from matpac.encoders import needing, statedicts
from matpac.encoders.interface import WaveEncoder, centres

RATE, HOP, WINDOW = 16_000, 320, 400
"""Hz, and samples: from one column to the next, and what the convolutions see for one."""
PIECE = 10 * RATE


class SpeechEncoder(WaveEncoder):
    """Normalised waveform -> convolutions -> transformer.

    The next piece starts a piece later in columns, so that a clip has the columns it would have
    whole. Samples at the end that fill no column are left out.

    Args:
        net: the package's network.
    """

    sample_rate, min_samples = RATE, WINDOW
    piece_hop, piece_samples = PIECE, PIECE - HOP + WINDOW

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        self.width, self.num_layers = net.config.hidden_size, net.config.num_hidden_layers
        self.requires_grad_(False).eval()

    @torch.no_grad()
    def columns(self, waves: Tensor, *, layer: int = -1) -> Tensor:
        """Output of one layer, as `WaveEncoder.columns`: (B, S) -> (B, n, D)."""
        self.check_piece(waves, layer)
        variance, mean = torch.var_mean(waves, dim=1, correction=0, keepdim=True)
        normal = (waves - mean) / (variance + 1e-7).sqrt()
        caught: list[Tensor | tuple[Tensor, ...]] = []
        # Asked for hidden states, the package leaves hooks that cannot be sent to other processes.
        hook = self.net.encoder.layers[layer].register_forward_hook(
            lambda _module, _inputs, output: caught.append(output)
        )
        try:
            self.net(normal)
        finally:
            hook.remove()
        return caught[0][0] if isinstance(caught[0], tuple) else caught[0]

    def times(self, num_samples: int) -> Tensor:
        """As `WaveEncoder.times`."""
        return centres(num_samples, RATE, window=WINDOW, hop=HOP)


def make(weights: Path | None, *, model: str) -> SpeechEncoder:
    """HuBERT or data2vec, base size, with published weights.

    Args:
        weights: a file of the Hugging Face Hub, ``pytorch_model.bin`` or safetensors; None: random,
            for tests.
        model: hubert or data2vec.
    Raises: ImportError without `transformers`; ValueError for an unknown ``model`` and for weights
        that do not fit; FileNotFoundError.
    """
    if model not in ("hubert", "data2vec"):
        raise ValueError(f"model: got {model!r}, allowed: 'hubert', 'data2vec'")
    with needing("speech", "transformers"):
        from transformers import Data2VecAudioConfig, Data2VecAudioModel, HubertConfig, HubertModel
    net = (
        HubertModel(HubertConfig())
        if model == "hubert"
        else Data2VecAudioModel(Data2VecAudioConfig())
    )
    if weights is not None:
        state = statedicts.with_new_weight_norm(statedicts.read_state(weights))
        statedicts.load(net, state, weights)
    if model == "hubert":
        net.encoder.pos_conv_embed.conv = _plain(net.encoder.pos_conv_embed.conv)
    return SpeechEncoder(net)


def _plain(conv: nn.Conv1d) -> nn.Conv1d:
    """The same without weight norm, which cannot be sent to other processes."""
    sizes = (conv.in_channels, conv.out_channels, conv.kernel_size)
    plain = nn.Conv1d(*sizes, padding=conv.padding, groups=conv.groups)
    plain.load_state_dict({"weight": conv.weight, "bias": conv.bias})
    return plain
