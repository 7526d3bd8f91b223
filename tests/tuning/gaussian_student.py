"""An imperfect consistency function of Gaussian data, for which what any plan draws is known exactly.

Data N(0, diag(l)). In x / alpha, at k = sigma / alpha, the flow ends at sqrt(l / (l + k^2)) of a state; the student's
estimate is that, too small by a share that grows to both ends of log k and is another in each direction: it was taught
the middle best, and no plan makes up for all of it.
"""

from __future__ import annotations

import numpy as np

import fewstep as fs

VARIANCES = np.array([1.0, 0.25, 0.04])
SCHEDULE = fs.schedules.linear()
BEST_AT, LOST, WIDTH = 1.5, np.array([0.6, 0.2, 0.5]), 1.5


def estimate(k: np.ndarray) -> np.ndarray:
    """(.., 3) of the estimate of states at k (..)."""
    k = np.asarray(k, np.float64)[..., None]
    left = 1 - LOST * (1 - np.exp(-(((np.log(k) - np.log(BEST_AT)) / WIDTH) ** 2)))
    return left * np.sqrt(VARIANCES / (VARIANCES + k**2))


def to_data(variances: np.ndarray) -> np.ndarray:
    """(..) the squared Frechet distance of pictures with these variances (.., 3) to the data."""
    return np.square(np.sqrt(variances) - np.sqrt(VARIANCES)).sum(-1)


def in_two_rows(times: np.ndarray, fresh: np.ndarray) -> np.ndarray:
    """The distance of two rows from all noise, the second one at some times, after so much fresh noise: by hand."""
    first, k = float(SCHEDULE.ratio(SCHEDULE.t_max)), SCHEDULE.ratio(times)
    data = estimate(np.array(first)) * first  # of unit noise
    e = fresh[..., None]
    along = data + k[..., None] * np.sqrt(1 - e**2) * (first - data) / first
    return to_data(np.square(estimate(k)) * (np.square(along) + np.square(k[..., None] * e)))


def distance(plan: fs.Plan, images: int = 0) -> float:
    """That of any plan, whatever the number of images: each direction through its table, a column for each source."""
    sources = 1 + sum(row.noise is not None for row in plan.rows)
    bank = np.zeros((len(VARIANCES), plan.registers, sources))
    bank[:, :, 0] = plan.init[:, 0] * plan.entry[1]
    source = 1
    for i, row in enumerate(plan.rows):
        answer = estimate(np.array(row.sigma / row.alpha))[:, None] * bank[:, 0] / row.alpha
        bank = np.einsum("ij,djs->dis", plan.A[i], bank) + plan.B[i].sum(1)[None, :, None] * answer[:, None]
        if row.noise is not None:
            bank[:, :, source] += plan.s[i]
            source += 1
    return float(to_data(np.square(bank[:, 0]).sum(1)))


def own(rows: int, sampler: str = "consistency") -> fs.Plan:
    """A plan that is even in time."""
    times = np.linspace(SCHEDULE.t_max, SCHEDULE.t_clean, rows + 1)
    return fs.compile(sampler, schedule=SCHEDULE, times=times)
