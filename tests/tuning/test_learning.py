"""Learning: its gradients are the right ones, its tables are plans, and it takes error away."""

import numpy as np
import pytest
import torch

import fewstep as fs
from fewstep.core.plan import TunedFor
from fewstep.measure.distance import overall
from fewstep.tuning.fit import fitted_table, moved_times
from fewstep.tuning.learning import LevelsAtLambda, Pace, Parameters, Start, first_outputs, gram_of, lambda_of, learn
from fewstep.tuning.problem import Problem, Solutions
from fewstep.tuning.table import plan_of, table_of
from fewstep.tuning.teacher import path_of
from fewstep.tuning.times import cheapest_times, step_costs

from .mixture import six

SCHEDULES = {
    "linear": fs.schedules.linear(),
    "edm": fs.schedules.edm(),
    "flow": fs.schedules.flow(),
    "zero_snr": fs.schedules.scaled_linear(zero_snr=True),
}
LINEAR = SCHEDULES["linear"]


def parameters_of(schedule, name="unipc-2", n=4):
    problem = Problem.of(six(schedule), (6,))
    table = table_of(fs.compile(name, schedule=schedule, steps=n, grid="quadratic"))
    return problem, table, Parameters(table, schedule, gram_of(first_outputs(problem, table, range(16))))


@pytest.mark.parametrize("kind", SCHEDULES)
def test_levels_have_the_derivatives_of_the_schedule(kind):
    schedule = SCHEDULES[kind]
    low, high = lambda_of(schedule, schedule.t_max), lambda_of(schedule, schedule.t_min)
    lam = torch.tensor(low + (high - low) * np.array([0.211, 0.503, 0.877]), requires_grad=True)
    assert torch.autograd.gradcheck(lambda v: LevelsAtLambda.apply(v, schedule), (lam,), eps=1e-7, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("kind", SCHEDULES)
def test_parameters_begin_as_the_table_they_are_made_from(kind):
    schedule = SCHEDULES[kind]
    _, table, parameters = parameters_of(schedule)
    np.testing.assert_allclose(parameters.table().weights, table.weights, atol=1e-9)
    np.testing.assert_allclose(parameters.table().times[:-2], table.times[:-2], rtol=0.01)
    plan = plan_of(parameters.table(), schedule)
    assert plan.tolerance == 1e-12


def test_a_run_is_what_the_compiled_plan_makes_and_its_gradient_is_that_of_small_differences():
    problem, _, parameters = parameters_of(LINEAR)
    x = problem.noise(range(8)).double()
    denoiser = problem.begun(range(8))
    start = x * float(LINEAR.sigma(LINEAR.t_max))
    first = denoiser(start, LINEAR.t_max)
    result = parameters.run(denoiser, start, first, again=False)
    torch.testing.assert_close(
        result.detach(), fs.sample(plan_of(parameters.table(), LINEAR), denoiser, noise=x), rtol=1e-9, atol=1e-9
    )
    loss = result.square().sum()
    gaps, shifts = torch.autograd.grad(loss, (parameters.gaps, parameters.shifts))
    for tensor, gradient, place in ((parameters.gaps, gaps, (1,)), (parameters.shifts, shifts, (3, 1))):
        ends = []
        for sign in (1, -1):
            with torch.no_grad():
                tensor[place] += sign * 1e-6
                ends.append(float(parameters.run(denoiser, start, first, again=False).square().sum()))
                tensor[place] -= sign * 1e-6
        assert float(gradient[place]) == pytest.approx((ends[0] - ends[1]) / 2e-6, rel=1e-4)


def test_rows_that_are_computed_again_give_the_same_gradient():
    problem, _, parameters = parameters_of(LINEAR)
    start = problem.noise(range(8))
    first = problem.begun(range(8))(start, LINEAR.t_max)
    found = []
    for again in (False, True):
        loss = parameters.run(problem.begun(range(8)), start, first, again).square().mean()
        found.append(torch.autograd.grad(loss, (parameters.gaps, parameters.shifts)))
    for kept, made_again in zip(*found, strict=True):
        assert torch.equal(kept, made_again)


def test_least_squares_and_then_learning_take_error_away():
    problem = Problem.of(six(LINEAR, std=0.3), (6,), batch=256)
    teacher = fs.compile("unipc-3", schedule=LINEAR, steps=48, grid="quadratic")
    train, validation, held_out = (Solutions(r, problem.solve(teacher, r)) for r in (
        range(512), range(10_000, 10_256), range(20_000, 20_512)
    ))  # fmt: skip
    path = path_of(problem, teacher, range(64))
    times = cheapest_times(path, step_costs(path, LINEAR), 4)

    def held(plan):
        return overall(problem.errors(plan, held_out))

    first = fitted_table(problem, path, times)
    moved = moved_times(problem, path, first)
    table = moved.table
    fitted = held(plan_of(table, LINEAR))
    learned = learn(problem, Start(table), train, validation, Pace(100, batch=64), TunedFor("x"))
    assert held(plan_of(first.table, LINEAR)) < held(fs.compile("deis-3", schedule=LINEAR, times=times)) / 1.3
    assert moved.error < first.error
    assert held(learned.plan) < fitted
    assert learned.plan.tuned_for == TunedFor("x")
    again = learn(problem, Start(table), train, validation, Pace(100, batch=64), TunedFor("x"))
    assert again == learned


def test_learning_ends_when_the_time_is_over_and_keeps_the_best_so_far():
    problem, table, _ = parameters_of(LINEAR)
    images = Solutions(range(32), torch.zeros(32, 6))
    left = iter([100.0, 50.0, *[-1.0] * 100])
    seen = []
    learned = learn(
        problem, Start(table), images, images, Pace(1000, every=5, seconds=lambda: next(left)),
        watch=lambda done, of, best: seen.append((done, of)),
    )  # fmt: skip
    assert learned.iterations in (5, 6)
    assert seen[0] == (0, 1000)
    assert learned.error <= overall(problem.errors(plan_of(table, LINEAR), images)) + 1e-9


def test_a_denoiser_that_remembers_rows_is_refused():
    network = fs.Network(lambda x, t, label: x, LINEAR)
    label = torch.zeros(1, dtype=torch.long)
    guided = fs.Guided(network, {"label": label}, {"label": label + 1}, 3.0, method=fs.APG(momentum=-0.5))
    with pytest.raises(fs.InvalidInput, match="remembers earlier rows"):
        Problem.of(guided, (6,)).begun(range(2))
