"""CFG++: the paper's algorithm written out, and the samplers that cannot do it."""

import math

import pytest
import torch

import fewstep as fs
from fewstep.run.noise import key_of, unit_noise
from proof.conditional import EMPTY, LABELS, SHAPE, Counting, along, state
from proof.problems import SCHEDULES

SCHEDULE = SCHEDULES["linear"]


def cfgpp(scale, *, network=None, schedule=SCHEDULE, prediction="epsilon", labels=LABELS, **options):
    network = fs.Network(network or Counting(), schedule, prediction)
    return fs.Guided(network, {"label": labels}, {"label": EMPTY}, scale, method="cfg++", **options)


def eps_of(x, t, label):
    return Counting()(x, torch.full((3,), t, dtype=x.dtype), label)


def paper(plan, x, w, eta=0.0, seeds=()):
    """Algorithm 2 of the paper, in (alpha, sigma): guided noise for the data, unconditional noise to go on with."""
    points = [*((r.alpha, r.sigma) for r in plan.rows), plan.exit]
    for row, (a, s), (b, r) in zip(plan.rows, points, points[1:], strict=False):
        no, yes = eps_of(x, row.t, EMPTY), eps_of(x, row.t, LABELS)
        data = (x - s * (no + w * (yes - no))) / a
        v = eta * r * math.sqrt(max(0.0, 1 - (a * r / (b * s)) ** 2))
        x = b * data + math.sqrt(r**2 - v**2) * no
        if v:
            x = x + v * unit_noise(seeds, key_of(row.noise), x)
    return x


@pytest.mark.parametrize("scale", [0.6, 1.0, [0.2, 0.6, 1.0]])
def test_on_ddim_it_is_the_algorithm_of_the_paper(scale):
    plan = fs.compile("ddim", schedule=SCHEDULE, steps=7)
    got = fs.sample(plan, cfgpp(scale), noise=state())
    w = along(torch.tensor(scale, dtype=torch.float64))
    torch.testing.assert_close(got, paper(plan, plan.entry[1] * state(), w), rtol=0, atol=1e-10)


def test_on_ddim_with_noise_too():
    plan = fs.compile("ddim", schedule=SCHEDULE, steps=5, eta=0.7)
    got = fs.sample(plan, cfgpp(0.6), noise=state(), seed=[3, 8, 1])
    expected = paper(plan, plan.entry[1] * state(), 0.6, eta=0.7, seeds=[3, 8, 1])
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-10)


def test_it_is_not_interpolation_by_cfg():
    plan = fs.compile("ddim", schedule=SCHEDULE, steps=7)
    cfg = fs.Guided(fs.Network(Counting(), SCHEDULE), {"label": LABELS}, {"label": EMPTY}, 0.6)
    assert not torch.allclose(
        fs.sample(plan, cfgpp(0.6), noise=state()), fs.sample(plan, cfg, noise=state()), atol=1e-2
    )
    torch.testing.assert_close(cfgpp(0.6)(state(), 300.0), cfg(state(), 300.0), rtol=0, atol=1e-12)  # but its data is


@pytest.mark.parametrize("name", fs.SAMPLERS)
def test_samplers_that_do_not_tell_noise_from_data_are_refused_by_name(name):
    plan = fs.compile(name, schedule=SCHEDULE, steps=4)
    if name in ("ddim", "tcd"):
        assert bool(fs.sample(plan, cfgpp(0.6), shape=SHAPE).isfinite().all())
        return
    for denoiser in (cfgpp(0.6), fs.clip(cfgpp(0.6))):
        with pytest.raises(fs.InvalidInput, match=f"and {name} has one estimate .* use the sampler 'ddim' or 'tcd'"):
            fs.sample(plan, denoiser, shape=SHAPE)
    with pytest.raises(fs.InvalidInput, match="has one estimate"):
        fs.Slots(cfgpp(0.6, labels=EMPTY), SHAPE[1:], 1, registers=8).admit(plan)
    own, empty = {"label": torch.tensor(2.0)}, {"label": torch.tensor(0.0)}
    slots = fs.Slots(fs.Network(Counting(), SCHEDULE), SHAPE[1:], 1, registers=8)
    with pytest.raises(fs.InvalidInput, match="has one estimate"):
        slots.admit(plan, fs.Request(condition=own, negative=empty, scale=0.6, method="cfg++"))
    with pytest.raises(fs.InvalidInput, match="has one estimate"):
        fs.Graph(plan, cfgpp(0.6), SHAPE, mode="eager")()


def test_tcd_takes_data_and_noise_apart_too():
    plan = fs.compile("tcd", schedule=SCHEDULE, steps=4, eta=0.0)
    expected = paper(plan, plan.entry[1] * state(), 0.6)
    got = fs.sample(plan, cfgpp(0.6), noise=state())
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-10)


def test_scale_0_is_the_negative_model_and_outside_the_interval_the_conditional_one_at_one_evaluation():
    x = state()
    for denoiser, label in ((cfgpp(0.0), EMPTY), (cfgpp(0.6, interval=(1e3, 1e4)), LABELS)):
        alone = fs.Network(Counting(), SCHEDULE, condition={"label": label})
        assert torch.equal(denoiser(x, 300.0), alone(x, 300.0))
        network = Counting()
        denoiser.network.network = network
        denoiser(x, 300.0)
        assert network.calls == [3]
        plan = fs.compile("ddim", schedule=SCHEDULE, steps=4)
        if label is EMPTY:
            got, expected = (fs.sample(plan, d, noise=x) for d in (denoiser, alone))
            torch.testing.assert_close(got, expected, rtol=0, atol=1e-12)


