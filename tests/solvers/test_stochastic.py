"""Ancestral and SDE samplers against k-diffusion, diffusers, and the solvers that they become without noise."""

import numpy as np
import pytest

import fewstep as fs
from conformance.diffusers_peer import diffusers_response
from conformance.k_diffusion_peer import k_diffusion_response, karras
from fewstep.core.check import levels, marginal_error
from fewstep.core.errors import InvalidInput
from fewstep.core.plan import Plan
from solvers.tables import coefficients

SCHEDULES = {
    "linear": fs.schedules.linear(),
    "scaled_linear": fs.schedules.scaled_linear(),
    "cosine": fs.schedules.cosine(),
    "zero_snr": fs.schedules.scaled_linear(zero_snr=True),
    "edm": fs.schedules.edm(),
    "flow": fs.schedules.flow(shift=3.0),
}
SAMPLERS = ["euler-a", "dpm2-a", "dpmpp-2s-a", "dpmpp-sde", "sde-dpmpp-1", "sde-dpmpp-2m", "sde-dpmpp-3m"]


def gaussian_variance(plan: Plan, spread: float = 0.5) -> float:
    """Variance of the result for data N(0, spread^2) and its exact denoiser, which is linear."""
    table = coefficients(plan)
    n = len(plan.rows)
    alpha, sigma = plan.entry
    states = np.zeros((n + 1, table.shape[1] - n))
    for i in range(n + 1):
        outputs = [row.alpha * spread**2 / ((row.alpha * spread) ** 2 + row.sigma**2) for row in plan.rows]
        states[i] = table[i, [0, *range(n + 1, table.shape[1])]]
        states[i] += sum((table[i, 1 + j] * outputs[j] * states[j] for j in range(i)), 0 * states[i])
    return states[-1, 0] ** 2 * ((alpha * spread) ** 2 + sigma**2) + np.sum(states[-1, 1:] ** 2)


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("kind", SCHEDULES)
@pytest.mark.parametrize("grid", ["trailing", "linspace", "karras"])
def test_marginals_hold_on_every_schedule_and_step_count(name, kind, grid):
    for steps in (1, 2, 3, 5, 50):
        plan = fs.compile(name, schedule=SCHEDULES[kind], steps=steps, grid=grid)
        assert marginal_error(plan).max() < 1e-12
        assert plan.registers <= 3


OPTIONS = [{}, {"eta": 0.5}, {"eta": 0.0}]
K_DIFFUSION = [
    *[("euler-a", "euler_ancestral", o, o) for o in [*OPTIONS, {"eta": 0.5, "s_noise": 1.1}]],
    *[("dpm2-a", "dpm_2_ancestral", o, o) for o in [*OPTIONS, {"eta": 0.5, "s_noise": 1.1}]],
    *[("dpmpp-2s-a", "dpmpp_2s_ancestral", o, o) for o in [*OPTIONS, {"eta": 0.5, "s_noise": 1.1}]],
    *[("dpmpp-sde", "dpmpp_sde", o, o) for o in [*OPTIONS, {"eta": 0.5, "s_noise": 1.1}, {"r": 1 / 3}]],
    *[("sde-dpmpp-2m", "dpmpp_2m_sde", o, o) for o in [*OPTIONS, {"eta": 1.5}, {"eta": 0.5, "s_noise": 1.1}]],
    ("sde-dpmpp-2m", "dpmpp_2m_sde", {"variant": "heun", "eta": 0.7}, {"solver_type": "heun", "eta": 0.7}),
    *[("sde-dpmpp-3m", "dpmpp_3m_sde", o, o) for o in OPTIONS],
]


