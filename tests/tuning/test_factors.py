"""Guidance by row in tuned plans: what it means, what is learned, and that whoever runs such a plan follows it."""

from dataclasses import replace

import pytest
import torch

import fewstep as fs
from fewstep.denoise.scale import GuidanceSchedule
from fewstep.measure.distance import overall
from fewstep.tuning import Problem, Sizes, Solutions, TuningSettings, tune
from fewstep.tuning.learning import Pace, Parameters, Start, first_outputs, gram_of, learn, opening
from fewstep.tuning.table import plan_of, table_of

from .conditional import FLOW, guided, network, problem

GIVEN = [0.5, 1.25, 1.0]
NOISE = torch.randn(4, 6, generator=torch.Generator().manual_seed(1))


def plan_with(factors=GIVEN, steps=3):
    table = table_of(fs.compile("unipc-2", schedule=FLOW, steps=steps))
    return plan_of(table, FLOW, factors=factors)


def test_factors_are_relative_to_the_scale_and_go_with_the_file(tmp_path):
    plan_with().save(tmp_path / "plan.json")
    plan = fs.Plan.load(tmp_path / "plan.json")
    assert plan.guidance_factors == (0.5, 1.25, 1.0)
    assert GuidanceSchedule.following(3.0, plan).values == [2.0, 3.5, 3.0]
    assert GuidanceSchedule.following(5.0, plan).values == [3.0, 6.0, 5.0]
    rising = GuidanceSchedule.rows([1.0, 2.0, 3.0])
    assert GuidanceSchedule.following(rising, plan).values == [1.0, 2.25, 3.0]


def test_without_factors_or_guidance_a_scale_stays_as_it_is():
    assert GuidanceSchedule.following(1.0, plan_with()) == 1.0
    assert GuidanceSchedule.following(3.0, plan_with(None)) == 3.0
    assert GuidanceSchedule.following(3.0, None) == 3.0


@pytest.mark.parametrize("bad", [[1.0, 2.0], "abc", [1.0, 2.0, float("inf")], [1.0, True, 1.0], 1.0])
def test_factors_that_do_not_fit_the_rows_are_refused(bad):
    with pytest.raises(fs.InvalidInput, match="guidance_factors of a plan of 3 rows are 3 finite numbers"):
        replace(plan_with(), guidance_factors=bad)


def test_a_denoiser_that_follows_guides_each_row_by_its_own_weight():
    plan = plan_with()
    by_row = fs.sample(plan, guided(GuidanceSchedule.rows([2.0, 3.5, 3.0])), noise=NOISE)
    assert torch.equal(fs.sample(plan, guided(3.0).following(plan), noise=NOISE), by_row)
    assert not torch.allclose(fs.sample(plan_with(None), guided(3.0), noise=NOISE), by_row, atol=1e-3)


def test_a_plan_that_guides_by_row_is_not_run_as_if_it_did_not():
    with pytest.raises(fs.InvalidInput, match=r"GuidanceSchedule.following\(scale, plan\)"):
        fs.sample(plan_with(), guided(3.0), noise=NOISE)
    alone = fs.sample(plan_with(), guided(1.0), noise=NOISE)
    assert torch.equal(alone, fs.sample(plan_with(None), guided(1.0), noise=NOISE))


def test_slots_follow_it_beside_another_plan():
    slots = fs.Slots(fs.Network(network, FLOW, "sample"), (6,), capacity=2, registers=4)
    given = {"condition": {"few": torch.tensor(1.0)}, "negative": {"few": torch.tensor(0.0)}, "scale": 3.0}
    ours = slots.admit(plan_with(), fs.Request(noise=NOISE[0], **given))
    other = slots.admit(plan_with(None), fs.Request(noise=NOISE[1], **given))
    done = {}
    while slots.tickets:
        done |= {one.ticket: one.sample for one in slots.step()}
    expected = fs.sample(plan_with(), guided(3.0).following(plan_with()), noise=NOISE[:1])[0]
    torch.testing.assert_close(done[ours], expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(
        done[other], fs.sample(plan_with(None), guided(3.0), noise=NOISE[1:2])[0], rtol=1e-5, atol=1e-5
    )


def test_a_run_with_factors_is_what_the_plan_makes_and_its_gradient_is_that_of_small_differences():
    given = problem()
    table = table_of(fs.compile("unipc-2", schedule=FLOW, steps=3))
    outputs = first_outputs(given, table, range(8))
    parameters = Parameters(table, FLOW, gram_of(outputs), factors=[1.0] * 3)
    with torch.no_grad():
        parameters.factors += torch.tensor([-0.5, 0.25, 0.1])
    start, slope = given.noise(range(8)), outputs[0] - opening(given, table, range(8), guided=False)
    result = parameters.run(given.begun(range(8)), start, outputs[0], False, slope)
    plan = parameters.plan()
    torch.testing.assert_close(result.detach(), given.solve(plan, range(8)), rtol=1e-4, atol=1e-5)
    gradient = torch.autograd.grad(result.double().square().sum(), parameters.factors)[0]
    for row in range(3):
        ends = []
        for sign in (1, -1):
            with torch.no_grad():
                parameters.factors[row] += sign * 1e-3
                made = parameters.run(given.begun(range(8)), start, outputs[0], False, slope)
                ends.append(float(made.double().square().sum()))
                parameters.factors[row] -= sign * 1e-3
        assert float(gradient[row]) == pytest.approx((ends[0] - ends[1]) / 2e-3, rel=2e-2, abs=2e-3)


def test_learned_factors_take_error_away_that_times_and_weights_cannot():
    given = problem()
    teacher = fs.compile("unipc-3", schedule=FLOW, steps=48)
    train, validation, held_out = (Solutions(r, given.solve(teacher, r)) for r in (
        range(256), range(10_000, 10_128), range(20_000, 20_512)
    ))  # fmt: skip
    table = table_of(fs.compile("dpmpp-2m", schedule=FLOW, steps=3))
    errors = [
        overall(
            given.errors(
                learn(given, Start(table, by_row), train, validation, Pace(100, batch=64)).plan,
                held_out,
            )
        )
        for by_row in (None, (1.0,) * 3)
    ]
    assert errors[1] < errors[0] / 1.1


def test_tuning_learns_factors_under_guidance_alone_and_not_where_it_shall_be_constant():
    default = fs.compile("ddim", schedule=FLOW, steps=4)
    more = {"samplers": ["ddim"], "sizes": Sizes.of(128), "iterations": 25, "seconds": 10_000.0}
    found = tune(problem(1.5), rows=4, default=default, settings=TuningSettings(**more))
    assert len(found.plan.guidance_factors) == 4
    assert found.certificate.factors == found.plan.guidance_factors
    constant = tune(problem(1.5), rows=4, default=default, settings=TuningSettings(**more, factors=False))
    assert constant.certificate.kind == "learned"
    assert constant.plan.guidance_factors is None
    assert constant.certificate.factors is None
    assert not problem(1.0).guided
    assert not Problem.of(guided(3.0, interval=(0.1, 2.0)), (6,)).guided
    assert not Problem.of(guided(3.0, method=fs.CFG(0.5)), (6,)).guided
