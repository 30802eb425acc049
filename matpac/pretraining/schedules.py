"""Learning rate, EMA decays and temperatures as functions of the step (MATPAC Sec. IV-A).

A step is the index of an optimiser update, from 0.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

from matpac.pretraining.config import ResolvedRun


def linear(step: int, start: float, end: float, num_steps: float) -> float:
    """From ``start`` at step 0 to ``end`` at ``num_steps``, and ``end`` from there on.

    With ``num_steps`` 0 it is ``end`` everywhere. It gives the EMA decays over the whole training
    and the teacher's temperature over its ramp.
    """
    if step >= num_steps:
        return end
    return start + (end - start) * step / num_steps


def learning_rate(step: int, *, peak: float, warmup_steps: int, total_steps: int) -> float:
    """Linear warm-up from 0 (update 0 changes nothing), then a cosine to 0 at ``total_steps``."""
    if step < warmup_steps:
        return peak * step / warmup_steps
    progress = (step - warmup_steps) / max(1, total_steps - warmup_steps)
    return peak * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def choice_temperature(step: int, *, start: float, end: float, decay: float) -> float:
    """``start`` times ``decay`` per update; 0 (the winner takes all) once not above ``end``."""
    temperature = start * decay**step
    return temperature if temperature > end else 0.0


class Scheduled(NamedTuple):
    """The values of one update that depend on its index alone."""

    learning_rate: float
    encoder_ema_decay: float
    head_ema_decay: float
    teacher_temp: float
    choice_temp: float = 0.0
    """Of several hypotheses (MATPAC++); 0: the best one takes all."""


@dataclass(frozen=True)
class Plan:
    """Every schedule of a run, with epochs turned into updates."""

    run: ResolvedRun
    steps_per_epoch: float
    total_steps: int

    def at(self, step: int) -> Scheduled:
        """The values of update ``step``."""
        pretrain, objective = self.run.pretrain, self.run.objective
        scale = pretrain.batch_size / 256 if pretrain.scale_learning_rate else 1.0
        ramp = objective.teacher_temp_ramp_epochs * self.steps_per_epoch
        sharpened = linear(step, objective.teacher_temp_start, objective.teacher_temp, ramp)
        return Scheduled(
            learning_rate=learning_rate(
                step,
                peak=pretrain.learning_rate * scale,
                warmup_steps=int(pretrain.warmup_epochs * self.steps_per_epoch),
                total_steps=self.total_steps,
            ),
            encoder_ema_decay=linear(step, *pretrain.encoder_ema_decay, self.total_steps),
            head_ema_decay=linear(step, *pretrain.head_ema_decay, self.total_steps),
            teacher_temp=sharpened if objective.sharpening else objective.student_temp,
            choice_temp=self._choice_temp(step),
        )

    def _choice_temp(self, step: int) -> float:
        objective = self.run.objective
        if objective.choice_temp is None:
            return 0.0
        start, end = objective.choice_temp
        decay = objective.choice_temp_decay
        if decay is None:
            decay = (end / start) ** (1 / (objective.choice_temp_fraction * self.total_steps))
        return choice_temperature(step, start=start, end=end, decay=decay)
