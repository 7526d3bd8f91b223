"""What methods share that compare distributions: levels of noise, the fake score's error, and the discriminator's."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor
from torch.nn import functional

from fewstep.core.schedule import EDMSchedule, Float, Schedule
from fewstep.denoise.base import Level
from fewstep.denoise.convert import Network

FAKE = "fake"
"""The role of the score of the student's own drawings."""
FAKE_SCORE, TOLD_APART = "fake score", "told apart"
"""Signs."""
RHO = 7.0


def between(schedule: Schedule, share: ArrayLike) -> Float:
    """Times at shares (0 to 1, the noisiest last) of a schedule's range: even in its time, for EDM in its root of 7."""
    share = np.asarray(share, np.float64)
    low, high = schedule.t_min, schedule.t_max
    if isinstance(schedule, EDMSchedule):
        return (low ** (1 / RHO) + share * (high ** (1 / RHO) - low ** (1 / RHO))) ** RHO
    return low + (high - low) * share


def output_error(network: Network, estimate: Tensor, x: Tensor, level: Level) -> Tensor:
    """The mean square error of what a network predicts, of estimates of the data x."""
    return ((estimate - x) / network.coefficients_at(level)[1]).square().mean()


def telling_apart(of_data: Tensor, of_drawings: Tensor) -> Tensor:
    """The loss of a discriminator, by its answers (B, places) on both (Goodfellow et al. 2014, arXiv 1406.2661)."""
    return functional.softplus(-of_data).mean() + functional.softplus(of_drawings).mean()


def accuracy(of_data: Tensor, of_drawings: Tensor) -> float:
    """The share of samples on the right side, by the mean of the answers (B, places) of each."""
    right = (of_data.mean(1) > 0).double().mean() + (of_drawings.mean(1) < 0).double().mean()
    return float(right) / 2
