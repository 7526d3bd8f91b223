"""What networks know of their rows: a second time that they are told, and several estimates of the data in one call."""

import math

import numpy as np
import pytest
import torch

import fewstep as fs
from fewstep import InvalidInput
from fewstep.denoise.base import Level
from fewstep.denoise.row import RowFacts, Way, is_direct
from fewstep.run.eager import run_rows
from proof.problems import SCHEDULES

SCHEDULE = SCHEDULES["scaled_linear"]
FLOW = SCHEDULES["flow"]
VARIANCE = 0.3
WAYS = [(0.9, 0.5), (1.0, 0.2), (0.5, 0.0), (0.31, 0.3)]


def numeric(begin, end, count, first, last, parts=200_000):
    """The mean of each hat function over 1 / u, by the rule of the middle."""
    inverse = np.linspace(1 / first, 1 / last, parts + 1)
    u = 2 / (inverse[1:] + inverse[:-1])
    return Way(np.full(parts, begin), np.full(parts, end), count).at(u).mean(0)


@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize(("begin", "end"), WAYS)
def test_weights_are_the_means_over_the_way(begin, end, count):
    way = Way(begin, end, count)
    (weights,) = way.weights
    assert weights.sum() == pytest.approx(1, abs=1e-9)
    assert (weights >= -1e-12).all()
    if end:
        np.testing.assert_allclose(weights, numeric(begin, end, count, begin, end), atol=1e-7)
    inner = begin - 0.2 * (begin - end), begin - 0.7 * (begin - end)
    np.testing.assert_allclose(way.between(*inner)[0], numeric(begin, end, count, *inner), atol=1e-7)


def test_a_way_that_ends_clean_ends_at_the_last_estimate_and_one_without_length_at_the_first():
    way = Way([0.5, 0.7], [0.0, 0.7], 3)
    assert way.weights.tolist() == [[0, 0, 1], [1, 0, 0]]
    near = Way(0.5, 1e-5, 3).weights[0]
    np.testing.assert_allclose(near, [0, 0, 1], atol=1e-3)


def test_a_part_of_a_way_that_is_nothing_is_a_place_on_it():
    way = Way([0.5, 0.5], [0.3, 0.3], 3)
    np.testing.assert_allclose(way.at([0.45, 0.35]), [[0.5, 0.5, 0], [0, 0.5, 0.5]], atol=1e-12)
    np.testing.assert_allclose(way.between([0.45, 0.35], [0.45, 0.35 - 1e-9]), way.at([0.45, 0.35]), atol=1e-6)


def guessing(schedule, count, prediction="sample"):
    """A network that gives some estimates of two channels, whatever the state."""
    values = torch.randn(count, 2, generator=torch.Generator().manual_seed(3), dtype=torch.float64)

    def network(x, t):
        return values.reshape(1, -1).expand(len(x), -1) + 0.1 * x.repeat(1, count)

    return fs.Network(network, schedule, prediction, rows=RowFacts(guesses=count))


@pytest.mark.parametrize("kind", ["scaled_linear", "flow", "edm"])
@pytest.mark.parametrize("prediction", ["sample", "v_prediction"])
def test_one_row_goes_where_many_inner_steps_of_the_estimates_on_the_way_go(kind, prediction):
    """The row by itself, and DDIM in 20,000 steps with what the guesses say at each: another computation altogether."""
    schedule, count, parts = SCHEDULES[kind], 4, 20_000
    begin, end = {"scaled_linear": (900.0, 200.0), "flow": (0.9, 0.3), "edm": (5.0, 0.4)}[kind]
    network = guessing(schedule, count, prediction)
    x = torch.tensor([[0.7, -1.2]], dtype=torch.float64)
    plan = fs.compile("ddim", schedule=schedule, times=[begin, end])
    found = fs.sample(plan, network, start=x)
    here, there = (Level.at([(t, float(schedule.alpha(t)), float(schedule.sigma(t)))], x) for t in (begin, end))
    guesses = network.guesses(x, here.towards(there))[0].numpy()
    k, r = (float(level.sigma / level.alpha) for level in (here, there))
    ks = np.geomspace(k, r, parts + 1)
    middle = np.sqrt(ks[1:] * ks[:-1])
    u = middle / (1 + middle)
    way = Way.of(here.host, there.host, count)
    data = Way(np.full(parts, way.begins[0]), np.full(parts, way.ends[0]), count).at(u) @ guesses
    state = x[0].numpy() / here.alpha
    for i in range(parts):
        state = data[i] + ks[i + 1] / ks[i] * (state - data[i])
    np.testing.assert_allclose(found[0].numpy() / float(schedule.alpha(end)), state, atol=1e-6)
    assert (
        abs(state - (guesses[0] + r / k * (x[0].numpy() / here.alpha - guesses[0]))).max() > 0.02
    )  # one is not enough


