"""Adaptive steps: errors follow the tolerance, the plan replays the run, bad tolerances are refused."""

import math

import pytest
import torch

import fewstep as fs

SCHEDULES = {
    "edm": fs.schedules.edm(),
    "linear": fs.schedules.linear(),
    "flow": fs.schedules.flow(),
    "zero_snr": fs.schedules.scaled_linear(zero_snr=True),
}


def two_points(schedule):
    """Data near two points, through a saturating posterior mean: a flow with real curvature."""

    def denoiser(x, t):
        alpha = torch.as_tensor(schedule.alpha(t.numpy()), dtype=x.dtype)[:, None]
        sigma = torch.as_tensor(schedule.sigma(t.numpy()), dtype=x.dtype)[:, None]
        spread = alpha**2 * 0.25 + sigma**2
        return (0.25 * alpha * x + sigma**2 * torch.tanh(alpha * x / spread)) / spread

    return denoiser


def start(batch=4):
    return torch.randn(batch, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_error_follows_the_tolerance(name):
    schedule = SCHEDULES[name]
    denoiser, z = two_points(schedule), start()
    exact = fs.sample(fs.compile("rk4", schedule=schedule, steps=300, grid="exponential"), denoiser, noise=z)
    errors, costs = [], []
    for tolerance in (1e-1, 1e-2, 1e-3, 1e-4):
        result = fs.sample_adaptive(denoiser, schedule=schedule, noise=z, rtol=tolerance, atol=tolerance / 5)
        errors.append(float((result.sample - exact).abs().max()))
        costs.append(result.nfe)
    assert errors[0] < 2e-2
    assert errors[-1] < 1e-4
    assert errors[-1] < errors[1] / 20
    assert costs == sorted(costs)
    assert costs[-1] < 200


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_plan_replays_the_run_without_the_rejected_steps(name):
    schedule = SCHEDULES[name]
    denoiser, z = two_points(schedule), start()
    result = fs.sample_adaptive(denoiser, schedule=schedule, noise=z, rtol=1e-3, atol=2e-4)
    assert torch.equal(fs.sample(result.plan, denoiser, noise=z), result.sample)
    assert result.nfe == len(result.plan.rows) + 3 * result.rejected
    again = fs.Plan.from_json(result.plan.to_json())
    assert torch.equal(fs.sample(again, denoiser, noise=z), result.sample)


def test_too_wide_a_first_step_is_rejected_and_made_again():
    schedule = SCHEDULES["edm"]
    result = fs.sample_adaptive(
        two_points(schedule), schedule=schedule, noise=start(), rtol=1e-5, atol=1e-6, first_width=8.0
    )
    assert result.rejected >= 1
    assert max(abs(a - b) for a, b in zip(result.plan.recipe.times, result.plan.recipe.times[1:], strict=False)) < 80


def test_the_start_is_never_written_to_and_a_seed_names_the_same_noise_as_sample_does():
    schedule = SCHEDULES["linear"]
    denoiser = two_points(schedule)
    x = start()
    before = x.clone()
    fs.sample_adaptive(denoiser, schedule=schedule, start=x, rtol=0.1, atol=0.1)
    assert torch.equal(x, before)
    adaptive = fs.sample_adaptive(denoiser, schedule=schedule, shape=(2, 3), seed=[5, 9], rtol=0.1, atol=0.1)
    assert torch.equal(fs.sample(adaptive.plan, denoiser, shape=(2, 3), seed=[5, 9]), adaptive.sample)


def test_bad_input_says_what_is_allowed():
    schedule = SCHEDULES["edm"]
    denoiser = two_points(schedule)
    with pytest.raises(fs.InvalidInput, match="rtol must be a finite number above zero, got 0"):
        fs.sample_adaptive(denoiser, schedule=schedule, shape=(1, 3), rtol=0)
    with pytest.raises(fs.InvalidInput, match="give schedule="):
        fs.sample_adaptive(denoiser, shape=(1, 3))
    with pytest.raises(fs.InvalidInput, match="Loosen the tolerances"):
        fs.sample_adaptive(denoiser, schedule=schedule, shape=(1, 3), rtol=1e-9, atol=1e-9, max_evaluations=60)
    with pytest.raises(fs.NonFinite, match="between time 80 and"):
        fs.sample_adaptive(lambda x, t: x * math.nan, schedule=schedule, shape=(1, 3))