def test_a_mixed_batch_costs_what_its_images_need_and_each_is_as_if_alone():
    plan, scales, network = fs.compile("ddim", schedule=SCHEDULE, steps=5), [0.6, 0.0, 0.9], Counting()
    got = fs.sample(plan, cfgpp(scales, network=network), shape=SHAPE, seed=3)
    assert network.calls == [5] * 5  # two under the condition, three under the negative one
    assert network.labels[0] == [1.0, 3.0, 0.0, 0.0, 0.0]
    for i, w in enumerate(scales):
        alone = cfgpp(w, labels=LABELS[i : i + 1])
        expected = fs.sample(plan, alone, shape=(1, *SHAPE[1:]), seed=3 + i)
        torch.testing.assert_close(got[i : i + 1], expected, rtol=0, atol=1e-6)


def test_images_inside_and_outside_the_interval_share_a_batch():
    times = torch.tensor([900.0, 500.0, 20.0], dtype=torch.float64)
    network = Counting()
    got = cfgpp([0.5, 0.7, 0.0], network=network, interval=(0.1, 5.0))(state(), times)
    assert network.calls == [4]  # at 900 sigma / alpha is 22, at 20 it is 0.05
    for i, (t, w) in enumerate([(900.0, 1.0), (500.0, 0.7), (20.0, 1.0)]):
        cfg = fs.Guided(fs.Network(Counting(), SCHEDULE), {"label": LABELS}, {"label": EMPTY}, w)
        torch.testing.assert_close(got[i], cfg(state(), t)[i], rtol=0, atol=1e-12)


def test_thresholds_act_on_the_data_and_not_on_the_noise():
    plan = fs.compile("ddim", schedule=SCHEDULE, times=[600.0, 300.0, -1.0])
    x, row, q = state(), plan.rows[0], plan.rows[1]
    no, yes = eps_of(x, 600.0, EMPTY), eps_of(x, 600.0, LABELS)
    data = ((x - row.sigma * (no + 0.6 * (yes - no))) / row.alpha).clamp(-0.5, 0.5)
    second = q.alpha * data + q.sigma * no
    inputs = []

    def network(u, t, label):
        inputs.append(u[:3].clone())
        return Counting()(u, t, label)

    fs.sample(plan, fs.clip(cfgpp(0.6, network=network), -0.5, 0.5), start=x)
    torch.testing.assert_close(inputs[1], second, rtol=0, atol=1e-12)


def test_graph_and_slots_agree_with_the_loop():
    plan, denoiser = fs.compile("ddim", schedule=SCHEDULE, steps=5), cfgpp(0.6, labels=torch.tensor([2.0]))
    expected = fs.sample(plan, denoiser, shape=(1, *SHAPE[1:]), seed=3)
    graph = fs.Graph(plan, denoiser, (1, *SHAPE[1:]), mode="eager")
    assert torch.equal(graph(seed=3), expected)
    slots = fs.Slots(denoiser, SHAPE[1:], 2)
    slots.admit(plan, fs.Request(seed=3))
    own, empty = {"label": torch.tensor(2.0)}, {"label": torch.tensor(0.0)}
    asked = fs.Request(seed=3, condition=own, negative=empty, scale=0.6, method="cfg++")
    guiding = fs.Slots(fs.Network(Counting(), SCHEDULE), SHAPE[1:], 2)
    guiding.admit(plan, asked)
    for one in (slots, guiding):
        [finished] = [f for _ in range(5) for f in one.step()]
        torch.testing.assert_close(finished.sample, expected[0], rtol=1e-5, atol=1e-5)
    assert finished.nfe == 10


def test_on_another_schedule_it_is_the_same_estimate():
    edm, x, sigma = SCHEDULES["edm"], state(), 1.7
    t = float(SCHEDULE.time_of_lambda(-math.log(sigma)))
    moved = fs.OnSchedule(cfgpp(0.6), edm)
    torch.testing.assert_close(moved(x, sigma), cfgpp(0.6)(x * float(SCHEDULE.alpha(t)), t), rtol=0, atol=1e-10)
    assert bool(fs.sample(fs.compile("ddim", schedule=edm, steps=4), moved, shape=SHAPE).isfinite().all())


@pytest.mark.parametrize("scale", [7.5, -0.1, [0.5, 1.5, 0.2], fs.GuidanceSchedule.rows([0.5, 2.0])])
def test_scales_of_cfg_are_refused(scale):
    with pytest.raises(fs.InvalidInput, match=r"must lie in \[0, 1\], got .* fewstep.CFG"):
        cfgpp(scale)


def test_a_schedule_beyond_1_is_refused_where_it_gets_there_and_there_is_no_single_output():
    with pytest.raises(fs.InvalidInput, match=r"must lie in \[0, 1\]"):
        cfgpp(lambda ratio: 3.0)(state(), 300.0)
    denoiser = cfgpp(0.5)
    assert not denoiser.affine
    with pytest.raises(fs.InvalidInput, match="two estimates and no single output"):
        denoiser.output(state(), None)
