"""The whole product of sampler x grid x schedule x steps x prediction type: exact marginals, and the right answer.

The network knows data that is one point, so every run to clean data must end on that point; the marginals of the table
must be the schedule's, and every plan that is refused must be one of `REFUSED`.
"""

import re
from collections import Counter
from functools import cache

import numpy as np
import pytest
import torch

import fewstep as fs
from fewstep.core.check import marginal_error
from fewstep.core.grid import grid_times
from fewstep.denoise.convert import PREDICTIONS

from .problems import SCHEDULES, network_of_a_point

STEPS = (1, 2, 3, 4, 5, 50)
TWENTY = "trailing", "karras"  # the grids that are also compiled with 20 steps

REFUSED = {
    "belm": "a two-step method, whose second root amplifies rounding where the steps of its coordinate grow",
    "deis-4": "weighs its rows by up to 10^4 over the wide first steps of the cosine schedule",
    "pndm": "weighs its rows by up to 10^4 over the wide first steps of the cosine schedule",
}
"""Samplers that refuse some grid of a schedule, because rounding alone leaves 1e-12, and why they amplify it."""

POINT = torch.tensor([0.8, -0.3], dtype=torch.float64)
START = torch.tensor([[1.1, -0.6], [-0.2, 0.9]], dtype=torch.float64)


@cache
def times_of(grid, kind, steps):
    return grid_times(grid, SCHEDULES[kind], steps)


def compiled(name, grid, kind, steps):
    """The plan, or None where it is refused for a documented reason."""
    try:
        return fs.compile(name, schedule=SCHEDULES[kind], times=times_of(grid, kind, steps))
    except fs.InvalidInput as error:
        refusal = error
    assert name in REFUSED, refusal
    off = re.search(r"is off by (\S+), allowed", str(refusal))
    assert off, refusal
    assert 1e-12 <= float(off[1]) < 1e-4, refusal
    return None


def check_plan(plan, schedule):
    assert plan.nfe() == len(plan.rows)
    assert len(plan.A) == len(plan.B) == len(plan.s) == len(plan.rows)
    assert 1 <= sum(row.ends_step for row in plan.rows) <= plan.steps
    assert plan.rows[-1].ends_step
    worst = float(np.max(marginal_error(plan)))
    assert worst <= plan.tolerance < (1.0 if plan.note else 1.1e-12)
    assert bool(plan.note) == (plan.tolerance > 1e-12)
    t = np.array([row.t for row in plan.rows])
    np.testing.assert_array_equal(schedule.alpha(t), [row.alpha for row in plan.rows])
    np.testing.assert_array_equal(schedule.sigma(t), [row.sigma for row in plan.rows])


def check_run(plan, schedule, prediction):
    network = fs.Network(network_of_a_point(plan, POINT, prediction), schedule, prediction)
    if prediction in ("epsilon", "edm") and plan.rows[0].alpha == 0:
        with pytest.raises(fs.InvalidInput, match="where alpha is 0"):
            fs.sample(plan, network, start=START)
        return
    result = fs.sample(plan, network, start=plan.entry[0] * POINT + plan.entry[1] * START)
    assert result.dtype == torch.float64
    off = 0.5 if plan.note else 1e-4
    assert float((result - POINT).abs().max()) < off, (prediction, plan)


@pytest.mark.parametrize("name", fs.SAMPLERS)
def test_every_plan_keeps_the_marginals_and_ends_on_the_data(name):
    seen = Counter()
    for grid in fs.GRIDS:
        for k, (kind, schedule) in enumerate(SCHEDULES.items()):
            for steps in (*STEPS, 20) if grid in TWENTY else STEPS:
                plan = compiled(name, grid, kind, steps)
                seen[plan is None] += 1
                if plan is None:
                    continue
                check_plan(plan, schedule)
                few = steps in (1, 2, 3, 5)
                for prediction in PREDICTIONS if few else (PREDICTIONS[(k + steps) % len(PREDICTIONS)],):
                    check_run(plan, schedule, prediction)
    assert seen[True] <= (0.1 if name == "belm" else 0.02) * seen.total()


@pytest.mark.parametrize("kind", SCHEDULES)
@pytest.mark.parametrize("grid", fs.GRIDS)
def test_a_grid_by_name_is_the_same_plan_as_its_times(grid, kind):
    for name in ("ddim", "dpmpp-2m", "heun"):
        named = fs.compile(name, schedule=SCHEDULES[kind], steps=4, grid=grid)
        given = fs.compile(name, schedule=SCHEDULES[kind], times=times_of(grid, kind, 4))
        assert named.recipe.grid == grid
        assert given.recipe.grid == "times"
        assert named.rows == given.rows
        assert all(np.array_equal(getattr(named, part), getattr(given, part)) for part in ("init", "A", "B", "s"))


def test_the_list_of_refusals_names_samplers_only():
    assert REFUSED.keys() <= fs.SAMPLERS.keys()
