"""Settings and options: those of the host and those of a call are honoured, as diffusers does, or refused."""

from __future__ import annotations

from typing import Any

import diffusers as D
import pytest
import torch

import fewstep as fs
from fewstep.adapters.diffusers import PlanScheduler

from .tiny import SD

V = {**SD, "prediction_type": "v_prediction"}
FLOW = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0}


def run(scheduler: Any, steps: int = 6) -> torch.Tensor:
    scheduler.set_timesteps(steps)
    x = torch.randn(1, 3, 4, 4, generator=torch.Generator().manual_seed(0)) * getattr(scheduler, "init_noise_sigma", 1)
    for t in scheduler.timesteps:
        seen = scheduler.scale_model_input(x, t) if hasattr(scheduler, "scale_model_input") else x
        x = scheduler.step(torch.tanh(seen) * 0.8, t, x).prev_sample
    return x


def apart(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).abs().max() / b.abs().max())


def made(host: Any, **more: Any) -> PlanScheduler:
    return PlanScheduler.from_config(host, **more)


def options(host: Any, **more: Any) -> dict[str, Any]:
    return made(host, **more).config["options"]


# --- the order of the last steps ------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [5, 14, 15, 20])
@pytest.mark.parametrize(
    ("kind", "config"),
    [
        (D.DEISMultistepScheduler, {}),
        (D.DEISMultistepScheduler, {"solver_order": 3}),
        (D.DPMSolverMultistepScheduler, {"solver_order": 3}),
        (D.DPMSolverMultistepScheduler, {"final_sigmas_type": "sigma_min"}),
        (D.DPMSolverMultistepScheduler, {"final_sigmas_type": "sigma_min", "euler_at_final": True}),
        (D.DPMSolverSinglestepScheduler, {"final_sigmas_type": "sigma_min"}),
        (D.DPMSolverSinglestepScheduler, {"final_sigmas_type": "sigma_min", "solver_order": 3}),
        (D.DPMSolverSinglestepScheduler, {"final_sigmas_type": "sigma_min", "lower_order_final": True}),
        (D.UniPCMultistepScheduler, {"final_sigmas_type": "sigma_min", "lower_order_final": False}),
    ],
)
def test_the_order_falls_at_the_end_where_diffusers_lets_it_fall(kind: Any, config: dict[str, Any], steps: int) -> None:
    assert apart(run(made(kind(**V, **config)), steps), run(kind(**V, **config), steps)) < 5e-5


def test_lower_order_final_of_a_call_is_that_of_diffusers_and_among_options_that_of_the_sampler() -> None:
    dpm = D.DPMSolverMultistepScheduler(**V, final_sigmas_type="sigma_min")
    always = made(dpm, sampler="dpmpp-2m", options={"lower_order_final": True})
    below_15 = made(dpm, sampler="dpmpp-2m", lower_order_final=True)
    assert apart(run(below_15, 20), run(dpm, 20)) < 1e-5
    assert apart(run(always, 20), run(dpm, 20)) > 1e-3


# --- options that a host has a key for, too --------------------------------------------------------------------


@pytest.mark.parametrize(
    "host", [D.DPMSolverMultistepScheduler(**V), D.UniPCMultistepScheduler(**V), D.DDIMScheduler()]
)
def test_an_option_is_honoured_whatever_keys_the_host_has(host: Any) -> None:
    assert options(host, sampler="unipc-3", lower_order_final=False)["lower_order_final"] is False
    assert options(host, sampler="unipc-3", disable_corrector=[0, 1])["disable_corrector"] == [0, 1]
    assert options(host, sampler="euler-a", s_noise=0.9)["s_noise"] == 0.9
    assert options(host, sampler="lcm", timestep_scaling=5.0)["timestep_scaling"] == 5.0
    assert options(host, sampler="deis-3", lower_order_final=False)["lower_order_final"] is False


def test_s_noise_and_timestep_scaling_are_options_also_where_the_host_has_a_key_of_the_name() -> None:
    cm, lcm = D.CMStochasticIterativeScheduler(), D.LCMScheduler()
    assert options(cm, sampler="euler-a", s_noise=0.9) == {"s_noise": 0.9}
    assert options(cm, s_noise=0.9) == {"sigma_min": 0.002, "s_noise": 0.9}
    assert options(lcm, timestep_scaling=5.0)["timestep_scaling"] == 5.0
    assert options(D.TCDScheduler(), sampler="lcm", timestep_scaling=5.0)["timestep_scaling"] == 5.0