@pytest.mark.parametrize(("ours", "peer", "options", "theirs"), K_DIFFUSION)
def test_the_table_is_that_of_k_diffusion(ours, peer, options, theirs):
    extra = {"lower_order_final": False} if ours.startswith("sde-") else {}
    for steps in (2, 3, 5, 20):
        sigmas = karras(steps)
        response = k_diffusion_response(peer, sigmas, **theirs)
        plan = fs.compile(ours, schedule=fs.schedules.edm(), sigmas=sigmas, **options, **extra)
        assert [row.t for row in plan.rows] == pytest.approx(list(response.times), rel=1e-9)
        np.testing.assert_allclose(coefficients(plan), response.states, rtol=0, atol=1e-9 * sigmas[0])


def test_the_brownian_intervals_of_dpmpp_sde_are_the_pieces_of_the_peer():
    sigmas = karras(5)
    response = k_diffusion_response("dpmpp_sde", sigmas)
    plan = fs.compile("dpmpp-sde", schedule=fs.schedules.edm(), sigmas=sigmas)
    ours = [row.noise[:2] for row in plan.rows if row.noise]
    np.testing.assert_allclose(ours, [draw.interval for draw in response.draws], rtol=1e-6)


@pytest.mark.parametrize("steps", [1, 2, 3, 5, 20])
@pytest.mark.parametrize(
    ("ours", "config", "options"),
    [
        ("sde-dpmpp-1", {"solver_order": 1}, {}),
        ("sde-dpmpp-2m", {"solver_order": 2}, {}),
        ("sde-dpmpp-2m", {"solver_order": 2, "solver_type": "heun"}, {"variant": "heun"}),
        ("sde-dpmpp-2m", {"solver_order": 2, "lower_order_final": False}, {"lower_order_final": False}),
    ],
)
def test_the_table_is_that_of_diffusers(ours, config, options, steps):
    config = {"algorithm_type": "sde-dpmsolver++", "beta_schedule": "scaled_linear", **config}
    config |= {"beta_start": 0.00085, "beta_end": 0.012, "timestep_spacing": "trailing"}
    response = diffusers_response("DPMSolverMultistep", config, steps=steps)
    ratios = response.levels[:, 1] / response.levels[:, 0]
    plan = fs.compile(ours, schedule=fs.schedules.scaled_linear(), sigmas=ratios, **options)
    np.testing.assert_allclose(coefficients(plan), response.states, rtol=0, atol=1e-9)