def test_without_a_plan_the_estimate_is_the_first():
    network, x = guessing(SCHEDULE, 3), torch.tensor([[0.7, -1.2]], dtype=torch.float64)
    level = Level.of(SCHEDULE, x, torch.tensor(500.0))
    torch.testing.assert_close(network(x, 500.0), network.guesses(x, level)[:, 0], rtol=0, atol=0)


class Told:
    """Keeps the times that it is told."""

    def __init__(self):
        self.seen = []

    def __call__(self, x, t, r):
        self.seen.append((t.tolist(), r.tolist(), r.dtype))
        return x * 0


def times_of(schedule, prediction, times, **options):
    told = Told()
    network = fs.Network(told, schedule, prediction, rows=RowFacts(second_time=True), **options)
    fs.sample(fs.compile("ddim", schedule=schedule, times=times), network, shape=(2, 1))
    return told.seen


def test_the_second_time_is_in_the_networks_own_scale():
    seen = times_of(SCHEDULE, "epsilon", [900.0, 500.0, -1.0])
    assert seen == [([900.0] * 2, [500.0] * 2, torch.float32), ([500.0] * 2, [-1.0] * 2, torch.float32)]
    seen = times_of(FLOW, "flow", [0.75, 0.25, 0.0], time_scale=1000.0)
    assert [(t[0], r[0]) for t, r, _ in seen] == [(750.0, 250.0), (250.0, 0.0)]
    edm = SCHEDULES["edm"]
    seen = times_of(edm, "edm", [8.0, 2.0, 0.0])
    wanted = [(math.log(8) / 4, math.log(2) / 4), (math.log(2) / 4, math.log(edm.t_min) / 4)]
    np.testing.assert_allclose([(t[0], r[0]) for t, r, _ in seen], wanted, rtol=1e-6)


def test_without_a_plan_the_second_time_is_the_first():
    told = Told()
    network = fs.Network(told, FLOW, "flow", time_scale=1000.0, rows=RowFacts(second_time=True))
    network(torch.ones(2, 1), torch.tensor([0.5, 0.25]))
    ((t, r, _),) = told.seen
    assert t == r == [500.0, 250.0]


def average(schedule=FLOW):
    """The exact average velocity of data N(0, VARIANCE) in one dimension."""

    def network(x, t, r):
        t, r = (each.reshape(-1, 1).to(x) for each in (t, r))
        share = ((VARIANCE * (1 - r) ** 2 + r**2) / (VARIANCE * (1 - t) ** 2 + t**2)).sqrt()
        return x * torch.where(t > r, (1 - share) / (t - r).clamp(min=1e-9), torch.zeros_like(share))

    return fs.Network(network, schedule, "flow", rows=RowFacts(second_time=True))


@pytest.mark.parametrize("sampler", ["ddim", "euler"])
@pytest.mark.parametrize("rows", [1, 2, 4, 8])
def test_an_average_velocity_is_drawn_exactly_in_any_number_of_rows(sampler, rows):
    z = torch.linspace(-2, 2, 5, dtype=torch.float64)[:, None]
    found = fs.sample(fs.compile(sampler, schedule=FLOW, steps=rows), average(), noise=z)
    torch.testing.assert_close(found, z * VARIANCE**0.5, rtol=0, atol=1e-9)


def test_it_is_in_every_driver_and_from_the_middle_of_a_grid():
    plan = fs.compile("ddim", schedule=FLOW, times=[0.6, 0.2, 0.0])
    x = torch.linspace(-1, 1, 3)[:, None]
    wanted = x * (VARIANCE / (VARIANCE * 0.4**2 + 0.6**2)) ** 0.5
    torch.testing.assert_close(fs.sample(plan, average(), start=x), wanted, rtol=0, atol=1e-6)
    graph = fs.Graph(plan, average(), x.shape, mode="eager")
    torch.testing.assert_close(graph(start=x), wanted, rtol=0, atol=1e-6)
    slots = fs.Slots(average(), (1,), 3)
    plans = [plan, fs.compile("ddim", schedule=FLOW, times=[0.6, 0.0]), fs.compile("euler", schedule=FLOW, steps=3)]
    starts = [x[0], x[1], torch.tensor([1.5])]
    tickets = [slots.admit(one, fs.Request(start=start)) for one, start in zip(plans, starts, strict=True)]
    done = {}
    while slots.tickets:
        done |= {one.ticket: one.sample for one in slots.step()}
    found = torch.stack([done[ticket] for ticket in tickets])[:, 0]
    torch.testing.assert_close(
        found, torch.tensor([wanted[0, 0], wanted[1, 0], 1.5 * VARIANCE**0.5]), rtol=0, atol=1e-5
    )


