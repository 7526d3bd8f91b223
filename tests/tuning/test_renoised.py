"""Plans as times, weights and shares of fresh noise: those of known samplers, and that any of them is a plan."""

from typing import Any

import numpy as np
import pytest

import fewstep as fs
from fewstep.core.check import marginal_error
from fewstep.measure.impulse import impulse
from fewstep.tuning.family import PARTS, Family, turned
from fewstep.tuning.renoised import Renoised, drawn_alike, plan_of, renoised_of

SCHEDULES = [fs.schedules.linear(), fs.schedules.edm(), fs.schedules.flow()]


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda one: one.kind)
@pytest.mark.parametrize(
    ("sampler", "options"),
    [
        ("ddim", {}),
        ("ddim", {"eta": 0.6}),
        ("consistency", {}),
        ("tcd", {"eta": 0.4}),
        ("dpmpp-2m", {}),
        ("deis-3", {}),
    ],
)
def test_a_known_sampler_read_and_written_again_is_the_same_table(schedule, sampler, options) -> None:
    plan = fs.compile(sampler, schedule=schedule, steps=4, **options)
    found = renoised_of(plan)
    assert found is not None
    again = plan_of(found, schedule)
    assert np.abs(impulse(plan).states - impulse(again).states).max() < 1e-12
    assert [row.noise for row in again.rows] == [row.noise for row in plan.rows]


def test_the_shares_of_fresh_noise_are_those_of_the_samplers_formulas() -> None:
    schedule = SCHEDULES[0]
    shares = {}
    each: list[tuple[str, dict[str, Any]]] = [
        ("ddim", {}), ("consistency", {}), ("ddim", {"eta": 0.6}), ("tcd", {"eta": 0.4}),
    ]  # fmt: skip
    for name, options in each:
        found = renoised_of(fs.compile(name, schedule=schedule, steps=3, **options))
        assert found is not None
        assert np.array_equal(found.weights, np.eye(3)), name
        shares[name, *options.values()] = found.fresh
    assert shares["ddim",].tolist() == [0, 0, 0]
    assert shares["consistency",].tolist() == [1, 1, 0]
    times = fs.compile("ddim", schedule=schedule, steps=3).recipe.times
    k = schedule.ratio(np.array(times))
    assert np.allclose(shares["ddim", 0.6][:2], 0.6 * np.sqrt(1 - (k[1:3] / k[:2]) ** 2), rtol=1e-9)  # DDIM, eq. 16
    aimed = np.floor(0.6 * np.array(times[1:3]) + 1e-9)  # TCD goes to (1 - eta) t, and by noise up again
    kept = schedule.alpha(np.array(times[1:3])) / schedule.alpha(aimed) * schedule.sigma(aimed)
    assert np.allclose(1 - shares["tcd", 0.4][:2] ** 2, (kept / schedule.sigma(np.array(times[1:3]))) ** 2, rtol=1e-9)


def test_the_boundary_scalings_of_lcm_are_left_out_and_are_next_to_nothing() -> None:
    plan = fs.compile("lcm", schedule=SCHEDULES[0], steps=4)
    found = renoised_of(plan)
    assert found is not None
    assert 0 < np.abs(impulse(plan).states - impulse(plan_of(found, SCHEDULES[0])).states).max() < 1e-6


@pytest.mark.parametrize("sampler", ["heun", "dpmpp-sde", "restart"])
def test_what_is_not_a_row_a_step_is_none_of_these(sampler: str) -> None:
    assert renoised_of(fs.compile(sampler, schedule=SCHEDULES[1], steps=4)) is None


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda one: one.kind)
def test_every_point_of_a_family_is_a_plan_with_the_schedules_marginals_that_reads_back(schedule) -> None:
    own = fs.compile("consistency", schedule=schedule, steps=4)
    found = renoised_of(own)
    assert found is not None
    family = Family(found, schedule, frozenset(PARTS))
    assert np.abs(impulse(family.plan(np.zeros(family.dimensions))).states - impulse(own).states).max() < 1e-9
    rng = np.random.default_rng(0)
    for _ in range(8):
        plan = family.plan(rng.standard_normal(family.dimensions))
        assert marginal_error(plan).max() < 1e-12
        assert fs.Plan.from_json(plan.to_json()) == plan
        assert any(row.noise for row in plan.rows)


def test_each_part_moves_what_it_names_alone() -> None:
    schedule = SCHEDULES[0]
    found = renoised_of(fs.compile("ddim", schedule=schedule, steps=4, eta=0.5))
    assert found is not None
    for name, moved in (("start", 0), ("gaps", 0), ("weights", 1), ("fresh", 2)):
        family = Family(found, schedule, frozenset({name}))
        other = family.numbers(np.full(family.dimensions, 0.5))
        assert [not np.allclose(a, b) for a, b in zip(found, other, strict=True)] == [i == moved for i in range(3)], (
            name
        )
        assert (other.times[0] == found.times[0]) == (name != "start")
        assert other.times[-1] == found.times[-1]
        assert np.allclose(other.weights.sum(1), 1)
    assert turned(np.array([-0.25, 0.5, 1.25, 2.5])).tolist() == [0.25, 0.5, 0.75, 0.5]
    family = Family(found, schedule, frozenset(PARTS))
    assert np.allclose(family.numbers(family.levels()[3]).fresh[:3], 0.75)


def test_plans_of_other_times_draw_the_same_noise_where_they_are_compared() -> None:
    schedule = SCHEDULES[0]
    plans = [fs.compile("consistency", schedule=schedule, times=[999, t, 100, -1]) for t in (600, 500)]
    assert plans[0].rows[0].noise != plans[1].rows[0].noise
    alike = [drawn_alike(plan) for plan in plans]
    assert [row.noise for row in alike[0].rows] == [row.noise for row in alike[1].rows]
    assert len({row.noise for row in alike[0].rows}) == 3


@pytest.mark.parametrize("times", [[999, 500, 500, -1], [999, 300, 600, -1]])
def test_times_that_do_not_fall_are_refused(times: list[float]) -> None:
    with pytest.raises(fs.InvalidInput, match="the times of a plan fall, got 999, "):
        plan_of(Renoised(np.array(times), np.eye(3), np.zeros(3)), SCHEDULES[0])
