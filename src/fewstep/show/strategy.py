"""A way to spend evaluations, a sampler with its options on a time grid; and how far from exact it ends."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fewstep.core.errors import InvalidInput, unknown_name
from fewstep.core.grid import GRIDS
from fewstep.core.plan import Plan
from fewstep.core.schedule import Schedule
from fewstep.run.eager import sample
from fewstep.run.noise import START, seeds_of, unit_noise
from fewstep.show.exact import TOLERANCE, Exact, angle_of
from fewstep.show.mixture import Mixture
from fewstep.solvers.compiler import compile, solver_of
from fewstep.solvers.registry import SAMPLERS


class Strategy(NamedTuple):
    """A sampler, its options and a grid."""

    sampler: str
    grid: str = "exponential"
    options: Mapping[str, Any] = {}

    @property
    def name(self) -> str:
        """The sampler with its options: `ddim:eta=0.5`."""
        return ":".join([self.sampler, *(f"{key}={value}" for key, value in self.options.items())])

    @property
    def order(self) -> int | None:
        """The order of convergence that the theory gives; None where options may change it."""
        return None if self.options else SAMPLERS[self.sampler].order

    def check(self) -> Strategy:
        """Itself; raises `InvalidInput` where the sampler, the grid or an option is not known."""
        if self.sampler not in SAMPLERS:
            raise unknown_name("sampler", self.sampler, SAMPLERS)
        if self.grid not in GRIDS:
            raise unknown_name("grid", self.grid, GRIDS)
        known = solver_of(self.sampler)[1]
        for option in self.options:
            if not known:
                raise InvalidInput(f"{self.sampler} takes no options, got {option!r}")
            if option not in known:
                raise unknown_name(f"option of {self.sampler}", option, known)
        return self

    def plan(self, schedule: Schedule, steps: int, final: str = "clean") -> Plan:
        """The plan in so many steps."""
        options = {"final": final}
        return compile(
            self.check().sampler, schedule=schedule, steps=steps, grid=self.grid, grid_options=options, **self.options
        )

    def within(self, schedule: Schedule, nfe: int, final: str = "clean") -> Plan | None:
        """The plan with the most steps that takes at most `nfe` evaluations; None where even one step takes more."""
        steps = max(1, nfe // SAMPLERS[self.check().sampler].evaluations)
        plan = self.plan(schedule, steps, final)
        while plan.nfe() > nfe and steps > 1:
            steps -= 1
            plan = self.plan(schedule, steps, final)
        if plan.nfe() > nfe:
            return None
        while plan.nfe() < nfe and (more := self.plan(schedule, steps + 1, final)).nfe() <= nfe:  # cheap last steps
            plan, steps = more, steps + 1
        return plan


def starts(schedule: Schedule, count: int, seed: int, dimensions: int = 2) -> tuple[Tensor, float]:
    """Noise at the noisiest time, (count, dimensions) divided by sqrt(alpha^2 + sigma^2), float64; and its angle."""
    alpha, sigma = float(schedule.alpha(schedule.t_max)), float(schedule.sigma(schedule.t_max))
    like = torch.empty(count, dimensions, dtype=torch.float64)
    return unit_noise(seeds_of(seed, count), START, like) * (sigma / math.hypot(alpha, sigma)), angle_of(alpha, sigma)


def exact_from(mixture: Mixture, schedule: Schedule, count: int, seed: int, *, tolerance: float = TOLERANCE) -> Exact:
    """The exact trajectories of `count` noises."""
    start, angle = starts(schedule, count, seed, mixture.means.shape[1])
    return Exact(mixture, start, angle, tolerance=tolerance)


def entry_state(plan: Plan, exact: Exact) -> Tensor:
    """What a run of `plan` starts from: the exact state at the plan's first level."""
    return exact.at(angle_of(*plan.entry)) * math.hypot(*plan.entry)


def deterministic(strategy: Strategy, plan: Plan) -> None:
    """Raise `InvalidInput` where the plan draws noise, so that no exact solution belongs to it."""
    if plan.stochastic:
        raise InvalidInput(
            f"{strategy.name} draws noise as it goes, so it follows no exact solution: choose deterministic samplers, "
            "those without 'draws' in `fewstep samplers`"
        )


def distance(got: Tensor, exact: Tensor) -> float:
    """Root mean square over n points (n, D) of their distance."""
    return float((got - exact).square().sum(dim=-1).mean().sqrt())


def error(plan: Plan, exact: Exact) -> float:
    """How far a run of `plan` ends from the exact solution, in the units of the data."""
    got = sample(plan, exact.mixture, start=entry_state(plan, exact)) / math.hypot(*plan.exit)
    return distance(got, exact.at(angle_of(*plan.exit)))
