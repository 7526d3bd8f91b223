"""EDM's churn against k-diffusion, Restart against its algorithm written out, and both without their noise."""

from itertools import pairwise

import numpy as np
import pytest

import fewstep as fs
from conformance.k_diffusion_peer import k_diffusion_response, karras
from fewstep.core.check import marginal_error
from fewstep.core.errors import InvalidInput
from solvers.tables import coefficients

SCHEDULES = {
    "linear": fs.schedules.linear(),
    "scaled_linear": fs.schedules.scaled_linear(),
    "cosine": fs.schedules.cosine(),
    "zero_snr": fs.schedules.scaled_linear(zero_snr=True),
    "edm": fs.schedules.edm(),
    "flow": fs.schedules.flow(shift=3.0),
}
SAMPLERS = ["edm", "edm-euler", "edm-dpm2", "restart"]
WIDE = 1e6


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("kind", SCHEDULES)
@pytest.mark.parametrize("grid", ["trailing", "linspace", "karras"])
def test_marginals_hold_on_every_schedule_and_step_count(name, kind, grid):
    for steps in (1, 2, 3, 5, 50):
        plan = fs.compile(name, schedule=SCHEDULES[kind], steps=steps, grid=grid)
        assert marginal_error(plan).max() < 1e-12
        assert plan.registers <= 2


@pytest.mark.parametrize(("ours", "peer"), [("edm", "heun"), ("edm-euler", "euler"), ("edm-dpm2", "dpm_2")])
@pytest.mark.parametrize(
    "churn",
    [
        {"s_churn": 0.0},
        {"s_churn": 4.0, "s_tmin": 0.1, "s_tmax": 10.0, "s_noise": 1.003},
        {"s_churn": 2.0, "s_tmin": 0.0, "s_tmax": WIDE},
        {"s_churn": 40.0, "s_tmin": 0.05, "s_tmax": 50.0},
    ],
)
def test_the_table_is_that_of_k_diffusion(ours, peer, churn):
    for steps in (1, 2, 3, 5, 20):
        sigmas = karras(steps, sigma_min=0.1)
        response = k_diffusion_response(peer, sigmas, **churn)
        plan = fs.compile(ours, schedule=fs.schedules.edm(), sigmas=sigmas, **churn)
        assert [row.t for row in plan.rows] == pytest.approx(list(response.times), rel=1e-9)
        np.testing.assert_allclose(coefficients(plan), response.states, rtol=0, atol=1e-9 * sigmas[0])


def test_churn_before_the_first_row_is_the_noise_of_the_start():
    plan = fs.compile("edm", schedule=fs.schedules.edm(), sigmas=[10.0, 1.0, 0.0], s_churn=0.4)
    assert plan.start_noise is not None
    assert plan.start_noise[:2] == (10.0, plan.rows[0].t)
    assert plan.rows[0].t == pytest.approx(12.0)
    assert plan.rows[1].noise is not None
    assert plan.rows[1].noise[:2] == (1.0, plan.rows[2].t)
    assert plan.entry == (1.0, 10.0)


def test_churn_ends_at_the_noisiest_level_of_the_schedule():
    schedule = fs.schedules.edm(sigma_max=11.0)
    plan = fs.compile("edm", schedule=schedule, sigmas=[11.0, 10.0, 1.0, 0.0], s_churn=40.0)
    assert plan.start_noise is None
    assert [row.t for row in plan.rows[:3]] == [11.0, 10.0, 11.0]


@pytest.mark.parametrize("kind", SCHEDULES)
def test_a_beta_or_flow_schedule_gives_the_table_of_edm_at_the_same_ratios(kind):
    """x / alpha over sigma / alpha is the same process on every schedule."""
    ratios = np.array([2.0, 1.0, 0.5, 0.2])
    schedule = SCHEDULES[kind]
    times = [*schedule.time_of_lambda(-np.log(ratios)), schedule.t_clean]
    plan = fs.compile("edm", schedule=schedule, times=times, s_churn=1.0)
    reference = fs.compile("edm", schedule=fs.schedules.edm(), sigmas=[*ratios, 0.0], s_churn=1.0)
    alphas = np.array([*(row.alpha for row in plan.rows), plan.exit[0]])
    got = coefficients(plan) / alphas[:, None]
    got[:, 0] *= plan.entry[0]
    np.testing.assert_allclose(got, coefficients(reference), rtol=0, atol=1e-9)


@pytest.mark.parametrize("kind", ["linear", "edm"])
@pytest.mark.parametrize(
    ("name", "options", "reference", "same"),
    [
        ("edm", {"s_churn": 0.0}, "heun", {"path": "sigma"}),
        ("edm-euler", {"s_churn": 0.0}, "ddim", {}),
        ("edm-dpm2", {"s_churn": 0.0}, "dpm2", {}),
        ("restart", {"restart_min": 1e-5, "restart_max": 2e-5}, "heun", {"path": "sigma"}),
    ],
)
def test_without_noise_it_is_the_solver_of_the_ode(name, options, reference, same, kind):
    for steps in (1, 2, 5):
        plan = fs.compile(name, schedule=SCHEDULES[kind], steps=steps, **options)
        assert not plan.stochastic
        expected = coefficients(fs.compile(reference, schedule=SCHEDULES[kind], steps=steps, **same))
        np.testing.assert_allclose(coefficients(plan), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["edm", "edm-dpm2"])
