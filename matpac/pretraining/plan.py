"""A run's schedules, with epochs turned into updates (MATPAC Sec. IV-A)."""

from dataclasses import dataclass

from matpac.method.schedules import Scheduled, choice_temperature, learning_rate, linear
from matpac.pretraining.config import ResolvedRun


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
