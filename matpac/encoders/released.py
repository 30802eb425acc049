"""State dicts in the released code's names <-> ours.

The released inference checkpoints hold the class token, positions, patch projection and student
encoder; training checkpoints add the predictor (``decoder.*``) and the student's head. M2D's
encoder has the same names without ``student_encoder``. Everything must match: a name that is
missing or unexpected is an error that lists them all.
"""

import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from matpac.encoders import statedicts

PREFIXES = {
    "patch_embed.proj.": "patches.proj.",
    "student_encoder.": "encoder.",
    "blocks.": "encoder.blocks.",
    "norm.": "encoder.norm.",
    "decoder.decoder_embed.": "predictor.embed.",
    "decoder.decoder_blocks.": "predictor.encoder.blocks.",
    "decoder.decoder_norm.": "predictor.encoder.norm.",
    "decoder.decoder_pred.": "predictor.project.",
    "cls_student_head.last_layer.": "head.",
    "cls_student_head.": "head.",
}
NAMES = {
    "cls_token": "patches.cls_token",
    "pos_embed": "patches.positions",
    "decoder.mask_token": "predictor.mask_token",
    "decoder.decoder_pos_embed": "predictor.positions",
}
HYPOTHESES = re.compile(r"mcl_heads\.mcl_heads\.(\d+)\.(weight|bias)")
"""MATPAC++'s last layers of the predictor; ours are one. Its ``decoder_pred`` is there, unused."""
FRONT_END = "log_mel."
"""Buffers of the released front end; ours computes them, so they may be present."""


def our_name(name: str) -> str:
    """Our name for a tensor of the released model; one we do not know stays as it is."""
    if name in NAMES:
        return NAMES[name]
    for theirs, ours in PREFIXES.items():
        if name.startswith(theirs):
            return ours + name.removeprefix(theirs)
    return name


def convert(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Names and shapes of the released model -> ours; front-end buffers are left out."""
    converted, hypotheses = {}, defaultdict(dict)
    for name, tensor in state.items():
        if name.startswith(FRONT_END):
            continue
        if found := HYPOTHESES.fullmatch(name):
            hypotheses[f"predictor.project.{found[2]}"][int(found[1])] = tensor
            continue
        if name.endswith("pos_embed"):
            tensor = tensor.reshape(tensor.shape[-2:])  # (1, 1 + N, D) -> (1 + N, D)
        elif name == "patch_embed.proj.weight":
            tensor = tensor.flatten(1)  # (D, 1, P, P) -> (D, P*P)
        converted[our_name(name)] = tensor
    for name, layers in hypotheses.items():
        converted[name] = torch.cat([layers[number] for number in sorted(layers)])
    return converted


def load_released(
    module: nn.Module, state: Mapping[str, Tensor], source: Path | str = "state dict"
) -> None:
    """Loads a state dict in the released naming into an `AudioEncoder` or a `Student`.

    Args: source: the file, for the message.
    Raises: as `statedicts.refuse_misfits`; nothing is loaded then.
    """
    theirs = {our_name(name): name for name in state}
    statedicts.load(module, convert(state), source, called=theirs)