def test_the_deterministic_limit_is_of_order_two(name):
    """On Gaussian data, from ratio 10 to 0.1, where the flow is x_t = c sqrt(0.25 + sigma^2)."""

    def error(steps: int) -> float:
        sigmas = np.geomspace(10, 0.1, steps + 1)
        plan = fs.compile(name, schedule=fs.schedules.edm(), sigmas=sigmas, s_churn=0.0)
        R = plan.init[:, 0] * np.hypot(0.5, 10)
        for i, row in enumerate(plan.rows):
            R = plan.A[i] @ R + plan.B[i].sum(axis=1) * 0.25 / (0.25 + row.sigma**2) * R[0]
        return abs(R[0] - np.hypot(0.5, 0.1))

    assert np.log2(error(160) / error(320)) == pytest.approx(2, abs=0.15)


def restart_written_out(main: list[float], low: int, top: float, steps: int, times: int) -> np.ndarray:
    """Algorithm 1 of arXiv 2306.14878 for alpha = 1 on symbols: main[low] is where it restarts."""
    inner = [(top ** (1 / 7) + j / steps * (main[low] ** (1 / 7) - top ** (1 / 7))) ** 7 for j in range(steps + 1)]
    rows = 2 * (len(main) - 1) - 1 + times * 2 * steps
    unit = np.eye(1 + rows + times)
    x, count, states = unit[0], 0, []

    def heun(x, a, b):
        nonlocal count
        slopes = []
        for level in (a, b):
            states.append(x if not slopes else x + (b - a) * slopes[0])
            count += 1
            slopes.append((states[-1] - unit[count]) / level)
            if b == 0:
                break
        return x + (b - a) * np.mean(slopes, axis=0)

    for i in range(len(main) - 1):
        x = heun(x, main[i], main[i + 1])
        for k in range(times if i + 1 == low else 0):
            x = x + np.sqrt(top**2 - main[low] ** 2) * unit[1 + rows + k]
            for a, b in pairwise(inner):
                x = heun(x, a, b)
    return np.array([*states, x])


@pytest.mark.parametrize(("steps", "times"), [(1, 1), (3, 2), (5, 3)])
def test_restart_is_its_algorithm_written_out(steps, times):
    main = [20.0, 6.0, 1.5, 0.4, 0.06, 0.0]
    plan = fs.compile(
        "restart",
        schedule=fs.schedules.edm(),
        sigmas=main,
        restart_min=0.4,
        restart_max=3.0,
        restarts=times,
        restart_steps=steps,
    )
    expected = restart_written_out(main, 3, 3.0, steps, times)
    assert len(plan.rows) == len(expected) - 1
    np.testing.assert_allclose(coefficients(plan), expected, rtol=0, atol=1e-9)
    intervals = [row.noise for row in plan.rows if row.noise]
    assert [tuple(i) for i in intervals] == [(0.4, pytest.approx(3.0), k) for k in range(times)]
    assert sum(row.ends_step for row in plan.rows) == 5
    assert len({row.label for row in plan.rows}) == len(plan.rows)


def test_restart_takes_as_many_steps_as_the_grid_has_in_the_interval():
    sigmas = [20.0, 6.0, 1.5, 0.7, 0.4, 0.06, 0.0]
    plan = fs.compile("restart", schedule=fs.schedules.edm(), sigmas=sigmas, restart_min=0.3, restart_max=3.0)
    assert len(plan.rows) == 11 + 2 * 3


def test_a_grid_with_no_time_in_the_restart_interval_is_not_restarted():
    for schedule in SCHEDULES.values():
        assert not fs.compile("restart", schedule=schedule, steps=1).stochastic
    assert not fs.compile("restart", schedule=SCHEDULES["edm"], sigmas=[1.0, 0.05, 0.0]).stochastic


@pytest.mark.parametrize("kind", SCHEDULES)
def test_the_default_interval_restarts_ten_steps_of_every_schedule(kind):
    plan = fs.compile("restart", schedule=SCHEDULES[kind], steps=10, grid="karras")
    assert sum(row.noise is not None for row in plan.rows) == 1


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("edm", {"s_churn": -1.0}, "s_churn must be .* at least 0, got -1"),
        ("edm", {"s_tmin": 2.0, "s_tmax": 1.0}, "s_tmin not above s_tmax"),
        ("edm", {"s_tmax": float("inf")}, "finite"),
        ("edm", {"method": "heun"}, "unknown option of edm 'method'"),
        ("restart", {"restart_min": 3.0}, "restart_min < restart_max, got 3.0 and 2.0"),
        ("restart", {"restarts": 0}, "1 .. 1000, got restarts=0"),
        ("restart", {"restart_steps": 0}, "restart_steps=0"),
    ],
)
def test_wrong_options_are_refused_with_what_is_allowed(name, options, message):
    with pytest.raises(InvalidInput, match=message):
        fs.compile(name, schedule=fs.schedules.edm(), steps=5, **options)


def test_churn_and_restart_cannot_be_inverted_but_their_solvers_can():
    for name, off in (("edm", {"s_churn": 0.0}), ("restart", {"restart_min": 1e-5, "restart_max": 2e-5})):
        with pytest.raises(InvalidInput, match="reverse"):
            fs.compile(name, schedule=fs.schedules.linear(), steps=10, reverse=True)
        assert len(fs.compile(name, schedule=fs.schedules.linear(), steps=10, reverse=True, **off).rows) == 18


def test_s_noise_is_declared_inexact_only_where_noise_is_drawn():
    schedule = fs.schedules.edm()
    assert "s_noise = 1.003" in fs.compile("edm", schedule=schedule, steps=5, grid="karras", s_noise=1.003).note
    assert not fs.compile("edm", schedule=schedule, steps=5, grid="karras", s_noise=1.003, s_churn=0.0).note
