"""DDIM: inversion reaches a noisiest point without data."""

import pytest
import torch

import fewstep as fs

SCHEDULES = {"flow": fs.schedules.flow(), "zero-snr": fs.schedules.scaled_linear(zero_snr=True)}


@pytest.mark.parametrize("kind", SCHEDULES)
@pytest.mark.parametrize("steps", [2, 3, 20])
def test_inversion_goes_up_to_where_alpha_is_0(kind, steps):
    plan = fs.compile("ddim", schedule=SCHEDULES[kind], steps=steps, reverse=True)
    assert plan.exit == (0.0, 1.0)
    start = torch.full((1, 2), 0.5, dtype=torch.float64)
    assert torch.isfinite(fs.sample(plan, lambda x, t: 0.1 * x, start=start)).all()


def test_churn_that_would_reach_the_end_of_a_reversed_step_is_refused():
    with pytest.raises(fs.InvalidInput, match="reverse"):
        fs.compile("edm-dpm2", schedule=fs.schedules.scaled_linear(), steps=20, grid="karras", reverse=True)


@pytest.mark.parametrize(
    ("sampler", "options", "message"),
    [
        ("ddim", {"eta": "1"}, "eta must be of type float, got '1'"),
        ("edm", {"s_churn": True}, "s_churn must be of type float, got True"),
        ("unipc-3", {"disable_corrector": 1}, "disable_corrector must be of type .*, got 1"),
        ("dpmpp-2m", {"prediction": "x"}, "prediction must be one of 'data', 'noise', got 'x'"),
        ("restart", {"restart_steps": 2.5}, "restart_steps must be of type int or NoneType, got 2.5"),
    ],
)
def test_options_of_another_kind_are_refused_even_where_one_step_would_not_use_them(sampler, options, message):
    with pytest.raises(fs.InvalidInput, match=message):
        fs.compile(sampler, schedule=fs.schedules.linear(), steps=1, **options)
