"""How many CPU threads a training takes. Sums over threads round otherwise, so it decides the last bits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def limited(count: int) -> Iterator[None]:
    """Within it torch computes in so many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
