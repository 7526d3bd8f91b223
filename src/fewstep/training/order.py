"""Which samples a step takes: every sample once in each epoch, in an order keyed by (seed, epoch)."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from fewstep.training.draws import key_of


def members(count: int | None, batch: int, step: int, seed: int) -> list[int]:
    """The numbers 0 .. count - 1 of the `batch` samples of a step (0, 1 ..). An epoch may end within a step.

    Without a count there is no end: each step takes the next numbers, and none comes again.
    """
    if count is None:
        return list(range(step * batch, (step + 1) * batch))
    found: list[int] = []
    place = step * batch
    while len(found) < batch:
        epoch, within = divmod(place + len(found), count)
        found.extend(epoch_order(count, epoch, seed)[within : within + batch - len(found)].tolist())
    return found


@lru_cache(maxsize=2)
def epoch_order(count: int, epoch: int, seed: int) -> NDArray[np.int64]:
    """(count,) the numbers in the order of an epoch; that of the last two is kept, as every step of one asks for it."""
    return np.random.Generator(np.random.Philox(key=[epoch, key_of(seed, "order")])).permutation(count)
