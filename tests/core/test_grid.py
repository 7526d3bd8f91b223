"""Time grids against diffusers, the formulas of k-diffusion, closed forms, and for every schedule."""

import numpy as np
import pytest
import scipy.stats
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
)
from diffusers.schedulers import AysSchedules
from hypothesis import given, settings
from hypothesis import strategies as st

from fewstep import schedules
from fewstep.core.errors import InvalidInput
from fewstep.core.grid import GRIDS, SPACES, beta_quantile, given_times, grid_times

SCHEDULES = {
    "linear": schedules.linear(),
    "scaled_linear": schedules.scaled_linear(),
    "cosine": schedules.cosine(),
    "zero_snr": schedules.scaled_linear(zero_snr=True),
    "edm": schedules.edm(),
    "flow": schedules.flow(),
    "flow shift 3": schedules.flow(3.0),
}
UNIFORM = ("leading", "trailing", "linspace")
IN_TIME = (*UNIFORM, "quadratic")


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
@pytest.mark.parametrize("name", GRIDS)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_every_grid_decreases_from_the_noisiest_to_the_end(name, schedule, data):
    steps = data.draw(st.integers(1, 60) | st.just(1000), label="steps")
    final = data.draw(st.sampled_from(["clean", "sigma_min"]), label="final")
    bias = data.draw(st.just(0.0) | st.floats(-2, 2), label="bias")
    free = steps == 1000 or bias != 0  # too many or too close for integers
    options = {"integer": False} if free and name in UNIFORM else {}
    if name == "leading" and bias < 0:
        bias = -bias  # a fractional leading grid may then start beyond the noisiest time, which is refused

    if name == "leading" and steps == 1000 and final == "sigma_min" and schedule.t_clean == -1:
        with pytest.raises(InvalidInput, match="above 999"):
            grid_times(name, schedule, steps, final=final, **options)
        return
    times = grid_times(name, schedule, steps, final=final, bias=bias, **options)

    assert times.shape == (steps + 1,)
    assert times.dtype == np.float64
    assert np.all(np.isfinite(times))
    assert np.all(np.diff(times) < 0)
    assert np.all(np.isfinite(schedule.given_sigma(times)[1:]))
    if name != "leading":
        assert times[0] == schedule.t_max
    last_noisy = schedule.warp(schedule.t_min) if name in IN_TIME else schedule.t_min
    if final == "sigma_min":
        assert times[-1] == last_noisy
    else:
        assert times[-1] == schedule.t_clean
        if steps > 1 and name not in ("trailing", "ays"):
            assert times[-2] == last_noisy


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
@pytest.mark.parametrize("name", [name for name in GRIDS if name != "leading"])
@pytest.mark.parametrize("final", ["clean", "sigma_min"])
def test_a_later_start_keeps_the_end_and_the_positions_in_between(name, schedule, final):
    loose = {"integer": False} if name in UNIFORM else {}
    whole = grid_times(name, schedule, 20, final=final, **loose)
    later = grid_times(name, schedule, 10, final=final, start=0.5 if name in ("trailing", "ays") else 9 / 19, **loose)
    assert later[0] < schedule.t_max
    assert later[-1] == whole[-1]
    if final == "clean":
        np.testing.assert_allclose(later, whole[-11:], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("steps", [1, 2, 5, 60, 300])
def test_polynomial_and_beta_work_in_every_space_of_every_schedule(schedule, space, steps):
    for name, options in [("polynomial", {"power": 0.5}), ("polynomial", {"power": 3.0}), ("beta", {})]:
        times = grid_times(name, schedule, steps, space=space, **options)
        assert times[0] == schedule.t_max
        assert np.all(np.diff(times) < 0)


@pytest.mark.parametrize("name", [name for name in GRIDS if name != "leading"])
@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_one_step_goes_from_the_noisiest_time_to_clean_data(name, schedule):
    assert grid_times(name, schedule, 1).tolist() == [schedule.t_max, schedule.t_clean]


@pytest.mark.parametrize("name", UNIFORM)
@pytest.mark.parametrize("count", [1000, 50])
def test_integer_grids_equal_those_of_diffusers_for_every_number_of_steps(name, count):
    schedule = schedules.linear(num_train_timesteps=count)
    peer = DDIMScheduler(num_train_timesteps=count, timestep_spacing=name, steps_offset=0)
    for steps in range(2 if name == "linspace" else 1, count + 1):
        peer.set_timesteps(steps)
        # The trailing list of diffusers is sometimes one too long, with -1, by a rounding error of arange.
        assert grid_times(name, schedule, steps)[:-1].tolist() == peer.timesteps[:steps].tolist(), steps


def test_leading_with_an_offset_equals_that_of_diffusers_and_cannot_leave_the_schedule():
    peer = DDIMScheduler(timestep_spacing="leading", steps_offset=1)
    peer.set_timesteps(50)
    schedule = schedules.linear()
    assert grid_times("leading", schedule, 50, steps_offset=1)[:-1].tolist() == peer.timesteps.tolist()
    assert grid_times("leading", schedule, 1).tolist() == [0, -1]  # as diffusers has it
    assert grid_times("leading", schedule, 1000)[-2:].tolist() == [0, -1]
    with pytest.raises(InvalidInput, match="starts at 1000, above 999"):
        grid_times("leading", schedule, 1000, steps_offset=1)


def test_fractional_uniform_grids_keep_exact_fractions():
    schedule = schedules.linear()
    peer = EulerDiscreteScheduler(timestep_spacing="linspace")
    peer.set_timesteps(7)
    ours = grid_times("linspace", schedule, 7, integer=False)
    np.testing.assert_allclose(ours[:-1], peer.timesteps.double().numpy(), rtol=1e-6)
    trailing = grid_times("trailing", schedule, 7, integer=False)
    np.testing.assert_allclose(trailing, 999 - 1000 * np.arange(8) / 7, atol=1e-12)
    leading = grid_times("leading", schedule, 7, integer=False)
    np.testing.assert_allclose(leading[:-1], 1000 * np.arange(6, -1, -1) / 7, atol=1e-12)


PEERS = [
    ("karras", {}, "use_karras_sigmas"),
    ("exponential", {}, "use_exponential_sigmas"),
    ("beta", {}, "use_beta_sigmas"),
    ("exponential", {}, "use_lu_lambdas"),
]


@pytest.mark.parametrize(("name", "options", "flag"), PEERS, ids=[p[2] for p in PEERS])
@pytest.mark.parametrize("kind", ["linear", "scaled_linear", "squaredcos_cap_v2"])
@pytest.mark.parametrize("steps", [2, 5, 10, 31])
def test_sigma_grids_equal_those_of_diffusers(name, options, flag, kind, steps):
    for scheduler in (DPMSolverMultistepScheduler, EulerDiscreteScheduler):
        if flag == "use_lu_lambdas" and scheduler is EulerDiscreteScheduler:
            continue
        peer = scheduler(beta_schedule=kind, **{flag: True})
        peer.set_timesteps(steps)
        schedule = schedules.from_alphas_cumprod(peer.alphas_cumprod.double().numpy())
        sigmas = schedule.ratio(grid_times(name, schedule, steps, **options))
        np.testing.assert_allclose(sigmas, peer.sigmas.double().numpy(), rtol=3e-6)


@pytest.mark.parametrize("shift", [1.0, 3.0, 0.4])
@pytest.mark.parametrize("steps", [1, 4, 28])
def test_flow_grids_are_shifted_exactly_once(shift, steps):
    peer = FlowMatchEulerDiscreteScheduler(shift=shift)
    fractions = 1 - np.arange(steps) / steps
    peer.set_timesteps(sigmas=fractions.tolist())  # as the pipelines of FLUX and SD3 call it
    trailing = grid_times("trailing", schedules.flow(shift), steps)
    np.testing.assert_allclose(trailing, peer.sigmas.double().numpy(), rtol=1e-6)
    np.testing.assert_allclose(trailing[:-1], shift * fractions / (1 + (shift - 1) * fractions), rtol=1e-14)

    once = FlowMatchEulerDiscreteScheduler(shift=1.0)
    once.set_shift(shift)  # given to the constructor, diffusers applies it to the two ends as well, thus twice
    once.set_timesteps(steps)
    linspace = grid_times("linspace", schedules.flow(shift), steps)
    np.testing.assert_allclose(linspace, once.sigmas.double().numpy(), rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "options", "flag"),
    [
        ("karras", {}, "use_karras_sigmas"),
        ("exponential", {"space": "sigma"}, "use_exponential_sigmas"),
        ("beta", {}, "use_beta_sigmas"),
    ],
)
def test_sigma_grids_of_a_flow_equal_those_of_diffusers_and_ignore_the_shift(name, options, flag):
    peer = FlowMatchEulerDiscreteScheduler(**{flag: True})
    peer.set_timesteps(9)
    for shift in (1.0, 3.0):
        times = grid_times(name, schedules.flow(shift), 9, **options)
        np.testing.assert_allclose(times, peer.sigmas.double().numpy(), rtol=1e-5)


