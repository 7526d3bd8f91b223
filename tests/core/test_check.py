"""The marginal check: what it measures is what happens, and it sees a wrong coefficient."""

from dataclasses import replace

import numpy as np
import pytest

import fewstep as fs
from fewstep.core.check import check_marginals, levels, marginal_error
from proof.problems import SCHEDULES, played


@pytest.mark.parametrize("name", fs.SAMPLERS)
def test_levels_are_what_the_table_does_to_data_that_is_one_point(name):
    plan = fs.compile(name, schedule=SCHEDULES["scaled_linear"], steps=4)
    alpha, sigma = levels(plan)
    inputs = []

    def point(x, row):
        inputs.append(x)
        return np.ones(())

    def response(start, noises):
        """Inputs and result, of the part that the data gives or of the part of one noise."""
        inputs.clear()
        keep = noises if noises is not None else {}
        end = played(plan, np.array(start), point if noises is None else no_data, lambda i: np.array(keep.get(i, 0.0)))
        return np.array([*inputs, end[0]])

    def no_data(x, row):
        inputs.append(x)
        return np.zeros(())

    np.testing.assert_allclose(response(plan.entry[0], None), alpha, atol=1e-13)
    drawn = [i for i in (plan.start_noise, *(row.noise for row in plan.rows)) if i is not None]
    parts = [response(plan.entry[1], {}), *(response(0.0, {i: 1.0}) for i in drawn)]
    np.testing.assert_allclose(np.sqrt(np.sum(np.square(parts), axis=0)), sigma, atol=1e-13)


@pytest.mark.parametrize("part", ["A", "B", "s", "init"])
def test_a_coefficient_that_is_off_by_1e_11_is_seen(part):
    plan = fs.compile("sde-dpmpp-2m", schedule=SCHEDULES["edm"], times=[10.0, 5.0, 2.0, 1.0])
    check_marginals(plan)
    array = getattr(plan, part).copy()
    array[tuple(np.argwhere(array)[0])] += 1e-11
    broken = replace(plan, **{part: array})
    assert np.max(marginal_error(broken)) > 1.5e-12
    with pytest.raises(fs.InvalidInput, match=r"sde-dpmpp-2m over 3 steps of grid 'times'.*allowed is 1e-12"):
        check_marginals(broken)


def test_the_error_names_the_first_of_the_worst_rows_or_the_result():
    plan = fs.compile("ddim", schedule=SCHEDULES["edm"], times=[10.0, 5.0, 2.0, 1.0])
    B = plan.B.copy()
    B[1, 0, 0] += 1e-3
    with pytest.raises(fs.InvalidInput, match=r"at step 3 is off by 0\.00045"):
        check_marginals(replace(plan, B=B))
    B = plan.B.copy()
    B[2, 0, 0] += 1e-3
    with pytest.raises(fs.InvalidInput, match=r"at the result is off by 0\.00071"):
        check_marginals(replace(plan, B=B))


def test_errors_are_absolute_at_small_sigma_and_relative_at_large():
    plan = fs.compile("ddim", schedule=SCHEDULES["edm"], times=[80.0, 0.5, 0.0])
    error = marginal_error(replace(plan, init=plan.init * (1 + 1e-6)))
    np.testing.assert_allclose(error[0], 1e-6, rtol=1e-3)
    off = plan.rows[1]._replace(sigma=0.5 + 1e-6)
    np.testing.assert_allclose(
        marginal_error(replace(plan, rows=(plan.rows[0], off)))[1], 1e-6 / np.hypot(1, 0.5), rtol=1e-3
    )


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("lcm", {}),
        ("ddpm", {"variance": "fixed_large"}),
        ("euler-a", {"s_noise": 1.1}),
        ("consistency", {"sigma_min": 0.1}),
    ],
)
def test_what_departs_by_intent_says_why_and_by_how_much(name, options):
    plan = fs.compile(name, schedule=SCHEDULES["linear"], steps=4, **options)
    assert plan.note
    worst = float(np.max(marginal_error(plan)))
    assert worst < plan.tolerance < worst * 1.001 + 1e-11
    with pytest.raises(fs.InvalidInput, match="is off by"):
        check_marginals(replace(plan, tolerance=worst / 2))


def test_a_table_that_gives_nan_does_not_pass():
    plan = fs.compile("ddim", schedule=SCHEDULES["edm"], times=[10.0, 5.0, 0.0])
    with np.errstate(over="ignore", invalid="ignore"):
        A = plan.A * 1e200
        with pytest.raises(fs.InvalidInput, match="is off by"):
            check_marginals(replace(plan, A=A))


def test_coefficients_that_float32_cannot_hold_are_refused():
    schedule = fs.schedules.from_alphas_cumprod([0.9, 1e-90, 1e-300])
    with pytest.raises(
        fs.InvalidInput, match=r"has coefficients of up to 1e\+150, .*: the noise schedule has impossible levels"
    ):
        fs.compile("belm", schedule=schedule, steps=2)
