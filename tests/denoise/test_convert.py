"""From what a network predicts to the data: closed forms, precision, time, and other schedules."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler

import fewstep as fs
from fewstep.denoise.base import Level, as_denoiser
from fewstep.denoise.convert import PREDICTIONS
from proof.problems import SCHEDULES

X0 = torch.tensor([[0.3, -1.2, 0.8], [0.1, 0.2, -0.4]], dtype=torch.float64)
EPS = torch.tensor([[1.1, 0.4, -0.9], [-0.2, 1.5, 0.3]], dtype=torch.float64)


def level_of(schedule, t):
    return Level.of(schedule, X0, torch.tensor(t, dtype=torch.float64))


def answers(prediction, alpha, sigma, d=0.5):
    """What a network of this type returns for the state alpha X0 + sigma EPS."""
    x = alpha * X0 + sigma * EPS
    r = sigma / alpha
    return {
        "epsilon": EPS,
        "sample": X0,
        "v_prediction": alpha * EPS - sigma * X0,
        "flow": EPS - X0,
        "edm": (X0 - d**2 / (r**2 + d**2) * x / alpha) / (r * d / math.sqrt(r**2 + d**2)),
    }[prediction]


@pytest.mark.parametrize("share", [0.05, 0.5, 0.95])
@pytest.mark.parametrize("kind", SCHEDULES)
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_every_prediction_gives_the_data_on_every_schedule(prediction, kind, share):
    schedule = SCHEDULES[kind]
    t = round(schedule.t_min + share * (schedule.t_max - schedule.t_min), 3)
    alpha, sigma = float(schedule.alpha(t)), float(schedule.sigma(t))
    network = fs.Network(lambda u, time: answers(prediction, alpha, sigma), schedule, prediction)
    x = alpha * X0 + sigma * EPS
    scale = max(1.0, sigma / alpha)
    torch.testing.assert_close(network(x, t), X0, rtol=0, atol=1e-13 * scale)
    each = network(x, torch.tensor([t, t], dtype=torch.float64))
    torch.testing.assert_close(each, X0, rtol=0, atol=1e-13 * scale)


@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v_prediction"])
def test_conversions_are_those_of_diffusers(prediction):
    schedule, t = fs.schedules.scaled_linear(), 637
    peer = DDIMScheduler(
        beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, prediction_type=prediction, clip_sample=False
    )
    peer.set_timesteps(1000)
    expected = peer.step(EPS, t, X0).pred_original_sample
    network = fs.Network(lambda u, time: EPS, schedule, prediction)
    torch.testing.assert_close(network(X0, t), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("prediction", ["sample", "v_prediction", "flow"])
@pytest.mark.parametrize("kind", ["zero_snr", "flow"])
def test_where_alpha_is_0_the_data_is_still_known(prediction, kind):
    schedule = SCHEDULES[kind]
    outputs = {"sample": X0, "v_prediction": -X0, "flow": EPS - X0}
    network = fs.Network(lambda u, time: outputs[prediction], schedule, prediction)
    torch.testing.assert_close(network(EPS, schedule.t_max), X0, rtol=0, atol=1e-15)


@pytest.mark.parametrize("prediction", ["epsilon", "edm"])
def test_where_alpha_is_0_noise_says_nothing_of_the_data(prediction):
    schedule = SCHEDULES["zero_snr"]
    network = fs.Network(lambda u, time: u, schedule, prediction)
    with pytest.raises(fs.InvalidInput, match=f"predicts {prediction} .* at time 999, where alpha is 0"):
        network(EPS, 999.0)
    plan = fs.compile("ddim", schedule=schedule, steps=4)
    with pytest.raises(fs.InvalidInput, match="start the grid below it"):
        fs.sample(plan, network, shape=(1, 3))
    below = fs.compile("ddim", schedule=schedule, times=[998.0, 500.0, -1.0])
    assert torch.isfinite(fs.sample(below, network, shape=(1, 3))).all()


def test_edm_networks_get_a_scaled_input_and_the_log_of_sigma():
    seen = []
    network = fs.Network(lambda u, time: seen.append((u, time)) or u, SCHEDULES["linear"], "edm", sigma_data=0.7)
    t = 400.0
    alpha, sigma = float(SCHEDULES["linear"].alpha(t)), float(SCHEDULES["linear"].sigma(t))
    network(X0, t)
    (u, time), r = seen[0], sigma / alpha
    torch.testing.assert_close(u, X0 / alpha / math.hypot(r, 0.7))
    torch.testing.assert_close(time, torch.full((2,), math.log(r) / 4, dtype=torch.float64))


def test_times_are_told_in_full_whatever_the_network_computes_in():
    seen = []

    def network(u, time):
        seen.append((u.dtype, time))
        return u

    plan = fs.compile("ddim", schedule=SCHEDULES["linear"], times=[999.0, 750.0, 333.0, -1.0])
    low = fs.Network(network, SCHEDULES["linear"], dtype=torch.bfloat16)
    result = fs.sample(plan, low, shape=(2, 3))
    assert result.dtype == torch.float32
    assert [dtype for dtype, _ in seen] == [torch.bfloat16] * 3
    assert [time.tolist() for _, time in seen] == [[999.0] * 2, [750.0] * 2, [333.0] * 2]  # 752 in bfloat16
    assert {time.dtype for _, time in seen} == {torch.float32}


def test_times_may_be_scaled_and_rounded():
    seen = []

    def network(u, time):
        seen.append(time)
        return u

    fs.Network(network, SCHEDULES["flow"], "flow", time_scale=1000.0)(X0, 0.25)
    fs.Network(network, SCHEDULES["linear"], integer_time=True)(X0, 10.7)
    assert seen[0].tolist() == [250.0, 250.0]
    assert (seen[1].tolist(), seen[1].dtype) == ([11, 11], torch.int64)


@pytest.mark.parametrize(
    "wrapped",
    [lambda y: y, lambda y: (y, "more"), lambda y: SimpleNamespace(sample=y)],
    ids=["tensor", "tuple", "object"],
)
def test_a_network_may_return_a_tensor_a_tuple_or_an_object(wrapped):
    network = fs.Network(lambda u, time: wrapped(2 * u), SCHEDULES["edm"], "sample")
    assert torch.equal(network(X0, 1.0), 2 * X0)


@pytest.mark.parametrize(
    "answer", [None, 3.0, "x", [torch.ones(2, 3)], {"sample": torch.ones(2, 3)}, (None,), ()], ids=str
)
def test_a_network_that_returns_no_tensor_is_refused(answer):
    network = fs.Network(lambda u, time: answer, SCHEDULES["edm"], "sample")
    with pytest.raises(fs.InvalidInput, match="the network returned"):
        network(X0, 1.0)


def test_conditions_are_passed_on_and_can_be_replaced():
    def network(u, time, *, label, scale=1.0):
        return u * label[:, None] * scale

    three = fs.Network(network, SCHEDULES["edm"], "sample", condition={"label": torch.tensor([3.0, 4.0]), "scale": 2.0})
    torch.testing.assert_close(three(X0, 1.0), X0 * torch.tensor([[6.0], [8.0]], dtype=torch.float64))
    one = three.given({"label": torch.tensor([1.0, 1.0])})
    assert torch.equal(one(X0, 1.0), X0)
    assert three.condition["scale"] == 2.0


def test_unknown_predictions_are_refused_with_the_nearest_name():
    with pytest.raises(fs.InvalidInput, match="unknown prediction type 'v-prediction': did you mean 'v_prediction'"):
        fs.Network(torch.sin, SCHEDULES["edm"], "v-prediction")


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_another_schedule_is_the_same_denoiser_at_the_same_ratio(prediction):
    own, other = SCHEDULES["linear"], SCHEDULES["edm"]
    inner = fs.Network(lambda u, time: torch.sin(u + time[:, None] / 500), own, prediction)
    there = fs.OnSchedule(inner, other)
    for sigma in (0.05, 1.0, 30.0):
        t = float(own.time_of_lambda(-math.log(sigma)))
        alpha = float(own.alpha(t))
        torch.testing.assert_close(there(X0, sigma), inner(alpha * X0, t), rtol=1e-9, atol=1e-9)
    times = torch.tensor([0.05, 30.0], dtype=torch.float64)
    expected = torch.cat([there(X0[:1], 0.05), there(X0[1:], 30.0)])
    torch.testing.assert_close(there(X0, times), expected, rtol=1e-9, atol=1e-9)


def test_another_schedule_keeps_the_clipping():
    inner = fs.clip(fs.Network(lambda u, time: 9 * u, SCHEDULES["linear"], "sample"))
    assert float(fs.OnSchedule(inner, SCHEDULES["edm"])(X0, 1.0).abs().max()) == 1.0


def test_levels_that_another_schedule_does_not_have_are_refused():
    scaled = fs.Network(torch.sin, SCHEDULES["scaled_linear"])
    with pytest.raises(fs.InvalidInput, match="noisier than the schedule's noisiest"):
        fs.OnSchedule(scaled, SCHEDULES["edm"])(X0, 80.0)
    with pytest.raises(fs.InvalidInput, match="alpha is 0"):
        fs.OnSchedule(scaled, SCHEDULES["flow"])(X0, 1.0)
    with pytest.raises(fs.InvalidInput, match="knows its own noise schedule"):
        fs.OnSchedule(as_denoiser(lambda x, t: x), SCHEDULES["edm"])


def test_times_of_a_denoiser_are_one_or_one_an_image_and_inside_the_schedule():
    network = fs.Network(lambda u, time: u, SCHEDULES["linear"], "sample")
    for t in (500, 500.0, torch.tensor(500.0), torch.tensor([500.0]), torch.tensor([500.0, 20.0])):
        assert network(X0, t).shape == X0.shape
    with pytest.raises(fs.InvalidInput, match="t must have shape"):
        network(X0, torch.tensor([1.0, 2.0, 3.0]))
    with pytest.raises(fs.InvalidInput, match="outside the linear schedule"):
        network(X0, 1000.0)
    with pytest.raises(fs.InvalidInput, match="outside the linear schedule"):
        network(X0, math.nan)


def test_levels_of_a_batch_split_and_double():
    schedule = SCHEDULES["edm"]
    level = Level.of(schedule, X0, torch.tensor([1.0, 3.0]))
    assert level.host == [(1.0, 1.0, 1.0), (3.0, 1.0, 3.0)]
    assert level.sigma.shape == (2, 1)
    taken = level.take([1])
    assert (taken.t.tolist(), taken.sigma.tolist(), list(taken.host)) == ([3.0], [[3.0]], [(3.0, 1.0, 3.0)])
    numbered = level._replace(rows=[4, 9])
    doubled = numbered.take([0, 1, 1])
    assert doubled.t.tolist() == [1.0, 3.0, 3.0]
    assert doubled.sigma.flatten().tolist() == [1.0, 3.0, 3.0]
    assert doubled.rows == [4, 9, 9]
    twice = numbered.take([0, 1, 0, 1])
    assert twice.t.tolist() == twice.sigma.flatten().tolist() == [1.0, 3.0, 1.0, 3.0]
    assert (twice.rows, twice.host) == ([4, 9, 4, 9], level.host * 2)
    one = level_of(schedule, 2.0)
    assert (one.sigma, len(one.host), one.rows) == (2.0, 1, None)
    assert one.take([0, 1, 0, 1]).t.tolist() == [2.0] * 4
    assert np.isscalar(one.take([0, 1, 0]).sigma)


def test_an_alpha_that_float32_cannot_divide_by_counts_as_zero():
    schedule = fs.schedules.from_alphas_cumprod([0.9, 1e-80])
    network = fs.Network(lambda x, t: x, schedule)
    with pytest.raises(fs.InvalidInput, match=r"predicts epsilon .* at time 1, where alpha is 1e-40"):
        fs.sample(fs.compile("ddim", schedule=schedule, steps=1), network, shape=(1, 2))
