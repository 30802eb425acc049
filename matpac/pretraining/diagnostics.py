"""Is the representation or the classification collapsing? Measured on one global batch.

Sec. III of the paper: without sharpening and centering one dimension of the distributions
dominates. Two numbers tell it apart from health: the entropy of the *mean* teacher distribution
falls when few prototypes are used at all; the mean entropy of *single* distributions rises to the
first when they do not depend on the input. Their difference (the mean KL divergence from the mean
distribution, the mutual information of patch and prototype) is what the classification teaches. The
KL divergence of the student's distributions from the teacher's, DINO's own figure, is what it still
has to learn.

Of several hypotheses (MATPAC++) there is more to watch: one that always wins has collapsed the
others, and nothing is gained if the best is hardly nearer to the target than the mean one.

Shapes: B clips, M masked patches, r hypotheses, D width, K prototypes.
"""

import math

import torch
from torch import Tensor

from matpac.core import distributed
from matpac.method.losses import Comparison
from matpac.method.student import Prediction
from matpac.method.teacher import Target


class Collapse:
    """The diagnostics of one update: sums over its micro-batches, then over all processes.

    Nothing here waits for the device until `values`.
    """

    def __init__(self) -> None:
        self.spreads = {"predicted": Spread(), "target": Spread()}
        self.sums: dict[str, Tensor] = {}
        self.covariances: list[Tensor] = []

    @torch.no_grad()
    def add(self, predicted: Prediction, target: Target, compared: Comparison) -> None:
        """Takes what `Trainer.forward` gave of a micro-batch."""
        log_student, teacher = compared.log_student, compared.teacher
        self.spreads["predicted"].add(predicted.latents.flatten(0, 1))
        self.spreads["target"].add(target.latents.flatten(0, 1))
        chosen = teacher.argmax(dim=-1)
        new = {
            "count": torch.full((), chosen.numel(), dtype=torch.float64, device=chosen.device),
            **distribution_sums("teacher", teacher),
            **distribution_sums("student", log_student.exp()),
            "chosen": is_chosen(chosen, teacher.shape[-1]),
            "agreeing": (chosen == log_student.argmax(dim=-1)).sum().double(),
            "cross_entropy": compared.classification.sum(dtype=torch.float64),
        }
        if predicted.distances.shape[2] > 1:
            new |= choice_sums(predicted.distances)
        self.sums = {name: self.sums.get(name, 0) + value for name, value in new.items()}

    @torch.no_grad()
    def gather(self, center: Tensor) -> "Collapse":
        """Joins the parts of all processes, which call this together; center: C, (K,)."""
        self.covariances = [spread.covariance() for spread in self.spreads.values()]
        self.sums = {name: distributed.all_mean(value) for name, value in self.sums.items()}
        self.sums["center_norm"] = center.norm()
        return self

    def values(self) -> dict[str, float]:
        """What was measured, by name; entropies in nats. Eigenvalues are computed only here."""
        sums, count = self.sums, self.sums["count"]
        predicted, target = self.covariances
        found = {
            "predicted_std": predicted.diagonal().clamp(min=0).sqrt().mean(),
            "target_std": target.diagonal().clamp(min=0).sqrt().mean(),
            "predicted_effective_rank": effective_rank(predicted),
            "target_effective_rank": effective_rank(target),
            **entropies("teacher", sums, "mutual_information"),
            **entropies("student", sums, "student_mutual_information"),
            "teacher_student_kl": (sums["cross_entropy"] - sums["teacher_entropy"]) / count,
            "prototypes_in_use": (sums["chosen"] > 0).sum(),
            "agreement": sums["agreeing"] / count,
            "center_norm": sums["center_norm"],
        }
        if "wins" in sums:
            found |= choices(sums["wins"] / count, (sums["mean"] - sums["least"]) / count)
        return {name: float(value) for name, value in found.items()}


