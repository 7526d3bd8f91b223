"""Every driver says where the row of an image leads: to the level of the next one, and last to the exit."""

from itertools import pairwise

import numpy as np
import pytest
import torch

import fewstep as fs
from fewstep.denoise.base import Denoiser, Level, as_denoiser
from fewstep.distillation.methods.regression import unrolled
from fewstep.pipeline.strength import Strength
from fewstep.training.levels import at_times
from fewstep.tuning.learning import estimate, points_at
from proof.problems import SCHEDULES

SCHEDULE = SCHEDULES["scaled_linear"]
SHAPE = (1, 4, 4)


class Told(fs.Network):
    """A network whose answer depends on where the row leads to, through all three numbers."""

    def output(self, x, level):
        assert level.ends is not None
        ends = x.new_tensor([0.1 * t / 1000 + alpha - 0.5 * sigma for t, alpha, sigma in level.ends])
        shift = self.condition["shift"].reshape(-1, 1, 1, 1) if "shift" in self.condition else 0.0
        return super().output(x, level) + ends.reshape(-1, 1, 1, 1) + shift


def told(schedule=SCHEDULE):
    def network(x, t, **condition):
        return 0.5 * x - 0.01 * x * x * x + t.reshape(-1, 1, 1, 1) / 1e4

    return Told(network, schedule, "v_prediction")


class Seen(Denoiser):
    """Keeps the ends that it is told."""

    def __init__(self):
        self.ends = []

    def output(self, x, level):
        self.ends.append(level.ends)
        return 0.5 * x


def plan_of(name, steps=5):
    return fs.compile(name, schedule=SCHEDULE, steps=steps, grid="karras")


def by_hand(plan, x):
    """What DDIM makes of a state, with the ends taken from its times alone."""
    denoiser, times = told(), np.array(plan.recipe.times)
    alpha, sigma = SCHEDULE.alpha(times), SCHEDULE.sigma(times)
    host = [tuple(map(float, row)) for row in zip(times, alpha, sigma, strict=True)]
    for i, (here, there) in enumerate(pairwise(host)):
        data = denoiser.estimate(x, Level.at([here], x, [i], [there]))[0]
        x = there[1] * data + there[2] / here[2] * (x - here[1] * data)
    return x


@pytest.mark.parametrize("name", ["ddim", "dpmpp-2m", "heun", "unipc-3", "euler-a"])
def test_a_row_ends_where_the_next_begins_and_the_last_at_the_exit(name):
    plan = plan_of(name)
    assert plan.ends[:-1] == tuple(row[:3] for row in plan.rows[1:])
    assert plan.ends[-1] == (SCHEDULE.t_clean, *plan.exit) == (-1.0, 1.0, 0.0)
    seen = Seen()
    fs.sample(plan, seen, shape=(2, *SHAPE))
    assert seen.ends == [(end,) for end in plan.ends]
    assert fs.Plan.from_json(plan.to_json()).ends == plan.ends


def test_the_exit_of_a_grid_that_stops_early_or_goes_up_is_its_last_time():
    stops = fs.compile("ddim", schedule=SCHEDULE, times=[900.0, 500.0, 20.0])
    up = fs.compile("ddim", schedule=SCHEDULE, times=[900.0, 500.0, 20.0], reverse=True)
    assert [end[0] for end in stops.ends] == [500.0, 20.0]
    assert [end[0] for end in up.ends] == [500.0, 900.0]
    assert stops.ends[-1][1:] == (float(SCHEDULE.alpha(20.0)), float(SCHEDULE.sigma(20.0)))


