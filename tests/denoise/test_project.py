"""Clipping and dynamic thresholding, as diffusers does them."""

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler

import fewstep as fs
from proof.problems import SCHEDULES

SCHEDULE = SCHEDULES["linear"]
SHAPE = (2, 3, 8, 8)
X = 3 * torch.randn(SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def loud(x, t):
    """A network of noise whose data estimate is often beyond 1."""
    return torch.sin(3 * x + t.reshape(-1, 1, 1, 1) / 100)


def same(x, t):
    return x


def peer_run(scheduler, steps, noise, eta=None):
    """A diffusers scheduler on `loud`, in float64."""
    scheduler.alphas_cumprod = torch.tensor(SCHEDULE.alphas_cumprod, dtype=torch.float64)
    scheduler.set_timesteps(steps)
    x = noise * scheduler.init_noise_sigma
    for t in scheduler.timesteps:
        out = loud(x, torch.full((SHAPE[0],), float(t), dtype=x.dtype))
        x = scheduler.step(out, t, x, **({} if eta is None else {"eta": eta})).prev_sample
    return x


@pytest.mark.parametrize("steps", [1, 4, 20])
def test_ddim_with_clip_takes_the_noise_from_the_raw_output_as_diffusers_does(steps):
    peer = DDIMScheduler(beta_schedule="linear", clip_sample=True, timestep_spacing="trailing")
    expected = peer_run(peer, steps, X / 3, eta=0.0)
    plan = fs.compile("ddim", schedule=SCHEDULE, steps=steps)
    network = fs.Network(loud, SCHEDULE, "epsilon")
    got = fs.sample(plan, fs.clip(network), start=X / 3)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-10)
    assert float((got - fs.sample(plan, network, start=X / 3)).abs().max()) > 0.1
    euler = fs.compile("euler", schedule=SCHEDULE, steps=steps)
    differs = float((got - fs.sample(euler, fs.clip(network), start=X / 3)).abs().max()) > 1e-3
    assert differs == (steps > 1)


def test_the_last_step_of_ddpm_with_clip_is_that_of_diffusers():
    peer = DDPMScheduler(beta_schedule="linear", clip_sample=True, timestep_spacing="trailing")
    plan = fs.compile("ddpm", schedule=SCHEDULE, steps=1)
    got = fs.sample(plan, fs.clip(fs.Network(loud, SCHEDULE, "epsilon")), start=X / 3)
    torch.testing.assert_close(got, peer_run(peer, 1, X / 3), rtol=0, atol=1e-8)  # it adds noise of 1e-10


@pytest.mark.parametrize("percentile", [0.5, 0.9, 0.995, 1.0])
@pytest.mark.parametrize("maximum", [1.0, 1.5, 100.0])
def test_dynamic_thresholding_is_that_of_diffusers(percentile, maximum):
    peer = DDIMScheduler(
        thresholding=True, dynamic_thresholding_ratio=percentile, sample_max_value=maximum, clip_sample=False
    )
    denoiser = fs.dynamic_threshold(fs.Network(same, SCHEDULES["edm"], "sample"), percentile, maximum)
    for x in (X, X.float(), X[:, :1] / 10):
        torch.testing.assert_close(denoiser(x, 1.0), peer._threshold_sample(x), rtol=1e-6, atol=1e-6)


def test_each_image_has_its_own_threshold():
    denoiser = fs.dynamic_threshold(fs.Network(same, SCHEDULES["edm"], "sample"), 0.9, 100.0)
    mixed = torch.cat([X[:1], 10 * X[1:]])
    got = denoiser(mixed, 1.0)
    torch.testing.assert_close(got[:1], denoiser(mixed[:1], 1.0))
    torch.testing.assert_close(got[1:], denoiser(mixed[1:], 1.0))
    s = np.quantile(np.abs(mixed[1].numpy()), 0.9)
    np.testing.assert_allclose(got[1].numpy(), np.clip(mixed[1].numpy(), -s, s) / s, rtol=1e-5)