class Spread:
    """Mean and covariance of vectors that come in parts, in float64.

    In float32, or around zero, the rounding of collapsed latents would look like a spread in all
    dimensions; sums are taken around the first vector.
    """

    def __init__(self) -> None:
        self.count, self.origin = 0, torch.empty(0)
        self.sum = self.outer = torch.zeros(())

    def add(self, vectors: Tensor) -> None:
        """Takes (n, D) vectors."""
        vectors = vectors.double()
        if not self.count:
            self.origin = vectors[0].clone()
        moved = vectors - self.origin
        self.count += len(vectors)
        self.sum = self.sum + moved.sum(dim=0)
        self.outer = self.outer + moved.T @ moved

    def covariance(self) -> Tensor:
        """Over the vectors of all processes, as many in each, around their common mean: (D, D)."""
        offset = self.sum / self.count
        own = self.outer / self.count - offset.outer(offset)
        mean = self.origin + offset
        apart = mean - distributed.all_mean(mean)
        return distributed.all_mean(own + apart.outer(apart))


def effective_rank(covariance: Tensor) -> Tensor:
    """exp of the entropy of the normalised singular values of the centred vectors (1 to D).

    Vectors that differ by less than float32's rounding (1e-6 in all) count as one point: 1. NaN if
    some are not finite.
    """
    if not covariance.isfinite().all():  # eigvalsh raises, before the failed update is explained
        return torch.tensor(math.nan)
    singular = torch.linalg.eigvalsh(covariance.double()).clamp(min=0).sqrt()
    share = singular / singular.sum().clamp(min=1e-6)
    return torch.special.entr(share).sum().exp().float()


def distribution_sums(name: str, distributions: Tensor) -> dict[str, Tensor]:
    """Sum of (B, M, K) distributions, (K,), and of their entropies, (), float64."""
    entropy = torch.special.entr(distributions).sum(dim=-1)
    return {
        f"{name}_sum": distributions.sum(dim=(0, 1), dtype=torch.float64),
        f"{name}_entropy": entropy.sum(dtype=torch.float64),
    }


def entropies(name: str, sums: dict[str, Tensor], difference: str) -> dict[str, Tensor]:
    """Of `distribution_sums`: entropy of the mean distribution, mean entropy of single ones.

    Args: difference: what the first minus the second is called.
    """
    of_mean = torch.special.entr(sums[f"{name}_sum"] / sums["count"]).sum()
    single = sums[f"{name}_entropy"] / sums["count"]
    return {
        f"{name}_entropy_of_mean": of_mean,
        f"{name}_mean_entropy": single,
        difference: of_mean - single,
    }


def choice_sums(distances: Tensor) -> dict[str, Tensor]:
    """How often each hypothesis is nearest, (r,), and sums of distances, float64: (B, M, r) ->."""
    best = distances.argmin(dim=2).flatten()
    wins = torch.zeros(distances.shape[2], dtype=torch.float64, device=best.device)
    return {
        "wins": wins.scatter_add_(0, best, torch.ones_like(best, dtype=torch.float64)),
        "mean": distances.mean(dim=2).sum(dtype=torch.float64),
        "least": distances.amin(dim=2).sum(dtype=torch.float64),
    }


def choices(shares: Tensor, gain: Tensor) -> dict[str, Tensor]:
    """Of several hypotheses: how many share the wins, and what choosing gains.

    Args: shares: of the wins, (r,); gain: distance of the mean hypothesis minus the best one's.
    """
    found = {"effective_hypotheses": torch.special.entr(shares).sum().exp(), "choice_gain": gain}
    return found | {f"wins_{number}": share for number, share in enumerate(shares)}


def is_chosen(chosen: Tensor, num_prototypes: int) -> Tensor:
    """1 for each prototype that is the most likely one of at least one patch, (K,), float64."""
    found = torch.zeros(num_prototypes, dtype=torch.float64, device=chosen.device)
    return found.scatter_(0, chosen.flatten(), 1.0)  # bincount would wait for the device
