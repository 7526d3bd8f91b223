"""Figure 1: the paths of several samplers through the plane, from the same noise, beside the exact paths."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fewstep.core.errors import InvalidInput
from fewstep.core.plan import Plan
from fewstep.core.schedule import Float, Schedule
from fewstep.denoise.base import Level, Wrapper
from fewstep.run.eager import sample
from fewstep.show.exact import Exact, angle_of
from fewstep.show.mixture import Mixture
from fewstep.show.strategy import Strategy, distance, entry_state, exact_from

EXACT_POINTS = 181
DEFAULTS = ("ddim", "heun", "dpmpp-2m", "unipc-3", "euler-a")


class Path(NamedTuple):
    """What one sampler did.

    Attributes:
        points: (steps + 1, n, 2) states at the ends of its steps, divided by sqrt(alpha^2 + sigma^2).
        error: distance of the ends from the exact ones, root mean square; None where it draws noise.
    """

    strategy: Strategy
    nfe: int
    points: Float
    error: float | None


class Trajectories(NamedTuple):
    """All paths; `exact` is (181, n, 2), at angles atan2(sigma, alpha) that are evenly spaced."""

    mixture: Mixture
    schedule: Schedule
    nfe: int
    seed: int
    exact: Float
    paths: Sequence[Path]

    @property
    def finding(self) -> str:
        """What the numbers say, in a sentence."""
        measured = sorted((p for p in self.paths if p.error is not None), key=lambda p: p.error or 0.0)
        if len(measured) < 2 or not measured[0].error:
            return f"The same noise, at most {self.nfe} evaluations each"
        best, worst = measured[0], measured[-1]
        times = (worst.error or 0.0) / measured[0].error
        return (
            f"From the same noise in {self.nfe} evaluations, {best.strategy.name} ends {times:.2g} times nearer to the "
            f"exact solution than {worst.strategy.name}"
        )

    def document(self) -> dict[str, Any]:
        """All numbers as JSON-serialisable data."""
        return {
            "figure": "trajectories",
            "finding": self.finding,
            "schedule": self.schedule.spec,
            "nfe": self.nfe,
            "seed": self.seed,
            "mixture": self.mixture.described(),
            "exact": self.exact.tolist(),
            "paths": [
                {
                    "sampler": p.strategy.name,
                    "grid": p.strategy.grid,
                    "nfe": p.nfe,
                    "error": p.error,
                    "points": p.points.tolist(),
                }
                for p in self.paths
            ],
        }

    def table(self) -> tuple[list[str], list[list[Any]]]:
        """A point a line."""
        named = [("exact", self.exact), *((p.strategy.name, p.points) for p in self.paths)]
        rows = [
            [name, image, step, *(float(v) for v in points[step, image])]
            for name, points in named
            for image in range(points.shape[1])
            for step in range(points.shape[0])
        ]
        return ["path", "noise", "point", "x", "y"], rows


def trajectories(
    mixture: Mixture,
    schedule: Schedule,
    strategies: Sequence[Strategy],
    *,
    nfe: int = 10,
    count: int = 10,
    seed: int = 0,
) -> Trajectories:
    """Run each strategy with at most `nfe` evaluations from `count` noises.

    Raises `InvalidInput` for a mixture that is not in the plane and a strategy that needs more evaluations.
    """
    if mixture.means.shape[1] != 2:
        raise InvalidInput(f"paths are drawn in the plane, got a mixture in {mixture.means.shape[1]} dimensions")
    exact = exact_from(mixture, schedule, count, seed)
    found = []
    for strategy in strategies:
        plan = strategy.within(schedule, nfe)
        if plan is None:
            raise InvalidInput(f"{strategy.name} needs more than {nfe} evaluations for one step: give it more")
        points = path(plan, exact, seed)
        wrong = None if plan.stochastic else distance(points[-1], exact.at(angle_of(*plan.exit)))
        found.append(Path(strategy, plan.nfe(), points.numpy(), wrong))
    angles = np.linspace(exact.angles[0], 0.0, EXACT_POINTS)
    return Trajectories(mixture, schedule, nfe, seed, exact.along(angles.tolist()).numpy(), found)


def path(plan: Plan, exact: Exact, seed: int) -> Tensor:
    """The states (steps + 1, n, D) at the ends of the plan's steps, divided by sqrt(alpha^2 + sigma^2).

    They are where the network is asked; the stages inside a step are left out.
    """
    seen = Seen(exact.mixture)
    last = sample(plan, seen, start=entry_state(plan, exact), seed=seed)
    begins = [True, *(row.ends_step for row in plan.rows[:-1])]
    inputs = [x for x, begin in zip(seen.states, begins, strict=True) if begin]
    return torch.stack([*inputs, last / math.hypot(*plan.exit)])


class Seen(Wrapper):
    """A denoiser that keeps the states it is given, divided by sqrt(alpha^2 + sigma^2)."""

    def __init__(self, mixture: Mixture) -> None:
        super().__init__(mixture)
        self.states: list[Tensor] = []

    def output(self, x: Tensor, level: Level) -> Tensor:
        self.states.append(x / math.hypot(level.alpha, level.sigma))
        return super().output(x, level)
