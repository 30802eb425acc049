"""Is the representation or the classification collapsing? Measured on one global batch.

Sec. III of the paper: without sharpening and centering one dimension of the distributions
dominates. Two numbers tell it apart from health: the entropy of the *mean* teacher distribution
falls when few prototypes are used at all; the mean entropy of *single* distributions rises to the
first when they do not depend on the input. Their difference (the mean KL divergence from the mean
distribution, the mutual information of patch and prototype) is what the classification teaches.

Shapes: B clips, M masked patches, D width, K prototypes.
"""

import torch
from torch import Tensor

from matpac import distributed
from matpac.model import Prediction

NAMES = (
    "predicted_std",
    "target_std",
    "predicted_effective_rank",
    "target_effective_rank",
    "teacher_entropy_of_mean",
    "teacher_mean_entropy",
    "teacher_kl",
    "student_entropy_of_mean",
    "student_mean_entropy",
    "student_kl",
    "prototypes_in_use",
    "agreement",
    "center_norm",
)


@torch.no_grad()
def collapse(
    predicted: Prediction,
    target: Prediction,
    *,
    log_student: Tensor,
    teacher: Tensor,
    center: Tensor,
) -> Tensor:
    """All diagnostics of one step, over the batches of all processes.

    Args:
        predicted, target: latents (B, M, D) of student and teacher.
        log_student: log of the student's distributions, (B, M, K).
        teacher: the teacher's distributions, (B, M, K).
        center: C, (K,).
    Returns: (len(NAMES),), on the device of the inputs, nothing synchronised. Entropies in nats.
    """
    chosen = teacher.argmax(dim=-1)
    values = [
        *latent_spread(predicted.latents, target.latents),
        *entropies(teacher),
        *entropies(log_student.exp()),
        prototypes_in_use(chosen, teacher.shape[-1]),
        distributed.all_mean((chosen == log_student.argmax(dim=-1)).float().mean()),
        center.norm(),
    ]
    return torch.stack(values)


def latent_spread(predicted: Tensor, target: Tensor) -> list[Tensor]:
    """Mean standard deviation per dimension, then effective rank, of predicted and target."""
    covariances = [covariance(latents.float().flatten(0, 1)) for latents in (predicted, target)]
    stds = [c.diagonal().clamp(min=0).sqrt().mean() for c in covariances]
    return [s.float() for s in stds] + [effective_rank(c) for c in covariances]


def covariance(vectors: Tensor) -> Tensor:
    """Of (n, D) vectors of every process, around their common mean: (D, D), float64."""
    # In float32 the rounding of collapsed latents would look like a spread in all dimensions.
    vectors = vectors.double()
    centred = vectors - distributed.all_mean(vectors.mean(dim=0))
    return distributed.all_mean(centred.T @ centred / len(vectors))


def effective_rank(covariance: Tensor) -> Tensor:
    """exp of the entropy of the normalised singular values of the centred vectors (1 to D).

    Vectors that differ by less than float32's rounding (1e-6 in all) count as one point: 1.
    """
    singular = torch.linalg.eigvalsh(covariance.double()).clamp(min=0).sqrt()
    share = singular / singular.sum().clamp(min=1e-6)
    return torch.special.entr(share).sum().exp().float()


def entropies(distribution: Tensor) -> list[Tensor]:
    """Entropy of the mean, mean entropy of single ones, and their difference, in nats."""
    mean = distributed.all_mean(distribution.mean(dim=(0, 1)))
    of_mean = torch.special.entr(mean).sum()
    single = distributed.all_mean(torch.special.entr(distribution).sum(dim=-1).mean())
    return [of_mean, single, of_mean - single]


def prototypes_in_use(chosen: Tensor, num_prototypes: int) -> Tensor:
    """How many prototypes are the most likely one of at least one patch."""
    counts = torch.zeros(num_prototypes, device=chosen.device)
    counts.scatter_(0, chosen.flatten(), 1.0)
    return (distributed.all_mean(counts) > 0).sum().float()
