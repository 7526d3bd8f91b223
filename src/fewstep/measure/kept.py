"""A uniform sample of bounded size from a stream, the same however the stream is cut into batches.

Every row gets a random key, and the rows with the least keys stay (the bottom-k sample: Cohen & Kaplan 2007, PODC,
"Summarizing data using bottom-k sketches"). Samples of several workers join by the same rule, provided that their keys
are independent: each worker has a seed of its own.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from fewstep.core.errors import InvalidInput


class Kept:
    """At most `limit` rows of features, in the order in which they came.

    Attributes:
        rows: (kept, d), float64 where the first features were, else float32.
        keys: (kept,) float64 in [0, 1).
        seeds: of the workers whose rows may be in it.
    """

    def __init__(self, width: int, limit: int, seed: int):
        if type(limit) is not int or limit < 2:
            raise InvalidInput(f"keep must be a whole number of at least 2 rows, got {limit!r}")
        self.limit = limit
        self.seeds = frozenset({seed})
        self.rows = torch.empty(0, width)
        self.keys = torch.empty(0, dtype=torch.float64)
        self._generator: np.random.Generator | None = np.random.Generator(np.random.Philox(key=seed))

    def restore(self, rows: Tensor, keys: Tensor, seeds: Iterable[int]) -> None:
        """Become what a file says; no more rows can be drawn from its seeds then, as their keys would come again."""
        self.rows, self.keys, self.seeds = rows, keys, frozenset(seeds)
        self._generator = None

    def update(self, values: Tensor) -> None:
        """Take in features (B, d)."""
        if self._generator is None:
            raise InvalidInput(
                "a summary from a file can be measured and merged, not added to: sum up the new images apart, with "
                "another seed, and merge"
            )
        rows = values.detach().to("cpu", torch.float64 if values.dtype == torch.float64 else torch.float32)
        self._join(rows, torch.from_numpy(self._generator.random(len(rows))))

    def merge(self, other: Kept) -> None:
        """Take in another worker's rows. Raises `InvalidInput` where the two share a seed or differ in `limit`."""
        if self.seeds & other.seeds:
            raise InvalidInput(
                f"two workers have drawn with seed {min(self.seeds & other.seeds)}: give each a seed of its own"
            )
        if self.limit != other.limit:
            raise InvalidInput(f"one worker keeps {self.limit} rows and the other {other.limit}: use the same keep=")
        self._join(other.rows, other.keys)
        self.seeds |= other.seeds

    def _join(self, rows: Tensor, keys: Tensor) -> None:
        if not len(self.rows):
            self.rows = self.rows.to(rows.dtype)
        rows, keys = torch.cat([self.rows, rows]), torch.cat([self.keys, keys])
        if len(keys) > self.limit:
            least = keys.topk(self.limit, largest=False).indices.sort().values
            rows, keys = rows[least], keys[least]
        self.rows, self.keys = rows, keys
