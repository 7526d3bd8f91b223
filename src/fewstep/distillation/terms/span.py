"""The span of noise that estimates are to be constant over, or ways to lie in: its ends, levels and plans."""

from __future__ import annotations

import math

import numpy as np
import torch

from fewstep.core.plan import Plan
from fewstep.core.schedule import Schedule
from fewstep.solvers.compiler import compile
from fewstep.training.draws import Float
from fewstep.training.levels import time_of_ratio

NOISIEST = 80.0
"""The largest k of a grid on a schedule that goes on to where nothing of the data is left."""


def ratios(share: Float, mean: float, deviation: float, ends: tuple[float, float]) -> Float:
    """The levels k (B,) of some shares (B,) of a distribution that is normal in log k, cut at two ends."""
    normal = torch.special.ndtri(torch.from_numpy(share.clip(1e-9, 1 - 1e-9))).numpy()
    return np.clip(np.exp(mean + deviation * normal), *ends)


def plan_to(schedule: Schedule, rows: int, mean: float, least: float) -> Plan:
    """A plan of consistency, from the most noise on even in log k to its `mean`, where levels were drawn the most."""
    noisy, end = noisiest(schedule), max(mean, math.log(quietest(schedule, least)))
    inner = time_of_ratio(schedule, np.exp(np.linspace(math.log(noisy), end, rows + 1)))
    times = [float(time_of_ratio(schedule, noisy)), *map(float, inner[1:-1]), schedule.t_clean]
    return compile("consistency", schedule=schedule, times=times)


def quietest(schedule: Schedule, least: float) -> float:
    """The smallest k that is trained: `least`, or that of the schedule where it is more."""
    return max(least, float(schedule.ratio(schedule.t_min)))


def noisiest(schedule: Schedule) -> float:
    """The largest k that is trained: that of the schedule, or `NOISIEST` where it goes beyond."""
    return min(float(schedule.ratio(schedule.t_max)), NOISIEST)