def test_another_sampler_of_the_hosts_class_keeps_the_settings_of_its_solver() -> None:
    dpm = D.DPMSolverMultistepScheduler(**V, lower_order_final=False, solver_type="heun", final_sigmas_type="sigma_min")
    theirs = D.DPMSolverMultistepScheduler.from_config(dpm.config, solver_order=3)
    ours = made(dpm, sampler="dpmpp-3m")
    assert apart(run(ours), run(theirs)) < 1e-5
    assert options(D.UniPCMultistepScheduler.from_config(dpm.config), sampler="unipc-3")["lower_order_final"] is False


def test_explicit_settings_go_to_another_class_and_mere_defaults_do_not() -> None:
    assert options(D.DPMSolverMultistepScheduler(**V, lower_order_final=False), sampler="unipc-3") == {
        "lower_order_final": False
    }
    assert options(D.DPMSolverMultistepScheduler(**V), sampler="unipc-3") == {}


@pytest.mark.parametrize(
    ("host", "more", "message"),
    [
        (
            D.DPMSolverMultistepScheduler(),
            {"sampler": "ddim", "lower_order_final": False},
            "means nothing to sampler='ddim'",
        ),
        (D.DPMSolverMultistepScheduler(), {"sampler": "dpmpp-2m", "solver_order": 3}, "makes it sampler='dpmpp-3m'"),
        (D.DDIMScheduler(), {"sampler": "ddim", "shift": 3.0}, "is for flow schedules"),
        (D.DDIMScheduler(), {"sampler": "ddim", "interpolation_type": "log_linear"}, "means nothing to sampler='ddim'"),
        (D.DDIMScheduler(), {"grid": "karras", "timestep_spacing": "trailing"}, "give one of them"),
        (D.DDIMScheduler(), {"sampler": "unipc-3", "skip_prk_steps": True}, "means nothing to sampler='unipc-3'"),
        (D.UniPCMultistepScheduler(solver_p=D.DDIMScheduler()), {}, "solver_p"),
        (D.SASolverScheduler(algorithm_type="noise_prediction"), {}, "noise_prediction"),
        (D.SASolverScheduler(tau_func=lambda t: t / 1000), {}, "one interval of times"),
        (D.FlowMatchLCMScheduler(scale_factors=[1.0, 2.0]), {}, "scale_factors"),
        (D.DDIMScheduler(thresholding=True, sample_max_value=0.0), {}, "sample_max_value must be above 0"),
    ],
)
def test_a_setting_that_nothing_would_read_is_refused(host: Any, more: dict[str, Any], message: str) -> None:
    with pytest.raises(fs.InvalidInput, match=message):
        made(host, **more)


# --- clipping -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sampler", ["ddim", "ddpm", "lcm"])
def test_a_flow_host_does_not_clip_by_a_default_of_another_class(sampler: str) -> None:
    host = D.UniPCMultistepScheduler(**FLOW)
    assert made(host, sampler=sampler)._project is None
    assert made(host, sampler=sampler, clip_sample=True)._project is not None
    if sampler == "ddim":
        assert apart(run(made(host, sampler="ddim")), run(made(host, sampler="euler"))) < 1e-6


@pytest.mark.parametrize("kind", [D.TCDScheduler, D.CogVideoXDDIMScheduler])
def test_a_class_that_ignores_clip_sample_is_not_clipped_unless_the_caller_says_so(kind: Any) -> None:
    host = kind(clip_sample=True, prediction_type="sample")
    more = {"options": {"eta": 0.3}} if kind is D.TCDScheduler else {}
    ours = made(host, **more)
    assert apart(run_seeded(ours), run_seeded(host)) < 2e-5
    assert made(host, clip_sample=True)._project is not None


def run_seeded(scheduler: Any) -> torch.Tensor:
    torch.manual_seed(0)
    return run(scheduler)


@pytest.mark.parametrize("most", [0.5, 1.0, 1.5])
def test_sample_max_value_may_lie_below_1(most: float) -> None:
    host = D.DDIMScheduler(**V, thresholding=True, clip_sample=False, sample_max_value=most)
    assert apart(run(made(host)), run(host)) < 1e-5


