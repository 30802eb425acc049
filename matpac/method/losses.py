"""The two pretext tasks' losses and their sum (MATPAC Sec. III, Eqs. (1), (4), (5)).

Shapes: B clips, M masked patches, D latent width, K prototypes. Losses come per patch, (B, M); the
mean over clips and patches is taken where they are weighed.
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def prediction_losses(predicted: Tensor, target: Tensor) -> Tensor:
    """Squared error of L2-normalised latents, 2 - 2 cos(predicted, target) (MATPAC Eq. (1)).

    Args:
        predicted: predictor output, (B, M, D), any norm; gradients flow.
        target: teacher latents of the same patches, (B, M, D); detached.
    Returns: (B, M), each in [0, 4].
    Raises: ValueError if the shapes differ.
    """
    _check_shapes(predicted, target, "latents")
    predicted = F.normalize(predicted.float(), dim=-1)
    target = F.normalize(target.float(), dim=-1)
    return 2 - 2 * (predicted * target).sum(dim=-1)


def classification_losses(log_predicted: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy of the student's distribution under the teacher's (MATPAC Eq. (4)).

    Args:
        log_predicted: student log-probabilities, (B, M, K); gradients flow.
        target: teacher probabilities, (B, M, K); detached.
    Returns: (B, M), each at least the entropy of its target.
    Raises: ValueError if the shapes differ.
    """
    _check_shapes(log_predicted, target, "distributions")
    return -(target * log_predicted).sum(dim=-1)


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


def _check_shapes(predicted: Tensor, target: Tensor, what: str) -> None:
    if predicted.shape != target.shape:
        raise ValueError(
            f"{what}: predicted {tuple(predicted.shape)} and target {tuple(target.shape)} differ"
        )
    assert not torch.is_grad_enabled() or not target.requires_grad, "targets carry no gradient"
