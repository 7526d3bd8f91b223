"""The exact denoiser of a mixture of Gaussians around real images, for the benchmarks that judge samplers on it."""

from __future__ import annotations

import torch
from torch import Tensor

import fewstep as fs
from fewstep.core.schedule import Schedule
from fewstep.denoise.base import Denoiser, Level
from fewstep.tuning import Problem

IMAGES, STD = 64, 0.2


class Mixture(Denoiser):
    """E[x0 | x_t] for equally likely images (M, C, H, W) with Gaussian noise of standard deviation `std`."""

    def __init__(self, schedule: Schedule, images: Tensor, std: float):
        self.schedule, self.images, self.std = schedule, images.flatten(1), std

    def output(self, x: Tensor, level: Level) -> Tensor:
        alpha, sigma = (v.flatten(1) if isinstance(v, Tensor) else v for v in (level.alpha, level.sigma))
        flat, images = x.flatten(1), self.images.to(x)
        variance = alpha**2 * self.std**2 + sigma**2
        logits = (alpha * (flat @ images.mT) - 0.5 * alpha**2 * images.square().sum(1)) / variance
        near = torch.softmax(logits, 1) @ images
        return (near + alpha * self.std**2 / variance * (flat - alpha * near)).reshape(x.shape)


def mixture_of_digits(schedule: Schedule | None = None) -> Problem:
    """The mixture around 64 of the images that the digits model was trained on, on the linear schedule or another."""
    from fewstep.zoo import digits

    schedule = schedule or fs.schedules.linear()
    return Problem.of(Mixture(schedule, digits.load().images[:IMAGES], STD), (1, 8, 8), name="mixture", batch=256)
