"""Looks at what updates measured, whenever it is logged: is the run still worth going on with?"""

from typing import NamedTuple

from matpac.core.progress import Progress
from matpac.pretraining import nonfinite
from matpac.pretraining.alarm import Alarm
from matpac.pretraining.batches import Batches
from matpac.pretraining.logs import LOG, LogRows
from matpac.pretraining.schedules import Plan
from matpac.pretraining.trainer import LOSSES, Trainer


class Failure(NamedTuple):
    """Why a run must stop."""

    step: int
    """Updates made: what the state is after."""
    reason: str


class Monitor:
    """Monitors one run; all processes of it look together.

    Args:
        name: of the run.
        trainer, batches, plan, progress: its parts.
    """

    def __init__(
        self, name: str, trainer: Trainer, batches: Batches, plan: Plan, progress: Progress
    ) -> None:
        self.name, self.trainer, self.batches = name, trainer, batches
        self.plan, self.progress = plan, progress
        pretrain = trainer.run.pretrain
        warmup_steps = pretrain.warmup_epochs * plan.steps_per_epoch
        self.alarm = Alarm(trainer.run, warmup_steps=warmup_steps)

    def look(self, rows: LogRows, note: str) -> Failure | None:
        """Takes what was logged, says what is wrong with it, and shows ``note`` with it.

        Returns: None, or why to stop.
        """
        if not rows.log:
            return None
        failed = self.trainer.failed_at()
        for step, measured in rows.diagnostics:
            if failed is None or step < failed:
                for line in self.alarm.look(step, measured):
                    self.progress.say(f"{self.name}: {line}")
        if ringing := self.alarm.ringing:
            note += f", COLLAPSE: {', '.join(ringing)}"
        if skipped := int(self.trainer.skipped):
            note += f", {skipped} updates skipped (float16)"
        self.progress.note = note
        done = int(rows.log[-1][0]) + 1
        if failed is not None:
            return Failure(failed, self._not_finite(failed, rows))
        if self.trainer.scaler.is_enabled() and self.trainer.scaler.get_scale() < 1:
            reason = "float16 gradients overflow at any scale; pretrain.precision bfloat16 has more"
            return Failure(done, f"{reason} range")
        if ringing and self.trainer.run.pretrain.on_collapse == "stop":
            return Failure(done, f"collapse: {', '.join(ringing)} (pretrain.on_collapse is stop)")
        return None

    def _not_finite(self, step: int, rows: LogRows) -> str:
        values = next((row for row in rows.log if row[0] == step), [])
        named = dict(zip(LOG, values, strict=False))
        losses = ", ".join(f"{name} {named[name]:.4g}" for name in LOSSES if name in named)
        found = nonfinite.describe(self.trainer, self.batches, step, self.plan.at(step))
        return f"step {step}: not finite, nothing updated since: {losses}\n{found}"
