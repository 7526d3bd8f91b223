"""The exact solution that samplers approximate: the probability-flow ODE of a mixture, solved to 1e-11.

It runs over the angle atan2(sigma, alpha), in states divided by sqrt(alpha^2 + sigma^2). Every noise schedule visits
the same angles, from pi / 2 for pure noise to 0 for clean data, and the flow is smooth at both ends; so one solution
serves all. The method is the embedded pair of orders 5 and 4 of Dormand and Prince (1980; Hairer, Norsett, Wanner
1993, table II.5.2).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from fewstep.core.errors import InvalidInput
from fewstep.show.mixture import Mixture

TOLERANCE = 1e-11
"""Largest error of a step, in the units of the data."""

NODES = (0.0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0)
STAGES = (
    (),
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
)
"""The last line is the step of order 5 itself."""
DIFFERENCE = (71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40)
"""Weights of the order 5 less those of the order 4."""

SAFETY, SHRINK, GROW, MAX_STEPS = 0.9, 0.2, 5.0, 100_000


def angle_of(alpha: float, sigma: float) -> float:
    """atan2(sigma, alpha): 0 is clean data, pi / 2 pure noise."""
    return math.atan2(sigma, alpha)


class Exact:
    """The exact trajectories from `start` (n, D) at `angle`, states divided by sqrt(alpha^2 + sigma^2), in float64."""

    def __init__(self, mixture: Mixture, start: Tensor, angle: float, *, tolerance: float = TOLERANCE) -> None:
        self.mixture, self.tolerance = mixture, tolerance
        self._known = {angle: start.double()}

    def at(self, angle: float) -> Tensor:
        """The states (n, D) at `angle`, 0 up to that of the start."""
        if angle not in self._known:
            nearest = min((known for known in self._known if known > angle), default=None)
            if nearest is None or angle < 0:
                raise InvalidInput(f"angle {angle:g} is outside the solution, 0 to {max(self._known):g}")
            state = self._known[nearest]
            self._known[angle] = solve(self.mixture.velocity, state, nearest, angle, tolerance=self.tolerance)
        return self._known[angle]

    @property
    def angles(self) -> list[float]:
        """Those at which the solution is known already, the start's first."""
        return [*self._known]

    def along(self, angles: Sequence[float]) -> Tensor:
        """The states (len(angles), n, D) at decreasing `angles`."""
        return torch.stack([self.at(float(angle)) for angle in angles])


def solve(
    velocity: Callable[[Tensor, float], Tensor], x: Tensor, start: float, end: float, *, tolerance: float = TOLERANCE
) -> Tensor:
    """x at `end` where dx/da = velocity(x, a) and x at `start` is given, (n, D), in steps with errors of `tolerance`.

    The error of a step is the largest difference of the two orders, over all values.
    """
    a, width, slopes, moved = start, (end - start) / 50, [velocity(x, start)], x
    for _ in range(MAX_STEPS):
        width = end - a if abs(width) >= 0.999 * abs(end - a) else width
        for node, weights in zip(NODES[1:], STAGES[1:], strict=True):
            moved = x + width * _sum(weights, slopes)
            slopes.append(velocity(moved, a + node * width))
        error = abs(width) * float(_sum(DIFFERENCE, slopes).abs().max()) / tolerance
        if error <= 1:
            x, a, slopes = moved, a + width, slopes[-1:]  # the last slope is the first of the next step
            if a == end or abs(end - a) <= 4 * np.spacing(abs(start)):
                return x
        else:
            slopes = slopes[:1]
        width *= min(GROW, max(SHRINK, SAFETY * max(error, 1e-10) ** -0.2))
    raise InvalidInput(f"the exact solution is not reached in {MAX_STEPS} steps: use a mixture with wider components")


def _sum(weights: Sequence[float], slopes: Sequence[Tensor]) -> Tensor:
    total = torch.zeros_like(slopes[0])
    for weight, slope in zip(weights, slopes, strict=True):
        if weight:
            total = total.add(slope, alpha=weight)
    return total
