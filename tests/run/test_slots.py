"""Slots: images of different plans in one batch, each as if it were alone."""

import math

import pytest
import torch

import fewstep as fs
from proof.problems import SCHEDULES

SCHEDULE = SCHEDULES["scaled_linear"]
SHAPE = (2, 3, 5)
SINGLES = list(fs.SAMPLERS)


def network(x, t):
    return 0.5 * x - 0.01 * x * x * x


def labelled(x, t, label):
    return 0.5 * x + 0.1 * label.reshape(-1, 1, 1, 1) * (1 + t.reshape(-1, 1, 1, 1) / 1000)


def plan_of(name, steps=5, **options):
    return fs.compile(name, schedule=SCHEDULE, steps=steps, grid="karras", **options)


def denoiser(prediction="v_prediction"):
    return fs.Network(network, SCHEDULE, prediction)


def drain(slots, wanted=None):
    """Step until all images, or the `wanted` tickets, are finished; ticket -> Finished."""
    done = {}
    while slots.tickets and (wanted is None or not wanted <= done.keys()):
        done |= {f.ticket: f for f in slots.step()}
    return done


def alone(plan, seed, what=None):
    return fs.sample(plan, what or denoiser(), shape=(1, *SHAPE), seed=[seed])[0]


def test_every_sampler_gives_the_same_image_in_a_mixed_batch():
    plans = [plan_of(name, 3 + i % 4) for i, name in enumerate(SINGLES)]
    slots = fs.Slots(denoiser(), SHAPE, capacity=5, registers=max(p.registers for p in plans))
    waiting, seed_of, done = list(enumerate(plans)), {}, {}
    while waiting or slots.tickets:
        while waiting and slots.free:
            seed, plan = waiting.pop()
            seed_of[slots.admit(plan, fs.Request(seed=seed))] = seed
        done |= {f.ticket: f for f in slots.step()}
    assert len(done) == len(plans)
    for ticket, finished in done.items():
        plan = plans[seed_of[ticket]]
        expected = alone(plan, seed_of[ticket])
        assert finished.finite
        scale = max(1.0, float(expected.abs().max()))
        torch.testing.assert_close(finished.sample, expected, rtol=0, atol=1e-5 * scale, msg=plan.recipe.sampler)


@pytest.mark.parametrize("projected", [False, True])
@pytest.mark.parametrize("name", ["ddim", "dpmpp-2m", "unipc-3", "heun", "sde-dpmpp-2m", "tcd"])
def test_an_image_is_bitwise_the_same_whoever_shares_its_batch(name, projected):
    what = fs.clip(denoiser()) if projected else denoiser()

    def run(before, after, late):
        slots = fs.Slots(what, SHAPE, capacity=4, registers=5)
        for i, other in enumerate(before):
            slots.admit(plan_of(other), fs.Request(seed=100 + i))
        if late:
            slots.step()
        mine = slots.admit(plan_of(name), fs.Request(seed=7))
        for i, other in enumerate(after):
            slots.admit(plan_of(other, 9), fs.Request(seed=200 + i))
        return drain(slots, {mine})[mine].sample

    first = run([], [], late=False)
    assert torch.equal(first, run(["euler-a", "unipc-4"], [], late=False))
    assert torch.equal(first, run(["rk4"], ["lms-4", "consistency"], late=True))
    torch.testing.assert_close(first, alone(plan_of(name), 7, what), rtol=0, atol=1e-5)