def test_diffusers_of_order_3_has_the_wrong_sign_where_k_diffusion_and_we_do_not():
    """Its curvature term has the weight (1 - e^-H - H) / H^2 - 1/2, H = 2 h, which tends to -1: it should be + 1/2."""
    config = {"algorithm_type": "sde-dpmsolver++", "solver_order": 3, "solver_type": "heun"}
    config |= {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
    response = diffusers_response("DPMSolverMultistep", config, steps=20)
    ratios = response.levels[:, 1] / response.levels[:, 0]
    plan = fs.compile("sde-dpmpp-3m", schedule=fs.schedules.scaled_linear(), sigmas=ratios)
    difference = np.abs(coefficients(plan) - response.states).max(axis=1)
    assert difference[:3].max() < 1e-9
    # In the first step of order 3 the difference is alpha / (r0 + r1) (D1_0 - D1_1); here the coefficient of D_2.
    lam = -np.log(ratios[:4])
    h, h0, h1 = lam[3] - lam[2], lam[2] - lam[1], lam[1] - lam[0]
    expected = response.alphas[3] * h / (h0 + h1) * h / h0
    got = (coefficients(plan) - response.states)[3, 1 + 2]
    assert got == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("kind", SCHEDULES)
@pytest.mark.parametrize(
    ("stochastic", "deterministic"),
    [
        ("euler-a", "ddim"),
        ("dpmpp-2s-a", "dpmpp-2s"),
        ("dpmpp-sde", "dpmpp-2s"),
        ("sde-dpmpp-1", "ddim"),
        ("sde-dpmpp-2m", "dpmpp-2m"),
    ],
)
def test_without_noise_it_is_the_solver_of_the_ode(stochastic, deterministic, kind):
    for steps in (1, 2, 5):
        plan = fs.compile(stochastic, schedule=SCHEDULES[kind], steps=steps, eta=0.0)
        reference = fs.compile(deterministic, schedule=SCHEDULES[kind], steps=steps)
        assert not plan.stochastic
        np.testing.assert_allclose(coefficients(plan), coefficients(reference), rtol=1e-9, atol=1e-10)


def test_the_exact_curvature_is_that_of_the_adams_predictor_of_order_three():
    grid = {"schedule": SCHEDULES["edm"], "steps": 20, "grid": "karras", "lower_order_final": False}
    plan = fs.compile("sde-dpmpp-3m", eta=0.49, curvature="exact", **grid)
    noise = {"tau": 0.7, "tau_min": 0.0, "tau_max": 1e6}
    reference = fs.compile("sa", predictor_order=3, corrector_order=0, **noise, **grid)
    np.testing.assert_allclose(coefficients(plan), coefficients(reference), rtol=0, atol=1e-9)


def test_euler_ancestral_is_ddim_of_the_same_eta():
    for eta in (0.3, 1.0):
        plan = fs.compile("euler-a", schedule=SCHEDULES["zero_snr"], steps=5, eta=eta)
        reference = fs.compile("ddim", schedule=SCHEDULES["zero_snr"], steps=5, eta=eta)
        np.testing.assert_allclose(coefficients(plan), coefficients(reference), rtol=0, atol=1e-12)


def test_the_second_row_of_an_ancestral_step_is_told_exactly_the_next_time():
    plan = fs.compile("dpmpp-2s-a", schedule=SCHEDULES["linear"], times=[999, 500, 250, -1])
    assert [row.t for row in plan.rows] == [999, 500, 500, 250, 250]


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_variance_of_gaussian_data_is_approached_with_more_steps(name):
    schedule = fs.schedules.edm()

    def error(steps: int) -> float:
        return abs(gaussian_variance(fs.compile(name, schedule=schedule, steps=steps, grid="exponential")) - 0.25)

    coarse, fine = error(100), error(200)
    assert fine < 0.65 * coarse < 0.65 * 0.03


@pytest.mark.parametrize("name", SAMPLERS)
def test_pure_noise_start_and_clean_end_draw_no_noise_that_is_not_added(name):
    plan = fs.compile(name, schedule=fs.schedules.flow(), steps=5)
    for row, s in zip(plan.rows, plan.s, strict=True):
        assert (row.noise is not None) == bool(np.any(s))
    assert plan.rows[-1].noise is None
    assert levels(plan)[1][-1] == pytest.approx(0, abs=1e-15)


@pytest.mark.parametrize("name", SAMPLERS)
def test_s_noise_is_declared_inexact_by_as_much_as_it_is(name):
    plan = fs.compile(name, schedule=fs.schedules.edm(), steps=5, grid="karras", s_noise=1.1)
    assert "s_noise" in plan.note
    assert 1e-4 < plan.tolerance < 0.1
    assert not fs.compile(name, schedule=fs.schedules.edm(), steps=5, grid="karras", s_noise=1.1, eta=0.0).note


@pytest.mark.parametrize("name", SAMPLERS)
def test_wrong_options_are_refused_with_what_is_allowed(name):
    schedule = fs.schedules.linear()
    with pytest.raises(InvalidInput, match=r"eta must .*got -0\.1"):
        fs.compile(name, schedule=schedule, steps=3, eta=-0.1)
    with pytest.raises(InvalidInput, match="s_noise must be"):
        fs.compile(name, schedule=schedule, steps=3, s_noise=float("nan"))
    with pytest.raises(InvalidInput, match="cannot be run in reverse: give eta=0"):
        fs.compile(name, schedule=schedule, steps=3, reverse=True)
    assert not fs.compile(name, schedule=schedule, steps=3, reverse=True, eta=0.0).stochastic


def test_the_fraction_of_dpmpp_sde_lies_inside_the_step():
    with pytest.raises(InvalidInput, match="0 < r < 1"):
        fs.compile("dpmpp-sde", schedule=fs.schedules.linear(), steps=3, r=1.0)
