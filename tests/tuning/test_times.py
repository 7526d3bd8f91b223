"""Times by dynamic programming: the cheapest of all ways, and a path that is the teacher's own."""

from itertools import combinations, pairwise

import numpy as np
import pytest
import torch

import fewstep as fs
from fewstep.tuning.problem import Problem
from fewstep.tuning.teacher import path_of
from fewstep.tuning.times import cheapest_times, step_costs

from .mixture import six

SCHEDULE = fs.schedules.linear()


@pytest.fixture(scope="module")
def path():
    plan = fs.compile("deis-3", schedule=SCHEDULE, steps=9, grid="quadratic")
    return path_of(Problem.of(six(SCHEDULE), (6,)), plan, range(8))


def test_the_path_holds_what_the_teacher_saw(path):
    assert path.states.shape == (10, 8, 6)
    assert path.data.shape == (9, 8, 6)
    denoiser = six(SCHEDULE)
    torch.testing.assert_close(denoiser(path.states[4], torch.tensor(float(path.times[4]))), path.data[4])


def test_the_cost_is_the_error_of_one_step_of_ddim(path):
    costs = step_costs(path, SCHEDULE)
    step = fs.compile("ddim", schedule=SCHEDULE, times=path.times[[2, 5]])
    landed = fs.sample(step, six(SCHEDULE), start=path.states[2])
    assert costs[2, 5] == pytest.approx(float((landed - path.states[5]).square().mean().sqrt()), rel=1e-5)
    assert np.all(np.isinf(costs[np.tril_indices(10)]))


@pytest.mark.parametrize("discount", [0.8, 1.0, 1.3])
@pytest.mark.parametrize("steps", [1, 2, 4, 9])
def test_the_times_are_the_cheapest_of_all(path, steps, discount):
    costs = step_costs(path, SCHEDULE)

    def total(places):
        pairs = list(pairwise(places))
        return sum(discount ** (len(pairs) - 1 - k) * costs[i, j] for k, (i, j) in enumerate(pairs))

    ways = [(0, *inner, 9) for inner in combinations(range(1, 9), steps - 1)]
    best = min(ways, key=total)
    np.testing.assert_array_equal(cheapest_times(path, costs, steps, discount), path.times[list(best)])


def test_more_steps_than_the_path_has_are_refused(path):
    with pytest.raises(fs.InvalidInput, match="a path of 9 steps has no times for 10"):
        cheapest_times(path, step_costs(path, SCHEDULE), 10)


def test_a_path_goes_through_the_times_that_are_asked_for():
    plan = fs.compile("deis-3", schedule=SCHEDULE, steps=40, grid="quadratic")
    problem = Problem.of(six(SCHEDULE), (6,))
    through = path_of(problem, plan, range(8), [512.3, 77.7])
    assert {512.3, 77.7} <= set(through.times.tolist())
    whole = path_of(problem, plan, range(8))
    torch.testing.assert_close(through.states[-1], whole.states[-1], atol=2e-2, rtol=0)
    assert through.at([77.7])[0].shape == (8, 6)
