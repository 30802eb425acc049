"""Measures of frozen embeddings that train nothing: what they are like, beside what they score.

    rankme      RankMe (Garrido et al., ICML 2023): how many dimensions they use; more is better
    alpha_req   alpha-ReQ (Agrawal et al., NeurIPS 2022): how fast the spectrum of their covariance
                falls; 1 is best
    uniformity  (Wang and Isola, ICML 2020): how evenly they lie on the sphere; less is better
    alignment   (the same): how far apart those that belong together lie; less is better

What is better is what their authors say; notebook 09 shows what holds over the runs here. Alignment
alone looks at labels: clips with the same one belong together, as what frozen embeddings have
instead of two views of a clip. Shapes: N clips of a task, D embedding size, C labels.
"""

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from matpac.probing.task import ROWS_AT_ONCE, Inputs, Task, windows

FIRST, LAST = 11, 100
"""Eigenvalues that the power law is fitted to: not the few large ones, not the tail of noise."""
PAIRED = 2048
"""Clips, evenly spaced, all pairs of which the uniformity is taken over."""


def measures(task: Task) -> dict[str, float]:
    """All of them, of all clips of a task.

    The last two are of embeddings as the probe sees them, each feature standardised, then brought
    to length 1: what all clips share would hide the rest.
    """
    every = np.arange(len(task.features))
    inputs, gram = Inputs(task.features, every), gram_matrix(task.features)
    few = every[:: math.ceil(len(every) / PAIRED)]
    return {
        "rankme": rankme(gram),
        "alpha_req": alpha_req(task.features, gram),
        "uniformity": uniformity(F.normalize(inputs[few].double())),
        "alignment": alignment(task, inputs),
    }


def rankme(gram: Tensor) -> float:
    """exp of the entropy of the normalised singular values of the embeddings, 1 to D.

    Args: gram: `gram_matrix` of the embeddings, which are not centred.
    """
    singular = torch.linalg.eigvalsh(gram).clamp(min=0).sqrt()
    return float(torch.special.entr(singular / singular.sum().clamp(min=1e-12)).sum().exp())


def alpha_req(features: Tensor, gram: Tensor) -> float:
    """Exponent of the power law, rank ** -alpha, of the covariance's eigenvalues.

    Fitted by least squares of the logarithms to those from `FIRST` to `LAST`, of less than half of
    min(N, D); NaN where fewer than three are left.

    Args: features: one row per clip, (N, D); gram: their `gram_matrix`.
    """
    mean = features.double().mean(dim=0)
    covariance = gram / len(features) - mean.outer(mean)
    last = min(LAST, min(features.shape) // 2)
    values = torch.linalg.eigvalsh(covariance).flip(0)[FIRST - 1 : last]
    values = values[values > 1e-12 * covariance.trace()]
    if len(values) < 3:
        return math.nan
    ranks = np.log(np.arange(FIRST, FIRST + len(values)))
    return -float(np.polyfit(ranks, values.log().numpy(force=True), 1)[0])


def uniformity(units: Tensor) -> float:
    """log of the mean over pairs of exp(-2 d ** 2), d their distance; 0 if all are the same.

    Args: units: rows of length 1, (N, D).
    """
    return float((-2 * F.pdist(units).square()).logsumexp(0) - math.log(math.comb(len(units), 2)))


def alignment(task: Task, inputs: Inputs) -> float:
    """Mean squared distance of two clips with the same label, of rows of length 1; of labels that
    two clips have, each counts the same.

    Args: inputs: rows of features of the task.
    """
    sums = torch.zeros(task.num_classes, inputs.dim, dtype=torch.float64, device=task.device)
    counts = sums.new_zeros(task.num_classes)
    lengths = sums.new_zeros(task.num_classes)  # 1 for each clip, 0 for one at the very mean
    for rows in windows(np.arange(len(task.features))):
        units = F.normalize(inputs[rows].double())
        has = task.wanted(rows).nan_to_num().double()  # (B, C)
        sums += has.T @ units
        counts += has.sum(dim=0)
        lengths += has.T @ units.square().sum(dim=1)
    some = counts > 1
    # Of all ordered pairs of different clips: |sum|^2 holds each one's product, and each square.
    products = (sums.square().sum(dim=1) - lengths)[some] / (counts * (counts - 1))[some]
    squares = lengths[some] / counts[some]
    return float((2 * squares - 2 * products).mean()) if some.any() else math.nan


def gram_matrix(features: Tensor) -> Tensor:
    """Sums of products, (D, D) in double; the embeddings are read a window at a time."""
    gram = torch.zeros(2 * (features.shape[1],), dtype=torch.float64, device=features.device)
    for window in features.split(ROWS_AT_ONCE):
        gram.addmm_(window.double().T, window.double())
    return gram
