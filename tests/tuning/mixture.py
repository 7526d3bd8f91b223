"""Data that is a mixture of Gaussians, and the exact denoiser of it."""

from __future__ import annotations

import torch
from torch import Tensor

from fewstep.core.schedule import Schedule
from fewstep.denoise.base import Denoiser, Level


class Mixture(Denoiser):
    """E[x0 | x_t] for equally likely means (M, d), each with the standard deviation `std`.

    It asks the level for alpha and sigma, so that a gradient reaches the times through them.
    """

    def __init__(self, schedule: Schedule, means: Tensor, std: float):
        self.schedule, self.means, self.std = schedule, means, std

    def output(self, x: Tensor, level: Level) -> Tensor:
        alpha, sigma = level.alpha, level.sigma
        means = self.means.to(x)
        variance = alpha**2 * self.std**2 + sigma**2
        distance = (x[:, None] - (alpha[:, None] if isinstance(alpha, Tensor) else alpha) * means).square().sum(dim=2)
        share = torch.softmax(-0.5 * distance / variance, dim=1) @ means
        return share + alpha * self.std**2 / variance * (x - alpha * share)


def six(schedule: Schedule, modes: int = 12, std: float = 0.15) -> Mixture:
    """A mixture in 6 dimensions whose means are about 1 from the origin in each."""
    means = torch.randn(modes, 6, generator=torch.Generator().manual_seed(3))
    return Mixture(schedule, means, std)
