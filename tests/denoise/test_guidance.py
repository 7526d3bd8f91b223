"""Classifier-free guidance: its formula, and what it costs."""

import math

import pytest
import torch

import fewstep as fs
from proof.conditional import EMPTY, LABELS, SHAPE, Counting
from proof.problems import SCHEDULES

SCHEDULE = SCHEDULES["linear"]


def guided(scale, *, network=None, condition=LABELS, negative=EMPTY, **options):
    network = fs.Network(network or Counting(), SCHEDULE, "epsilon")
    method = fs.CFG(options.pop("rescale", 0.0))
    return fs.Guided(network, {"label": condition}, {"label": negative}, scale, method=method, **options)


def plan_of(steps=6, name="dpmpp-2m"):
    return fs.compile(name, schedule=SCHEDULE, steps=steps)


def conditional(label=LABELS, steps=6):
    network = fs.Network(Counting(), SCHEDULE, "epsilon", condition={"label": label})
    return fs.sample(plan_of(steps), network, shape=SHAPE)


def by_hand(x, t, scale, label=LABELS, rescale=0.0):
    """The guided estimate of the data at time t, written out."""
    alpha, sigma = float(SCHEDULE.alpha(t)), float(SCHEDULE.sigma(t))
    each = torch.full((3,), t, dtype=x.dtype)
    yes, no = Counting()(x, each, label), Counting()(x, each, EMPTY)
    eps = no + scale * (yes - no)
    if rescale:
        scaled = eps * (yes.std((1, 2), keepdim=True) / eps.std((1, 2), keepdim=True))
        eps = rescale * scaled + (1 - rescale) * eps
    return (x - sigma * eps) / alpha


