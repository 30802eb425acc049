"""HTS-AT (Chen et al., ICASSP 2022) as trained on AudioSet, in the network of `transformers`.

`transformers` has HTS-AT as the audio part of CLAP, which is the same network with other names; the
front end at 32 kHz is built here. A checkpoint of the authors (``HTSAT_AudioSet_Saved_1.ckpt``)
also holds its front end, which is compared with ours: CLAP's checkpoints, for 48 kHz, are refused.

Shapes: B pieces, S samples, T frames, F mel bins, n = 32 columns of 10 s, D width.
"""

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torchaudio.transforms import MelSpectrogram

from matpac.encoders import needing
from matpac.encoders.interface import WaveEncoder
from matpac.encoders.statedicts import read_state, refuse_misfits

RATE, WINDOW, HOP = 32_000, 1024, 320
NUM_MELS = 64
LONGEST = 10 * RATE
NUM_COLUMNS = 32
"""Of 10 s: four strips of the spectrogram, 8 columns each after three mergings."""
PREFIX = "sed_model."
"""Of the names in a checkpoint of the authors' training code."""
MEL_WEIGHTS = "logmel_extractor.melW"
FRONT_END = "spectrogram_extractor."
HEADS = ("tscam_conv.", "head.")
"""The classifier: not part of the frozen encoder."""
DERIVED = ("relative_position_index", "attn_mask")
"""Buffers that follow from the sizes."""
RENAMED = (
    ("bn0.", "batch_norm."),
    ("norm1.", "layernorm_before."),
    ("norm2.", "layernorm_after."),
    ("attn.relative_position", "attention.self.relative_position"),
    ("attn.qkv.", "attention.self.qkv."),
    ("attn.proj.", "attention.output.dense."),
    ("mlp.fc1.", "intermediate.dense."),
    ("mlp.fc2.", "output.dense."),
)
"""Authors' part of a name -> the package's; `attn.qkv` is split into query, key and value."""
QKV = ("query", "key", "value")