def test_the_eager_loop_tells_the_ends_that_the_times_give():
    plan = plan_of("ddim")
    x = torch.randn(3, *SHAPE, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(fs.sample(plan, told(), start=x), by_hand(plan, x), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["ddim", "dpmpp-2m", "heun"])
def test_slots_graph_and_unrolled_plans_agree_with_the_eager_loop(name):
    plan = plan_of(name)
    x = torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(1))
    expected = fs.sample(plan, told(), start=x)
    assert torch.equal(fs.Graph(plan, told(), x.shape, mode="eager")(start=x), expected)
    torch.testing.assert_close(unrolled(plan, told(), x), expected, rtol=0, atol=1e-5)
    slots = fs.Slots(told(), SHAPE, 2)
    tickets = [slots.admit(plan, fs.Request(start=one)) for one in x]
    done = {}
    while slots.tickets:
        done |= {one.ticket: one.sample for one in slots.step()}
    torch.testing.assert_close(torch.stack([done[one] for one in tickets]), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("pad", [False, True])
@pytest.mark.parametrize("around", [None, lambda denoiser: fs.clip(denoiser, -3.0, 3.0)])
def test_images_of_different_plans_in_one_batch_each_have_their_own_end(pad, around):
    plans = [plan_of("ddim", 3), plan_of("heun", 2), plan_of("dpmpp-2m", 6), plan_of("ddim", 1)]
    slots = fs.Slots(told(), SHAPE, 3, pad=pad)
    waiting, wanted, done = list(enumerate(plans)), {}, {}
    while waiting or slots.tickets:
        while waiting and slots.free:
            seed, plan = waiting.pop(0)
            wanted[slots.admit(plan, fs.Request(seed=seed, around=around))] = seed, plan
        done |= {one.ticket: one.sample for one in slots.step()}
    for ticket, (seed, plan) in wanted.items():
        alone = fs.sample(plan, told() if around is None else around(told()), shape=(1, *SHAPE), seed=seed)[0]
        torch.testing.assert_close(done[ticket], alone, rtol=0, atol=1e-4)


def test_guidance_passes_the_ends_to_both_branches():
    plan, x = plan_of("ddim", 3), torch.ones(2, *SHAPE, dtype=torch.float64)
    one, other = ({"shift": torch.full((1,), value, dtype=torch.float64)} for value in (0.2, -0.1))
    scales = [1.0, 3.0]  # the first image needs one branch, the second both
    guided = fs.sample(plan, fs.Guided(told(), one, other, scales), start=x)
    for i, scale in enumerate(scales):
        shift = {"shift": torch.full((1,), -0.1 + scale * 0.3, dtype=torch.float64)}  # what guidance makes of both
        alone = fs.sample(plan, told().given(shift), start=x[:1])
        torch.testing.assert_close(guided[i : i + 1], alone, rtol=0, atol=1e-12)


def test_a_plan_that_begins_late_tells_the_ends_of_its_own_rows():
    whole = fs.Sampling("ddim", steps=8, grid="trailing")
    late = Strength(0.5, given=True).plan(SCHEDULE, whole)
    seen = Seen()
    fs.sample(late, seen, shape=(1, *SHAPE))
    assert [end for (end,) in seen.ends] == list(whole.compile(SCHEDULE).ends[4:])


def test_images_that_are_taken_keep_their_ends_and_a_call_with_a_time_has_none():
    x, edm = torch.ones(3, 1), SCHEDULES["edm"]
    here, there = at_times(edm, [3.0, 2.0, 1.0], x), at_times(edm, [2.0, 1.0, 0.0], x)
    assert here.ends is None
    row = here.towards(there)
    assert row.ends == [(2.0, 1.0, 2.0), (1.0, 1.0, 1.0), (0.0, 1.0, 0.0)]
    assert row.take([2, 0, 2]).ends == [row.ends[2], row.ends[0], row.ends[2]]
    single = Level.at([(3.0, 1.0, 3.0)], x, [0], [(0.0, 1.0, 0.0)])
    assert single.take([1, 1]).ends == [(0.0, 1.0, 0.0)]
    seen = Seen()
    seen.schedule = edm
    seen(x, 2.0)
    assert seen.ends == [None]


def test_on_another_schedule_the_ends_are_those_of_the_network():
    edm, seen = SCHEDULES["edm"], Seen()
    seen.schedule = SCHEDULE
    plan = fs.compile("ddim", schedule=edm, times=[10.0, 2.0, 0.5, 0.0])
    fs.sample(plan, fs.OnSchedule(seen, edm), shape=(1, *SHAPE))
    own = [end for (end,) in seen.ends]
    assert own[-1] == (SCHEDULE.t_clean, 1.0, 0.0)
    for (t, alpha, sigma), ratio in zip(own[:-1], (2.0, 0.5), strict=True):
        assert (alpha, sigma) == (float(SCHEDULE.alpha(t)), float(SCHEDULE.sigma(t)))
        assert sigma / alpha == pytest.approx(ratio, rel=1e-9)


def test_on_another_schedule_a_plan_may_end_where_the_network_has_no_time():
    flow, seen = SCHEDULES["flow"], Seen()
    seen.schedule = SCHEDULE
    up = fs.compile("ddim", schedule=flow, times=[1.0, 0.5, 0.1], reverse=True)
    fs.sample(up, fs.OnSchedule(seen, flow), start=torch.ones(1, *SHAPE))
    assert [end[0] for (end,) in seen.ends] == [pytest.approx(float(SCHEDULE.time_of_lambda(0.0))), SCHEDULE.t_max]


def test_a_plan_that_is_learned_tells_its_ends_too():
    seen, times = Seen(), np.array([900.0, 400.0])
    way = points_at(SCHEDULE, times)
    estimate(seen, torch.ones(2, *SHAPE), (way[0], way[1]), 0)
    assert seen.ends == [[(400.0, float(SCHEDULE.alpha(400.0)), float(SCHEDULE.sigma(400.0)))]]


def test_a_plain_callable_is_told_nothing_new():
    plan = plan_of("ddim", 2)
    assert fs.sample(plan, as_denoiser(lambda x, t: 0 * x), shape=(1, *SHAPE)).abs().max() == 0
