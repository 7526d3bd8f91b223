"""LMS, DEIS, iPNDM and PNDM: exact integrals, orders of convergence on a Gaussian, tables of diffusers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from fewstep import schedules
from fewstep.core.errors import InvalidInput
from fewstep.core.plan import Plan
from fewstep.solvers.compiler import compile as compile_plan

MEAN, SPREAD = np.array([0.3, -1.0, 2.0, 0.5]), np.array([0.2, 1.7, 0.5, 3.0])
Denoiser = Callable[[np.ndarray, float], np.ndarray]


def run(plan: Plan, denoiser: Denoiser, x: np.ndarray, exact: Denoiser | None = None, warm: int = 0):
    """The table in float64. The first `warm` inputs are replaced by `exact(x, t)`: a start-up without error."""
    R = plan.init[:, :1] * x
    for i, row in enumerate(plan.rows):
        if exact is not None and i < warm:
            R[0] = exact(x, row.t)
        R = plan.A[i] @ R + plan.B[i].sum(1)[:, None] * denoiser(R[0], row.t)
    return R[0]


def gaussian(schedule) -> tuple[Denoiser, Denoiser]:
    """The perfect denoiser of N(MEAN, SPREAD^2), and where its flow takes noise c: (c, t) -> x_t."""

    def denoise(x, t):
        alpha, sigma = float(schedule.alpha(t)), float(schedule.sigma(t))
        return (alpha * SPREAD**2 * x + sigma**2 * MEAN) / (alpha**2 * SPREAD**2 + sigma**2)

    def flow(c, t):
        alpha, sigma = float(schedule.alpha(t)), float(schedule.sigma(t))
        return alpha * MEAN + np.sqrt(alpha**2 * SPREAD**2 + sigma**2) * c

    return denoise, flow


def slopes(name: str, schedule, times, warm: int = 0, **options) -> np.ndarray:
    """log2 of the ratio of errors between 160, 320 and 640 steps."""
    denoise, flow = gaussian(schedule)
    c, errors = np.array([1.0, -0.7, 0.4, 1.3]), []
    for n in (160, 320, 640):
        grid = times(n)
        plan = compile_plan(name, schedule=schedule, times=grid, **options)
        start, end = flow(c, grid[0]), flow(c, grid[-1])
        errors.append(np.abs(run(plan, denoise, start, lambda _, t: flow(c, t), warm) - end).max())
    return np.log2(np.array(errors[:-1]) / errors[1:])


EDM, LINEAR, FLOW = schedules.edm(), schedules.linear(), schedules.flow()
# Steps that start short: the error of a low-order start falls as fast as the rest.
GRADED = {
    "edm": (EDM, lambda n: 5 * 10 ** -((np.arange(n + 1) / n) ** 2.5)),
    "vp": (LINEAR, lambda n: LINEAR.time_of_lambda(-2 + 3.5 * (np.arange(n + 1) / n) ** 2.5)),
    "flow": (FLOW, lambda n: 0.9 - 0.7 * (np.arange(n + 1) / n) ** 2.5),
}
# Even steps: in lambda, and in sigma / alpha.
EVEN_LAMBDA = (LINEAR, lambda n: LINEAR.time_of_lambda(np.linspace(-2, 1.5, n + 1)))
EVEN_SIGMA = (EDM, lambda n: np.linspace(5, 0.5, n + 1))


@pytest.mark.parametrize("grid", GRADED)
@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_deis_converges_with_its_order_once_started_with_short_steps(order, grid):
    assert slopes(f"deis-{order}", *GRADED[grid])[-1] == pytest.approx(order, abs=0.15)


@pytest.mark.parametrize("grid", GRADED)
@pytest.mark.parametrize("order", [2, 3, 4])
def test_lms_converges_with_its_order_once_started_with_short_steps(order, grid):
    assert slopes(f"lms-{order}", *GRADED[grid])[-1] == pytest.approx(order, abs=0.15)


@pytest.mark.parametrize("order", [2, 3])
def test_deis_in_time_converges_with_its_order_where_time_is_smooth(order):
    assert slopes(f"deis-{order}", *GRADED["flow"], variable="time")[-1] == pytest.approx(order, abs=0.15)


@pytest.mark.parametrize("name", ["lms-3", "lms-4", "deis-3", "deis-4"])
def test_a_first_order_start_limits_even_steps_to_order_two_and_exact_history_lifts_that(name):
    order = int(name[-1])
    assert slopes(name, *EVEN_LAMBDA) == pytest.approx(2, abs=0.15)
    assert slopes(name, *EVEN_LAMBDA, warm=order - 1) == pytest.approx(order, abs=0.15)


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_fixed_weights_have_their_order_on_even_sigmas_and_order_two_elsewhere(order):
    assert slopes(f"ipndm-{order}", *EVEN_SIGMA, warm=order - 1)[-1] == pytest.approx(order, abs=0.15)
    assert slopes(f"ipndm-{order}", *EVEN_LAMBDA, warm=order - 1) == pytest.approx(min(order, 2), abs=0.15)


def test_pndm_has_order_four_on_even_sigmas_and_order_two_elsewhere():
    assert slopes("pndm", *EVEN_SIGMA)[-1] == pytest.approx(4, abs=0.15)  # the Runge-Kutta start loses nothing
    for warmup in ("runge-kutta", "multistep"):
        assert slopes("pndm", *EVEN_LAMBDA, warmup=warmup) == pytest.approx(2, abs=0.15)


@pytest.mark.parametrize(("name", "degree"), [("lms-2", 1), ("lms-4", 3), ("deis-2", 1), ("deis-4", 3)])
def test_noise_that_is_a_polynomial_of_the_variable_is_integrated_exactly(name, degree):
    """eps = v^degree with v = r or log r; the integral over r is elementary."""
    ratio = LINEAR.ratio

    def eps(t):
        return (ratio(t) if name.startswith("lms") else np.log(ratio(t))) ** degree

    def integral(r):
        if name.startswith("lms"):
            return r ** (degree + 1) / (degree + 1)
        u = np.log(r)
        return r * (u - 1 if degree == 1 else u**3 - 3 * u**2 + 6 * u - 6)

    def denoise(x, t):
        return (x - float(LINEAR.sigma(t)) * eps(t)) / float(LINEAR.alpha(t))

    def exact(x, t):
        return float(LINEAR.alpha(t)) * (x + integral(ratio(t)))

    times = [900.0, 760.0, 640.5, 500.0, 333.0, 120.0, 20.0]  # uneven
    plan = compile_plan(name, schedule=LINEAR, times=times, **({} if "lms" in name else {"lower_order_final": False}))
    x = run(plan, denoise, np.zeros(1), exact, warm=degree + 1)
    assert x == pytest.approx(exact(np.zeros(1), 20.0), rel=1e-11)


@pytest.mark.parametrize(
    ("name", "options", "registers"),
    [
        *[(f"lms-{p}", {}, p) for p in (2, 3, 4)],
        *[(f"deis-{p}", {}, p) for p in (1, 2, 3, 4)],
        *[(f"ipndm-{p}", {}, p) for p in (1, 2, 3, 4)],
        ("pndm", {"warmup": "multistep"}, 4),
        ("pndm", {}, 5),
    ],
)
def test_registers_and_evaluations_are_as_few_as_the_design_says(name, options, registers):
    plan = compile_plan(name, schedule=schedules.scaled_linear(), steps=20, grid="trailing", **options)
    extra = 0 if name != "pndm" else 1 if options else 9
    assert (plan.registers, len(plan.rows), plan.steps) == (registers, 20 + extra, 20)


@pytest.mark.parametrize("steps", [1, 2, 3, 5])
@pytest.mark.parametrize("name", ["lms-4", "deis-2", "deis-4", "ipndm-4", "pndm"])
def test_few_steps_and_infinite_lambda_at_either_end_give_finite_tables(name, steps):
    for schedule in (schedules.cosine(), schedules.linear(zero_snr=True), EDM, FLOW):
        for grid in ("trailing", "exponential"):
            for final in ("clean", "sigma_min"):
                plan = compile_plan(name, schedule=schedule, steps=steps, grid=grid, grid_options={"final": final})
                assert np.isfinite(plan.A).all()


def test_rows_that_would_be_weighted_too_much_are_left_out():
    times = [999.0, 998.9, 500.0, 100.0]  # extrapolates 5,000 times further than the rows are apart
    assert compile_plan("deis-2", schedule=LINEAR, times=times, lower_order_final=False).registers == 2
    assert compile_plan("deis-2", schedule=LINEAR, times=times[:3], lower_order_final=False).registers == 1


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("deis-2", {"variable": "sigma"}, "log_rho"),
        ("pndm", {"warmup": "heun"}, "multistep"),
        ("lms-2", {"order": 3}, "order"),
    ],
)
def test_options_that_do_not_exist_are_refused(name, options, said):
    with pytest.raises(InvalidInput, match=said):
        compile_plan(name, schedule=EDM, steps=3, grid="karras", **options)


# --- diffusers: its float32 tables, our schedule built from them, a random linear network in float64 ---------------

A, B = np.random.default_rng(0).standard_normal((2, 4, 4)) / 4
START = np.random.default_rng(1).standard_normal(4)


def network(x: np.ndarray, t: float) -> np.ndarray:
    return x @ (A + np.cos(t / 300) * B)


def peer(scheduler, output: Callable, steps: int, start: np.ndarray) -> np.ndarray:
    scheduler.set_timesteps(steps)
    x = torch.from_numpy(start)[None]
    for t in scheduler.timesteps:
        scaled = scheduler.scale_model_input(x, t)
        x = scheduler.step(torch.from_numpy(output(scaled.numpy(), t)), t, x).prev_sample
    return x[0].numpy()


def noise_of(schedule) -> Callable:
    def output(x, t):
        alpha, sigma = float(schedule.alpha(float(t))), float(schedule.sigma(float(t)))
        return (x - alpha * network(x, float(t))) / sigma

    return output


def same_schedule(scheduler):
    return schedules.from_alphas_cumprod(scheduler.alphas_cumprod.double().numpy())


@pytest.mark.parametrize("steps", [1, 2, 3, 6, 20])
@pytest.mark.parametrize("order", [1, 2, 3])
def test_deis_is_that_of_diffusers(order, steps):
    diffusers = pytest.importorskip("diffusers")
    scheduler = diffusers.DEISMultistepScheduler(solver_order=order, prediction_type="sample")
    theirs = peer(scheduler, lambda x, t: network(x, float(t)), steps, START)
    times = [*scheduler.timesteps.tolist(), 0]
    plan = compile_plan(f"deis-{order}", schedule=same_schedule(scheduler), times=times)
    # Its integrals are float32 differences of large closed forms; tests/conformance compares in float64.
    assert run(plan, network, START) == pytest.approx(theirs, abs=5e-5)


@pytest.mark.parametrize("steps", [2, 4, 10, 28])  # whose timesteps are integers
def test_lms_is_that_of_diffusers(steps):
    diffusers = pytest.importorskip("diffusers")
    scheduler = diffusers.LMSDiscreteScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012)
    schedule = same_schedule(scheduler)
    theirs = peer(scheduler, noise_of(schedule), steps, START / float(schedule.alpha(999)))
    plan = compile_plan("lms-4", schedule=schedule, times=[*scheduler.timesteps.tolist(), -1])
    assert run(plan, network, START) == pytest.approx(theirs, abs=2e-5)


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 9])
def test_ipndm_is_that_of_diffusers_given_our_sigmas(steps):
    """Its own grid starts at alpha = 0, where it divides by 1e-8 and loses the prediction; so it is given ours."""
    diffusers = pytest.importorskip("diffusers")
    times = np.linspace(990, 0, steps + 1)
    scheduler = diffusers.IPNDMScheduler(trained_betas=LINEAR.sigma(times).tolist())
    clock = iter(times)

    def output(x, _):  # it reads sigma x + alpha output as the noise
        t = float(next(clock))
        alpha, sigma = float(LINEAR.alpha(t)), float(LINEAR.sigma(t))
        return (noise_of(LINEAR)(x, t) - sigma * x) / alpha

    theirs = peer(scheduler, output, steps, START)
    plan = compile_plan("ipndm-4", schedule=LINEAR, times=times)
    assert run(plan, network, START) == pytest.approx(theirs, abs=1e-5 * max(1, np.abs(theirs).max()))


@pytest.mark.parametrize("steps", [5, 10, 20])  # whose strides are even: a half one is floored there
@pytest.mark.parametrize("warmup", ["runge-kutta", "multistep"])
@pytest.mark.parametrize("to_one", [True, False])
def test_pndm_is_that_of_diffusers(steps, warmup, to_one):
    diffusers = pytest.importorskip("diffusers")
    scheduler = diffusers.PNDMScheduler(
        skip_prk_steps=warmup == "multistep", set_alpha_to_one=to_one, steps_offset=1, prediction_type="epsilon"
    )
    schedule = same_schedule(scheduler)
    theirs = peer(scheduler, noise_of(schedule), steps, START)
    times = [*sorted({t for t in scheduler.timesteps.tolist() if t % (1000 // steps) == 1}, reverse=True)]
    plan = compile_plan("pndm", schedule=schedule, times=[*times, -1 if to_one else 0], warmup=warmup)
    assert [row.t for row in plan.rows] == scheduler.timesteps.tolist()
    assert run(plan, network, START) == pytest.approx(theirs, abs=1e-5)
