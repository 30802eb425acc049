"""When the collapse diagnostics say that a run is lost (MATPAC Sec. III and IV-C).

Thresholds are fractions of ln K, the largest entropy of K prototypes. In the mini profile, after
warm-up, the base run and those of other alphas and K stay above 0.37 (entropy of the mean
distribution) and 0.06 (mutual information); without centering the first falls to 0.00, without
sharpening the second to 0.002. Without prediction (alpha 0) the second falls, but how far depends
on the seed and on how sums are rounded: anything from 0.001 to 0.13. Effective ranks stay
above 11 (targets) and 4 (predictions); a single direction has 1. Of several hypotheses, as many as
share the wins count; one that wins 98 of 100 patches leaves 1.1.
"""

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

from matpac.pretraining.config import ResolvedRun

IN_A_ROW = 3
"""Measurements that have to agree: a single batch may be odd."""


class Rule(NamedTuple):
    """A way to collapse."""

    text: str
    measured: str
    """What `matpac.pretraining.diagnostics.Collapse` calls it."""
    threshold: Callable[[int], float]
    """Of K: the run is collapsing below it."""
    of_classification: bool = False
    of_hypotheses: bool = False


RULES = (
    Rule("one prototype takes all", "teacher_entropy_of_mean", lambda k: 0.1 * math.log(k), True),
    Rule(
        "distributions ignore the input", "mutual_information", lambda k: 0.02 * math.log(k), True
    ),
    Rule("targets share one direction", "target_effective_rank", lambda k: 2.0),
    Rule("predictions share one direction", "predicted_effective_rank", lambda k: 2.0),
    Rule("one hypothesis wins all", "effective_hypotheses", lambda k: 1.1, of_hypotheses=True),
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
            rule: 0
            for rule in RULES
            if (run.objective.alpha < 1 or not rule.of_classification)
            and (run.model.hypotheses > 1 or not rule.of_hypotheses)
        }

    @property
    def ringing(self) -> list[str]:
        """What is the case now, in words."""
        return [rule.text for rule, count in self.counts.items() if count >= IN_A_ROW]

    def look(self, step: int, measured: Mapping[str, float]) -> list[str]:
        """Takes a measurement: its step and its values by name.

        Returns: one line for each rule that is broken for the third time in a row.
        """
        if step < self.warmup_steps:
            return []
        lines = []
        for rule, count in self.counts.items():
            threshold = rule.threshold(self.num_prototypes)
            value = measured[rule.measured]
            self.counts[rule] = count + 1 if value < threshold else 0
            if self.counts[rule] == IN_A_ROW:
                lines.append(
                    f"step {step}: collapse: {rule.text} "
                    f"({rule.measured} {value:.3g}, alarm below {threshold:.3g})"
                )
        return lines