def test_clip_has_limits_of_its_own_and_projections_chain():
    network = fs.Network(same, SCHEDULES["edm"], "sample")
    assert torch.equal(fs.clip(network, -0.5, 2.0)(X, 1.0), X.clamp(-0.5, 2.0))
    both = fs.dynamic_threshold(fs.clip(network, -2.0, 2.0), 1.0, 100.0)
    torch.testing.assert_close(both(X, 1.0), X.clamp(-2, 2) / 2)


@pytest.mark.parametrize("name", ["ddim", "dpmpp-2m", "heun", "euler-a", "tcd", "consistency"])
def test_a_clipped_run_ends_inside_the_limits(name):
    plan = fs.compile(name, schedule=SCHEDULE, steps=5)
    got = fs.sample(plan, fs.clip(fs.Network(loud, SCHEDULE, "epsilon"), -0.7, 0.7), shape=SHAPE)
    assert float(got.abs().max()) <= 0.7 + 1e-6


@pytest.mark.parametrize("name", ["dpmpp-2m", "heun", "unipc-2"])
def test_only_the_samplers_that_say_so_use_the_raw_output(name):
    assert not fs.compile(name, schedule=SCHEDULE, steps=5).uses_raw
    assert fs.compile("ddim", schedule=SCHEDULE, steps=5).uses_raw


@pytest.mark.parametrize(("name", "most"), [("ddim", 1e-12), ("dpmpp-2m", 1e-12)])
def test_limits_that_nothing_reaches_change_nothing(name, most):
    plan = fs.compile(name, schedule=SCHEDULE, steps=5)
    network = fs.Network(loud, SCHEDULE, "epsilon")
    free, wide = (fs.sample(plan, d, start=X / 3) for d in (network, fs.clip(network, -1e9, 1e9)))
    torch.testing.assert_close(free, wide, rtol=0, atol=most * 1e3)


def test_clipping_works_on_guidance_too():
    def network(x, t, label):
        return torch.sin(3 * x) * label.reshape(-1, 1, 1, 1)

    inner = fs.Network(network, SCHEDULE, "epsilon")
    guided = fs.Guided(inner, {"label": torch.ones(1)}, {"label": torch.zeros(1)}, 5.0)
    got = fs.clip(guided)(X, 900.0)
    assert torch.equal(got, guided(X, 900.0).clamp(-1, 1))
    assert float(got.abs().max()) == 1.0


@pytest.mark.parametrize(
    ("function", "arguments", "message"),
    [
        (fs.clip, (1.0, -1.0), "low < high"),
        (fs.clip, (1.0, 1.0), "low < high"),
        (fs.clip, (float("nan"), 1.0), "low < high"),
        (fs.dynamic_threshold, (0.0,), "percentile must lie"),
        (fs.dynamic_threshold, (1.01,), "percentile must lie"),
        (fs.dynamic_threshold, (0.9, 0.5), "from 1 to .*, or infinite, got 0.5"),
        (fs.dynamic_threshold, (0.9, float("nan")), "from 1 to .*, got nan"),
    ],
)
def test_impossible_limits_are_refused(function, arguments, message):
    with pytest.raises(fs.InvalidInput, match=message):
        function(fs.Network(same, SCHEDULE), *arguments)


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-2.0, 4.0)])
def test_a_threshold_in_another_range_is_that_of_minus_one_to_one_moved_there(low, high):
    network = fs.Network(same, SCHEDULES["edm"], "sample")
    usual = fs.dynamic_threshold(network, 0.9, 1.5)(X, 1.0)
    middle, half = (low + high) / 2, (high - low) / 2
    moved = fs.dynamic_threshold(network, 0.9, 1.5, low=low, high=high)(middle + half * X, 1.0)
    torch.testing.assert_close(moved, middle + half * usual)
    assert (float(moved.min()), float(moved.max())) == pytest.approx((low, high))


def test_a_batch_of_more_values_than_one_quantile_takes_is_thresholded_in_parts(monkeypatch):
    network = fs.Network(same, SCHEDULES["edm"], "sample")
    whole = fs.dynamic_threshold(network, 0.9, 9.0)(torch.cat([X, 2 * X]), 1.0)
    monkeypatch.setattr("fewstep.denoise.project._QUANTILE_LIMIT", 3 * X[0].numel())
    assert torch.equal(fs.dynamic_threshold(network, 0.9, 9.0)(torch.cat([X, 2 * X]), 1.0), whole)
