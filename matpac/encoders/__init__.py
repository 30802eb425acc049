"""Frozen encoders: ours, published ones, the user's. In: weights, audio. Out: embeddings.

Read `frozen` (our network on log-mels, its folder), `interface` (what every row of Table II is:
waveforms in, embeddings out) and `pooling` (pieces to clips); then `hub` (load one by folder, Hub
name or row), `heads` (labels from embeddings; those of the method are in `matpac.method.heads`),
`published` (the rows, as data), `weights` and `statedicts` (their files, read without running
anything). `vit` (MATPAC, MATPAC++, M2D and ours), `atst`, `beats`, `dasheng`, `htsat`, `mae_ast`,
`passt`, `speech` (HuBERT and data2vec), `yamnet` and `user` make them; each is imported when it is
used, as their packages are optional and heavy.
"""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def needing(extra: str, package: str) -> Iterator[None]:
    """Says what to install if importing an optional package fails."""
    try:
        yield
    except ImportError as error:
        raise ImportError(
            f"{package} is not installed: pip install 'matpac[{extra}]' ({error})"
        ) from error
