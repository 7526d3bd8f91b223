"""UniPC: orders of convergence, the paper's linear system, tables of diffusers, and the choice of order."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from conformance.diffusers_peer import alphas_cumprod, diffusers_peer
from fewstep import schedules
from fewstep.core.errors import InvalidInput
from fewstep.core.plan import Plan
from fewstep.solvers.compiler import compile as compile_plan
from fewstep.solvers.unipc import order_for

MEAN, SPREAD = np.array([0.3, -1.0, 2.0, 0.5]), np.array([0.2, 1.7, 0.5, 3.0])
EDM, LINEAR, FLOW = schedules.edm(), schedules.linear(), schedules.flow()
# Steps that start short: the error of a low-order start falls as fast as the rest.
GRADED = {
    "edm": (EDM, lambda n: 5 * 10 ** -((np.arange(n + 1) / n) ** 2.5)),
    "vp": (LINEAR, lambda n: LINEAR.time_of_lambda(-2 + 3.5 * (np.arange(n + 1) / n) ** 2.5)),
    "flow": (FLOW, lambda n: 0.9 - 0.7 * (np.arange(n + 1) / n) ** 2.5),
}
EVEN_LAMBDA = (LINEAR, lambda n: LINEAR.time_of_lambda(np.linspace(-2, 1.5, n + 1)))


def run(plan: Plan, denoiser: Callable[[np.ndarray, float], np.ndarray], x: np.ndarray) -> np.ndarray:
    """The table in float64."""
    R = plan.init[:, :1] * x
    for i, row in enumerate(plan.rows):
        R = plan.A[i] @ R + plan.B[i].sum(1)[:, None] * denoiser(R[0], row.t)
    return R[0]


def slopes(name: str, schedule, times, steps=(160, 320, 640), **options) -> np.ndarray:
    """log2 of the ratio of errors between step counts, on the flow of N(MEAN, SPREAD^2)."""

    def denoise(x, t):
        alpha, sigma = float(schedule.alpha(t)), float(schedule.sigma(t))
        return (alpha * SPREAD**2 * x + sigma**2 * MEAN) / (alpha**2 * SPREAD**2 + sigma**2)

    def flow(t):
        alpha, sigma = float(schedule.alpha(t)), float(schedule.sigma(t))
        return alpha * MEAN + np.sqrt(alpha**2 * SPREAD**2 + sigma**2) * np.array([1.0, -0.7, 0.4, 1.3])

    errors = []
    for n in steps:
        grid = times(n)
        plan = compile_plan(name, schedule=schedule, times=grid, **options)
        errors.append(np.abs(run(plan, denoise, flow(grid[0])) - flow(grid[-1])).max())
    return np.log2(np.array(errors[:-1]) / errors[1:])


@pytest.mark.parametrize("grid", GRADED)
@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_the_corrector_raises_the_order_by_one(order, grid):
    assert slopes(f"unipc-{order}", *GRADED[grid]) == pytest.approx(order + 1, abs=0.15)
    assert slopes(f"unipc-{order}", *GRADED[grid], corrector=False) == pytest.approx(order, abs=0.15)


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_bh1_and_the_prediction_of_noise_have_the_same_orders(order):
    assert slopes(f"unipc-{order}", *GRADED["vp"], variant="bh1") == pytest.approx(order + 1, abs=0.15)
    noise = slopes(f"unipc-{order}", *GRADED["vp"], prediction="noise")
    assert noise[-1] == pytest.approx(order + 1, abs=0.15)


@pytest.mark.parametrize("order", [3, 4])
def test_a_start_of_order_one_limits_even_steps_to_order_three(order):
    assert slopes(f"unipc-{order}", *EVEN_LAMBDA) == pytest.approx(3, abs=0.15)


def test_a_lower_order_at_the_end_costs_order_where_the_end_is_noisy():
    assert slopes("unipc-2", *EVEN_LAMBDA, lower_order_final=True) == pytest.approx(2, abs=0.15)


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_registers_are_as_few_as_the_design_says_at_one_evaluation_a_step(order):
    for schedule in (LINEAR, FLOW):
        plan = compile_plan(f"unipc-{order}", schedule=schedule, steps=20, grid="trailing")
        assert (plan.registers, len(plan.rows), plan.steps) == (order + 1, 20, 20)


@pytest.mark.parametrize("prediction", ["data", "noise"])
@pytest.mark.parametrize("steps", [1, 2, 3, 5])
def test_few_steps_and_infinite_lambda_at_either_end_give_finite_tables(steps, prediction):
    for schedule in (LINEAR, schedules.scaled_linear(zero_snr=True), EDM, FLOW):
        for final in ("clean", "sigma_min"):
            options = {"prediction": prediction, "grid_options": {"final": final}}
            plan = compile_plan("unipc-4", schedule=schedule, steps=steps, grid="trailing", **options)
            assert np.isfinite(plan.A).all()


def test_the_order_for_a_budget_is_two_up_to_15_steps_and_three_above():
    assert [order_for(n) for n in (1, 5, 15, 16, 50)] == [2, 2, 2, 3, 3]
    for steps in (15, 16):
        auto = compile_plan("unipc", schedule=FLOW, steps=steps, grid="trailing")
        same = compile_plan(f"unipc-{order_for(steps)}", schedule=FLOW, steps=steps, grid="trailing")
        np.testing.assert_array_equal(auto.A, same.A)


@pytest.mark.parametrize(
    "options",
    [{"variant": "bh3"}, {"prediction": "epsilon"}, {"disable_corrector": [-1]}, {"disable_corrector": ["0"]}],
)
def test_options_that_do_not_exist_are_refused(options):
    with pytest.raises(InvalidInput, match=r"bh1|noise|disable_corrector"):
        compile_plan("unipc-2", schedule=EDM, steps=1, grid="karras", **options)


# --- the paper's own form (arXiv 2302.04867, section 3): coefficients from its linear system ---------------------

A, B = np.random.default_rng(0).standard_normal((2, 4, 4)) / 4
START = np.random.default_rng(1).standard_normal(4)


def network(x: np.ndarray, t: float) -> np.ndarray:
    return x @ (A + np.cos(t / 300) * B)


def paper(network, schedule, times, order: int, variant: str, x: np.ndarray) -> np.ndarray:
    """UniPC in data prediction as the paper writes it, all orders grown from 1, every step corrected but the last."""
    lam = [float(schedule.lam(t)) for t in times]
    alpha, sigma = ([float(f(t)) for t in times] for f in (schedule.alpha, schedule.sigma))
    outputs: list[np.ndarray] = []

    def step(i: int, x: np.ndarray, p: int, latest: np.ndarray | None) -> np.ndarray:
        h = lam[i + 1] - lam[i]
        r = [(lam[i - k] - lam[i]) / h for k in range(1, p)] + ([1.0] if latest is not None else [])
        D = [outputs[i - k] - outputs[i] for k in range(1, p)] + ([latest - outputs[i]] if latest is not None else [])
        b_of_h = -h if variant == "bh1" else math.expm1(-h)
        phi = [math.expm1(-h) / -h]  # phi_1(-h), then phi_(k+1) = (phi_k - 1 / k!) / -h
        for k in range(1, 6):
            phi.append((phi[-1] - 1 / math.factorial(k)) / -h)
        a = [0.5] * len(r)
        if len(r) > 1:
            b = [-h * phi[n + 1] * math.factorial(n + 1) / b_of_h for n in range(len(r))]
            a = np.linalg.solve([[rk**n for rk in r] for n in range(len(r))], b)
        change = sum(c * d / rk for c, d, rk in zip(a, D, r, strict=True))
        return sigma[i + 1] / sigma[i] * x - alpha[i + 1] * (math.expm1(-h) * outputs[i] + b_of_h * change)

    predicted, corrected = x, x
    for i in range(len(times) - 1):
        latest = network(predicted, times[i])
        if i > 0:
            corrected = step(i - 1, corrected, min(order, i), latest)
        outputs.append(latest)
        predicted = step(i, corrected, min(order, i + 1), None)
    return predicted


@pytest.mark.parametrize("variant", ["bh1", "bh2"])
@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_the_integrals_of_lagrange_polynomials_solve_the_linear_system_of_the_paper(order, variant):
    times = [900.0, 700.0, 610.0, 450.5, 300.0, 180.0, 90.0, 40.0]
    plan = compile_plan(f"unipc-{order}", schedule=LINEAR, times=times, variant=variant, lower_order_final=False)
    expected = paper(network, LINEAR, times, order, variant, START)
    assert run(plan, network, START) == pytest.approx(expected, rel=1e-11)


# --- diffusers, with its tables in float64 -----------------------------------------------------------------------


def inputs(plan: Plan) -> np.ndarray:
    """All network inputs and the result, as coefficients of x_T and of the outputs D_i."""
    unit = np.eye(1 + len(plan.rows))
    R = np.outer(plan.init[:, 0], unit[0])
    states = [R[0]]
    for i in range(len(plan.rows)):
        R = plan.A[i] @ R + np.outer(plan.B[i].sum(axis=1), unit[1 + i])
        states.append(R[0])
    return np.array(states)


@pytest.mark.parametrize("steps", [1, 2, 4, 7, 20])
@pytest.mark.parametrize(
    "options",
    [
        *[{"solver_order": p} for p in (1, 2, 3, 4)],
        {"solver_order": 3, "solver_type": "bh1", "final_sigmas_type": "sigma_min"},
        {"solver_order": 3, "disable_corrector": [0, 2]},
        {"solver_order": 2, "predict_x0": False, "final_sigmas_type": "sigma_min"},
        {"solver_order": 3, "lower_order_final": False, "final_sigmas_type": "sigma_min"},
    ],
    ids=str,
)
def test_unipc_is_that_of_diffusers(options, steps):
    peer = diffusers_peer("UniPCMultistep", options, steps=steps)
    table = peer.response()
    plan = compile_plan(
        f"unipc-{options['solver_order']}",
        schedule=schedules.from_alphas_cumprod(alphas_cumprod(peer)),
        times=[*table.times, 0 if "final_sigmas_type" in options else -1],
        variant=options.get("solver_type", "bh2"),
        prediction="data" if options.get("predict_x0", True) else "noise",
        disable_corrector=options.get("disable_corrector", []),
        lower_order_final=options.get("lower_order_final", True),
    )
    np.testing.assert_allclose(inputs(plan), np.vstack([table.inputs, table.final]), atol=1e-9)


@pytest.mark.parametrize("options", [{"solver_type": "bh1"}, {"predict_x0": False}])
def test_a_step_to_clean_data_is_finite_where_diffusers_multiplies_infinity_by_zero(options):
    assert np.isnan(diffusers_peer("UniPCMultistep", options, steps=3).response().final).any()
    ours = {"variant": "bh1"} if "solver_type" in options else {"prediction": "noise"}
    plan = compile_plan("unipc-2", schedule=LINEAR, times=[999, 666, 333, -1], **ours)
    np.testing.assert_allclose(inputs(plan)[-1], [0, 0, 0, 1], atol=1e-15)
