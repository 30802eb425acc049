"""How many threads torch computes with on the processor."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def limited(count: int | None) -> Iterator[None]:
    """Within it torch's operators use this many. Args: count: None: as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
