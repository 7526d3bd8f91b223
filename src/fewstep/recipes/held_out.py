"""How well a network does what it was trained to do on images that it has not seen."""

from __future__ import annotations

import numpy as np
import torch

from fewstep.denoise.convert import Network
from fewstep.training import Denoising, schedule_of
from fewstep.training.denoising import column
from fewstep.training.levels import at_times, noised
from fewstep.zoo.dataset import ImageSet

LEVELS, PART = 16, 256
"""Levels of noise, uniform in time, and images of a call of the network."""


def measured_loss(network: Network, images: ImageSet, seed: int) -> float:
    """The mean squared error of the network's own output, over `LEVELS` times, with noise by `seed` alone."""
    schedule, draw = schedule_of(network), torch.Generator().manual_seed(seed)
    times = schedule.t_min + (np.arange(LEVELS) + 0.5) / LEVELS * (schedule.t_max - schedule.t_min)
    total = 0.0
    with torch.no_grad():
        for t in times:
            noise = torch.randn(images.images.shape, generator=draw)
            for start in range(0, len(images), PART):
                part = slice(start, start + PART)
                x0, e = images.images[part], noise[part]
                level = at_times(schedule, t, x0)
                output = network.given({"label": images.labels[part]}).output(noised(x0, e, level), level)
                of_data, of_noise, _ = (column(value, x0) for value in Denoising().target(network, level.host))
                total += float((output - of_data * x0 - of_noise * e).square().mean()) * len(x0)
    return total / (LEVELS * len(images))
