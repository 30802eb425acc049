"""One update (MATPAC Sec. III): the teacher encodes the masked patches, the student predicts them.

It reads as the method: targets, predictions, two losses, backward, optimiser, then the EMAs of
teacher and centre. The released code updates teacher and centre inside the forward pass, before the
optimiser step; as in DINO and M2D they come after it here, with decays, temperature and the skip of
update 0 taken at the same index.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from matpac import diagnostics, distributed, losses
from matpac.batches import Batch
from matpac.config import ResolvedRun
from matpac.heads import Center, student_log_distribution, teacher_distribution
from matpac.logmel import normalise
from matpac.masking import random_mask
from matpac.model import Student
from matpac.schedules import Scheduled
from matpac.teacher import Teacher

LOSSES = ("prediction_loss", "classification_loss", "total_loss", "gradient_norm")
"""What every update measures."""


class Measured(NamedTuple):
    """What one update says of itself, on the device."""

    losses: Tensor
    """`LOSSES`, (4,)."""
    collapse: Tensor | None
    """`diagnostics.NAMES`, at the steps that measure them."""


class Trainer:
    """Student, teacher, centre and optimiser of one process.

    Args:
        run: the resolved configuration.
        num_mels: F; mean, std: normalisation of the log-mels.
    """

    def __init__(self, run: ResolvedRun, num_mels: int, *, mean: float, std: float) -> None:
        torch.manual_seed(run.pretrain.seed)  # alike on every rank: equal initial weights
        self.run, self.mean, self.std = run, mean, std
        self.device = distributed.device()
        self.student = Student(run.model, num_mels)
        self.teacher = Teacher(
            self.student, run.model, copy_student=run.pretrain.teacher_copies_student
        )
        objective = run.objective
        self.center = Center(
            run.model.num_prototypes,
            averages=objective.centering,
            momentum=objective.center_momentum,
        )
        if objective.alpha == 1:
            self.student.head.requires_grad_(False)  # "w/o classification": nothing teaches it
        for module in (self.student, self.teacher, self.center):
            module.to(self.device)
        self.optimizer = make_optimizer(self.student, run)
        self.replica = distributed.replicate(self.student)

    def step(self, batch: Batch, step: int, at: Scheduled, *, measure: bool) -> Measured:
        """One update (MATPAC Sec. III).

        Args:
            batch: this process's crops and mask noise.
            step: its index; at: the schedules there; measure: whether to compute diagnostics.
        Raises: RuntimeError for a loss or gradient that is not finite, before anything changes.
        """
        objective, pretrain = self.run.objective, self.run.pretrain
        logmel = normalise(batch.logmel.to(self.device).float(), self.mean, self.std)
        mask = random_mask(batch.noise.to(self.device), self.run.model.mask_ratio)
        with torch.autocast(
            self.device.type, torch.bfloat16, enabled=pretrain.precision == "bfloat16"
        ):
            with torch.no_grad():
                target = self.teacher(self.student.patches(logmel, mask.masked))
            predicted = self.replica(logmel, mask)
        teacher = teacher_distribution(target.logits, self.center.value, at.teacher_temp)
        student = student_log_distribution(predicted.logits, objective.student_temp)
        prediction = losses.prediction_losses(predicted.latents, target.latents).mean()
        classification = losses.classification_losses(student, teacher).mean()
        total = losses.total_loss(prediction, classification, objective.alpha)

        self.optimizer.zero_grad(set_to_none=True)
        total.backward()
        norm = nn.utils.clip_grad_norm_(self.student.parameters(), pretrain.clip_norm)
        values = distributed.all_mean(torch.stack([prediction, classification, total]).detach())
        measured = torch.cat([values, norm[None]])
        check_finite(torch.stack([values[2], norm]), measured, step)
        collapse = None
        if measure:
            collapse = diagnostics.collapse(
                predicted,
                target,
                log_student=student,
                teacher=teacher,
                center=self.center.value,
            )
        for group in self.optimizer.param_groups:
            group["lr"] = at.learning_rate
        self.optimizer.step()
        if step > 0:  # the released code's first update leaves the teacher alone
            self.teacher.update(
                self.student,
                encoder_decay=at.encoder_ema_decay,
                head_decay=at.head_ema_decay,
            )
        batch_mean = self.center.batch_mean(target.logits, teacher)
        self.center.update(distributed.all_mean(batch_mean))
        return Measured(measured, collapse)

    def state(self) -> dict[str, Any]:
        """All that a resumed run needs: tensors and plain numbers only."""
        return {
            "student": self.student.state_dict(),
            "teacher": self.teacher.state_dict(),
            "center": self.center.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Restores what `state` gave."""
        for name in ("student", "teacher", "center", "optimizer"):
            getattr(self, name).load_state_dict(state[name])


def check_finite(deciding: Tensor, measured: Tensor, step: int) -> None:
    """Stops a run before an update that would spoil it, on all processes together.

    This waits for the device, once per update.

    Args:
        deciding: the total loss and the norm of its gradient.
        measured: `LOSSES`, to be named.
    Raises: RuntimeError if one of ``deciding`` is not finite.
    """
    if not deciding.isfinite().all():
        named = dict(zip(LOSSES, measured.tolist(), strict=True))
        raise RuntimeError(f"step {step}: not finite, nothing updated: {named}")


def make_optimizer(student: Student, run: ResolvedRun) -> torch.optim.AdamW:
    """AdamW with decoupled weight decay, on every trainable tensor or on matrices only."""
    pretrain = run.pretrain
    decayed, kept = [], []
    for name, parameter in student.named_parameters():
        if parameter.requires_grad:
            matrix = parameter.squeeze().ndim > 1 and not name.endswith("positions")
            (decayed if matrix or pretrain.decay_norms_and_biases else kept).append(parameter)
    groups = [
        {"params": decayed, "weight_decay": pretrain.weight_decay},
        {"params": kept, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=0.0,
        betas=tuple(pretrain.betas),
        eps=pretrain.eps,
        fused=True,
    )