@pytest.mark.parametrize("rescale", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("scale", [0.0, 2.5, -1.0, [0.0, 2.0, 7.5], [1.0, 3.0, 1.0]])
def test_the_formula_is_that_of_the_papers(scale, rescale):
    x = torch.randn(SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    got = guided(scale, rescale=rescale)(x, 300.0)
    w = torch.tensor(scale, dtype=x.dtype).reshape(-1, 1, 1)
    expected = by_hand(x, 300.0, w, rescale=rescale)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-12)


def test_scale_1_is_bitwise_the_conditional_model_at_its_cost():
    network = Counting()
    got = fs.sample(plan_of(), guided(1.0, network=network), shape=SHAPE)
    assert torch.equal(got, conditional())
    assert network.calls == [3] * 6


def test_guidance_doubles_every_image_and_nothing_else():
    network = Counting()
    fs.sample(plan_of(), guided(3.0, network=network), shape=SHAPE)
    assert network.calls == [6] * 6
    assert network.labels[0] == [1.0, 2.0, 3.0, 0.0, 0.0, 0.0]


def test_only_images_with_a_scale_are_doubled_and_the_others_are_the_conditional_model():
    network = Counting()
    got = fs.sample(plan_of(), guided([1.0, 4.0, 1.0], network=network), shape=SHAPE)
    assert network.calls == [4] * 6
    assert network.labels[0] == [1.0, 2.0, 3.0, 0.0]
    plain, all_guided = conditional(), fs.sample(plan_of(), guided(4.0), shape=SHAPE)
    assert torch.equal(got[[0, 2]], plain[[0, 2]])
    assert torch.equal(got[1], all_guided[1])


@pytest.mark.parametrize("name", ["ddim", "heun", "unipc-3", "sde-dpmpp-2m"])
def test_the_interval_says_where_guidance_acts_and_is_paid_for(name):
    plan, network = plan_of(10, name), Counting()
    low, high = 0.2, 5.0
    fs.sample(plan, guided(3.0, network=network, interval=(low, high)), shape=SHAPE)
    acts = [low < row.sigma / row.alpha <= high for row in plan.rows]
    assert 0 < sum(acts) < len(plan.rows)
    assert network.calls == [6 if on else 3 for on in acts]


def test_an_interval_is_open_below_and_closed_above():
    ratio = float(SCHEDULE.ratio(500.0))
    for interval, count in [((ratio, math.inf), 3), ((0.0, ratio), 6), ((0.0, ratio * (1 - 1e-9)), 3)]:
        network = Counting()
        guided(2.0, network=network, interval=interval)(torch.ones(SHAPE, dtype=torch.float64), 500.0)
        assert network.calls == [count]


def test_images_of_one_batch_may_be_at_levels_of_their_own():
    x = torch.randn(SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    times = torch.tensor([900.0, 500.0, 20.0], dtype=torch.float64)
    network = Counting()
    got = guided([2.0, 3.0, 4.0], network=network, interval=(0.1, 5.0))(x, times)
    assert network.calls == [4]  # at 900 sigma / alpha is 22, at 20 it is 0.05
    for i, (t, w) in enumerate([(900.0, 1.0), (500.0, 3.0), (20.0, 1.0)]):
        torch.testing.assert_close(got[i], by_hand(x, t, w)[i], rtol=0, atol=1e-12)


def test_a_negative_condition_stands_where_the_empty_one_does():
    negative = torch.tensor([7.0])
    x = torch.randn(SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    yes, no = (
        fs.Network(Counting(), SCHEDULE, "epsilon", condition={"label": v})(x, 300.0) for v in (LABELS, negative)
    )
    got = guided(4.0, negative=negative)(x, 300.0)
    torch.testing.assert_close(got, no + 4.0 * (yes - no), rtol=0, atol=1e-9)
    assert not torch.allclose(got, guided(4.0)(x, 300.0))


@pytest.mark.parametrize("scale", [0.0, 3.0])
def test_an_image_is_the_same_alone_and_guided_with_others(scale):
    batch = fs.sample(plan_of(), guided(scale), shape=SHAPE, seed=4)
    for i in range(3):
        alone = guided(scale, condition=LABELS[i : i + 1])
        assert torch.equal(batch[i : i + 1], fs.sample(plan_of(), alone, shape=(1, *SHAPE[1:]), seed=4 + i))


def test_arguments_that_are_no_tensors_must_be_equal_in_both_branches():
    def network(x, t, label, mode):
        return x * label.reshape(-1, 1, 1) * (2.0 if mode == "on" else 1.0)

    inner = fs.Network(network, SCHEDULE, "sample")
    both = fs.Guided(inner, {"label": LABELS, "mode": "on"}, {"label": EMPTY, "mode": "on"}, 2.0)
    x = torch.ones(SHAPE)
    torch.testing.assert_close(both(x, 300.0), 4.0 * LABELS.reshape(-1, 1, 1).expand(SHAPE))
    with pytest.raises(fs.InvalidInput, match="mode"):
        fs.Guided(inner, {"label": LABELS, "mode": "on"}, {"label": EMPTY, "mode": "off"}, 2.0)
    with pytest.raises(fs.InvalidInput, match="label"):
        fs.Guided(inner, {"label": LABELS, "mode": "on"}, {"label": None, "mode": "on"}, 2.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scale": math.nan}, "a finite number"),
        ({"scale": math.inf}, "a finite number"),
        ({"scale": [1.0, math.nan]}, "a finite number"),
        ({"scale": 2.0, "rescale": 1.5}, r"rescale must lie in \[0, 1\], got 1.5"),
        ({"scale": 2.0, "rescale": -0.1}, "rescale must lie"),
        ({"scale": 2.0, "interval": (2.0, 1.0)}, "0 <= low < high"),
        ({"scale": 2.0, "interval": (-1.0, 1.0)}, "0 <= low < high"),
        ({"scale": 2.0, "interval": (0.0, math.nan)}, "0 <= low < high"),
    ],
    ids=str,
)
def test_impossible_settings_are_refused(options, message):
    with pytest.raises(fs.InvalidInput, match=message):
        guided(options.pop("scale"), **options)


def test_scales_are_one_or_one_an_image_and_both_branches_name_the_same_arguments():
    with pytest.raises(fs.InvalidInput, match="one for each of 3 images, got 2"):
        fs.sample(plan_of(), guided([1.0, 2.0]), shape=SHAPE)
    network = fs.Network(Counting(), SCHEDULE)
    with pytest.raises(fs.InvalidInput, match=r"same arguments, got \['label'\] and \['text'\]"):
        fs.Guided(network, {"label": LABELS}, {"text": EMPTY}, 2.0)
