"""Times by dynamic programming over a converged path (GITS: Chen et al. 2024, arXiv 2405.11326).

Cost (i, j) is how far one step of first order from the path's state at time i lands from its state at time j. The
times of N steps are the cheapest way from the first to the last. GITS also discounts: an error that is made early has
the whole path to grow or to shrink, which `discount` counts per step.
"""

from __future__ import annotations

import numpy as np

from fewstep.core.errors import InvalidInput
from fewstep.core.schedule import Float, Schedule
from fewstep.tuning.teacher import TeacherPath

DISCOUNTS = (0.8, 0.85, 0.9, 0.95, 1.0, 1.1, 1.25)


def step_costs(path: TeacherPath, schedule: Schedule) -> Float:
    """(m + 1, m + 1): entry (i, j), i < j, is the root mean square error of a step of DDIM from i to j; else inf."""
    m = len(path.times) - 1
    alpha, sigma = schedule.alpha(path.times), schedule.sigma(path.times)
    costs = np.full((m + 1, m + 1), np.inf)
    for i in range(m):
        share = sigma[i + 1 :] / sigma[i]
        total = alpha[i + 1 :] - alpha[i] * share
        shape = (-1,) + (1,) * (path.states.ndim - 1)
        a, b = (path.states.new_tensor(v).reshape(shape) for v in (share, total))
        landed = a * path.states[i] + b * path.data[i]
        costs[i, i + 1 :] = (
            (landed - path.states[i + 1 :]).square().flatten(1).mean(dim=1).sqrt().double().numpy(force=True)
        )
    return costs


def cheapest_times(path: TeacherPath, costs: Float, steps: int, discount: float = 1.0) -> Float:
    """The (steps + 1,) times of the path with the least sum of costs, one made k steps before the end times
    discount^k.
    """
    m = len(path.times) - 1
    if not 1 <= steps <= m:
        raise InvalidInput(f"a path of {m} steps has no times for {steps}: give 1 to {m}")
    ahead, choice = costs[:, m].copy(), np.zeros((steps, m + 1), int)
    for k in range(1, steps):
        through = discount**k * costs + ahead[None, :]  # (from, to)
        choice[k] = np.argmin(through, axis=1)
        ahead = through[np.arange(m + 1), choice[k]]
    places, here = [0], 0
    for k in range(steps - 1, 0, -1):
        here = int(choice[k, here])
        places.append(here)
    return path.times[[*places, m]]