# --- times ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "config",
    [
        {"interpolation_type": "log_linear"},
        {"use_karras_sigmas": True, "sigma_min": 0.01},
        {"use_exponential_sigmas": True, "sigma_max": 10.0, "sigma_min": 0.1},
        {"final_sigmas_type": "sigma_min"},
    ],
)
def test_the_levels_of_euler_are_those_of_its_settings(config: dict[str, Any]) -> None:
    ours, theirs = made(D.EulerDiscreteScheduler(**V, **config)), D.EulerDiscreteScheduler(**V, **config)
    for scheduler in (ours, theirs):
        scheduler.set_timesteps(6)
    assert torch.allclose(ours.sigmas, theirs.sigmas[:7], rtol=1e-4)
    assert torch.allclose(ours.timesteps.float(), theirs.timesteps, atol=1e-2)
    if "sigma_max" not in config:
        assert apart(run(ours), run(theirs)) < 1e-4


def test_given_timesteps_and_sigmas_count_the_steps() -> None:
    scheduler = made(D.DDIMScheduler(**SD), sampler="euler")
    scheduler.set_timesteps(timesteps=[999], sigmas=[10.0, 0.0])
    assert (scheduler.num_inference_steps, scheduler.timesteps.tolist()) == (1, [999])
    scheduler.set_timesteps(timesteps=[999, 500], sigmas=[10.0, 3.0, 0.0])
    assert (scheduler.num_inference_steps, scheduler.timesteps.tolist()) == (2, [999, 500])
    scheduler.set_timesteps(2, sigmas=[10.0, 3.0, 0.0])
    assert scheduler.num_inference_steps == 2
    for wrong in (
        {"timesteps": [999, 500], "sigmas": [10.0, 0.0]},
        {"num_inference_steps": 3, "sigmas": [9.0, 3.0, 0.0]},
    ):
        with pytest.raises(fs.InvalidInput, match=r"do not fit 2|does not fit 2"):
            scheduler.set_timesteps(**wrong)


@pytest.mark.parametrize(
    ("host", "asked", "message"),
    [
        (D.DDIMScheduler(), {"mu": 0.9}, "shifts a flow schedule"),
        (D.UniPCMultistepScheduler(**FLOW), {"mu": 0.9}, "use_dynamic_shifting"),
        (D.DDIMScheduler(), {"original_inference_steps": 40}, "is for the samplers lcm and tcd"),
        (D.EulerDiscreteScheduler(use_karras_sigmas=True, sigma_max=500.0), {}, "must decrease"),
    ],
)
def test_an_argument_of_set_timesteps_that_would_change_nothing_is_refused(host: Any, asked: Any, message: str) -> None:
    with pytest.raises(fs.InvalidInput, match=message):
        made(host).set_timesteps(4, **asked)
    with pytest.raises(fs.InvalidInput, match="cut those instead"):
        made(host).set_timesteps(timesteps=[900, 500], strength=0.5)


# --- SA-Solver ------------------------------------------------------------------------------------------------


def test_the_noise_of_sa_solver_is_where_its_tau_func_has_it() -> None:
    schedule = fs.schedules.scaled_linear()
    usual = options(D.SASolverScheduler(**SD))
    assert usual["tau"] == 1.0
    assert schedule.time_of_sigma(usual["tau_min"]) == pytest.approx(199.5, abs=1e-6)
    assert options(D.SASolverScheduler(**SD, tau_func=lambda t: 0.0))["tau"] == 0.0
    late = options(D.SASolverScheduler(**SD, tau_func=lambda t: 0.5 * (t <= 300)))
    assert (late["tau"], late["tau_min"]) == (0.5, 0.0)
    assert schedule.time_of_sigma(late["tau_max"]) == pytest.approx(300.5, abs=1e-6)
    short = options(D.SASolverScheduler(**SD, num_train_timesteps=500))
    assert short["tau_max"] > 1e6
    assert options(D.SASolverScheduler(**SD, num_train_timesteps=100))["tau"] == 0.0
    assert options(D.SASolverScheduler(**SD, lower_order_final=False))["lower_order_final"] is False
    made(D.SASolverScheduler(**SD, tau_func=lambda t: 1.0)).to_json_string()  # the function has become options
