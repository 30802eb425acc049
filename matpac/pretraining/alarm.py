"""When the collapse diagnostics say that a run is lost (MATPAC Sec. III and IV-C).

Thresholds are fractions of ln K, the largest entropy of K prototypes. In the mini profile, after
warm-up, the base run and those of other alphas and K stay above 0.37 (entropy of the mean
distribution) and 0.06 (teacher's KL); without centering the first falls to 0.00, without sharpening
the second to 0.002. Without prediction (alpha 0) the second falls, but how far depends on as little
as how sums are rounded: to 0.005 once, to 0.018 another time. Effective ranks stay above 11
(targets) and 4 (predictions); a single direction has 1.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

from matpac.pretraining import diagnostics
from matpac.pretraining.config import ResolvedRun

IN_A_ROW = 3
"""Measurements that have to agree: a single batch may be odd."""


class Rule(NamedTuple):
    """A way to collapse."""

    text: str
    measured: str
    """One of `diagnostics.NAMES`."""
    threshold: Callable[[int], float]
    """Of K: the run is collapsing below it."""
    of_classification: bool


RULES = (
    Rule("one prototype takes all", "teacher_entropy_of_mean", lambda k: 0.1 * math.log(k), True),
    Rule(
        "distributions ignore the input", "mutual_information", lambda k: 0.02 * math.log(k), True
    ),
    Rule("targets share one direction", "target_effective_rank", lambda k: 2.0, False),
    Rule("predictions share one direction", "predicted_effective_rank", lambda k: 2.0, False),
)


class Alarm:
    """Watches the diagnostics of one run.

    Args:
        run: its configuration. Without classification (alpha 1) its rules do not apply.
        warmup_steps: measurements before are not judged.
    """

    def __init__(self, run: ResolvedRun, *, warmup_steps: float) -> None:
        self.num_prototypes = run.model.num_prototypes
        self.warmup_steps = warmup_steps
        self.counts = {
            rule: 0 for rule in RULES if run.objective.alpha < 1 or not rule.of_classification
        }

    @property
    def ringing(self) -> list[str]:
        """What is the case now, in words."""
        return [rule.text for rule, count in self.counts.items() if count >= IN_A_ROW]

    def look(self, step: int, values: list[float]) -> list[str]:
        """Takes a measurement: its step and the values of `diagnostics.NAMES`.

        Returns: one line for each rule that is broken for the third time in a row.
        """
        if step < self.warmup_steps:
            return []
        named, lines = dict(zip(diagnostics.NAMES, values, strict=True)), []
        for rule, count in self.counts.items():
            threshold = rule.threshold(self.num_prototypes)
            value = named[rule.measured]
            self.counts[rule] = count + 1 if value < threshold else 0
            if self.counts[rule] == IN_A_ROW:
                lines.append(
                    f"step {step}: collapse: {rule.text} "
                    f"({rule.measured} {value:.3g}, alarm below {threshold:.3g})"
                )
        return lines