@pytest.mark.parametrize("pad", [True, False])
def test_guesses_of_images_with_different_plans_in_one_batch_are_those_of_each_alone(pad):
    network = guessing(SCHEDULE, 4)
    plans = [fs.compile("ddim", schedule=SCHEDULE, steps=steps) for steps in (1, 2, 3)]
    slots = fs.Slots(network, (2,), 3, pad=pad)
    tickets = [slots.admit(plan, fs.Request(seed=i)) for i, plan in enumerate(plans)]
    done = {}
    while slots.tickets:
        done |= {one.ticket: one.sample for one in slots.step()}
    for i, (ticket, plan) in enumerate(zip(tickets, plans, strict=True)):
        torch.testing.assert_close(done[ticket], fs.sample(plan, network, shape=(1, 2), seed=i)[0], rtol=0, atol=1e-5)


DIRECT = ["ddim", "euler", "dpmpp-1"]
OTHERS = ["heun", "dpmpp-2m", "unipc-3", "euler-a", "ddpm", "lcm", "rk4", "consistency"]


@pytest.mark.parametrize("name", [*DIRECT, *OTHERS])
def test_a_network_that_knows_its_rows_is_drawn_with_by_one_step_of_ddim_a_row(name):
    plan = fs.compile(name, schedule=FLOW, steps=5)
    assert is_direct(plan) == (name in DIRECT)
    if name in DIRECT:
        fs.sample(plan, average(), shape=(1, 1))
        return
    for denoiser in (average(), fs.Guided(average(), {}, None), fs.clip(average())):
        with pytest.raises(InvalidInput, match=f"is told where each row leads, and goes there in one step.*{name} has"):
            fs.sample(plan, denoiser, shape=(1, 1))
    with pytest.raises(InvalidInput, match="gives 4 guesses for a row"):
        fs.sample(fs.compile(name, schedule=SCHEDULE, steps=5), guessing(SCHEDULE, 4), shape=(1, 2))


def test_a_grid_that_goes_up_and_adaptive_steps_are_refused():
    up = fs.compile("ddim", schedule=FLOW, steps=3, reverse=True)
    with pytest.raises(InvalidInput, match="ddim on a grid that goes up has"):
        fs.sample(up, average(), start=torch.ones(1, 1))
    with pytest.raises(InvalidInput, match="which adaptive steps do not have"):
        fs.sample_adaptive(average(), shape=(1, 1))
    with pytest.raises(InvalidInput, match="which adaptive steps do not have"):
        fs.sample_adaptive(fs.Guided(average(), {}, None), shape=(1, 1))


def test_outputs_of_another_number_are_refused():
    network = fs.Network(lambda x, t: x, SCHEDULE, "sample", rows=RowFacts(guesses=3))
    with pytest.raises(InvalidInput, match=r"shape \(1, 2, 4\) for a state of .*; all 3 guesses have \(1, 6, 4\)"):
        network(torch.ones(1, 2, 4), 500.0)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"guesses": 0}, "guesses must be a whole number from 1 to 64, got 0"),
        ({"guesses": True}, "got True"),
        ({"second_time": 1}, "second_time is true or false, got 1"),
    ],
)
def test_facts_that_mean_nothing_are_refused(given, said):
    with pytest.raises(InvalidInput, match=said):
        RowFacts(**given)
    with pytest.raises(InvalidInput, match="looks its times up in a table"):
        fs.Network(lambda x, t, r: x, SCHEDULE, integer_time=True, rows=RowFacts(second_time=True))


def test_an_ordinary_network_knows_nothing():
    assert not RowFacts()
    network = fs.Network(lambda x, t: 0 * x, SCHEDULE, "sample")
    assert not network.needs_run
    (state,) = run_rows(fs.compile("heun", schedule=SCHEDULE, steps=2), network, [torch.ones(1, 2)], [0])
    assert state.tolist() == [[0.0, 0.0]]