def test_nan_in_one_slot_changes_no_neighbour_and_nobody_who_comes_after():
    def poisoned(x, t):
        return torch.where((x > 40).any(dim=(1, 2, 3), keepdim=True), torch.nan, network(x, t))

    slots = fs.Slots(fs.Network(poisoned, SCHEDULE, "v_prediction"), SHAPE, capacity=3, registers=4)
    good = slots.admit(plan_of("unipc-3", 6), fs.Request(seed=1))
    bad = slots.admit(plan_of("dpmpp-2m", 4), fs.Request(start=torch.full(SHAPE, 50.0)))
    done = drain(slots, {bad})
    assert not done[bad].finite
    assert torch.isnan(done[bad].sample).any()
    after = slots.admit(plan_of("dpmpp-3m", 4), fs.Request(seed=2))
    done |= drain(slots)

    def clean(plan, seed):
        other = fs.Slots(denoiser(), SHAPE, capacity=3, registers=4)
        ticket = other.admit(plan, fs.Request(seed=seed))
        return drain(other)[ticket].sample

    assert torch.equal(done[good].sample, clean(plan_of("unipc-3", 6), 1))
    assert torch.equal(done[after].sample, clean(plan_of("dpmpp-3m", 4), 2))


def test_an_empty_slot_never_shows_the_network_anything_that_is_not_finite():
    seen = []

    def watching(x, t):
        seen.append(bool(torch.isfinite(x).all()) and bool(torch.isfinite(t).all()))
        out = network(x, t)
        out[0] = torch.nan if len(seen) == 1 else out[0]
        return out

    slots = fs.Slots(watching, SHAPE, capacity=2, registers=2)
    slots.admit(plan_of("ddim", 1), fs.Request(seed=1))
    slots.admit(plan_of("ddim", 3), fs.Request(seed=2))
    assert [f.finite for f in slots.step()] == [False]
    drain(slots)
    assert seen == [True] * 3


