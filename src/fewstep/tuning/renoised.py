"""A plan of a row a step as numbers, whether it draws noise between its rows or not.

Let D_j be the estimate of the data in row j, eps_i = (x_i - alpha_i D_i) / sigma_i the noise that row i leaves, and
z_i unit noise that is drawn. With a share e_i in [0, 1] of fresh noise,

    x_{i+1} = alpha_{i+1} sum_{j<=i} w_ij D_j + sigma_{i+1} (sqrt(1 - e_i^2) eps_i + e_i z_i)

For data that is one point all D_j are that point and eps_i is unit noise, so x_{i+1} carries exactly (alpha_{i+1},
sigma_{i+1}) if the weights of each i sum to one. With e = 0 these are the tables of `fewstep.tuning.table`, of which
DDIM has w_ii = 1. With w_ii = 1 and e = 1 it is consistency sampling (Song et al. 2023, arXiv 2303.01469, algorithm 1),
and between the two lie eta of DDIM (Song et al. 2020, arXiv 2010.02502, eq. 12) and gamma of TCD (Zheng et al. 2024,
arXiv 2402.19159, algorithm 4).
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from fewstep.core.check import check_marginals
from fewstep.core.errors import InvalidInput
from fewstep.core.plan import Interval, Plan, Recipe, TunedFor
from fewstep.core.schedule import Float, Schedule
from fewstep.core.tape import State, Tape, noise_in
from fewstep.measure.impulse import impulse
from fewstep.tuning.table import LEARNED, whole

BOUNDARY = 1e-2
"""The most that a plan may mix of its states into the data beyond the formula, as the boundary scalings of LCM do."""
ROUNDING = 1e-12
"""A weight that is less is none."""
LEAST_STEP = 1e-6
"""Between two times, as a share of all."""


class Renoised(NamedTuple):
    """`times` (N + 1,), decreasing, the last one the end; `weights` (N, N), lower triangular, whose rows sum to one;
    `fresh` (N,) in [0, 1], of the noise that each row leads to. The last one is nothing where the end is clean.
    """

    times: Float
    weights: Float
    fresh: Float


def renoised_of(plan: Plan) -> Renoised | None:
    """A plan as these numbers; None for one that is not of a row a step of the formula, or goes back in time."""
    times = np.array([*(row.t for row in plan.rows), plan.recipe.times[-1]])
    if plan.inputs != 1 or plan.start_noise is not None or plan.entry[1] == 0 or np.any(np.diff(times) >= 0):
        return None
    n, found = len(plan.rows), impulse(plan)
    states, weights, fresh, draw = found.states, np.zeros((n, n)), np.zeros(n), found.noise.start
    for i, (row, (_, alpha, sigma)) in enumerate(zip(plan.rows, plan.ends, strict=True)):
        drawn = np.zeros(states.shape[1])
        if row.noise is not None:
            drawn[draw] = states[i + 1, draw]
            draw += 1
        amount = float(np.abs(drawn).max())
        if amount > sigma * (1 + 1e-9) or alpha == 0:
            return None
        kept = math.sqrt(max(0.0, sigma**2 - amount**2)) / row.sigma
        rest = states[i + 1] - drawn - kept * states[i]
        own = rest[found.data]
        own[i] += kept * row.alpha
        others = np.delete(rest, np.arange(states.shape[1])[found.data])
        if np.abs(others).max(initial=0.0) > BOUNDARY or abs(own.sum() / alpha - 1) > BOUNDARY:
            return None
        weights[i] = np.where(np.abs(own) > ROUNDING, own / alpha, 0.0)
        fresh[i] = min(1.0, amount / sigma) if sigma else 0.0
    return Renoised(times, whole(weights), fresh)


def plan_of(found: Renoised, schedule: Schedule, tuned_for: TunedFor | None = None) -> Plan:
    """The plan of these numbers, with what it is tuned for.

    Raises `InvalidInput` for times that do not fall, and where rounding alone takes it more than 1e-12 off the
    schedule.
    """
    times = np.asarray(found.times, np.float64)
    if np.any(np.diff(times) > -LEAST_STEP * (times[0] - times[-1])):
        raise InvalidInput(f"the times of a plan fall, got {', '.join(f'{t:g}' for t in times)}")
    tape, weights = Tape(schedule, times), whole(np.asarray(found.weights, np.float64))
    x = tape.start()
    outputs: list[State] = []
    for i, (p, q) in enumerate(tape.steps()):
        data, raw = tape.evaluate_raw(x, p)
        outputs.append(data)
        amount = q.sigma * float(found.fresh[i])
        noise = math.sqrt(max(0.0, q.sigma**2 - amount**2)) * noise_in(x, raw, p)
        x = q.alpha * sum((float(w) * f for w, f in zip(weights[i], outputs, strict=False)), State({})) + noise
        if amount > 0:
            x = x + amount * tape.noise(p, q)
    recipe = Recipe(
        sampler=LEARNED,
        options={},
        grid="times",
        grid_options={},
        steps=len(times) - 1,
        times=tuple(float(t) for t in times),
        schedule=schedule.spec,
        schedule_fingerprint=schedule.fingerprint,
    )
    plan = replace(tape.plan((x,), recipe), tuned_for=tuned_for)
    check_marginals(plan)
    return plan


def drawn_alike(plan: Plan) -> Plan:
    """The plan with its noise named by its rows and not by their times, so that plans of other times draw the same."""
    rows = [
        row if row.noise is None else row._replace(noise=Interval(float(i), float(i) + 1, 0))
        for i, row in enumerate(plan.rows)
    ]
    return replace(plan, rows=tuple(rows))
