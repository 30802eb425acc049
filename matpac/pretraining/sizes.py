"""How large the networks of a run are, what an update computes, and the memory that it takes.

torch itself counts, on tensors without content: nothing is allocated and no random number drawn.
Work is counted as it is in this field: two floating-point operations per multiplication in a matrix
product, nothing for what is done number by number (norms, GELU, softmax, averages, optimiser), and
nothing for what a kernel or activation checkpointing computes a second time. So it is the same on
every machine, and dividing it by time gives the rate that papers report.
"""

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from matpac.method.config import ModelConfig
from matpac.method.losses import compare
from matpac.method.masking import Mask, random_mask
from matpac.method.student import Student
from matpac.method.teacher import Teacher
from matpac.pretraining.config import ResolvedRun

FLOAT, HALF = 4, 2
"""Bytes of a number."""


class Part(NamedTuple):
    """Of the networks, for one clip in one update."""

    parameters: int
    trained: int
    """Of the parameters those with a gradient."""
    forward: int
    """Floating-point operations in matrix products."""
    backward: int

    @property
    def work(self) -> int:
        """Both passes."""
        return self.forward + self.backward


def parts(run: ResolvedRun, num_mels: int) -> dict[str, Part]:
    """The networks, part by part."""
    return _parts(run.model, num_mels, run.objective.alpha == 1)


def per_clip(run: ResolvedRun, num_mels: int) -> int:
    """Floating-point operations of one clip in one update."""
    return sum(part.work for part in parts(run, num_mels).values())


def held(run: ResolvedRun, num_mels: int) -> dict[str, int]:
    """Bytes that a process holds whatever its batch; a state on disk: all but gradients and casts.

    Processes exchange the gradients, whatever the precision of the passes.
    """
    counts = parts(run, num_mels)
    teacher = sum(part.parameters for name, part in counts.items() if name.startswith("teacher"))
    trained = sum(part.trained for part in counts.values())
    return {
        "weights": FLOAT * (sum(part.parameters for part in counts.values()) - teacher),
        "gradients": FLOAT * trained,
        "optimiser": 2 * FLOAT * trained,
        "teacher": FLOAT * teacher,
        # Autocast keeps each weight that it has cast until the backward pass is through.
        "half-precision weights": 0 if run.pretrain.precision == "float32" else HALF * trained,
    }


def crop_bytes(run: ResolvedRun, num_mels: int) -> int:
    """What an update reads of a store per clip: a half-precision crop."""
    return run.model.crop_frames * num_mels * HALF


def activations(run: ResolvedRun, num_mels: int) -> int:
    """Bytes per clip of a micro-batch that the forward pass keeps for the backward pass.

    Compiled by `torch.compile` it keeps less, since cheap parts are computed again; what activation
    checkpointing computes again comes on top, a block at a time.
    """
    # Without the weights, which do not grow with the clips. Of a single one less is copied.
    return _kept(run, num_mels, clips=3) - _kept(run, num_mels, clips=2)


@cache
def _parts(model: ModelConfig, num_mels: int, prediction_alone: bool) -> dict[str, Part]:
    with torch.device("meta"):
        student, teacher, logmel, mask = _networks(model, num_mels, prediction_alone, clips=1)
        visible = torch.zeros(1, 1 + mask.visible.shape[1], model.encoder_width)
        masked = torch.zeros(1, mask.masked.shape[1], model.encoder_width)
        visible.requires_grad_()
        masked.requires_grad_(not prediction_alone)
        return {
            "student": _part(
                lambda: student.encoder(student.patches(logmel, mask.visible)),
                student.patches,
                student.encoder,
            ),
            "predictor": _part(lambda: student.predictor(visible, mask), student.predictor),
            "student's head": _part(lambda: student.head(masked), student.head),
            "teacher": _part(
                lambda: teacher.encoder(student.patches(logmel, mask.masked).detach()),
                teacher.encoder,
            ),
            "teacher's head": _part(lambda: teacher.head(masked.detach()), teacher.head),
        }


def _part(compute: Callable[[], Tensor], *owned: nn.Module) -> Part:
    with FlopCounterMode(display=False) as counter:
        output = compute()
        forward = counter.get_total_flops()
        if output.requires_grad:
            output.sum().backward()
    sizes = [(p.numel(), p.requires_grad) for module in owned for p in module.parameters()]
    trained = sum(size for size, gradient in sizes if gradient)
    backward = counter.get_total_flops() - forward
    return Part(sum(size for size, _ in sizes), trained, forward, backward)


def _kept(run: ResolvedRun, num_mels: int, clips: int) -> int:
    """By the passes of `matpac.pretraining.trainer.Trainer.forward`, on tensors without content."""
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage._cdata] = storage
        return tensor

    precision, model = run.pretrain.precision, run.model
    cast = torch.autocast("cpu", getattr(torch, precision), enabled=precision != "float32")
    with FakeTensorMode(), torch.autograd.graph.saved_tensors_hooks(keep, lambda kept: kept):
        student, teacher, logmel, mask = _networks(model, num_mels, False, clips=clips)
        for encoder in (student.encoder, student.predictor.encoder):
            encoder.recompute = run.pretrain.activation_checkpointing
        with cast:
            with torch.no_grad():
                target = teacher(student.patches(logmel, mask.masked))
            predicted = student(logmel, mask, target.latents)
        center, several = torch.zeros(model.num_prototypes), float(model.hypotheses > 1)
        temps = {"student_temp": 1.0, "teacher_temp": 1.0, "choice_temp": several}
        compare(predicted.logits, predicted.distances, target.logits, center, **temps)
    return sum(storage.nbytes() for storage in kept.values())


def _networks(
    model: ModelConfig, num_mels: int, prediction_alone: bool, *, clips: int
) -> tuple[Student, Teacher, Tensor, Mask]:
    """With log-mels (B, F, T) to train them on."""
    student = Student(model, num_mels)
    teacher = Teacher(student, copy_student=False)
    if prediction_alone:
        student.head.requires_grad_(False)
    noise = torch.zeros(clips, student.patches.num_patches)
    logmel = torch.zeros(clips, num_mels, model.crop_frames)
    return student, teacher, logmel, random_mask(noise, model.mask_ratio)
