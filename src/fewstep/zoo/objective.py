"""What the network is trained to do, and how well it does it on images that it has not seen.

    v = alpha eps - sigma x0        of        x_t = alpha x0 + sigma eps

is the velocity (Salimans & Ho 2022, arXiv:2202.00512, appendix D); the loss is its mean squared error. How
much each noise level counts is decided by how often it is drawn: a density over lambda = log(alpha / sigma)
is a weight of the loss (Kingma & Gao 2023, arXiv:2303.00848).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fewstep.core.schedule import Schedule

LEVELS = 16
"""Noise levels, uniform in time, at which `measured_loss` measures."""


def logistic_times(schedule: Schedule, share: NDArray[np.float64], spread: float) -> NDArray[np.float64]:
    """Times at which lambda is the quantile `share` of the logistic distribution around 0 with scale
    `spread`.

    Args:
        schedule: where lambda is cut to the range between its t_max and t_min.
        share: in [0, 1], any shape.
        spread: above 0.

    Returns:
        times, the shape of `share`; each is exactly a float32, so that the network is told the time that is
        meant.
    """
    with np.errstate(divide="ignore"):
        lam = spread * (np.log(share) - np.log1p(-share))
    lam = np.clip(lam, schedule.lam(schedule.t_max), schedule.lam(schedule.t_min))
    times = schedule.time_of_lambda(lam).astype(np.float32).astype(np.float64)
    return np.clip(times, schedule.t_min, schedule.t_max)


def velocity_loss(
    network: Callable[[Tensor, Tensor, Tensor], Tensor],
    schedule: Schedule,
    x0: Tensor,
    labels: Tensor,
    t: NDArray[np.float64],
    noise: Tensor,
) -> Tensor:
    """Mean squared error of the network's velocity over images `x0` (B, C, H, W), each at its time `t`
    (B,)."""
    column = (-1, *[1] * (x0.ndim - 1))
    alpha = torch.from_numpy(schedule.alpha(t)).float().reshape(column)
    sigma = torch.from_numpy(schedule.sigma(t)).float().reshape(column)
    predicted = network(alpha * x0 + sigma * noise, torch.from_numpy(t).float(), labels)
    return (predicted - (alpha * noise - sigma * x0)).square().mean()


def measured_loss(
    network: Callable[[Tensor, Tensor, Tensor], Tensor],
    schedule: Schedule,
    images: Tensor,
    labels: Tensor,
    seed: int,
    batch: int = 256,
) -> float:
    """The velocity loss at `LEVELS` times uniform over the schedule, with noise that depends on `seed`
    alone."""
    draw = torch.Generator().manual_seed(seed)
    times = schedule.t_min + (np.arange(LEVELS) + 0.5) / LEVELS * (schedule.t_max - schedule.t_min)
    total = 0.0
    with torch.no_grad():
        for t in times:
            noise = torch.randn(images.shape, generator=draw)
            for start in range(0, len(images), batch):
                part = slice(start, start + batch)
                level = np.full(len(images[part]), t, np.float64)
                loss = velocity_loss(network, schedule, images[part], labels[part], level, noise[part])
                total += float(loss) * len(level)
    return total / (LEVELS * len(images))
