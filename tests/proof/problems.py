"""Problems with an exact answer, and a plain loop over a plan's table that shares no code with the drivers."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from fewstep import schedules
from fewstep.core.plan import Interval, Plan, Row
from fewstep.core.schedule import Float, Schedule

SCHEDULES: dict[str, Schedule] = {
    "linear": schedules.linear(),
    "scaled_linear": schedules.scaled_linear(),
    "cosine": schedules.cosine(),
    "zero_snr": schedules.scaled_linear(zero_snr=True),
    "edm": schedules.edm(),
    "flow": schedules.flow(),
    "flow shift 3": schedules.flow(3.0),
}

DETERMINISTIC = {
    "ddpm": None,
    "ddim": {},
    "euler-a": {"eta": 0.0},
    "dpm2-a": {"eta": 0.0},
    "dpmpp-2s-a": {"eta": 0.0},
    "dpmpp-sde": {"eta": 0.0},
    "sde-dpmpp-1": {"eta": 0.0},
    "sde-dpmpp-2m": {"eta": 0.0},
    "sde-dpmpp-3m": {"eta": 0.0},
    "edm": {"s_churn": 0.0},
    "edm-euler": {"s_churn": 0.0},
    "edm-dpm2": {"s_churn": 0.0},
    "sa": {"tau": 0.0},
    "tcd": {"eta": 0.0},
    "restart": None,
    "consistency": None,
    "lcm": None,
}
"""Options that leave a stochastic sampler without noise; None where there are none."""


class Gaussian(NamedTuple):
    """Independent coordinates of data, N(mean, std^2); all functions act on arrays (.., coordinates)."""

    mean: Float
    std: Float

    def data(self, x: Float, alpha: float, sigma: float) -> Float:
        """E[x0 | x_t]: the best denoiser."""
        gain = alpha * self.std**2 / (alpha**2 * self.std**2 + sigma**2)
        return self.mean + gain * (x - alpha * self.mean)

    def at(self, z: Float, alpha: float, sigma: float) -> Float:
        """The trajectory of the probability-flow ODE that is `z` standard deviations off the mean."""
        return alpha * self.mean + np.sqrt(alpha**2 * self.std**2 + sigma**2) * z


def played(
    plan: Plan,
    start: Float | tuple[Float, ...],
    data: Callable[[Float, Row], Float],
    noise: Callable[[Interval], Float] | None = None,
) -> tuple[Float, ...]:
    """The plan's table, row by row, in float64: what every driver must agree with. One state for each of its inputs."""
    states = start if isinstance(start, tuple) else (start,)
    first = np.zeros_like(states[0]) if plan.start_noise is None or noise is None else noise(plan.start_noise)
    R = np.tensordot(plan.init, np.stack([*states, first]), axes=1)
    for row, A, B, s in zip(plan.rows, plan.A, plan.B, plan.s, strict=True):
        estimate = data(R[0], row)
        R = np.tensordot(A, R, axes=1) + np.multiply.outer(B.sum(axis=1), estimate)
        if row.noise is not None and noise is not None:
            R = R + np.multiply.outer(s, noise(row.noise))
    return tuple(R[: plan.inputs])
