"""RankMe (Garrido et al., ICML 2023): how many dimensions frozen embeddings use, without labels."""

import torch
from torch import Tensor

from matpac.probing.task import ROWS_AT_ONCE


def rankme(features: Tensor) -> float:
    """exp of the entropy of the normalised singular values of the embeddings, 1 to D.

    The singular values are the roots of the eigenvalues of the Gram matrix, summed in double: the
    embeddings are read a window at a time.

    Args: features: one row per clip, not centred, (N, D).
    """
    gram = torch.zeros(2 * (features.shape[1],), dtype=torch.float64, device=features.device)
    for window in features.split(ROWS_AT_ONCE):
        gram.addmm_(window.double().T, window.double())
    singular = torch.linalg.eigvalsh(gram).clamp(min=0).sqrt()
    return float(torch.special.entr(singular / singular.sum().clamp(min=1e-12)).sum().exp())
