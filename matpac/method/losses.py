"""The two pretext tasks' losses and their sum (MATPAC Sec. III, Eqs. (1), (4), (5)).

Shapes: B clips, M masked patches, r hypotheses, D latent width, K prototypes. Losses come per
patch, (B, M); `Trainer.step` takes the mean over clips and patches.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from matpac.method.config import ObjectiveConfig
from matpac.method.heads import student_log_distribution, teacher_distribution


def target_latents(latents: Tensor, objective: ObjectiveConfig) -> Tensor:
    """What the prediction task compares with: the teacher's latents (B, M, D) as they are (MATPAC),
    or each standardised over its D numbers (M2D)."""
    if objective.target == "standardised":
        return F.layer_norm(latents.float(), latents.shape[-1:])
    return latents


def distances(predicted: Tensor, target: Tensor) -> Tensor:
    """Squared error of L2-normalised latents, 2 - 2 cos(predicted, target) (MATPAC Eq. (1)).

    Args:
        predicted: hypotheses of the predictor, (B, M, r, D), any norm; gradients flow.
        target: teacher latents of the same patches, (B, M, D); detached.
    Returns: of each hypothesis, (B, M, r), each in [0, 4].
    Raises: ValueError if the shapes do not fit.
    """
    _check(predicted[:, :, 0], target, "latents")
    predicted = F.normalize(predicted.float(), dim=-1)
    target = F.normalize(target.float(), dim=-1).unsqueeze(2)  # (B, M, 1, D)
    return 2 - 2 * (predicted * target).sum(dim=-1)


def prediction_losses(distances: Tensor, choice_temp: Tensor | float) -> Tensor:
    """Loss of the prediction task: the distance, of several hypotheses their weighted sum.

    Weights are softmax(-distance / temperature) over the hypotheses and held constant in the
    backward pass, so that each is trained as far as it is chosen (multiple choice learning,
    MATPAC++). One hypothesis has the weight 1: MATPAC's Eq. (1).

    Args:
        distances: (B, M, r).
        choice_temp: a tensor, above 0; or 0: the winner takes all.
    Returns: (B, M).
    """
    if distances.shape[2] == 1:
        return distances.squeeze(2)
    if not isinstance(choice_temp, Tensor) and choice_temp == 0:
        return distances.amin(dim=2)
    weights = F.softmax(-distances.detach() / choice_temp, dim=2)
    return (weights * distances).sum(dim=2)


def best(hypotheses: Tensor, distances: Tensor) -> Tensor:
    """The hypothesis of each patch nearest to its target: (B, M, r, D), (B, M, r) -> (B, M, D)."""
    if hypotheses.shape[2] == 1:
        return hypotheses.squeeze(2)
    chosen = distances.argmin(dim=2)[..., None, None].expand(-1, -1, 1, hypotheses.shape[3])
    return hypotheses.gather(2, chosen).squeeze(2)


def classification_losses(log_predicted: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy of the student's distribution under the teacher's (MATPAC Eq. (4)).

    Args:
        log_predicted: student log-probabilities, (B, M, K); gradients flow.
        target: teacher probabilities, (B, M, K); detached.
    Returns: (B, M), each at least the entropy of its target.
    Raises: ValueError if the shapes differ.
    """
    _check(log_predicted, target, "distributions")
    return -(target * log_predicted).sum(dim=-1)


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
    prediction = prediction_losses(distances, choice_temp)
    classification = classification_losses(log_student, teacher)
    return Comparison(log_student, teacher, prediction, classification)


def total_loss(prediction: Tensor, classification: Tensor, alpha: float) -> Tensor:
    """alpha * prediction + (1 - alpha) * classification (MATPAC Eq. (5)).

    At an end of the range the other task is left out, not multiplied by 0: its part of the model
    then gets no gradient at all, and a loss that has diverged cannot turn the total into NaN.
    """
    if alpha == 1:
        return prediction
    if alpha == 0:
        return classification
    return alpha * prediction + (1 - alpha) * classification


def _check(predicted: Tensor, target: Tensor, what: str) -> None:
    if predicted.shape != target.shape:
        raise ValueError(
            f"{what}: predicted {tuple(predicted.shape)} and target {tuple(target.shape)} differ"
        )
    assert not torch.is_grad_enabled() or not target.requires_grad, "targets carry no gradient"
