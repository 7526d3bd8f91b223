"""Order of convergence against exact solutions: a Gaussian, and a denoiser that is not linear in x.

The grids are uniform in lambda and start where there is next to nothing but noise. The estimates hardly change there,
so the first rows of multistep methods, which have no history and are of lower order, add nothing that is seen. Where a
schedule does not start there, what start-up allows is in `STARTUP`.
"""

import itertools
import math
from typing import NamedTuple

import numpy as np
import pytest

import fewstep as fs
from fewstep import schedules
from fewstep.core.schedule import Float, Schedule

from .problems import Bent, Gaussian, gaussian_law, played

GAUSSIAN = Gaussian(np.array([0.3, -0.5, 0.0, 0.1]), np.array([0.5, 1.0, 0.2, 0.1]))
BENT = Bent(np.array([0.5, 1.0, 0.3, 0.7]), np.array([0.3, -0.4, 0.3, 0.2]))
Z = np.array([1.0, -0.7, 0.4, 1.0])

STEPS = (161, 320, 641)  # so that groups of three have a group of two at the end


class Span(NamedTuple):
    schedule: Schedule
    high: float  # lambda where the grid starts ..
    low: float  # .. and ends, at a sigma above 0

    def times(self, steps: int) -> Float:
        return self.schedule.time_of_lambda(np.linspace(self.high, self.low, steps + 1))


SPANS = {
    "edm": Span(schedules.edm(sigma_max=2.3e4), -10.0, 1.5),
    "cosine": Span(schedules.cosine(), -9.5, 2.0),
    "linear": Span(schedules.linear(), -5.0, 2.0),
    "flow": Span(schedules.flow(), -10.0, 2.0),
}

NOISELESS = {
    "ddpm": None,
    "euler-a": {"eta": 0.0},
    "dpm2-a": {"eta": 0.0},
    "dpmpp-2s-a": {"eta": 0.0},
    "dpmpp-sde": {"eta": 0.0},
    "sde-dpmpp-1": {"eta": 0.0},
    "sde-dpmpp-2m": {"eta": 0.0},
    "sde-dpmpp-3m": {"eta": 0.0},
    "edm": {"s_churn": 0.0},
    "edm-euler": {"s_churn": 0.0},
    "edm-dpm2": {"s_churn": 0.0},
    "restart": None,
    "sa": {"tau": 0.0},
    "consistency": None,
    "lcm": None,
    "tcd": {"eta": 0.0},
}
"""What leaves a stochastic sampler without noise; None where nothing does."""

FOR_STUDENTS = {"consistency", "lcm", "tcd"}
"""They take the network for one that jumps to the end of its trajectory, so with a denoiser more steps lead nowhere."""

ODE = {name: NOISELESS[name] if s.stochastic else {} for name, s in fs.SAMPLERS.items()}
ODE = {name: options for name, options in ODE.items() if options is not None}

STARTUP = {
    ("lms-4", "linear"): "starts at sigma / alpha = 148: the error of its rows of order 1 and 2 is in the result",
    ("deis-4", "linear"): "starts at sigma / alpha = 148: the error of its rows of order 1 and 2 is in the result",
    ("belm", "flow"): "in t even steps of lambda grow at first, and the second root of a two-step method with them",
}
ORDER_ON_GAUSSIANS = {"midpoint": 3}  # the leading term of its error vanishes when eps = r y / (std^2 + r^2)


def slope(errors: list[float], steps: tuple[int, ...]) -> float:
    """The order that the errors show: minus the slope of the line through them in log-log."""
    return -float(np.polyfit(np.log(steps), np.log(errors), 1)[0])


def error(plan: fs.Plan, problem: Gaussian | Bent) -> float:
    got = played(plan, problem.at(Z, *plan.entry), lambda x, row: problem.data(x, row.alpha, row.sigma))[0]
    return float(np.max(np.abs(got - problem.at(Z, *plan.exit))))


@pytest.mark.parametrize(("name", "span"), [pair for pair in itertools.product(ODE, SPANS) if pair not in STARTUP])
def test_every_sampler_converges_with_its_order_on_a_gaussian(name, span):
    order = ORDER_ON_GAUSSIANS.get(name, fs.SAMPLERS[name].order)
    steps = STEPS[1:] if order > 2 else STEPS[:2]  # higher orders show later
    plans = [fs.compile(name, schedule=SPANS[span].schedule, times=SPANS[span].times(n), **ODE[name]) for n in steps]
    assert abs(slope([error(plan, GAUSSIAN) for plan in plans], steps) - order) < 0.15


