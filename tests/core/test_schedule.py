"""Noise schedules against closed forms, diffusers and finite differences."""

import json
import math

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EDMEulerScheduler,
    FlowMatchEulerDiscreteScheduler,
)
from diffusers.schedulers.scheduling_ddim import rescale_zero_terminal_snr
from hypothesis import given
from hypothesis import strategies as st

from fewstep import schedules
from fewstep.core.errors import InvalidInput

SCHEDULES = {
    "linear": schedules.linear(),
    "scaled_linear": schedules.scaled_linear(),
    "cosine": schedules.cosine(),
    "zero_snr": schedules.scaled_linear(zero_snr=True),
    "cosine zero_snr": schedules.cosine(zero_snr=True),
    "betas": schedules.from_betas([0.1, 0.2, 0.5, 0.9]),
    "two times": schedules.from_alphas_cumprod([0.9, 0.1]),
    "edm": schedules.edm(),
    "flow": schedules.flow(),
    "flow shift 3": schedules.flow(3.0),
}
BETA = {name: s for name, s in SCHEDULES.items() if s.t_clean == -1}
every_schedule = pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
every_beta_schedule = pytest.mark.parametrize("schedule", BETA.values(), ids=BETA)


def times_of(schedule, count=4001):
    """Times from clean to the noisiest, both included."""
    return np.linspace(schedule.t_clean, schedule.t_max, count)


@every_schedule
def test_alpha_falls_and_sigma_rises_from_clean_to_noise(schedule):
    t = times_of(schedule)
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    assert alpha.dtype == sigma.dtype == np.float64
    assert (alpha[0], sigma[0]) == (1.0, 0.0)
    assert np.all(np.diff(sigma) > 0)
    assert np.all(np.diff(alpha) <= 0)
    assert np.all(np.diff(schedule.lam(t[1:-1])) < 0)
    assert schedule.lam(schedule.t_clean) == np.inf
    assert schedule.ratio(schedule.t_clean) == 0.0
    assert schedule.t_clean < schedule.t_min < schedule.t_max


@every_schedule
def test_functions_of_one_time_equal_those_of_many(schedule):
    t = times_of(schedule, 7)
    for function in (schedule.alpha, schedule.sigma, schedule.lam, schedule.ratio, schedule.given_sigma):
        assert [float(function(float(x))) for x in t] == function(t).tolist()


@every_beta_schedule
def test_beta_schedules_preserve_the_variance(schedule):
    t = times_of(schedule)
    np.testing.assert_allclose(schedule.alpha(t) ** 2 + schedule.sigma(t) ** 2, 1, rtol=0, atol=1e-15)


@every_beta_schedule
def test_beta_schedules_meet_alphas_cumprod_at_integers(schedule):
    products = np.array(schedule.alphas_cumprod)
    t = np.arange(len(products))
    np.testing.assert_allclose(schedule.alpha(t) ** 2, products, rtol=2e-14)
    np.testing.assert_allclose(schedule.sigma(t) ** 2, 1 - products, rtol=2e-14)


def test_lambda_is_linear_between_integers():
    schedule = schedules.linear()
    lam = schedule.lam(np.array([500.0, 500.25, 500.5, 501.0]))
    np.testing.assert_allclose(lam[1:3], lam[0] + np.array([0.25, 0.5]) * (lam[3] - lam[0]), rtol=1e-13)


@pytest.mark.parametrize("name", ["edm", "flow", "flow shift 3"])
def test_edm_and_flow_are_what_they_are_defined_as(name):
    schedule = SCHEDULES[name]
    t = times_of(schedule, 11)
    assert schedule.sigma(t).tolist() == t.tolist()
    assert schedule.alpha(t).tolist() == (np.ones(11) if name == "edm" else 1 - t).tolist()


@every_schedule
def test_derivatives_equal_finite_differences(schedule):
    inner = times_of(schedule, 1500)[1:-1]
    h = 1e-6 * max(1.0, schedule.t_max / 1000)
    kinks = np.abs(inner - np.round(inner)) < 2 * h
    t = inner[~kinks] if schedule in BETA.values() else inner
    dalpha, dsigma = schedule.derivatives(t)
    for function, derivative in ((schedule.alpha, dalpha), (schedule.sigma, dsigma)):
        difference = (function(t + h) - function(t - h)) / (2 * h)
        np.testing.assert_allclose(derivative, difference, rtol=1e-5, atol=1e-9)


