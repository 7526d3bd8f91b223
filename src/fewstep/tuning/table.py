"""A deterministic plan as what it is underneath: N times, and for each later state one weight of each earlier output.

Let D_j be the estimate of the data in row j, x_0 the start at (alpha_0, sigma_0), and i = 1 .. N the later states, the
last one the result. A plan that draws no noise makes

    x_i = a_i x_0 + b_i sum_{j<i} w_ij D_j,      a_i = sigma_i / sigma_0,   b_i = alpha_i - alpha_0 a_i

For data that is one point, all D_j are that point, and x_i carries exactly (alpha_i, sigma_i) if and only if the
weights of each i sum to one. So this is every deterministic sampler of N evaluations there is, and no more: DDIM has
w_ij = 1 / b_i times the telescoped steps, DPM-Solver++ its own, and learning moves among them. (Of non-stationary
solvers: Shaul et al. 2024, arXiv 2403.01329, section 3.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from fewstep.core.check import check_marginals
from fewstep.core.plan import Plan, Recipe, TunedFor
from fewstep.core.schedule import Float, Schedule
from fewstep.core.tape import Tape
from fewstep.measure.impulse import impulse

LEARNED = "learned"
"""The name of the sampler of learned plans; it is in no registry, as only the table makes it."""


SAME = 1e-9
"""Times that are this near, as a share of all, are one."""


class Table(NamedTuple):
    """`times` (N + 1,), decreasing, the last one the end; `weights` (N, N), lower triangular, rows sum to one.

    Row i - 1 of the weights makes state i.
    """

    times: Float
    weights: Float


def table_of(plan: Plan) -> Table | None:
    """The table of a plan; None for one that draws noise, starts from a pair, or goes back in time."""
    if plan.stochastic or plan.inputs != 1 or plan.entry[1] == 0:
        return None
    times = np.array([*(row.t for row in plan.rows), plan.recipe.times[-1]])
    if np.any(np.diff(times) > SAME * (times[0] - times[-1])):
        return None
    alpha = np.array([*(row.alpha for row in plan.rows), plan.exit[0]])[1:]
    sigma = np.array([*(row.sigma for row in plan.rows), plan.exit[1]])[1:]
    response = impulse(plan).states[1:]
    share = sigma / plan.entry[1]
    total = alpha - plan.entry[0] * share
    if np.any(total <= 0) or not np.allclose(response[:, 0], share, rtol=1e-9, atol=1e-9):
        return None
    return Table(spread(times), whole(response[:, 1:] / total[:, None]))


def whole(weights: Float) -> Float:
    """The weights, the newest of each row such that the row sums to one."""
    lower = np.tril(weights, -1)
    return lower + np.diag(1 - lower.sum(axis=1))


def spread(times: Float, share: float = 1e-3) -> Float:
    """The times, those that stand in one place (as the two stages of Heun's method) moved a little apart."""
    times, same = times.copy(), SAME * (times[0] - times[-1])
    for i in range(1, len(times) - 1):
        before, later = times[i - 1], times[i + 1 :]
        if times[i] > before - same:
            times[i] = before - share * (before - later[later < before - same][0])
    return times


def plan_of(
    table: Table, schedule: Schedule, tuned_for: TunedFor | None = None, factors: Sequence[float] | None = None
) -> Plan:
    """The plan of a table, with what it is tuned for and its guidance by row.

    Raises `InvalidInput` where rounding alone takes it more than 1e-12 off the schedule.
    """
    tape = Tape(schedule, np.asarray(table.times, np.float64))
    weights = whole(np.asarray(table.weights, np.float64))
    first, x = tape.points[0], tape.start()
    outputs, before = [], np.zeros(0)
    for i, (p, q) in enumerate(tape.steps()):
        outputs.append(tape.evaluate(x, p))
        ratio = q.sigma / p.sigma
        wanted = (q.alpha - first.alpha * q.sigma / first.sigma) * weights[i, : i + 1]
        own = wanted - ratio * np.append(before, 0.0)
        x = ratio * x + sum(float(c) * f for c, f in zip(own, outputs, strict=True))
        before = wanted
    recipe = Recipe(
        sampler=LEARNED,
        options={},
        grid="times",
        grid_options={},
        steps=len(tape.points) - 1,
        times=tuple(float(p.t) for p in tape.points),
        schedule=schedule.spec,
        schedule_fingerprint=schedule.fingerprint,
    )
    plan = replace(
        tape.plan((x,), recipe),
        guidance_factors=None if factors is None else tuple(factors),
        tuned_for=tuned_for,
    )
    check_marginals(plan)
    return plan