@pytest.mark.parametrize("name", ODE)
def test_every_sampler_converges_with_its_order_where_the_denoiser_is_not_linear(name):
    span, steps = SPANS["edm"], STEPS[1:]
    plans = [fs.compile(name, schedule=span.schedule, times=span.times(n), **ODE[name]) for n in steps]
    assert abs(slope([error(plan, BENT) for plan in plans], steps) - fs.SAMPLERS[name].order) < 0.15


@pytest.mark.parametrize(("name", "span"), STARTUP)
def test_start_up_leaves_at_least_order_two(name, span):
    schedule, times = SPANS[span].schedule, SPANS[span].times
    plans = [fs.compile(name, schedule=schedule, times=times(n)) for n in STEPS]
    assert slope([error(plan, GAUSSIAN) for plan in plans], STEPS) > 1.85


@pytest.mark.parametrize(("name", "order"), [("ipndm-2", 2), ("ipndm-3", 3), ("ipndm-4", 4), ("pndm", 4)])
def test_fixed_weights_are_of_full_order_where_steps_are_even_in_sigma(name, order):
    schedule = schedules.edm(sigma_max=100.0)
    plans = [fs.compile(name, schedule=schedule, times=np.linspace(100.0, 20.0, n + 1)) for n in STEPS]
    wide = Gaussian(np.array([0.3, -0.5]), np.array([30.0, 50.0]))
    errors = [
        float(np.max(np.abs(played(p, start, lambda x, row: wide.data(x, row.alpha, row.sigma))[0] - exact)))
        for p in plans
        for start, exact in [(wide.at(Z[:2], *p.entry), wide.at(Z[:2], *p.exit))]
    ]
    # Without a Runge-Kutta start, the one step of first order is made at h^2: it decides from order 3 on.
    assert abs(slope(errors, STEPS) - (order if name == "pndm" else min(order, 2))) < 0.15


@pytest.mark.parametrize("span", ["edm", "flow"])
@pytest.mark.parametrize("name", [n for n, s in fs.SAMPLERS.items() if s.stochastic and n not in FOR_STUDENTS])
def test_the_law_of_a_stochastic_sampler_converges_with_its_order(name, span):
    schedule, steps = SPANS[span].schedule, STEPS[:2]
    errors = []
    for n in steps:
        times = Span(schedule, -6.0, SPANS[span].low).times(n)
        plan = fs.compile(name, schedule=schedule, times=times)
        assert plan.stochastic
        alpha, sigma = plan.exit
        mean, std = gaussian_law(plan, GAUSSIAN)
        exact = np.sqrt(alpha**2 * GAUSSIAN.std**2 + sigma**2)
        errors.append(max(np.max(np.abs(mean - alpha * GAUSSIAN.mean)), np.max(np.abs(std - exact))))
    assert abs(slope(errors, steps) - fs.SAMPLERS[name].order) < 0.15


@pytest.mark.parametrize("name", sorted(FOR_STUDENTS))
def test_samplers_for_students_do_not_converge_with_a_denoiser(name):
    span = SPANS["edm"]
    plan = fs.compile(name, schedule=span.schedule, times=Span(span.schedule, -6.0, span.low).times(320))
    _, std = gaussian_law(plan, GAUSSIAN)
    assert np.max(np.abs(std - np.hypot(plan.exit[0] * GAUSSIAN.std, plan.exit[1]))) > 0.05


def test_the_bent_problem_is_the_gaussian_where_it_is_not_bent():
    flat, gaussian = Bent(BENT.std, 0 * BENT.bend), Gaussian(0 * BENT.std, BENT.std)
    for alpha, sigma in [(1.0, 3.0), (0.6, 0.8), (0.9, 0.1)]:
        np.testing.assert_allclose(flat.at(Z, alpha, sigma), gaussian.at(Z, alpha, sigma), rtol=1e-14)
        x = flat.at(Z, alpha, sigma)
        np.testing.assert_allclose(flat.data(x, alpha, sigma), gaussian.data(x, alpha, sigma), atol=1e-14)


def test_the_trajectories_of_the_bent_problem_solve_its_equation():
    def y(r: float) -> Float:
        return BENT.at(Z, 1.0, r)

    for r in (0.2, 1.0, 5.0):
        h = 1e-4 * r
        derivative = (y(r + h) - y(r - h)) / (2 * h)
        eps = (y(r) - BENT.data(y(r), 1.0, r)) / r
        np.testing.assert_allclose(derivative, eps, rtol=1e-6)
        assert math.isfinite(float(np.sum(eps)))
