"""Search: what is compared, and that halving finds the best."""

import numpy as np
import pytest
import torch

import fewstep as fs
from fewstep.measure.distance import overall
from fewstep.tuning.problem import Problem, Solutions
from fewstep.tuning.rivals import deterministic, distinct, fitting
from fewstep.tuning.search import early_ends, halving, variants

from .mixture import six

LINEAR = fs.schedules.linear()


def test_every_sampler_without_noise_takes_part_and_no_other():
    names = deterministic()
    assert {"ddim", "unipc-4", "heun", "rk4", "pndm", "dpmpp-fast"} <= set(names)
    assert not {"ddpm", "euler-a", "lcm", "sa", "edm"} & set(names)


@pytest.mark.parametrize(("name", "most", "rows"), [("ddim", 5, 5), ("heun", 5, 5), ("heun", 6, 5), ("rk4", 3, 2)])
def test_a_sampler_takes_the_most_steps_within_the_rows(name, most, rows):
    (plan,) = fitting(name, LINEAR, most, grid="karras")
    assert len(plan.rows) == rows
    more = fs.compile(name, schedule=LINEAR, steps=plan.steps + 1, grid="karras")
    assert len(more.rows) > most


def test_plans_with_one_table_are_one_plan_whatever_their_names():
    names = ("ddim", "euler", "dpmpp-1", "deis-1", "dpmpp-2m")
    plans = [fs.compile(name, schedule=LINEAR, steps=4) for name in names]
    assert [plan.recipe.sampler for plan in distinct(plans)] == ["ddim", "dpmpp-2m"]


def test_given_times_are_taken_by_samplers_of_one_evaluation_a_step():
    times = fs.compile("ddim", schedule=LINEAR, steps=5, grid="beta").recipe.times
    found = [p for p in variants(LINEAR, 5, ["deis-3", "heun"], [times]) if p.recipe.grid == "times"]
    assert {p.recipe.sampler for p in found} == {"deis-3"}
    assert times in [p.recipe.times for p in found]


def test_curves_that_end_where_trailing_does_are_those_of_diffusers_lms_with_its_trailing_spacing():
    diffusers = pytest.importorskip("diffusers")
    schedule = fs.schedules.scaled_linear()
    peer = diffusers.LMSDiscreteScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", timestep_spacing="trailing",
        use_karras_sigmas=True,
    )  # fmt: skip
    peer.set_timesteps(8)
    own = early_ends(schedule, 8)
    assert len(own) == 6
    assert all(t[0] == 999 and t[-2:].tolist() == [124, -1] and (np.diff(t) < 0).all() for t in own)
    np.testing.assert_allclose(schedule.ratio(own[4][:-1]), peer.sigmas[:-1], rtol=1e-4)
    assert early_ends(schedule, 2) == []
    assert early_ends(fs.schedules.flow(), 8) == []


def test_runs_that_begin_after_pure_noise_take_part_and_on_a_flow_a_higher_order_is_nearer_with_them():
    flow = fs.schedules.flow()
    found = [p for p in variants(flow, 6, ["unipc-3"]) if "start" in p.recipe.grid_options]
    assert {p.recipe.times[0] for p in found} >= {0.999, 0.98, 0.95, 0.9}
    assert all(p.recipe.times[-1] == 0 for p in found)
    even = next(p for p in found if p.recipe.grid_options == {"bias": 0.0, "start": 0.999})
    assert even.recipe.times == pytest.approx([0.999 * (6 - i) / 6 for i in range(7)])
    problem = Problem.of(six(flow), (6,))
    solver = fs.compile("deis-3", schedule=flow, steps=200, grid="quadratic")
    images = Solutions(range(64), problem.solve(solver, range(64)))
    usual = fs.compile("unipc-3", schedule=flow, steps=6, grid="trailing")
    assert overall(problem.errors(even, images)) < 0.95 * overall(problem.errors(usual, images))


def test_halving_ends_on_the_best_and_stops_when_it_is_told_to():
    problem = Problem.of(six(LINEAR), (6,))
    images = Solutions(
        range(32), problem.solve(fs.compile("deis-3", schedule=LINEAR, steps=100, grid="quadratic"), range(32))
    )
    plans = [fs.compile("deis-3", schedule=LINEAR, steps=n, grid="quadratic") for n in (3, 5, 50, 4, 7, 6)]
    best = halving(problem, plans, images, (4, 32))
    assert (len(best[0].plan.rows), best[0].images) == (50, 32)
    assert len(best) == 2
    assert best[0].error == overall(problem.errors(plans[2], images), "psnr")
    first = halving(problem, plans, images, (4, 32), enough=lambda part: True)
    assert [len(s.plan.rows) for s in first] == [3]


def test_a_model_that_gives_nothing_finite_is_refused():
    problem = Problem.of(lambda x, t: x * float("nan"), (6,), LINEAR)
    images = Solutions(range(4), torch.zeros(4, 6))
    with pytest.raises(fs.InvalidInput, match="no plan gives finite images"):
        halving(problem, [fs.compile("ddim", schedule=LINEAR, steps=2)], images, (4,))
    with pytest.raises(fs.InvalidInput, match="use more rows"):
        halving(problem, [], images, (4,))
