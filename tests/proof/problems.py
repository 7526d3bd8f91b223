"""Problems with an exact answer, and a plain loop over a plan's table that shares no code with the drivers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

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


class Bent(NamedTuple):
    """A denoiser that is not linear in x, made so that its trajectories are known; `std` and `bend` as arrays.

    With r = sigma / alpha, w = (x / alpha) / sqrt(std^2 + r^2) obeys dw = w^2 dphi, phi = bend / (1 + r^2): so
    1 / w + phi is constant along a trajectory, and bend = 0 is the Gaussian of mean 0.
    """

    std: Float
    bend: Float

    def data(self, x: Float, alpha: float, sigma: float) -> Float:
        """x / alpha - r eps, with eps = d(x / alpha) / dr."""
        r, root = sigma / alpha, np.sqrt(self.std**2 + (sigma / alpha) ** 2)
        w = x / alpha / root
        return root * w - r * (r / root * w - root * 2 * self.bend * r / (1 + r**2) ** 2 * w**2)

    def at(self, z: Float, alpha: float, sigma: float) -> Float:
        """The trajectory whose w is `z` at the limit of pure noise."""
        r = sigma / alpha
        return alpha * np.sqrt(self.std**2 + r**2) / (1 / z - self.bend / (1 + r**2))


def played(
    plan: Plan,
    start: Float | tuple[Float, ...],
    data: Callable[[Float, Row], Float],
    noise: Callable[[Interval], Float] | None = None,
) -> tuple[Float, ...]:
    """The plan's table, row by row, in float64: what every driver must agree with. One state an output."""
    states = start if isinstance(start, tuple) else (start,)
    first = np.zeros_like(states[0]) if plan.start_noise is None or noise is None else noise(plan.start_noise)
    R = np.tensordot(plan.init, np.stack([*states, first]), axes=1)
    for row, A, B, s in zip(plan.rows, plan.A, plan.B, plan.s, strict=True):
        estimate = data(R[0], row)
        R = np.tensordot(A, R, axes=1) + np.multiply.outer(B.sum(axis=1), estimate)
        if row.noise is not None and noise is not None:
            R = R + np.multiply.outer(s, noise(row.noise))
    return tuple(R[: plan.outputs])


def gaussian_law(plan: Plan, problem: Gaussian) -> tuple[Float, Float]:
    """Mean and standard deviation of what the plan makes of exact starts, each (coordinates,): no draw is needed.

    On Gaussian data the denoiser is affine in x, so the registers stay Gaussian; their mean (K, coordinates) and
    covariance (K, K, coordinates) follow the table.
    """
    alpha, sigma = plan.entry
    start, drawn = plan.init[:, 0], plan.init[:, 1]
    mean = np.multiply.outer(start, alpha * problem.mean)
    cov = np.multiply.outer(np.outer(start, start), alpha**2 * problem.std**2 + sigma**2)
    cov = cov + np.outer(drawn, drawn)[..., None]
    for row, A, B, s in zip(plan.rows, plan.A, plan.B, plan.s, strict=True):
        shift = problem.data(np.zeros_like(problem.mean), row.alpha, row.sigma)
        gain = problem.data(np.ones_like(problem.mean), row.alpha, row.sigma) - shift
        b = B.sum(axis=1)
        M = np.repeat(A[:, :, None], len(gain), axis=2)
        M[:, 0] += np.multiply.outer(b, gain)
        mean = np.einsum("ijd,jd->id", M, mean) + np.multiply.outer(b, shift)
        cov = np.einsum("ijd,jkd,lkd->ild", M, cov, M) + np.outer(s, s)[..., None]
    return mean[0], np.sqrt(cov[0, 0])


def network_of_a_point(plan: Plan, point: Tensor, prediction: str) -> Callable[[Tensor, Tensor], Tensor]:
    """The network, of any prediction type, that knows that all data is `point`; for one run of `plan`.

    `edm` is with sigma_data 0.5. It counts its calls to know the level, so that a wrong time is seen.
    """
    rows = iter(plan.rows)

    def network(u: Tensor, time: Tensor) -> Tensor:
        row = next(rows)
        alpha, sigma = row.alpha, row.sigma
        if prediction == "edm":
            r, d = sigma / alpha, 0.5
            norm = r**2 + d**2
            torch.testing.assert_close(time, torch.full_like(time, math.log(r) / 4))
            return (point - d**2 / norm**0.5 * u) / (r * d / norm**0.5)
        assert torch.equal(time, torch.full_like(time, row.t))
        eps = (u - alpha * point) / sigma
        outputs = {
            "epsilon": eps,
            "sample": point.expand_as(u),
            "v_prediction": alpha * eps - sigma * point,
            "flow": eps - point,
        }
        return outputs[prediction]

    return network