@pytest.mark.parametrize("pad", [True, False])
def test_the_network_is_called_on_all_places_or_on_the_taken_ones(pad):
    sizes = []

    def counting(x, t):
        sizes.append((x.shape[0], t.shape[0]))
        return network(x, t)

    slots = fs.Slots(counting, SHAPE, capacity=4, pad=pad)
    tickets = [slots.admit(plan_of("ddim", n), fs.Request(seed=n)) for n in (1, 3)]
    done = drain(slots)
    assert sizes == ([(4, 4)] * 3 if pad else [(2, 2), (1, 1), (1, 1)])
    for ticket, n in zip(tickets, (1, 3), strict=True):
        expected = fs.sample(plan_of("ddim", n), network, shape=(1, *SHAPE), seed=[n])[0]
        torch.testing.assert_close(done[ticket].sample, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("pad", [True, False])
def test_each_image_has_its_own_condition_and_scale(pad):
    calls = []

    def counting(x, t, label):
        calls.append(x.shape[0])
        return labelled(x, t, label)

    inner = fs.Network(counting, SCHEDULE, "v_prediction")
    slots = fs.Slots(inner, SHAPE, capacity=3, pad=pad, registers=3)
    cases = [(1.0, 1.0), (3.0, 4.0), (5.0, 0.5)]
    tickets = [
        slots.admit(
            plan_of("dpmpp-2m", 4),
            fs.Request(
                seed=i,
                condition={"label": torch.tensor(label)},
                negative={"label": torch.tensor(-1.0)},
                scale=w,
            ),
        )
        for i, (label, w) in enumerate(cases)
    ]
    done = drain(slots)
    assert calls == [3, 3 if pad else 2] * 4  # two of three images are doubled
    assert [done[ticket].nfe for ticket in tickets] == [4, 8, 8]
    for i, (label, w) in enumerate(cases):
        guided = fs.Guided(
            fs.Network(labelled, SCHEDULE, "v_prediction"),
            {"label": torch.tensor([label])},
            {"label": torch.tensor([-1.0])},
            w,
        )
        torch.testing.assert_close(done[tickets[i]].sample, alone(plan_of("dpmpp-2m", 4), i, guided), rtol=0, atol=1e-5)


def test_guidance_acts_in_its_interval_image_by_image():
    calls = []

    def counting(x, t, label):
        calls.append(x.shape[0])
        return labelled(x, t, label)

    slots = fs.Slots(fs.Network(counting, SCHEDULE, "v_prediction"), SHAPE, capacity=2)
    label, empty = ({"label": torch.tensor(v)} for v in (1.0, 0.0))
    plan, asked = plan_of("ddim", 6), {"condition": label, "negative": empty, "scale": 3.0}
    intervals = (0.5, math.inf), (0.0, 0.5)
    tickets = [slots.admit(plan, fs.Request(interval=interval, **asked)) for interval in intervals]
    done = drain(slots)
    noisy = sum(row.sigma / row.alpha > 0.5 for row in plan.rows)
    assert 0 < noisy < 6
    assert [done[ticket].nfe for ticket in tickets] == [6 + noisy, 6 + 6 - noisy]
    assert calls == [2, 2] * 6


def test_an_image_may_start_from_noise_or_a_state_of_its_own():
    z = torch.randn(SHAPE, generator=torch.Generator().manual_seed(3))
    plan = plan_of("heun", 3)
    slots = fs.Slots(denoiser(), SHAPE, capacity=2)
    kept = z.clone()
    a, b = slots.admit(plan, fs.Request(noise=z)), slots.admit(plan, fs.Request(start=plan.entry[1] * z))
    done = drain(slots)
    assert torch.equal(z, kept)
    assert torch.equal(done[a].sample, done[b].sample)
    torch.testing.assert_close(done[a].sample, fs.sample(plan, denoiser(), noise=z[None])[0], rtol=0, atol=1e-5)


def test_slots_in_float64_are_the_table_to_rounding():
    plan = plan_of("sde-dpmpp-3m", 6)
    slots = fs.Slots(denoiser(), SHAPE, capacity=2, registers=plan.registers, dtype=torch.float64)
    z = torch.randn(SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    ticket = slots.admit(plan, fs.Request(noise=z, seed=5))
    got = drain(slots)[ticket].sample
    assert got.dtype == torch.float64
    torch.testing.assert_close(got, fs.sample(plan, denoiser(), noise=z[None], seed=[5])[0], rtol=0, atol=1e-12)


def test_a_finished_sample_is_not_overwritten_by_who_comes_next():
    slots = fs.Slots(denoiser(), SHAPE, capacity=1)
    first = slots.admit(plan_of("ddim", 2), fs.Request(seed=1))
    sample = drain(slots)[first].sample
    kept = sample.clone()
    slots.admit(plan_of("ddim", 2), fs.Request(seed=2))
    drain(slots)
    assert torch.equal(sample, kept)


def test_a_cancelled_image_frees_its_slot():
    slots = fs.Slots(denoiser(), SHAPE, capacity=1)
    ticket = slots.admit(plan_of("ddim", 5))
    assert (slots.free, slots.tickets) == (0, [ticket])
    slots.step()
    slots.cancel(ticket)
    assert (slots.free, slots.tickets) == (1, [])
    assert slots.step() == []
    with pytest.raises(fs.InvalidInput, match=f"no image with ticket {ticket}"):
        slots.cancel(ticket)
    again = slots.admit(plan_of("ddim", 5), fs.Request(seed=3))
    torch.testing.assert_close(drain(slots)[again].sample, alone(plan_of("ddim", 5), 3), rtol=0, atol=1e-5)


def test_what_does_not_fit_is_refused_and_takes_no_slot():
    slots = fs.Slots(denoiser(), SHAPE, capacity=1, registers=2)
    pair = fs.compile("belm", schedule=SCHEDULE, times=[500.0, 300.0, 100.0], start="pair")
    label = {"label": torch.ones(())}
    refused = [
        (plan_of("unipc-4"), {}, r"needs \d registers and 1"),
        (pair, {}, "2 starting states"),
        (fs.compile("ddim", schedule=SCHEDULES["edm"], steps=3), {}, "another|was compiled for the noise schedule"),
        (plan_of("ddim"), {"start": torch.ones(2, 3)}, "hold states of shape"),
        (plan_of("ddim"), {"noise": torch.ones(SHAPE), "start": torch.ones(SHAPE)}, "exactly one"),
        (plan_of("ddim"), {"seed": 1.5}, "seed"),
    ]
    for plan, given, message in refused:
        with pytest.raises(fs.InvalidInput, match=message):
            slots.admit(plan, fs.Request(**given))
        assert slots.free == 1
    slots.admit(plan_of("ddim"))
    with pytest.raises(fs.InvalidInput, match="all 1 slots are taken"):
        slots.admit(plan_of("ddim"))
    with pytest.raises(fs.InvalidInput, match=r"need a fewstep\.Network"):
        fs.Slots(network, SHAPE, capacity=1).admit(plan_of("ddim"), fs.Request(condition=label))
    for wrong in ({"capacity": 0}, {"capacity": 1, "registers": 0}):
        with pytest.raises(fs.InvalidInput, match="at least 1"):
            fs.Slots(network, SHAPE, **wrong)
    with pytest.raises(fs.InvalidInput, match="at least 1"):
        fs.Slots(network, (), 1)


def test_conditions_that_differ_in_kind_are_refused():
    slots = fs.Slots(fs.Network(labelled, SCHEDULE, "v_prediction"), SHAPE, capacity=3)
    label = {"label": torch.ones(())}
    slots.admit(plan_of("ddim"), fs.Request(condition=label))
    with pytest.raises(fs.InvalidInput, match=r"need the conditions .*'label'"):
        slots.admit(plan_of("ddim"), fs.Request(condition={"text": torch.ones(())}))
    with pytest.raises(fs.InvalidInput, match=r"need the conditions .*'label'"):
        slots.admit(plan_of("ddim"))
    with pytest.raises(fs.InvalidInput, match=r"with these names and shapes, got .*'label': \[2\]"):
        slots.admit(plan_of("ddim"), fs.Request(condition={"label": torch.ones(2)}))
    assert slots.free == 2


def maybe_labelled(x, t, label=None):
    """A network whose answer depends on a label, or on none."""
    shift = torch.zeros(x.shape[0]) if label is None else 1.0 + label.expand(x.shape[0]).to(x.dtype)
    return torch.tanh(x + shift.reshape(-1, *[1] * (x.ndim - 1)))


def test_an_image_with_a_condition_does_not_join_or_change_one_without():
    network = fs.Network(maybe_labelled, fs.schedules.linear(), "v_prediction")
    plan = fs.compile("ddim", schedule=network.schedule, steps=4)
    alone = fs.sample(plan, network, shape=(1, 3), seed=1)[0]
    slots = fs.Slots(network, (3,), 2)
    first = slots.admit(plan, fs.Request(seed=1))
    with pytest.raises(fs.InvalidInput, match="condition"):
        slots.admit(plan, fs.Request(seed=2, condition={"label": torch.tensor(3)}))
    finished = {}
    while slots.tickets:
        finished |= {f.ticket: f.sample for f in slots.step()}
    torch.testing.assert_close(finished[first], alone, rtol=0, atol=1e-5)


@pytest.mark.parametrize("guidance", [float("nan"), float("inf"), "2", None])
def test_a_guidance_that_is_no_number_is_refused_at_the_door(guidance):
    network = fs.Network(maybe_labelled, fs.schedules.linear(), "v_prediction")
    slots = fs.Slots(network, (3,), 2)
    plan = fs.compile("ddim", schedule=network.schedule, steps=2)
    label = {"label": torch.tensor(1)}
    with pytest.raises(fs.InvalidInput, match="a guidance scale is a finite number"):
        slots.admit(plan, fs.Request(condition=label, negative=label, scale=guidance))
    with pytest.raises(fs.InvalidInput, match="needs a negative condition"):
        slots.admit(plan, fs.Request(condition=label, scale=2.0))
    slots.admit(plan, fs.Request(condition=label))
    assert sum(len(slots.step()) for _ in range(2)) == 1
