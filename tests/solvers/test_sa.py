"""SA-Solver against diffusers, and its deterministic limit."""

import numpy as np
import pytest

import fewstep as fs
from conformance.diffusers_peer import diffusers_response
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
STABLE_DIFFUSION = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
EVERYWHERE = {"tau_min": 0.0, "tau_max": 1e6}


@pytest.mark.parametrize("kind", SCHEDULES)
@pytest.mark.parametrize("grid", ["trailing", "linspace", "karras"])
def test_marginals_hold_on_every_schedule_and_step_count(kind, grid):
    for steps in (1, 2, 3, 5, 50):
        for options in (
            {},
            {"variant": "leading"} | EVERYWHERE,
            {"predictor_order": 4, "corrector_order": 4, "tau": 0.3},
        ):
            plan = fs.compile("sa", schedule=SCHEDULES[kind], steps=steps, grid=grid, **options)
            assert marginal_error(plan).max() < 1e-12
            assert len(plan.rows) == steps


def test_orders_two_and_two_hold_three_states():
    assert fs.compile("sa", schedule=SCHEDULES["linear"], steps=20).registers == 3


def against_diffusers(steps: int, tau: dict, config: dict, **options) -> float:
    """Largest difference of our table and that of diffusers over its own grid."""
    response = diffusers_response("SASolver", STABLE_DIFFUSION | config, steps=steps)
    ratios = response.levels[:, 1] / response.levels[:, 0]
    if ratios[-1] == ratios[-2]:  # the last sigma twice, which no grid of ours may have
        ratios[-1] *= 1 - 1e-13
    plan = fs.compile("sa", schedule=SCHEDULES["scaled_linear"], sigmas=ratios, variant="leading", **tau, **options)
    return float(np.abs(coefficients(plan) - response.states).max())


@pytest.mark.parametrize("orders", [(1, 1), (1, 2), (2, 2), (2, 3), (3, 3), (3, 4), (4, 4), (4, 1)])
@pytest.mark.parametrize("tau", [0.0, 0.5, 1.0])
def test_the_table_is_that_of_diffusers(orders, tau):
    options = {"predictor_order": orders[0], "corrector_order": orders[1]}
    config = {"timestep_spacing": "trailing", "tau_func": lambda _t: tau}
    for steps in (2, 3, 10):
        for final in (True, False):
            both = options | {"lower_order_final": final}
            assert against_diffusers(steps, {"tau": tau} | EVERYWHERE, config | both, **both) < 1e-9


@pytest.mark.parametrize("steps", [1, 2, 5, 20])
def test_the_default_interval_of_tau_is_that_of_diffusers(steps):
    for spacing in ("linspace", "trailing"):
        assert against_diffusers(steps, {}, {"timestep_spacing": spacing}) < 1e-9


def test_without_noise_and_corrector_it_is_the_multistep_solver_of_order_two():
    for schedule in SCHEDULES.values():
        for steps in (1, 2, 5):
            plan = fs.compile("sa", schedule=schedule, steps=steps, tau=0.0, corrector_order=0)
            assert not plan.stochastic
            reference = fs.compile("dpmpp-2m", schedule=schedule, steps=steps, variant="heun")
            np.testing.assert_allclose(coefficients(plan), coefficients(reference), rtol=0, atol=1e-10)


def test_with_noise_and_no_corrector_it_is_sde_dpmpp_2m():
    grid = {"schedule": SCHEDULES["edm"], "steps": 20, "grid": "karras", "lower_order_final": False}
    plan = fs.compile("sa", tau=0.7, corrector_order=0, **EVERYWHERE, **grid)
    reference = fs.compile("sde-dpmpp-2m", eta=0.49, variant="heun", **grid)
    np.testing.assert_allclose(coefficients(plan), coefficients(reference), rtol=0, atol=1e-10)


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_the_predictor_integrates_polynomials_in_lambda_exactly_below_its_order(order):
    h, n = 0.3, 6
    options = {"tau": 0.0, "predictor_order": order, "corrector_order": 0, "lower_order_final": False}
    plan = fs.compile("sa", schedule=SCHEDULES["edm"], times=np.exp(-h * np.arange(n + 1)), **options)
    nodes, weights = np.polynomial.legendre.leggauss(20)
    u = (nodes + 1) / 2

    def defect(degree: int) -> float:
        """Of the last step, where D = (lambda - lambda_p)^degree at every row."""
        states = coefficients(plan)[:, 1:] @ (h * np.arange(1.0 - n, 1.0)) ** degree
        exact = np.exp(-h) * states[-2] + np.sum(weights / 2 * h * np.exp((u - 1) * h) * (u * h) ** degree)
        return abs(states[-1] - exact)

    assert max(defect(degree) for degree in range(order)) < 1e-14
    assert defect(order) > 1e-5


def gaussian_error(steps: int, **options) -> float:
    """On Gaussian data, from ratio 10 to 0.1, where the flow is x_t = c sqrt(0.25 + sigma^2)."""
    plan = fs.compile("sa", schedule=SCHEDULES["edm"], sigmas=np.geomspace(10, 0.1, steps + 1), tau=0.0, **options)
    R = plan.init[:, 0] * np.hypot(0.5, 10)
    for i, row in enumerate(plan.rows):
        R = plan.A[i] @ R + plan.B[i].sum(axis=1) * 0.25 / (0.25 + row.sigma**2) * R[0]
    return abs(R[0] - np.hypot(0.5, 0.1))


@pytest.mark.parametrize(
    ("predictor", "corrector", "variant", "order"),
    [
        (1, 0, "exact", 1),
        (1, 1, "exact", 1),
        (2, 0, "exact", 2),
        (2, 2, "leading", 2),
        (2, 2, "exact", 2),
        (2, 3, "exact", 3),
        (3, 3, "exact", 3),
    ],
)
def test_the_deterministic_limit_converges_with_its_order(predictor, corrector, variant, order):
    options = {"predictor_order": predictor, "corrector_order": corrector, "variant": variant}
    options["lower_order_final"] = False  # a last step of first order limits all to 2
    slope = np.log2(gaussian_error(640, **options) / gaussian_error(1280, **options))
    assert slope == pytest.approx(order, abs=0.15)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"predictor_order": 5}, "predictor_order must be one of 1, 2, 3, 4, got 5"),
        ({"corrector_order": 5}, "corrector_order must be one of 0, 1, 2, 3, 4, got 5"),
        ({"tau": -1.0}, "tau must be .* at least 0, got -1"),
        ({"tau_min": 2.0, "tau_max": 1.0}, "tau_min not above tau_max"),
        ({"variant": "bh2"}, "one of 'exact', 'leading', got 'bh2'"),
        ({"reverse": True}, "cannot be run in reverse"),
    ],
)
def test_wrong_options_are_refused_with_what_is_allowed(options, message):
    with pytest.raises(InvalidInput, match=message):
        fs.compile("sa", schedule=SCHEDULES["linear"], steps=5, **options)
    assert len(fs.compile("sa", schedule=SCHEDULES["linear"], steps=5, reverse=True, tau=0.0).rows) == 4