@every_beta_schedule
def test_derivatives_at_kinks_are_the_right_hand_ones(schedule):
    t = np.arange(-1.0, len(schedule.alphas_cumprod) - 1)
    h = 1e-6
    dalpha, dsigma = schedule.derivatives(t)
    np.testing.assert_allclose(dalpha, (schedule.alpha(t + h) - schedule.alpha(t)) / h, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(dsigma, (schedule.sigma(t + h) - schedule.sigma(t)) / h, rtol=1e-4, atol=1e-6)


def test_two_training_times_of_which_the_last_has_no_signal_are_a_schedule():
    schedule = schedules.from_alphas_cumprod([0.9, 0.0])
    dalpha, _ = schedule.derivatives(np.array([-0.5, 0.5]))
    assert dalpha[1] == pytest.approx(-math.sqrt(0.9))
    assert schedule.alpha([-1.0, 0.0, 0.5, 1.0]) == pytest.approx([1, math.sqrt(0.9), math.sqrt(0.9) / 2, 0])


@every_schedule
def test_time_of_lambda_and_time_of_sigma_invert(schedule):
    t = times_of(schedule)
    atol = 1e-12 * max(1.0, schedule.t_max)
    np.testing.assert_allclose(schedule.time_of_sigma(schedule.given_sigma(t)), t, rtol=0, atol=atol)
    t = t[:-1] if np.isinf(schedule.ratio(schedule.t_max)) else t
    np.testing.assert_allclose(schedule.time_of_lambda(schedule.lam(t)), t, rtol=1e-12, atol=atol)


@pytest.mark.parametrize("name", ["zero_snr", "cosine zero_snr", "flow"])
def test_an_infinite_ratio_has_the_noisiest_time(name):
    schedule = SCHEDULES[name]
    assert schedule.ratio(schedule.t_max) == np.inf
    assert schedule.time_of_lambda(-np.inf) == schedule.t_max


@every_beta_schedule
def test_lambda_that_misses_the_ends_by_a_rounding_error_has_the_time_of_the_end(schedule):
    if np.isinf(schedule.ratio(schedule.t_max)):
        return
    lam = schedule.lam(schedule.t_max)
    for slip in (1e-9, 1e-12, 0.0, -1e-12):
        assert schedule.time_of_lambda(lam - 0.99 * slip) == pytest.approx(schedule.t_max, abs=1e-6)


@every_beta_schedule
def test_noise_beyond_the_schedule_is_refused(schedule):
    if np.isfinite(schedule.ratio(schedule.t_max)):
        with pytest.raises(InvalidInput, match="noisier than the schedule's noisiest"):
            schedule.time_of_sigma(1.01 * schedule.ratio(schedule.t_max))


@given(share=st.floats(0, 1), name=st.sampled_from(list(SCHEDULES)))
def test_any_time_survives_the_way_through_sigma(share, name):
    schedule = SCHEDULES[name]
    t = min(schedule.t_clean + share * (schedule.t_max - schedule.t_clean), schedule.t_max)
    again = float(schedule.time_of_sigma(schedule.given_sigma(t)))
    assert again == pytest.approx(t, abs=1e-11 * max(1.0, schedule.t_max))


PEERS = {
    "linear": (schedules.linear, "linear", {}),
    "linear, 100 times": (schedules.linear, "linear", {"num_train_timesteps": 100}),
    "scaled_linear": (schedules.scaled_linear, "scaled_linear", {"beta_start": 0.00085, "beta_end": 0.012}),
    "cosine": (schedules.cosine, "squaredcos_cap_v2", {}),
}


@pytest.mark.parametrize(("make", "name", "config"), PEERS.values(), ids=PEERS)
def test_betas_equal_those_of_diffusers(make, name, config):
    peer = DDPMScheduler(beta_schedule=name, **config)
    products = np.array(make(**config).alphas_cumprod)
    betas = 1 - products / np.concatenate([[1], products[:-1]])
    np.testing.assert_allclose(betas, peer.betas.double().numpy(), rtol=3e-6)
    exact = np.cumprod(1 - peer.betas.double().numpy())
    np.testing.assert_allclose(products, exact, rtol=1e-3 if name == "squaredcos_cap_v2" else 2e-5)


@pytest.mark.parametrize("make", [schedules.linear, schedules.scaled_linear, schedules.cosine])
def test_zero_terminal_snr_equals_that_of_diffusers(make):
    plain, ours = (np.array(make(zero_snr=z).alphas_cumprod) for z in (False, True))
    betas = 1 - plain / np.concatenate([[1], plain[:-1]])
    peer = torch.cumprod(1 - rescale_zero_terminal_snr(torch.from_numpy(betas)), 0).numpy()
    np.testing.assert_allclose(ours, peer, rtol=1e-9, atol=1e-15)
    assert ours[-1] == 0.0
    assert ours[0] == pytest.approx(plain[0], rel=1e-15)


def test_zero_terminal_snr_is_pure_noise_at_the_end():
    schedule = schedules.scaled_linear(zero_snr=True)
    assert (schedule.alpha(999.0), schedule.sigma(999.0)) == (0.0, 1.0)
    assert schedule.lam(999.0) == -np.inf
    assert schedule.alpha(998.5) == pytest.approx(schedule.alpha(998.0) / 2)


def test_given_betas_and_given_products_are_the_same_schedule():
    betas = np.linspace(1e-4, 0.02, 50)
    by_betas = schedules.from_betas(betas)
    by_products = schedules.from_alphas_cumprod(np.cumprod(1 - betas))
    assert by_betas.alphas_cumprod == by_products.alphas_cumprod
    assert by_betas.alphas_cumprod == schedules.linear(num_train_timesteps=50).alphas_cumprod


def test_the_shift_moves_times_of_grids_and_nothing_else():
    plain, shifted = schedules.flow(), schedules.flow(3.0)
    t = np.linspace(0, 1, 9)
    assert plain.warp(t).tolist() == t.tolist()
    np.testing.assert_allclose(shifted.warp(t), 3 * t / (1 + 2 * t), rtol=1e-15)
    assert shifted.sigma(t).tolist() == plain.sigma(t).tolist() == t.tolist()
    assert SCHEDULES["linear"].warp(t).tolist() == t.tolist()


def test_the_shift_by_resolution_equals_that_of_flux():
    assert schedules.flow_shift(256) == pytest.approx(math.exp(0.5))
    assert schedules.flow_shift(4096) == pytest.approx(math.exp(1.15))
    assert schedules.flow_shift(1024) == pytest.approx(math.exp(0.5 + 0.65 * 768 / 3840))
    peer = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    fractions = [1.0, 0.75, 0.5, 0.25]
    peer.set_timesteps(sigmas=fractions, mu=math.log(schedules.flow_shift(1024)))
    ours = schedules.flow(schedules.flow_shift(1024)).warp(fractions)
    np.testing.assert_allclose(ours, peer.sigmas[:-1].double().numpy(), rtol=1e-6)


@every_schedule
def test_a_spec_survives_json_to_the_last_bit(schedule):
    again = schedules.from_spec(json.loads(json.dumps(schedule.spec)))
    assert again == schedule
    assert again.spec == schedule.spec
    assert again.fingerprint == schedule.fingerprint
    t = times_of(schedule, 101)
    assert again.alpha(t).tolist() == schedule.alpha(t).tolist()
    assert again.sigma(t).tolist() == schedule.sigma(t).tolist()


def test_fingerprints_tell_the_functions_of_time_apart_and_nothing_else():
    prints = {name: schedule.fingerprint for name, schedule in SCHEDULES.items()}
    assert prints.pop("flow shift 3") == prints["flow"]  # the shift is a matter of grids
    assert len(set(prints.values())) == len(prints)
    assert schedules.linear().fingerprint == schedules.linear(1e-4, 0.02, 1000).fingerprint
    assert schedules.linear().fingerprint != schedules.linear(num_train_timesteps=999).fingerprint


def test_schedules_are_frozen_and_hashable():
    for schedule in SCHEDULES.values():
        with pytest.raises(AttributeError):
            schedule.t_max = 1.0
    assert len(set(SCHEDULES.values())) == len(SCHEDULES)


@pytest.mark.parametrize(
    ("peer", "expected"),
    [
        (DDIMScheduler(), schedules.linear()),
        (
            DDIMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012),
            schedules.scaled_linear(),
        ),
        (DDIMScheduler(beta_schedule="squaredcos_cap_v2"), schedules.cosine()),
        (DDIMScheduler(rescale_betas_zero_snr=True), schedules.linear(zero_snr=True)),
        (DDPMScheduler(trained_betas=[0.1, 0.2]), schedules.from_betas([0.1, 0.2])),
        (FlowMatchEulerDiscreteScheduler(shift=3.0), schedules.flow(3.0)),
        (DPMSolverMultistepScheduler(use_flow_sigmas=True, flow_shift=5.0), schedules.flow(5.0)),
        (EDMEulerScheduler(sigma_max=700.0), schedules.edm(700.0, 0.002)),
    ],
    ids=["linear", "scaled_linear", "cosine", "zero_snr", "trained", "flow", "flow sigmas", "edm"],
)
def test_configurations_of_diffusers_are_read(peer, expected):
    in_memory = {k: v for k, v in peer.config.items() if k != "_class_name"}  # the class is only in saved files
    assert schedules.from_diffusers(json.loads(peer.to_json_string())) == expected
    assert schedules.from_diffusers(in_memory) == expected


