"""One update (MATPAC Sec. III): the teacher encodes the masked patches, the student predicts them.

It reads as the method: targets, predictions, two losses, backward, optimiser, then the EMAs of
teacher and centre. The released code updates teacher and centre inside the forward pass, before the
optimiser step; as in DINO and M2D they come after it here, with decays, temperature and the skip of
update 0 taken at the same index.

Nothing in `Trainer.step` waits for the device. An update whose loss or gradient is not finite is
left out *on the device*, with every later one, and `Trainer.failed_at` tells when it is asked.

Shapes: B clips of a micro-batch, M masked patches, K prototypes.
"""

from contextlib import nullcontext
from inspect import unwrap
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from matpac.core import distributed
from matpac.method.heads import Center
from matpac.method.losses import Comparison, compare, target_latents, total_loss
from matpac.method.masking import random_mask
from matpac.method.student import Prediction, Student
from matpac.method.teacher import Target, Teacher
from matpac.pretraining.batches import Batch
from matpac.pretraining.config import ResolvedRun
from matpac.pretraining.diagnostics import Collapse
from matpac.pretraining.schedules import Scheduled

LOSSES = ("prediction_loss", "classification_loss", "total_loss", "gradient_norm")
"""What every update measures."""


class Measured(NamedTuple):
    """What one update says of itself, on the device."""

    losses: Tensor
    """`LOSSES`, (4,)."""
    collapse: Collapse | None
    """The diagnostics, at the steps that measure them."""


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
        objective, pretrain = run.objective, run.pretrain
        self.teacher = Teacher(self.student, copy_student=pretrain.teacher_copies_student)
        self.center = Center(
            run.model.num_prototypes,
            averages=objective.centering,
            momentum=objective.center_momentum,
        )
        if objective.alpha == 1:
            self.student.head.requires_grad_(False)  # "w/o classification": nothing teaches it
        for module in (self.student, self.teacher, self.center):
            module.to(self.device)
        for encoder in (self.student.encoder, self.student.predictor.encoder):
            encoder.recompute = pretrain.activation_checkpointing
        self.optimizer = make_optimizer(self.student, run)
        half = pretrain.precision == "float16"
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=half)
        # The first update that was not finite (-1: none yet), and how many float16 skipped.
        self.failed = torch.full((), -1, device=self.device)
        self.skipped = torch.zeros((), dtype=torch.int64, device=self.device)
        clip = torch.zeros(1, num_mels, run.model.crop_frames, device=self.device)
        noise = torch.zeros(1, self.student.patches.num_patches, device=self.device)
        mask = random_mask(noise, run.model.mask_ratio)
        target = torch.zeros(*mask.masked.shape, run.model.encoder_width, device=self.device)
        self.replica = distributed.replicate(self.student, clip, mask, target)
        self.compare = compare
        if pretrain.compile:  # after the pass in there, which would be compiled for one clip
            self.student.compile()
            self.teacher.compile()
            self.compare = torch.compile(compare)

    def step(self, batch: Batch, step: int, at: Scheduled, *, measure: bool) -> Measured:
        """One update (MATPAC Sec. III).

        Gradients are accumulated over micro-batches; centre, teacher and weights change once.

        Args:
            batch: this process's crops and mask noise.
            step: its index; at: the schedules there; measure: whether to compute diagnostics.
        """
        self.optimizer.zero_grad(set_to_none=True)
        alpha, collapse = self.run.objective.alpha, Collapse() if measure else None
        values = torch.zeros(3, device=self.device)
        center = torch.zeros_like(self.center.value)
        parts = split(batch, self.run.pretrain.micro_batch_size)
        for part in parts:
            share = len(part.logmel) / len(batch.logmel)
            gathering = part is not parts[-1]  # processes exchange gradients once per update
            with distributed.no_sync(self.replica) if gathering else nullcontext():
                predicted, target, found = self.forward(part, at)
                prediction, classification = found.prediction.mean(), found.classification.mean()
                total = total_loss(prediction, classification, alpha)
                self.scaler.scale(total * share).backward()
            values += share * torch.stack([prediction, classification, total]).detach()
            center += share * self.center.batch_mean(target.logits, found.teacher)
            if collapse is not None:
                collapse.add(predicted, target, found)
        values = distributed.all_mean(values)
        if collapse is not None:
            collapse.gather(self.center.value)
        norm = self.update(step, at, values[2], distributed.all_mean(center))
        return Measured(torch.cat([values, norm[None]]), collapse)

    def forward(self, batch: Batch, at: Scheduled) -> tuple[Prediction, Target, Comparison]:
        """Targets, predictions and how far they are apart, of a micro-batch; changes nothing."""
        objective, precision = self.run.objective, self.run.pretrain.precision
        logmel = batch.logmel.to(self.device, non_blocking=True).float()
        noise = batch.noise.to(self.device, non_blocking=True)
        logmel = (logmel - self.mean) / self.std
        mask = random_mask(noise, self.run.model.mask_ratio)
        with torch.autocast(
            self.device.type, getattr(torch, precision), enabled=precision != "float32"
        ):
            with torch.no_grad():
                target = self.teacher(self.student.patches(logmel, mask.masked))
            predicted = self.replica(logmel, mask, target_latents(target.latents, objective))
        compared = self.compare(
            predicted.logits,
            predicted.distances,
            target.logits,
            self.center.value,
            student_temp=objective.student_temp,
            teacher_temp=self._temperature(at.teacher_temp),
            choice_temp=self._temperature(at.choice_temp) if at.choice_temp else 0.0,
        )
        return predicted, target, compared

    def _temperature(self, value: float) -> Tensor:
        """A tensor: for each new number compiled code would be compiled again."""
        return torch.full((), value, device=self.device)

    def update(self, step: int, at: Scheduled, total: Tensor, center: Tensor) -> Tensor:
        """Optimiser, then teacher and centre, unless loss or gradient is not finite.

        Args:
            total: the loss; center: the batch mean of the centre, (K,); both over all processes.
        Returns: norm of the gradient before clipping, ().
        """
        self.scaler.unscale_(self.optimizer)
        clip_norm = self.run.pretrain.clip_norm
        norm = nn.utils.clip_grad_norm_(self.student.parameters(), clip_norm)
        # A gradient beyond float16's range is the scaler's to mend: it skips and scales less.
        half = self.scaler.is_enabled()
        finite = total.isfinite() if half else total.isfinite() & norm.isfinite()
        self.failed.masked_fill_((self.failed < 0) & ~finite, step)
        active = self.failed < 0
        overflow = ~norm.isfinite()
        self.skipped += active & overflow
        for group in self.optimizer.param_groups:
            group["lr"] = at.learning_rate
        # What GradScaler.step would tell a fused optimiser, which then looks on the device.
        self.optimizer.grad_scale = None
        self.optimizer.found_inf = (~active | overflow).float()
        self.optimizer.step()
        self.scaler.update()
        if step > 0:  # the released code's first update leaves the teacher alone
            self.teacher.update(
                self.student,
                encoder_decay=at.encoder_ema_decay,
                head_decay=at.head_ema_decay,
                active=active.float(),
            )
        self.center.update(center, active=active)
        return norm

    def failed_at(self) -> int | None:
        """The first update that was not finite, if any; waits for the device."""
        failed = int(self.failed)
        return failed if failed >= 0 else None

    def state(self) -> dict[str, Any]:
        """All that a resumed run needs: tensors and plain numbers only."""
        return {
            "student": self.student.state_dict(),
            "teacher": self.teacher.state_dict(),
            "center": self.center.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "skipped": self.skipped,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Restores what `state` gave."""
        for name in ("student", "teacher", "center", "optimizer", "scaler"):
            getattr(self, name).load_state_dict(state[name])
        self.skipped.copy_(state["skipped"])


def split(batch: Batch, size: int | None) -> list[Batch]:
    """Micro-batches of at most ``size`` clips; None: one."""
    if size is None:
        return [batch]
    return [Batch(*each) for each in zip(*(part.split(size) for part in batch), strict=True)]


class AdamW(torch.optim.AdamW):
    """torch's own, to the bit, without its decorators for `torch.compile`: each of them imports
    that, which takes two seconds of every process, used or not."""

    add_param_group = unwrap(torch.optim.AdamW.add_param_group)
    zero_grad = unwrap(torch.optim.AdamW.zero_grad)
    state_dict = unwrap(torch.optim.AdamW.state_dict)
    load_state_dict = unwrap(torch.optim.AdamW.load_state_dict)
    step = torch.no_grad()(unwrap(torch.optim.AdamW.step))


def make_optimizer(student: Student, run: ResolvedRun) -> AdamW:
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
    return AdamW(
        [group for group in groups if group["params"]],
        lr=0.0,
        betas=tuple(pretrain.betas),
        eps=pretrain.eps,
        fused=True,
    )