@pytest.mark.parametrize("rho", [1.0, 3.0, 7.0])
def test_grids_of_edm_equal_the_formulas_of_k_diffusion(rho):
    schedule, high, low, ramp = schedules.edm(), 80.0, 0.002, np.arange(18) / 17
    karras = (high ** (1 / rho) + ramp * (low ** (1 / rho) - high ** (1 / rho))) ** rho
    np.testing.assert_allclose(grid_times("karras", schedule, 18, rho=rho)[:-1], karras, atol=1e-12)
    exponential = np.exp(np.linspace(np.log(high), np.log(low), 18))
    np.testing.assert_allclose(grid_times("exponential", schedule, 18)[:-1], exponential, rtol=1e-12)
    polyexponential = np.exp((1 - ramp) ** rho * np.log(high / low) + np.log(low))
    ours = grid_times("polynomial", schedule, 18, space="lambda", power=rho)
    np.testing.assert_allclose(ours[:-1], polyexponential, rtol=1e-12)


def test_quadratic_is_the_square_of_a_uniform_grid_in_time():
    times = grid_times("quadratic", schedules.linear(), 4)
    np.testing.assert_allclose(times, [999, 444, 111, 0, -1], atol=1e-12)
    shifted = schedules.flow(3.0)
    unshifted = grid_times("quadratic", schedules.flow(1.0), 4)
    np.testing.assert_allclose(grid_times("quadratic", shifted, 4), shifted.warp(unshifted), atol=1e-15)


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_exponential_is_uniform_in_lambda_where_lambda_is_finite(schedule):
    lam = schedule.lam(grid_times("exponential", schedule, 12)[1:-1])
    assert np.ptp(np.diff(lam)) < 1e-9 * np.ptp(lam)


