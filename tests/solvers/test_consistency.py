"""Consistency, LCM and TCD sampling against the schedulers of diffusers."""

import numpy as np
import pytest

import fewstep as fs
from conformance.diffusers_peer import diffusers_response
from fewstep.core.check import levels, marginal_error
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
STABLE_DIFFUSION = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}


@pytest.mark.parametrize(("name", "options"), [("consistency", {}), ("tcd", {}), ("tcd", {"eta": 1.0}), ("lcm", {})])
@pytest.mark.parametrize("kind", SCHEDULES)
@pytest.mark.parametrize("grid", ["trailing", "linspace", "karras"])
def test_one_evaluation_a_step_in_one_register_with_the_schedules_marginals(name, options, kind, grid):
    for steps in (1, 2, 3, 5, 50):
        plan = fs.compile(name, schedule=SCHEDULES[kind], steps=steps, grid=grid, **options)
        assert (len(plan.rows), plan.registers) == (steps, 1)
        if not plan.note:
            assert marginal_error(plan).max() < 1e-12
        assert plan.rows[-1].noise is None


@pytest.mark.parametrize("steps", [1, 2, 4, 8])
def test_lcm_is_that_of_diffusers(steps):
    response = diffusers_response("LCM", STABLE_DIFFUSION, steps=steps)
    plan = fs.compile("lcm", schedule=SCHEDULES["scaled_linear"], times=[*response.times, -1])
    np.testing.assert_allclose(coefficients(plan), response.states, rtol=0, atol=1e-9)


def test_the_boundary_scaling_of_lcm_is_the_identity_at_time_zero_and_declared_inexact():
    plan = fs.compile("lcm", schedule=SCHEDULES["linear"], times=[999, 0, -1])
    assert plan.B[1, 0, 0] == 0
    assert plan.A[1, 0, 0] == 1
    assert "boundary" in plan.note
    assert plan.tolerance == pytest.approx(levels(plan)[1][-1], rel=1e-6)
    few = fs.compile("lcm", schedule=SCHEDULES["linear"], steps=4)
    assert few.tolerance < 1e-6
    for other in (
        fs.compile("lcm", schedule=SCHEDULES["flow"], steps=4),
        fs.compile("lcm", schedule=SCHEDULES["linear"], steps=4, boundary=False),
    ):
        assert not other.note


def test_lcm_without_boundary_is_consistency_sampling():
    for schedule in SCHEDULES.values():
        plan = fs.compile("lcm", schedule=schedule, steps=4, boundary=False)
        reference = fs.compile("consistency", schedule=schedule, steps=4)
        np.testing.assert_array_equal(coefficients(plan), coefficients(reference))


@pytest.mark.parametrize("steps", [1, 2, 4, 8])
@pytest.mark.parametrize("eta", [0.0, 0.3, 0.7, 1.0])
def test_tcd_is_that_of_diffusers(eta, steps):
    """The peer ends at time 0, not at clean data."""
    response = diffusers_response("TCD", STABLE_DIFFUSION, steps=steps, options={"eta": eta})
    plan = fs.compile("tcd", schedule=SCHEDULES["scaled_linear"], times=[*response.times, 0], eta=eta)
    np.testing.assert_allclose(coefficients(plan), response.states, rtol=0, atol=1e-9)


@pytest.mark.parametrize("kind", SCHEDULES)
@pytest.mark.parametrize("grid", ["trailing", "karras"])
def test_tcd_is_ddim_without_noise_and_ancestral_with_some(kind, grid):
    for steps in (1, 2, 5):
        plan = fs.compile("tcd", schedule=SCHEDULES[kind], steps=steps, grid=grid, eta=0.0)
        reference = fs.compile("ddim", schedule=SCHEDULES[kind], steps=steps, grid=grid)
        assert not plan.stochastic
        np.testing.assert_allclose(coefficients(plan), coefficients(reference), rtol=0, atol=1e-12)
        noisy = fs.compile("tcd", schedule=SCHEDULES[kind], steps=steps, grid=grid)
        assert noisy.stochastic == (steps > 1) or (steps, grid) == (2, "karras")


def test_tcd_at_eta_one_draws_all_noise_anew_where_times_end_at_clean_data():
    for kind in ("edm", "flow"):
        plan = fs.compile("tcd", schedule=SCHEDULES[kind], steps=4, eta=1.0)
        reference = fs.compile("consistency", schedule=SCHEDULES[kind], steps=4)
        np.testing.assert_allclose(coefficients(plan), coefficients(reference), rtol=0, atol=1e-12)


def test_tcd_takes_the_noise_from_the_raw_estimate():
    plan = fs.compile("tcd", schedule=SCHEDULES["linear"], steps=4)
    assert plan.uses_raw
    p, q = plan.rows[:2]
    s_over_alpha = plan.A[0, 0, 0] * p.sigma
    assert plan.B[0, 0, 0] == pytest.approx(q.alpha)
    assert plan.B[0, 0, 1] == pytest.approx(-s_over_alpha * p.alpha / p.sigma)


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_consistency_with_sigma_min_is_that_of_diffusers(steps):
    response = diffusers_response("CMStochasticIterative", {}, steps=steps)
    plan = fs.compile("consistency", schedule=fs.schedules.edm(), sigmas=response.levels[:, 1], sigma_min=0.002)
    np.testing.assert_allclose(coefficients(plan), response.states, rtol=0, atol=1e-9)
    assert "sigma_min = 0.002" in plan.note


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("consistency", {"sigma_min": -1.0}, "sigma_min must be .*got -1"),
        ("lcm", {"timestep_scaling": 0.0}, "timestep_scaling must be .*got 0"),
        ("tcd", {"eta": 1.5}, r"eta must lie in \[0, 1\], got 1.5"),
        ("tcd", {"gamma": 0.3}, "unknown option of tcd 'gamma'"),
        ("tcd", {"reverse": True}, "reverse"),
        ("lcm", {"reverse": True}, "reverse"),
    ],
)
def test_wrong_options_are_refused_with_what_is_allowed(name, options, message):
    with pytest.raises(InvalidInput, match=message):
        fs.compile(name, schedule=SCHEDULES["linear"], steps=4, **options)
