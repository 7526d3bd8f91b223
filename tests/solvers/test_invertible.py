"""Inversion: BELM recovers its start to rounding, DDIM approximately; both from a reversed plan."""

import numpy as np
import pytest
import torch

import fewstep as fs

SCHEDULES = {"edm": fs.schedules.edm(), "linear": fs.schedules.linear(), "flow": fs.schedules.flow()}


def curved(schedule, gain=2.0):
    def denoiser(x, t):
        alpha = torch.as_tensor(schedule.alpha(t.double().numpy()), dtype=x.dtype)[:, None]
        sigma = torch.as_tensor(schedule.sigma(t.double().numpy()), dtype=x.dtype)[:, None]
        return torch.tanh(gain * alpha * x / (alpha**2 + sigma**2) + 0.2)

    return denoiser


def round_trip(sampler, schedule, grid, steps, x, gain=2.0, **options):
    """Invert x from the last noisy time of a grid to its first, and come back."""
    denoiser = curved(schedule, gain)
    up = fs.compile(sampler, schedule=schedule, steps=steps, grid=grid, reverse=True)
    down = fs.compile(sampler, schedule=schedule, times=up.recipe.times[::-1], **options)
    state = fs.sample_pair(up, denoiser, start=x)
    return fs.sample(down, denoiser, start=state if down.inputs == 2 else state[0]), state


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("grid", ["trailing", "karras", "exponential"])
def test_belm_inverts_to_rounding(name, grid):
    x = torch.randn(3, 5, generator=torch.Generator().manual_seed(0)) * 0.5
    if name == "flow" and grid == "exponential":
        grid = "karras"
    back, state = round_trip("belm", SCHEDULES[name], grid, 30, x, start="pair")
    assert float((back - x).abs().max()) < 1e-4
    assert float((state[0] - x).abs().max()) > 0.5  # it went somewhere
    back, _ = round_trip("belm", SCHEDULES[name], grid, 30, x.double(), start="pair")
    assert float((back - x).abs().max()) < 1e-10


def test_ddim_inverts_only_approximately_and_better_with_more_steps():
    x = torch.randn(3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 0.5
    errors = [
        float((round_trip("ddim", SCHEDULES["linear"], "exponential", n, x, gain=0.5)[0] - x).abs().max())
        for n in (20, 80, 320)
    ]
    assert errors[0] > 1e-3
    assert errors[1] < errors[0] / 2
    assert errors[2] < errors[1] / 2


def test_a_reversed_plan_goes_up_from_the_last_noisy_time():
    schedule = SCHEDULES["linear"]
    plan = fs.compile("ddim", schedule=schedule, steps=10, grid="linspace", reverse=True)
    assert list(np.diff(plan.recipe.times) > 0) == [True] * 9
    assert plan.entry == (float(schedule.alpha(0.0)), float(schedule.sigma(0.0)))
    assert plan.exit == (float(schedule.alpha(999.0)), float(schedule.sigma(999.0)))
    assert len(plan.rows) == 9


def test_noise_cannot_be_inverted_and_pairs_are_asked_for():
    schedule = SCHEDULES["linear"]
    with pytest.raises(fs.InvalidInput, match="cannot be run in reverse"):
        fs.compile("euler-a", schedule=schedule, steps=10, reverse=True)
    with pytest.raises(fs.InvalidInput, match="cannot be run in reverse"):
        fs.compile("ddim", schedule=schedule, steps=10, eta=1.0, reverse=True)
    with pytest.raises(fs.InvalidInput, match="at least 2 noisy times"):
        fs.compile("ddim", schedule=schedule, steps=1, reverse=True)
    pair = fs.compile("belm", schedule=schedule, times=[900, 500, 100, 5], start="pair")
    with pytest.raises(fs.InvalidInput, match="starts from a pair"):
        fs.sample(pair, curved(schedule), shape=(1, 5))
    with pytest.raises(fs.InvalidInput, match="starts from 2 states here, got 1"):
        fs.sample(pair, curved(schedule), start=torch.zeros(1, 5))
    with pytest.raises(fs.InvalidInput, match="must be one of 'single', 'pair'"):
        fs.compile("belm", schedule=schedule, steps=5, start="both")
