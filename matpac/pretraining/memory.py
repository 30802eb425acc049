"""How large the networks are, and the memory that training them takes.

All sizes are of one process. What is kept for the backward pass is derived for the code as it
stands; compiled by `torch.compile` it keeps less, since cheap parts are computed again.

Shapes: per clip, V visible and M masked patches, D encoder width, E predictor width, K prototypes.
"""

from typing import NamedTuple

import torch
from torch import nn

from matpac.method.config import ModelConfig
from matpac.method.student import Student
from matpac.method.teacher import Teacher
from matpac.pretraining.config import ResolvedRun
from matpac.pretraining.flops import Tokens

FLOAT, HALF = 4, 2
"""Bytes of a number."""


class Count(NamedTuple):
    """Numbers in the parameters of a part."""

    all: int
    trained: int
    """Those with a gradient."""


def parameters(run: ResolvedRun, num_mels: int) -> dict[str, Count]:
    """Part of the networks, as in `matpac.pretraining.flops.work` -> its parameters."""
    with torch.device("meta"):  # shapes only: nothing is allocated, no random number drawn
        student = Student(run.model, num_mels)
        teacher = Teacher(student, run.model, copy_student=False)
    if run.objective.alpha == 1:
        student.head.requires_grad_(False)
    return {
        "student": _count(student.patches, student.encoder),
        "predictor": _count(student.predictor),
        "student's head": _count(student.head),
        "teacher": _count(teacher.encoder),
        "teacher's head": _count(teacher.head),
    }


def _count(*modules: nn.Module) -> Count:
    every = [parameter for module in modules for parameter in module.parameters()]
    return Count(sum(p.numel() for p in every), sum(p.numel() for p in every if p.requires_grad))


def crop_bytes(run: ResolvedRun, num_mels: int) -> int:
    """What an update reads of a store per clip: a half-precision crop."""
    return run.model.crop_frames * num_mels * HALF


def gradient_bytes(run: ResolvedRun, num_mels: int) -> int:
    """What processes exchange per update, whatever the precision of the passes."""
    return FLOAT * sum(part.trained for part in parameters(run, num_mels).values())


def state_bytes(run: ResolvedRun, num_mels: int) -> int:
    """A training state on disk: weights, teacher and the optimiser's two averages."""
    counts = parameters(run, num_mels).values()
    return sum(FLOAT * (part.all + 2 * part.trained) for part in counts)


def held(run: ResolvedRun, num_mels: int) -> dict[str, int]:
    """Bytes that a process holds whatever its batch."""
    counts = parameters(run, num_mels)
    own = [count for part, count in counts.items() if not part.startswith("teacher")]
    trained = sum(count.trained for count in own)
    return {
        "weights": FLOAT * sum(count.all for count in own),
        "gradients": FLOAT * trained,
        "optimiser": 2 * FLOAT * trained,
        "teacher": FLOAT * sum(count.all for count in counts.values())
        - FLOAT * sum(count.all for count in own),
        # Autocast keeps each weight that it has cast until the backward pass is through.
        "half-precision weights": 0 if run.pretrain.precision == "float32" else HALF * trained,
    }


def activations(run: ResolvedRun, num_mels: int) -> int:
    """Bytes per clip of a micro-batch that the forward pass keeps for the backward pass.

    Products take and give half precision under autocast; the residual stream, norms and losses stay
    in single precision.
    """
    model, tokens = run.model, Tokens.of(run.model, num_mels)
    narrow = FLOAT if run.pretrain.precision == "float32" else HALF
    visible, masked = tokens.visible, tokens.masked
    patches = visible * model.patch_size**2 * narrow
    width, inner = model.encoder_width, model.predictor_width
    everything = 1 + visible + masked
    blocks = [_block(1 + visible, width, model.mlp_ratio, narrow)] * model.encoder_depth
    blocks += [_block(everything, inner, model.mlp_ratio, narrow)] * model.predictor_depth
    norms = (1 + visible) * width * (FLOAT + narrow)
    norms += (everything * FLOAT + masked * narrow) * inner
    kept = sum(block.whole for block in blocks)
    if run.pretrain.activation_checkpointing:
        kept = sum(block.entering for block in blocks) + max(block.whole for block in blocks)
    return patches + kept + norms + _head_and_losses(masked, model, narrow)


class _Block(NamedTuple):
    whole: int
    entering: int
    """Of the whole, what enters the block."""


def _block(tokens: int, width: int, mlp_ratio: float, narrow: int) -> _Block:
    """Of a `matpac.method.encoder.Block`."""
    entering = tokens * width * FLOAT
    # What the norm gives; queries, keys and values, and what they have mixed.
    attention = 5 * tokens * width * narrow
    # What enters the norm and leaves it; what enters and leaves GELU.
    mlp = tokens * (width * (FLOAT + narrow) + 2 * int(width * mlp_ratio) * narrow)
    return _Block(entering + attention + mlp, entering)


def _head_and_losses(masked: int, model: ModelConfig, narrow: int) -> int:
    """The latents, what enters and leaves the head's two GELUs and its norm; distributions."""
    several, cast = model.hypotheses > 1, narrow < FLOAT
    own = several or cast  # else the head's input is the loss's
    choice = model.hypotheses if several and cast else 0
    head = (own + choice) * model.encoder_width + 4 * model.head_hidden + 2 * model.head_bottleneck
    losses = 2 * model.num_prototypes + (1 + model.hypotheses) * model.encoder_width
    return masked * (head * narrow + losses * FLOAT)
