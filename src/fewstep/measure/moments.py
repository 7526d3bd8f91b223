"""Mean and covariance of a stream of features, in memory that does not depend on how many there are.

Two parts with counts n_a, n_b, means m_a, m_b and scatters S = sum (x - m)(x - m)^T join as (Chan, Golub & LeVeque
1983, The American Statistician 37, in several dimensions):

    m = m_a + d n_b / n,    S = S_a + S_b + d d^T n_a n_b / n,    d = m_b - m_a,  n = n_a + n_b

No large sums are subtracted, so nothing is lost where the mean is large beside the spread.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fewstep.core.errors import InvalidInput


class Moments:
    """Count `n`, `mean` (d,) and `scatter` (d, d) of features of width d, in float64 on the host."""

    def __init__(self, width: int):
        if type(width) is not int or width < 1:
            raise InvalidInput(f"the width of features is a whole number of at least 1, got {width!r}")
        self.n = 0
        self.mean = torch.zeros(width, dtype=torch.float64)
        self.scatter = torch.zeros(width, width, dtype=torch.float64)

    @property
    def width(self) -> int:
        """d, the length of a feature vector."""
        return len(self.mean)

    def update(self, values: Tensor) -> None:
        """Take in features (B, d). Raises `InvalidInput` for another width and for NaN, and is then unchanged."""
        x = checked(values, self.width)
        if len(x):
            mean = x.mean(dim=0)
            rest = x - mean
            self._join(len(x), mean, rest.T @ rest)

    def merge(self, other: Moments) -> None:
        """Take in what another worker saw; both have to have seen different images."""
        if other.width != self.width:
            raise InvalidInput(f"moments of width {other.width} cannot be merged into those of width {self.width}")
        if other.n:
            self._join(other.n, other.mean, other.scatter)

    def _join(self, n: int, mean: Tensor, scatter: Tensor) -> None:
        total = self.n + n
        shift = mean - self.mean
        self.scatter = self.scatter + scatter + torch.outer(shift, shift) * (self.n * n / total)
        self.mean = self.mean + shift * (n / total)
        self.n = total

    @property
    def covariance(self) -> Tensor:
        """(d, d), unbiased: the scatter over n - 1. Raises `InvalidInput` below two rows."""
        if self.n < 2:
            raise InvalidInput(f"a covariance needs at least 2 rows of features, got {self.n}")
        return self.scatter / (self.n - 1)


def checked(values: Tensor, width: int) -> Tensor:
    """`values` (B, width) in float64 on the host. Raises `InvalidInput` for anything else."""
    if not isinstance(values, Tensor) or values.ndim != 2 or not values.is_floating_point():
        got = f"{values.dtype} of {tuple(values.shape)}" if isinstance(values, Tensor) else type(values).__name__
        raise InvalidInput(f"features are floating point tensors (batch, width), got {got}")
    if values.shape[1] != width:
        raise InvalidInput(f"features of width {values.shape[1]} where {width} were expected: use the same features")
    x = values.detach().to("cpu", torch.float64)
    bad = (~torch.isfinite(x)).any(dim=1)
    if bool(bad.any()):
        raise InvalidInput(
            f"the features of {int(bad.sum())} of {len(x)} images hold NaN or infinity: leave those images out, and "
            "look at what drew them with `fewstep doctor`"
        )
    return x
