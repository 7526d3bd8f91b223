"""A mixture of round Gaussians: data on which the best denoiser, the score and the flow are closed forms.

At (alpha, sigma) component k of the data, N(m_k, s_k^2), has become N(alpha m_k, v_k) with v_k = alpha^2 s_k^2 +
sigma^2. With p_k(x) the share of component k in the density at x (its responsibility),

    E[x0 | x] = sum_k p_k(x) (m_k + alpha s_k^2 / v_k (x - alpha m_k))
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from fewstep.core.errors import InvalidInput, positive
from fewstep.denoise.base import Denoiser, Level, Value

MAX_MODES = 64


class Mixture(Denoiser):
    """The exact denoiser of a mixture, on every noise schedule.

    Args:
        means: K points of D coordinates each.
        stds: K standard deviations above 0, one for all coordinates of a component.
        weights: K shares above 0, made to sum to 1; equal by default.
    """

    def __init__(
        self, means: Sequence[Sequence[float]], stds: Sequence[float], weights: Sequence[float] | None = None
    ) -> None:
        shares = [1.0] * len(stds) if weights is None else list(weights)
        if not means or not len(means) == len(stds) == len(shares):
            raise InvalidInput(
                f"a mixture has a mean, a std and a weight for each component, got {len(means)}, {len(stds)} and "
                f"{len(shares)}"
            )
        self.means = torch.tensor(means, dtype=torch.float64)
        if self.means.ndim != 2 or not bool(torch.isfinite(self.means).all()):
            raise InvalidInput(f"means are K points of D finite coordinates, got {means!r:.100}")
        self.stds = torch.tensor([positive("std", s) for s in stds], dtype=torch.float64)
        self.weights = torch.tensor([positive("weight", w) for w in shares], dtype=torch.float64)
        self.weights /= self.weights.sum()

    def output(self, x: Tensor, level: Level) -> Tensor:
        """E[x0 | x] for states (B, D)."""
        return self.data(x, level.alpha, level.sigma)

    def data(self, x: Tensor, alpha: Value, sigma: Value) -> Tensor:
        """E[x0 | x] for states (.., D) at (alpha, sigma)."""
        away, variance = self._parts(x, alpha, sigma)
        gains = (alpha * self.stds.to(x.dtype) ** 2 / variance)[..., None]
        estimates = self.means.to(x.dtype) + gains * away
        return (self._shares(away, variance)[..., None] * estimates).sum(dim=-2)

    def velocity(self, x: Tensor, angle: float) -> Tensor:
        """dx/d(angle) along the probability-flow ODE for states (.., D) at alpha = cos(angle), sigma = sin(angle).

        In these coordinates, which every noise schedule shares after division by sqrt(alpha^2 + sigma^2), it is
        (cos x - E[x0 | x]) / sin. The sine is divided out here, so that it is smooth from clean data, 0, to pure
        noise, pi / 2:

            sin sum_k p_k(x) (cos (1 - s_k^2) / v_k (x - cos m_k) - m_k)
        """
        cos, sin = math.cos(angle), math.sin(angle)
        away, variance = self._parts(x, cos, sin)
        pulls = (cos * (1 - self.stds**2) / variance)[..., None] * away - self.means
        return sin * (self._shares(away, variance)[..., None] * pulls).sum(dim=-2)

    def density(self, x: Tensor) -> Tensor:
        """Density of the data at points (.., D), as (..)."""
        away, variance = self._parts(x, 1.0, 0.0)
        logs = self._logs(away, variance) - 0.5 * x.shape[-1] * math.log(2 * math.pi)
        return torch.logsumexp(logs, dim=-1).exp()

    def described(self) -> dict[str, list]:
        """Means, stds and weights as JSON-serialisable data."""
        return {name: getattr(self, name).tolist() for name in ("means", "stds", "weights")}

    def _parts(self, x: Tensor, alpha: Value, sigma: Value) -> tuple[Tensor, Tensor]:
        """(x - alpha m_k, v_k) as (.., K, D) and (.., K)."""
        away = x[..., None, :] - _beside(alpha) * self.means.to(x.dtype)
        return away, alpha**2 * self.stds.to(x.dtype) ** 2 + sigma**2

    def _logs(self, away: Tensor, variance: Tensor) -> Tensor:
        scaled = away.square().sum(dim=-1) / variance
        return self.weights.to(away.dtype).log() - 0.5 * (scaled + away.shape[-1] * variance.log())

    def _shares(self, away: Tensor, variance: Tensor) -> Tensor:
        return torch.softmax(self._logs(away, variance), dim=-1)


def _beside(value: Value) -> Value:
    """A number as it is; a tensor (B, 1) with a dimension for the components."""
    return value[..., None] if isinstance(value, Tensor) else value


def ring(modes: int = 5, *, radius: float = 2.2, std: float = 0.4) -> Mixture:
    """`modes` equal Gaussians of `std` on a circle in the plane, the first at its top.

    Raises `InvalidInput` unless there are 1 to 64 modes and both lengths are above 0. One mode lies off the centre,
    too.
    """
    if isinstance(modes, bool) or not isinstance(modes, int) or not 1 <= modes <= MAX_MODES:
        raise InvalidInput(f"modes must be an integer in 1 .. {MAX_MODES}, got {modes!r}")
    size = positive("radius", radius)
    turns = [2 * math.pi * k / modes for k in range(modes)]
    return Mixture([[size * math.sin(a), size * math.cos(a)] for a in turns], [std] * modes)