@pytest.mark.parametrize("name", ["exponential", "beta", "polynomial"])
def test_an_infinite_ratio_is_capped_while_the_first_time_stays_the_noisiest(name):
    for schedule in (SCHEDULES["zero_snr"], SCHEDULES["flow"]):
        options = {} if name == "exponential" else {"space": "ratio"}
        times = grid_times(name, schedule, 1000, **options)
        assert times[0] == schedule.t_max
        ratio = schedule.ratio(times)
        assert np.isinf(ratio[0])
        assert 0.9 * 4096 < ratio[1] < 4096


AYS_MODELS = [
    ("sd15", "StableDiffusionSigmas", schedules.scaled_linear()),
    ("sdxl", "StableDiffusionXLSigmas", schedules.scaled_linear()),
    ("svd", "StableDiffusionVideoSigmas", schedules.edm(700.0, 0.002)),
]


@pytest.mark.parametrize(("model", "table", "schedule"), AYS_MODELS, ids=[m[0] for m in AYS_MODELS])
def test_ten_steps_of_ays_are_the_published_table(model, table, schedule):
    times = grid_times("ays", schedule, 10, model=model)
    np.testing.assert_allclose(schedule.ratio(times), AysSchedules[table], rtol=1e-4)


def test_other_numbers_of_ays_steps_are_interpolated_log_linearly():
    schedule = schedules.scaled_linear()
    ten = np.log(schedule.ratio(grid_times("ays", schedule, 10, final="sigma_min")))
    twenty = np.log(schedule.ratio(grid_times("ays", schedule, 20, final="sigma_min")))
    np.testing.assert_allclose(twenty[::2], ten, atol=1e-9)
    np.testing.assert_allclose(twenty[1::2], (ten[1:] + ten[:-1]) / 2, atol=1e-9)