class HTSAT(WaveEncoder):
    """Waveform -> log-mels -> Swin transformer; the two rows of the last stage are averaged.

    The network takes 10 s. A shorter piece is repeated until it fills them, as the authors do for
    ESC-50, and the columns whose centre lies in its first repetition are its embedding.

    Args:
        net: the package's audio encoder.
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        self.mel = MelSpectrogram(
            RATE, WINDOW, hop_length=HOP, f_min=50, f_max=14_000, n_mels=NUM_MELS,
            power=2, norm="slaney", mel_scale="slaney",
        )  # fmt: skip
        self.sample_rate, self.width = RATE, net.num_features
        self.piece_samples, self.min_samples = LONGEST, WINDOW
        self.requires_grad_(False).eval()

    @torch.no_grad()
    def columns(self, waves: Tensor, *, layer: int = -1) -> Tensor:
        """Embeddings of the last stage, as `WaveEncoder.columns`: (B, S) -> (B, n, D).

        The earlier stages are narrower and no layers here.
        """
        self.check_piece(waves, layer)
        found = self.net(self.logmel(waves)[:, None])  # (B, 1, T, F)
        columns = found.last_hidden_state.mean(dim=2).transpose(1, 2)  # (B, 32, D)
        return columns[:, : len(self.times(waves.shape[1]))]

    def logmel(self, waves: Tensor) -> Tensor:
        """Decibels, before the network's own normalisation: (B, S) -> (B, T, F), T = 1001."""
        repeats = -(-LONGEST // waves.shape[1])
        filled = waves.repeat(1, repeats)[:, :LONGEST]
        with torch.autocast(waves.device.type, enabled=False):
            return 10 * self.mel(filled).clamp(min=1e-10).log10().transpose(1, 2)

    def times(self, num_samples: int) -> Tensor:
        """Centres of the columns, 312.5 ms each."""
        seconds = (torch.arange(NUM_COLUMNS, dtype=torch.float64) + 0.5) * 10 / NUM_COLUMNS
        inside = seconds[seconds * RATE < num_samples]
        middle = torch.tensor([num_samples / 2 / RATE], dtype=torch.float64)
        return inside if len(inside) else middle


def make(weights: Path | None) -> WaveEncoder:
    """HTS-AT with published weights.

    Args:
        weights: a checkpoint of the authors, trained on AudioSet at 32 kHz; None: random, for
            tests.
    Raises: ImportError without `transformers`; ValueError for weights or a front end that do not
        fit; FileNotFoundError.
    """
    encoder = HTSAT(_built())
    if weights is not None:
        _load(encoder, read_state(weights), weights)
    return encoder


def published(own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The package's tensors under the authors' names."""
    state = {}
    for name, tensor in own.items():
        if name.endswith(DERIVED) or re.search(r"\.(key|value)\.", name):
            continue
        if ".query." in name:
            tensor = torch.cat([own[name.replace(".query.", f".{part}.")] for part in QKV])
        state[_renamed(name.replace(".query.", ".qkv."), backwards=True)] = tensor
    return state


def converted(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The authors' tensors, without what lies beside the encoder, under the package's names."""
    own = {}
    for name, tensor in state.items():
        renamed = _renamed(name)
        if ".qkv." in renamed:
            parts = tensor.chunk(len(QKV))
            own |= {renamed.replace("qkv", part): t for part, t in zip(QKV, parts, strict=True)}
        else:
            own[renamed] = tensor
    return own


def _built() -> nn.Module:
    """The package's network with random weights; its default sizes are those of HTS-AT."""
    with needing("htsat", "transformers"):
        from transformers import ClapAudioConfig, ClapAudioModel
    sizes = {"spec_size": 256, "num_mel_bins": NUM_MELS, "patch_embeds_hidden_size": 96}
    swin = {"depths": [2, 2, 6, 2], "num_attention_heads": [4, 8, 16, 32], "window_size": 8}
    return ClapAudioModel(ClapAudioConfig(**sizes, **swin)).audio_encoder


def _load(encoder: HTSAT, state: Mapping[str, Tensor], path: Path) -> None:
    """Loads a checkpoint whose names may all begin with `PREFIX`."""
    _check_front_end(encoder, state, path)
    prefix = PREFIX if any(name.startswith(PREFIX) for name in state) else ""
    kept = {n: tensor for n, tensor in state.items() if not _beside(n.removeprefix(prefix))}
    wanted = published(encoder.net.state_dict())
    refuse_misfits({prefix + name: tensor for name, tensor in wanted.items()}, kept, path)
    own = converted({name.removeprefix(prefix): tensor for name, tensor in kept.items()})
    encoder.net.load_state_dict(_derived(encoder.net) | own)


def _check_front_end(encoder: HTSAT, state: Mapping[str, Tensor], path: Path) -> None:
    """Raises: ValueError if the checkpoint was trained with other mel filters."""
    ours = encoder.mel.mel_scale.fb  # (513, F)
    theirs = state.get(PREFIX + MEL_WEIGHTS, state.get(MEL_WEIGHTS, ours))
    # By the same formula: filters of librosa differ by 2e-8, those for 48 kHz by 2e-2.
    if theirs.shape != ours.shape or not torch.allclose(theirs, ours, rtol=0, atol=1e-6):
        raise ValueError(
            f"{path}: {MEL_WEIGHTS}: of another front end than {RATE} Hz with {NUM_MELS} bins from "
            "50 to 14000 Hz; CLAP's checkpoints, for 48000 Hz, are not HTS-AT's for AudioSet"
        )


def _beside(name: str) -> bool:
    """Whether a tensor of a checkpoint is no weight of the encoder."""
    return name == MEL_WEIGHTS or name.startswith((FRONT_END, *HEADS)) or name.endswith(DERIVED)


def _derived(net: nn.Module) -> dict[str, Tensor]:
    return {name: t for name, t in net.state_dict().items() if name.endswith(DERIVED)}


def _renamed(name: str, *, backwards: bool = False) -> str:
    for theirs, ours in RENAMED:
        old, new = (ours, theirs) if backwards else (theirs, ours)
        # At the start of a part: `attention.output.dense.` ends like `output.dense.`.
        if name.startswith(old) or f".{old}" in name:
            return name.replace(old, new, 1)
    return name
