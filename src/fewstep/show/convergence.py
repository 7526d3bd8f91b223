"""Figure 2: the error against the number of evaluations, and the order of convergence that it shows.

Both stop at the schedule's last noisy time: the transition from there to clean data is of fixed width, whatever the
number of steps, and would hide the order.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from fewstep.core.errors import InvalidInput
from fewstep.core.schedule import Schedule
from fewstep.show.exact import TOLERANCE, angle_of
from fewstep.show.mixture import Mixture
from fewstep.show.strategy import Strategy, deterministic, distance, error, exact_from

DEFAULTS = ("euler", "heun", "dpmpp-2m", "dpmpp-3m", "unipc-2", "unipc-3")
NFES = (8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)
FITTED, ABOVE = 3, 100.0
"""The order is fitted to so many points, the last whose error is so many times that of the exact solution."""


class Curve(NamedTuple):
    """The errors of one sampler; `fitted` is None where fewer than two points tell an order."""

    strategy: Strategy
    nfe: Sequence[int]
    errors: Sequence[float]
    fitted: float | None


class Convergence(NamedTuple):
    """All curves; `floor` is the error of the exact solution itself."""

    mixture: Mixture
    schedule: Schedule
    noises: int
    seed: int
    floor: float
    curves: Sequence[Curve]

    @property
    def finding(self) -> str:
        """What the numbers say, in a sentence."""
        at = self._middle()
        ranked = sorted((c.errors[c.nfe.index(at)], c.strategy.name) for c in self.curves if at in c.nfe)
        if len(ranked) < 2 or ranked[0][0] <= 0:
            return "The error falls with the number of evaluations, at the order of the method"
        (least, best), (most, worst) = ranked[0], ranked[-1]
        return f"At {at} evaluations {best} is {_rounded(most / least)} times nearer to the exact solution than {worst}"

    def _middle(self) -> int:
        """The count of evaluations nearest to 32 that most curves have."""
        counts = [n for c in self.curves for n in c.nfe]
        most = max(map(counts.count, counts))
        return min((n for n in counts if counts.count(n) == most), key=lambda n: (abs(n - 32), n))

    def document(self) -> dict[str, Any]:
        """All numbers as JSON-serialisable data."""
        return {
            "figure": "solver-error",
            "finding": self.finding,
            "schedule": self.schedule.spec,
            "noises": self.noises,
            "seed": self.seed,
            "mixture": self.mixture.described(),
            "error_of_exact": self.floor,
            "curves": [
                {
                    "sampler": c.strategy.name,
                    "grid": c.strategy.grid,
                    "order": c.strategy.order,
                    "fitted_order": c.fitted,
                    "nfe": list(c.nfe),
                    "error": list(c.errors),
                }
                for c in self.curves
            ],
        }

    def table(self) -> tuple[list[str], list[list[Any]]]:
        """An error a line."""
        rows = [
            [c.strategy.name, c.strategy.grid, nfe, wrong, c.fitted]
            for c in self.curves
            for nfe, wrong in zip(c.nfe, c.errors, strict=True)
        ]
        return ["sampler", "grid", "nfe", "error", "fitted_order"], rows


def convergence(
    mixture: Mixture,
    schedule: Schedule,
    strategies: Sequence[Strategy],
    *,
    nfes: Sequence[int] = NFES,
    count: int = 32,
    seed: int = 0,
    on_run: Callable[[int, int], None] | None = None,
) -> Convergence:
    """Measure each strategy at each number of evaluations that it can take, from `count` noises.

    Args:
        nfes: increasing; a two-stage method takes the nearest it can below each.
        on_run: called with (done, all) before each run.

    Raises:
        InvalidInput: for numbers that do not increase, and for a strategy that draws noise.
    """
    if not nfes or any(b <= a for a, b in itertools.pairwise(nfes)) or nfes[0] < 1:
        raise InvalidInput(f"numbers of evaluations must increase from 1 or more, got {list(nfes)}")
    exact = exact_from(mixture, schedule, count, seed)
    end = angle_of(float(schedule.alpha(schedule.t_min)), float(schedule.sigma(schedule.t_min)))
    rough = exact_from(mixture, schedule, count, seed, tolerance=10 * TOLERANCE)
    floor = distance(rough.at(end), exact.at(end))
    curves = []
    for i, strategy in enumerate(strategies):
        points: dict[int, float] = {}
        for j, nfe in enumerate(nfes):
            if on_run is not None:
                on_run(i * len(nfes) + j, len(strategies) * len(nfes))
            plan = strategy.within(schedule, nfe, "sigma_min")
            if plan is not None and plan.nfe() not in points:
                deterministic(strategy, plan)
                points[plan.nfe()] = error(plan, exact)
        if not points:
            raise InvalidInput(f"{strategy.name} needs more than {nfes[-1]} evaluations for one step: give it more")
        counts, errors = list(points), list(points.values())
        curves.append(Curve(strategy, counts, errors, fitted_order(counts, errors, ABOVE * floor)))
    return Convergence(mixture, schedule, count, seed, floor, curves)


def fitted_order(nfe: Sequence[int], errors: Sequence[float], floor: float = 0.0) -> float | None:
    """Minus the slope of log error over log nfe, by least squares on the last points above `floor`; None below two."""
    points = [(n, e) for n, e in zip(nfe, errors, strict=True) if e > floor][-FITTED:]
    if len(points) < 2:
        return None
    counts, values = np.log(np.array(points, np.float64)).T
    return -float(np.polyfit(counts, values, 1)[0])


def _rounded(ratio: float) -> str:
    """To two digits, as a person writes it."""
    return f"{float(f'{ratio:.2g}'):,.0f}" if ratio >= 10 else f"{ratio:.2g}"