@pytest.mark.parametrize(("a", "b"), [(0.6, 0.6), (0.5, 0.5), (1, 1), (2, 0.7), (0.3, 5), (40, 60), (100, 0.2)])
def test_beta_quantiles_equal_those_of_scipy(a, b):
    p = np.concatenate([np.linspace(0, 1, 401), [1e-5, 1 - 1e-5]])
    np.testing.assert_allclose(beta_quantile(p, a, b), scipy.stats.beta.ppf(p, a, b), rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", GRIDS)
def test_bias_moves_steps_to_low_or_to_high_noise(name):
    schedule = schedules.edm()
    middle = grid_times(name, schedule, 20)[10]
    low, high = (grid_times(name, schedule, 20, bias=b) for b in (1.0, -1.0))
    assert np.sum(low < middle) > 10 > np.sum(high < middle)


def test_bias_is_the_map_of_the_flow_shift():
    biased = grid_times("trailing", schedules.flow(), 12, bias=-np.log(3.0))
    np.testing.assert_allclose(biased, grid_times("trailing", schedules.flow(3.0), 12), atol=1e-15)


@pytest.mark.parametrize("name", UNIFORM)
def test_more_steps_than_integers_are_refused_with_the_remedy(name):
    with pytest.raises(InvalidInput, match=r"1001 steps does not decrease .*integer=False: of integers 1000 fit"):
        grid_times(name, schedules.linear(), 1001)
    if name != "leading":
        assert len(grid_times(name, schedules.linear(), 1001, integer=False)) == 1002


@pytest.mark.parametrize(
    ("name", "steps", "options", "message"),
    [
        ("karas", 5, {}, "did you mean 'karras'"),
        ("karras", 5, {"roh": 3.0}, r"unknown option of grid 'karras' 'roh': did you mean 'rho'"),
        ("quadratic", 5, {"space": "time"}, "known are bias, final, start"),
        ("karras", 5, {"rho": -1.0}, "rho must be"),
        ("karras", 5, {"rho": 0.001}, "does not decrease"),
        ("polynomial", 5, {"power": 0.0}, "power must be"),
        ("polynomial", 5, {"space": "lamda"}, "did you mean 'lambda'"),
        ("exponential", 5, {"space": "time"}, "one of 'lambda', 'sigma'"),
        ("beta", 5, {"a": 0.0}, "a must be"),
        ("beta", 5, {"b": 101.0}, "must lie in"),
        ("ays", 5, {"model": "sd3"}, "did you mean 'sd15'|known are sd15, sdxl, svd"),
        ("ays", 5, {"model": "svd"}, "from above 54.5 to below 0.034"),
        ("karras", 5, {"final": "zero"}, "one of 'clean', 'sigma_min'"),
        ("karras", 5, {"bias": float("nan")}, "bias must be"),
        ("karras", 5, {"bias": 21.0}, "bias must be"),
        ("karras", 5, {"bias": "low"}, "bias must be"),
        ("karras", 5, {"start": 0}, "start must be a finite number above zero"),
        ("karras", 5, {"start": 1.1}, "start must be above 0 and at most 1, got 1.1"),
        ("trailing", 5, {"start": "late"}, "start must be"),
        ("leading", 5, {"steps_offset": -1}, "steps_offset must be"),
        ("leading", 5, {"steps_offset": 0.5}, "steps_offset must be"),
        ("karras", 0, {}, "1 .. 100000, got 0"),
        ("karras", 100_001, {}, "1 .. 100000"),
        ("karras", 2.0, {}, "got 2.0"),
        ("karras", True, {}, "got True"),
        ("karras", "5", {}, "got '5'"),
    ],
)
def test_wrong_calls_are_refused(name, steps, options, message):
    with pytest.raises(InvalidInput, match=message):
        grid_times(name, schedules.scaled_linear(), steps, **options)


def test_integers_are_refused_where_times_are_not_integers():
    for schedule in (schedules.edm(), schedules.flow()):
        with pytest.raises(InvalidInput, match="needs a beta schedule"):
            grid_times("trailing", schedule, 4, integer=True)
        with pytest.raises(InvalidInput, match="on a beta schedule"):
            grid_times("leading", schedule, 4, steps_offset=1)


def test_the_table_names_the_options_that_each_grid_takes():
    assert GRIDS["karras"].options == {"rho": 7.0}
    assert GRIDS["leading"].options == {"integer": None, "steps_offset": 0}
    for name, grid in GRIDS.items():
        assert grid.summary
        assert grid.source.startswith("arXiv ")
        times = grid_times(name, schedules.linear(), 6, **grid.options)
        assert times.tolist() == grid_times(name, schedules.linear(), 6).tolist()


def test_given_times_are_taken_verbatim():
    times = [999.0, 750.3, 10.0, 0.0, -0.5]
    assert given_times(schedules.linear(), times=times).tolist() == times
    assert given_times(schedules.flow(3.0), times=[1.0, 0.75, 0.0]).tolist() == [1.0, 0.75, 0.0]
    assert given_times(schedules.flow(3.0), sigmas=[1.0, 0.75, 0.0]).tolist() == [1.0, 0.75, 0.0]


def test_given_times_do_not_alias_the_array_of_the_caller():
    mine = np.array([80.0, 1.0, 0.0])
    given_times(schedules.edm(), times=mine)[0] = 5.0
    given_times(schedules.edm(), sigmas=mine)[0] = 5.0
    assert mine[0] == 80.0


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_given_sigmas_land_on_the_times_that_have_them(schedule):
    times = np.linspace(schedule.t_max, schedule.t_clean, 9)
    times[0] -= 1e-3  # at zero terminal SNR the sigma of t_max is infinite
    np.testing.assert_allclose(
        given_times(schedule, sigmas=schedule.given_sigma(times)), times, atol=1e-9 * schedule.t_max
    )


def test_a_published_largest_sigma_that_was_rounded_up_is_the_noisiest_time():
    schedule = schedules.scaled_linear()
    for first in (14.615, np.float32(14.614643), float(schedule.ratio(999.0))):
        times = given_times(schedule, sigmas=[first, 1.0, 0.0])
        assert times[0] == 999.0
        assert times[-1] == -1.0
    with pytest.raises(InvalidInput, match=r"sigmas\[0\] = 14.7 is outside"):
        given_times(schedule, sigmas=[14.7, 1.0, 0.0])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"times": [900, 900, 0]}, r"times\[1\] = 900 follows times\[0\] = 900"),
        ({"times": [0, 500, 900]}, r"times\[1\] = 500 follows times\[0\] = 0.* Reverse the list"),
        ({"times": [900, 10, 20, -1]}, r"times\[2\] = 20 follows times\[1\] = 10"),
        ({"sigmas": [10.0, 1.0, 2.0]}, r"sigmas\[2\] = 2 follows sigmas\[1\] = 1"),
        ({"times": [1000, 0]}, r"times\[0\] = 1000 is outside .* -1 \(clean\) to 999"),
        ({"times": [900, -2]}, r"times\[1\] = -2 is outside"),
        ({"sigmas": [10.0, -1.0]}, r"sigmas\[1\] = -1 is outside .* 0 \(clean\)"),
        ({"times": [900, float("nan")]}, r"times\[1\] = nan"),
        ({"sigmas": [float("inf"), 1.0]}, r"sigmas\[0\] = inf"),
        ({"times": [900]}, "2 numbers or more"),
        ({"times": []}, "2 numbers or more"),
        ({"times": 900}, "2 numbers or more"),
        ({"times": [[900, 0], [800, 0]]}, "2 numbers or more"),
        ({"times": ["a", "b"]}, "list of numbers"),
        ({"times": [[900], [800, 0]]}, "list of numbers"),
        ({"times": [900, 0], "sigmas": [1, 0]}, "one of the two"),
        ({}, "one of the two"),
    ],
)
def test_given_times_that_cannot_be_sampled_are_refused_by_index(given, message):
    with pytest.raises(InvalidInput, match=message):
        given_times(schedules.linear(), **given)


def test_an_infinite_sigma_is_refused_even_where_the_schedule_reaches_it():
    with pytest.raises(InvalidInput, match=r"sigmas\[0\] = inf"):
        given_times(SCHEDULES["zero_snr"], sigmas=[np.inf, 1.0, 0.0])
