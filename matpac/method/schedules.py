"""Learning rate, EMA decays and temperatures as pure functions of the step (Sec. IV-A).

A step is the index of an optimiser update, from 0.
"""

import math
from typing import NamedTuple


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
