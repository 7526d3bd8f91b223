"""Autoguidance: away from a weaker network, whatever that one predicts."""

import math

import pytest
import torch

import fewstep as fs
from proof.conditional import LABELS, SHAPE, Counting, along, state
from proof.problems import SCHEDULES

LINEAR, EDM = SCHEDULES["linear"], SCHEDULES["edm"]


class Weak(Counting):
    def __call__(self, x, t, label):
        return super().__call__(0.7 * x, t, label)


def auto(strong, weak, scale, **options):
    return fs.Guided(strong, strong.condition, None, scale, method="autoguidance", weaker=weak, **options)


def pair(strong=None, weak=None, prediction="epsilon", schedule=LINEAR, labels=LABELS):
    return (
        fs.Network(strong or Counting(), LINEAR, "epsilon", condition={"label": labels}),
        fs.Network(weak or Weak(), schedule, prediction, condition={"label": labels}),
    )


@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v_prediction", "edm"])
@pytest.mark.parametrize("scale", [2.5, 0.0, [1.0, 3.0, -1.0]])
def test_the_formula_is_that_of_the_paper_in_any_prediction(scale, prediction):
    strong, weak = pair(prediction=prediction)
    x, w = state(), along(torch.tensor(scale, dtype=torch.float64))
    expected = weak(x, 300.0) + w * (strong(x, 300.0) - weak(x, 300.0))
    torch.testing.assert_close(auto(strong, weak, scale)(x, 300.0), expected, rtol=0, atol=1e-12)


def test_the_weaker_network_may_be_on_another_schedule():
    strong, weak = pair(prediction="edm", schedule=EDM)
    x, t = state(), 300.0
    alpha, ratio = float(LINEAR.alpha(t)), float(LINEAR.sigma(t) / LINEAR.alpha(t))
    other = weak(x / alpha, ratio)
    expected = other + 2.0 * (strong(x, t) - other)
    torch.testing.assert_close(auto(strong, weak, 2.0)(x, t), expected, rtol=0, atol=1e-10)


def test_scale_1_is_bitwise_the_network_and_the_weaker_one_is_not_asked():
    plan = fs.compile("dpmpp-2m", schedule=LINEAR, steps=5)
    counts = Counting(), Weak()
    strong, weak = pair(*counts)
    got = fs.sample(plan, auto(strong, weak, 1.0), shape=SHAPE)
    assert torch.equal(got, fs.sample(plan, pair()[0], shape=SHAPE))
    assert (counts[0].calls, counts[1].calls) == ([3] * 5, [])


@pytest.mark.parametrize("prediction", ["epsilon", "sample"])
def test_a_mixed_batch_asks_the_weaker_one_for_its_images_alone(prediction):
    plan, scales, counts = fs.compile("ddim", schedule=LINEAR, steps=5), [2.0, 1.0, 3.0], (Counting(), Weak())
    got = fs.sample(plan, auto(*pair(*counts, prediction), scales), noise=state(), seed=4)
    assert (counts[0].calls, counts[1].calls) == ([3] * 5, [2] * 5)
    assert counts[1].labels[0] == [1.0, 3.0]
    for i, w in enumerate(scales):
        alone = auto(*pair(prediction=prediction, labels=LABELS[i : i + 1]), w)
        expected = fs.sample(plan, alone, noise=state()[i : i + 1])
        torch.testing.assert_close(got[i : i + 1], expected, rtol=1e-9, atol=1e-9)


def test_the_interval_and_schedules_act_as_in_cfg():
    plan, counts = fs.compile("heun", schedule=LINEAR, steps=8), (Counting(), Weak())
    fs.sample(plan, auto(*pair(*counts), fs.GuidanceSchedule.linear(3.0, 2.0), interval=(0.2, 5.0)), shape=SHAPE)
    acts = sum(0.2 < row.sigma / row.alpha <= 5 for row in plan.rows)
    assert 0 < acts < len(plan.rows)
    assert (len(counts[0].calls), len(counts[1].calls)) == (len(plan.rows), acts)


def test_graph_and_another_schedule_agree_with_the_loop():
    plan, denoiser = fs.compile("dpmpp-2m", schedule=LINEAR, steps=5), auto(*pair(prediction="sample"), 2.0)
    graph = fs.Graph(plan, denoiser, SHAPE, mode="eager")
    assert torch.equal(graph(seed=3), fs.sample(plan, denoiser, shape=SHAPE, seed=3))
    x, sigma = state(), 1.7
    t = float(LINEAR.time_of_lambda(-math.log(sigma)))
    moved = fs.OnSchedule(denoiser, EDM)(x, sigma)
    torch.testing.assert_close(moved, denoiser(x * float(LINEAR.alpha(t)), t), rtol=0, atol=1e-10)


def test_what_is_no_network_is_refused():
    strong, weak = pair()
    for wrong in ((strong, fs.clip(weak)), (lambda x, t: x, weak)):
        with pytest.raises(fs.InvalidInput, match=r"guidance needs a fewstep.Network"):
            fs.Guided(wrong[0], {}, None, 2.0, method="autoguidance", weaker=wrong[1])
    with pytest.raises(fs.InvalidInput, match="a negative condition cannot act in autoguidance"):
        fs.Guided(strong, strong.condition, strong.condition, 2.0, method="autoguidance", weaker=weak)
    with pytest.raises(fs.InvalidInput, match="moves away from a weaker model"):
        fs.Guided(strong, strong.condition, None, 2.0, method="autoguidance")
