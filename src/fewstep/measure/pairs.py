"""Means of a function over pairs of rows, a tile at a time, with their bootstrap in the same pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

Kernel = Callable[[Tensor, Tensor], Tensor]
"""(a, d) and (b, d) to (a, b)."""

TILE = 2048
"""Rows of a tile: 32 MiB of float64 for a square one."""


def tiles(n: int) -> Iterator[slice]:
    """The places 0 .. n, a tile at a time."""
    return (slice(start, min(start + TILE, n)) for start in range(0, n, TILE))


def mean_within(x: Tensor, kernel: Kernel, weights: Tensor) -> tuple[float, Tensor]:
    """The mean of `kernel` over all pairs of different rows of `x` (n, d), and under each of `weights` (R, n): (R,).

    Under weights w it is sum w_i w_j k_ij / sum w_i w_j over i and j that differ, so that a row which the bootstrap
    drew twice is never paired with itself.
    """
    total, weighted = 0.0, torch.zeros(len(weights), dtype=torch.float64)
    for rows in tiles(len(x)):
        for columns in tiles(len(x)):
            values = kernel(x[rows], x[columns])
            if rows == columns:
                values.fill_diagonal_(0)
            total += float(values.sum())
            weighted += ((weights[:, rows] @ values) * weights[:, columns]).sum(dim=1)
    return total / (len(x) * (len(x) - 1)), weighted / (1 - weights.square().sum(dim=1))


def means_between(x: Tensor, y: Tensor, kernel: Kernel) -> Tensor:
    """The mean of `kernel` over the rows of `y` (m, d), for each row of `x` (n, d): (n,)."""
    sums = torch.zeros(len(x), dtype=torch.float64)
    for rows in tiles(len(x)):
        for columns in tiles(len(y)):
            sums[rows] += kernel(x[rows], y[columns]).sum(dim=1)
    return sums / len(y)