BAD = [
    (lambda: schedules.linear(beta_start=0.0), "beta_start must be a finite number above zero, got 0.0"),
    (lambda: schedules.linear(beta_end=float("nan")), "beta_end must be"),
    (lambda: schedules.linear(beta_end=float("inf")), "beta_end must be"),
    (lambda: schedules.linear(beta_end=1.5), "Betas must lie in"),
    (lambda: schedules.linear(num_train_timesteps=1), "num_train_timesteps must be an integer in 2"),
    (lambda: schedules.cosine(num_train_timesteps=10**6), "100000, got 1000000"),
    (lambda: schedules.cosine(max_beta=-0.1), "max_beta must be"),
    (lambda: schedules.from_betas([0.1]), "2 to 100000 numbers"),
    (lambda: schedules.from_betas([]), "2 to 100000 numbers"),
    (lambda: schedules.from_betas([0.1, 0.0]), "Betas must lie in"),
    (lambda: schedules.from_betas([0.1, -0.1]), "Betas must lie in"),
    (lambda: schedules.from_betas([0.1, float("nan")]), "must decrease strictly"),
    (lambda: schedules.from_betas([[0.1, 0.2], [0.3, 0.4]]), "beta"),
    (lambda: schedules.from_alphas_cumprod([0.5, 0.9]), "must decrease strictly"),
    (lambda: schedules.from_alphas_cumprod([1.0, 0.5]), "must decrease strictly"),
    (lambda: schedules.from_alphas_cumprod([0.5, 0.0, 0.0]), "must decrease strictly"),
    (lambda: schedules.edm(sigma_max=0.001), "sigma_min 0.002 must be below sigma_max 0.001"),
    (lambda: schedules.edm(sigma_min=0.0), "sigma_min must be"),
    (lambda: schedules.edm(sigma_max="eighty"), "sigma_max must be"),
    (lambda: schedules.flow(shift=0.0), "shift must be"),
    (lambda: schedules.flow(shift=None), "shift must be"),
    (lambda: schedules.flow(t_min=1.0), "t_min must be below 1"),
    (lambda: schedules.flow_shift(0), "image_tokens must be"),
    (lambda: schedules.from_spec({"kind": "linaer"}), "did you mean 'linear'"),
    (lambda: schedules.from_spec({}), "unknown noise schedule"),
    (lambda: schedules.from_spec({"kind": "edm", "shift": 3.0}), "'edm' does not take"),
    (lambda: schedules.from_diffusers({"beta_schedule": "sigmoid"}), "unknown beta_schedule 'sigmoid'"),
]


@pytest.mark.parametrize(("make", "message"), BAD)
def test_impossible_schedules_are_refused(make, message):
    with pytest.raises(InvalidInput, match=message):
        make()


@every_schedule
def test_times_outside_the_schedule_are_refused(schedule):
    for time in (schedule.t_clean - 0.01, schedule.t_max + 0.01, float("nan"), float("inf")):
        for function in (schedule.alpha, schedule.sigma, schedule.lam, schedule.derivatives):
            with pytest.raises(InvalidInput, match=rf"outside the {schedule.kind} schedule, which allows"):
                function(time)
