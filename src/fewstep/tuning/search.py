"""Search among plans by successive halving: many on a few images, the better part of them on more.

Errors of plans on the same noise differ far more than they scatter, so that few images rank most plans rightly
(successive halving: Jamieson & Talwalkar 2016, arXiv 1502.07943).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from fewstep.core.errors import InvalidInput
from fewstep.core.grid import AYS_RATIOS, grid_times
from fewstep.core.plan import Plan
from fewstep.core.schedule import Float, Schedule
from fewstep.measure.distance import overall
from fewstep.tuning.problem import Problem, Solutions
from fewstep.tuning.rivals import distinct, fitting

KEPT = 4
"""One in so many goes on to the next rung."""

POWERS, BIASES = (1.0, 1.3, 1.7, 2.5, 3.0), (-1.0, -0.5, -0.25, 0.2, 0.35, 0.5, 1.0)
QUANTILES = ((0.6, 0.6), (0.8, 0.8), (1.0, 0.6), (0.6, 1.0))
FORMS: tuple[tuple[str, Mapping[str, Any]], ...] = (
    *(("karras", {"rho": rho}) for rho in (1.5, 2.0, 3.0, 5.0, 9.0)),
    *(("polynomial", {"space": space, "power": p}) for space in ("time", "lambda") for p in POWERS),
    *(("beta", {"a": a, "b": b, "space": space}) for a, b in QUANTILES for space in ("time", "lambda")),
    *((name, {"bias": bias}) for name in ("trailing", "quadratic", "exponential", "karras") for bias in BIASES),
    *(("ays", {"model": model}) for model in AYS_RATIOS),
    *((name, {"final": "sigma_min"}) for name in ("trailing", "quadratic", "exponential", "karras", "ays")),
)
"""Grids with parameters of their own."""
STARTS, RHOS = (0.98, 0.95, 0.9), (1.0, 2.0, 3.0, 5.0, 7.0)
LATE: tuple[tuple[str, Mapping[str, Any]], ...] = (
    *((name, {"start": start}) for name in ("trailing", "quadratic", "ays") for start in STARTS),
    *(
        ("trailing", {"start": start, "bias": bias})
        for start in (0.999, 0.95)
        for bias in (-0.5, -0.25, 0.0, 0.35, 0.5)
    ),
)
"""Grids that begin a little after pure noise: what is left out there is small beside the errors of few steps. Where
log(alpha / sigma) is infinite at pure noise, methods of higher order also have more to go by. (On flows those of
diffusers begin at 0.999.)
"""


class Scored(NamedTuple):
    """A plan, and its error by the problem's objective on so many images."""

    plan: Plan
    error: float
    images: int


def variants(schedule: Schedule, rows: int, samplers: Iterable[str], times: Sequence[Float] = ()) -> list[Plan]:
    """Some samplers on the grids of `FORMS` and `LATE`, at the given `times`, and at those of `early_ends`."""
    plans: list[Plan] = []
    times = [*times, *early_ends(schedule, rows)]
    for name in samplers:
        for grid, options in (*FORMS, *LATE):
            plans += fitting(name, schedule, rows, grid=grid, grid_options=options)
        for given in times:
            plans += [plan for plan in fitting(name, schedule, rows, times=given) if len(plan.rows) == rows]
    return distinct(plans)


def early_ends(schedule: Schedule, steps: int) -> list[Float]:
    """Karras' curves and the exponential one, (steps + 1,) times each, whose last noisy time is that of `trailing` in
    place of the schedule's: few steps have none to spend on what is nearly clean. (Euler and LMS of diffusers have them
    with its trailing spacing.) None on schedules that begin without any data, and of fewer than 3 steps.
    """
    even = grid_times("trailing", schedule, steps)
    high, low = (float(schedule.ratio(t)) for t in (even[0], even[-2]))
    if steps < 3 or not low < high < np.inf:
        return []
    u = np.arange(1, steps - 1) / (steps - 1)
    curves = [(high ** (1 / rho) + u * (low ** (1 / rho) - high ** (1 / rho))) ** rho for rho in RHOS]
    curves.append(high * (low / high) ** u)
    return [np.array([even[0], *schedule.time_of_lambda(-np.log(curve)), *even[-2:]]) for curve in curves]


def halving(
    problem: Problem,
    plans: Sequence[Plan],
    images: Solutions,
    rungs: Sequence[int],
    *,
    enough: Callable[[float], bool] = lambda part: False,
    watch: Callable[[int, int], None] = lambda done, of: None,
) -> list[Scored]:
    """The plans of the last rung, best first.

    Args:
        images: with their converged solutions.
        rungs: how many of these images each rung measures on, increasing.
        enough: asked before each measurement whether the rung shall end with what it has, one plan at least; told what
            part of the search is over with it, 1 for the last rung.
        watch: told how many measurements are done, of how many.

    Raises:
        InvalidInput: where no plan gives finite images.
    """
    if not plans:
        raise InvalidInput("there is no plan to search among: use more rows")
    sizes = [max(1, round(len(plans) / KEPT**k)) for k in range(len(rungs))]
    going, done = list(plans), 0
    scores: list[Scored] = []
    for rung, size in enumerate(rungs, 1):
        scores = []
        for plan in going:
            if scores and enough(rung / len(rungs)):
                break
            watch(done, sum(sizes))
            done += 1
            try:
                errors = problem.errors(plan, images.first(size))
            except InvalidInput:
                if plan is going[-1] and not scores:
                    raise
                continue
            scores.append(Scored(plan, overall(errors, problem.objective), len(errors)))
        scores = sorted((s for s in scores if s.error < float("inf")), key=lambda s: s.error)
        if not scores:
            raise InvalidInput(f"no plan gives finite images of {problem.name}: try `fewstep doctor`")
        going = [score.plan for score in scores[: max(1, round(len(scores) / KEPT))]]
    return scores
