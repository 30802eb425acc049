"""How far predictions and targets are apart: both pretext tasks of a batch (MATPAC Sec. III).

Shapes: B clips, M masked patches, r hypotheses, D width, K prototypes.
"""

from typing import NamedTuple

from torch import Tensor
from torch.nn import functional as F

from matpac.method.config import ObjectiveConfig
from matpac.method.heads import student_log_distribution, teacher_distribution
from matpac.method.losses import classification_losses, prediction_losses


class Comparison(NamedTuple):
    """What the pretext tasks say of each masked patch."""

    log_student: Tensor
    """Log of the student's distributions (Eq. (3)), (B, M, K)."""
    teacher: Tensor
    """The teacher's distributions (Eq. (2)), (B, M, K)."""
    prediction: Tensor
    """Losses of the first task (Eq. (1)), (B, M)."""
    classification: Tensor
    """Losses of the second task (Eq. (4)), (B, M)."""


def target_latents(latents: Tensor, objective: ObjectiveConfig) -> Tensor:
    """What the prediction task compares with, from the teacher's latents (B, M, D).

    As they are (MATPAC), or each standardised over its D numbers (M2D).
    """
    if objective.target == "standardised":
        return F.layer_norm(latents.float(), latents.shape[-1:])
    return latents


def compare(
    logits: Tensor,
    distances: Tensor,
    target_logits: Tensor,
    center: Tensor,
    *,
    student_temp: float,
    teacher_temp: Tensor | float,
    choice_temp: Tensor | float,
) -> Comparison:
    """Both tasks' distributions and losses.

    Args:
        logits, distances: the student's, (B, M, K) and (B, M, r).
        target_logits: the teacher's, (B, M, K); center: C, (K,).
        student_temp, teacher_temp: of the two distributions.
        choice_temp: of the choice between hypotheses; 0: the winner takes all.
    """
    teacher = teacher_distribution(target_logits, center, teacher_temp)
    log_student = student_log_distribution(logits, student_temp)
    return Comparison(
        log_student,
        teacher,
        prediction_losses(distances, choice_temp),
        classification_losses(log_student, teacher),
    )
