"""States at levels of noise, one for each sample of a batch, in the coordinates of a noise schedule.

    x = alpha x0 + sigma eps,     k = sigma / alpha,

so a level is named by its time or by k, whatever the schedule. Times, alpha and sigma are float64 on the host until
they meet a state. A step of the probability-flow ODE from a to b, with the estimate D of the data held still, is exact
in the noise that it leaves (DDIM, Song et al. 2021, arXiv 2010.02502, eq. 13):

    x_b = alpha_b D + sigma_b / sigma_a (x_a - alpha_a D)
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from fewstep.core.schedule import Schedule
from fewstep.denoise.base import Denoiser, Level


def at_times(schedule: Schedule, t: ArrayLike, x: Tensor) -> Level:
    """The level of states `x` (B, ..) at times (B,) of the schedule."""
    times = np.broadcast_to(np.asarray(t, np.float64), (len(x),))
    rows = zip(times, schedule.alpha(times), schedule.sigma(times), strict=True)
    return of_rows([(float(a), float(b), float(c)) for a, b, c in rows], x)


def of_rows(rows: Sequence[tuple[float, float, float]], x: Tensor) -> Level:
    """The level of states `x` (B, ..) at the (t, alpha, sigma) of each."""
    # One sample has a level of numbers; here all are tensors (B, 1, ..).
    alpha, sigma = (column([row[i] for row in rows], x) for i in (1, 2))
    return Level.at(rows, x)._replace(alpha=alpha, sigma=sigma)


def column(values: Sequence[float] | np.ndarray, x: Tensor) -> Tensor:
    """Values (B,) as (B, 1, ..), which multiply states like `x` (B, ..)."""
    return x.new_tensor(values).reshape(-1, *[1] * (x.ndim - 1))


def either(chosen: ArrayLike, first: Level, other: Level, x: Tensor) -> Level:
    """`first` where a sample (B,) of the states `x` is chosen, else `other`."""
    return of_rows([a if yes else b for yes, a, b in zip(np.asarray(chosen), first.host, other.host, strict=True)], x)


def time_of_ratio(schedule: Schedule, k: ArrayLike) -> np.ndarray:
    """The times at which sigma / alpha is k; 0 is clean data."""
    with np.errstate(divide="ignore"):
        return np.minimum(schedule.time_of_lambda(-np.log(np.asarray(k, np.float64))), schedule.t_max)


def noised(x0: Tensor, noise: Tensor, level: Level) -> Tensor:
    """alpha x0 + sigma noise."""
    return level.alpha * x0 + level.sigma * noise


def stepped(x: Tensor, data: Tensor, here: Level, there: Level) -> Tensor:
    """The state at `there` of DDIM from the state `x` at `here`, where sigma is not 0."""
    return there.alpha * data + there.sigma / here.sigma * (x - here.alpha * data)


def target_of(x: Tensor, end: Tensor, here: Level, there: Level) -> Tensor:
    """The estimate of the data with which DDIM from the state `x` at `here` is at `end` at `there`.

    Salimans & Ho 2022, arXiv 2202.00512, appendix G.
    """
    ratio = there.sigma / here.sigma
    return (end - ratio * x) / (there.alpha - ratio * here.alpha)


def euler(denoiser: Denoiser, x: Tensor, here: Level, there: Level) -> Tensor:
    """One step of first order, DDIM, at one evaluation."""
    return stepped(x, denoiser.estimate(x, here)[0], here, there)


def heun(denoiser: Denoiser, x: Tensor, here: Level, there: Level) -> Tensor:
    """One step of second order, at two evaluations: the mean of the estimates at both ends, as the slope in k.

    Karras et al. 2022, arXiv 2206.00364, algorithm 1, in x / alpha, whose slope is (x / alpha - D) / k. Where `there`
    is clean, its slope is not known, and the step is one of first order.
    """
    first = denoiser.estimate(x, here)[0]
    guess = stepped(x, first, here, there)
    k, r = here.sigma / here.alpha, there.sigma / there.alpha
    clean = r == 0
    # No network was trained where no noise is left: for those it is asked again what it was before.
    ends = [sigma == 0 for _, _, sigma in there.host]
    second = denoiser.estimate(torch.where(clean, x, guess), either(ends, here, there, x))[0]
    slope = (x / here.alpha - first) / k
    end = (guess / there.alpha - second) / r.masked_fill(clean, 1.0)
    better = there.alpha * (x / here.alpha + (r - k) * (slope + end) / 2)
    return guess.where(clean, better)
