"""Pipelines that compute with what a scheduler shows: its states, its sigmas, and where its list of times is cut."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import diffusers
import numpy as np
import pytest
import torch

import fewstep as fs
from fewstep.adapters.diffusers import PlanScheduler

from .pipelines import PIPELINES, call, draw
from .tiny import SD

SIGMA_SPACE = (
    diffusers.EulerDiscreteScheduler,
    diffusers.EulerAncestralDiscreteScheduler,
    diffusers.HeunDiscreteScheduler,
    diffusers.KDPM2DiscreteScheduler,
    diffusers.LMSDiscreteScheduler,
)


def apart(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).abs().max() / b.abs().max())


@pytest.mark.parametrize("spacing", ["linspace", "leading", "trailing"])
@pytest.mark.parametrize("kind", SIGMA_SPACE)
def test_states_inputs_and_noise_are_shown_as_the_host_shows_them(kind: Any, spacing: str) -> None:
    theirs = kind(**SD, timestep_spacing=spacing)
    ours, shown = PlanScheduler.from_config(theirs), {}
    for scheduler in (theirs, ours):
        scheduler.set_timesteps(5)
        generator = torch.Generator().manual_seed(0)
        x = torch.ones(1, 3, 4, 4) * scheduler.init_noise_sigma
        seen = [scheduler.add_noise(x, x, scheduler.timesteps[:1])]
        more = {"generator": generator} if "Ancestral" in kind.__name__ else {}
        for t in scheduler.timesteps:
            inner = scheduler.scale_model_input(x, t)
            x = scheduler.step(torch.tanh(inner), t, x, **more).prev_sample
            seen += [inner, x]
        shown[scheduler] = seen
    assert ours.init_noise_sigma == pytest.approx(float(theirs.init_noise_sigma), rel=1e-5)
    for a, b in zip(shown[ours], shown[theirs], strict=True):
        assert apart(a, b) < 2e-4  # the float32 tables of Heun's method lose most
    assert float(ours.sigmas[0]) == pytest.approx(float(theirs.sigmas[0]), rel=1e-5)


def test_a_host_in_the_coordinates_of_the_schedule_and_a_caller_who_asks_for_them_get_them() -> None:
    euler, ddim = diffusers.EulerDiscreteScheduler(**SD), diffusers.DDIMScheduler(**SD)
    x = torch.ones(1, 3)
    for ours in (
        PlanScheduler.from_config(ddim, sampler="euler"),
        PlanScheduler.from_config(euler, coordinates="schedule"),
        PlanScheduler.from_config(diffusers.EulerDiscreteScheduler.from_config(ddim.config), coordinates="schedule"),
    ):
        ours.set_timesteps(3)
        assert ours.scale_model_input(x, ours.timesteps[0]) is x
        assert ours.init_noise_sigma < 1
    shown = PlanScheduler.from_config(euler)
    shown.set_timesteps(3)
    assert shown.init_noise_sigma == pytest.approx(14.6146, abs=1e-3)
    with pytest.raises(fs.InvalidInput, match="coordinates must be one of"):
        PlanScheduler.from_config(euler, coordinates="sigma")


def test_at_zero_terminal_snr_the_shown_states_are_finite() -> None:
    host = diffusers.EulerDiscreteScheduler(
        **SD, rescale_betas_zero_snr=True, timestep_spacing="trailing", prediction_type="v_prediction"
    )
    ours = PlanScheduler.from_config(host)
    ours.set_timesteps(4)
    host.set_timesteps(4)
    assert ours.init_noise_sigma == pytest.approx(4096.0)
    assert np.allclose(ours.sigmas[:4], host.sigmas[:4], rtol=1e-2)


@pytest.mark.parametrize("sampler", ["euler", "unipc-3", "heun", "dpmpp-2m"])
def test_the_latent_upscaler_computes_with_our_sigmas_as_with_its_own(sampler: str) -> None:
    own = PIPELINES["LatentUpscale"][0]().scheduler
    ours = PlanScheduler.from_config(own, sampler=sampler)
    steps = 40
    want = draw("LatentUpscale", steps=steps)
    bound = 1e-4 if sampler == "euler" else 0.15  # other samplers: the same picture, but for their error
    assert apart(draw("LatentUpscale", ours, steps=steps), want) < bound


# --- a run that is cut short -----------------------------------------------------------------------------------


@pytest.mark.parametrize("end", [0.3, 0.5, 0.62, 0.8])
@pytest.mark.parametrize("sampler", ["euler", "heun", "dpm2", "dpmpp-2s"])
def test_a_run_that_is_cut_and_continued_is_the_whole_run(sampler: str, end: float) -> None:
    base = PIPELINES["SDXL"][0]()
    parts = {name: part for name, part in base.components.items() if part is not None}
    absent = dict.fromkeys(["text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2"])
    refiner = diffusers.StableDiffusionXLImg2ImgPipeline(**parts, **absent, add_watermarker=False)
    refiner.set_progress_bar_config(disable=True)
    whole, first = (PlanScheduler.from_config(base.scheduler, sampler=sampler) for _ in range(2))
    want = draw("SDXL", whole, steps=8)
    half = draw("SDXL", first, steps=8, denoising_end=end)
    refiner.scheduler = PlanScheduler.from_config(base.scheduler, sampler=sampler)
    given = {name: value for name, value in PIPELINES["SDXL"][1].items() if name not in ("height", "width")}
    drawn = call(refiner, **given, image=half, num_inference_steps=8, denoising_start=end)
    assert apart(drawn, want) < 1e-6
    assert apart(half, want) > 1e-2


def test_a_cut_inside_a_step_moves_to_where_the_step_begins_or_is_refused() -> None:
    scheduler = PlanScheduler.from_config({**SD, "prediction_type": "epsilon"}, sampler="heun")
    scheduler.set_timesteps(4)
    times = scheduler.timesteps
    assert [len(times[:n]) for n in (7, 6, 5, 4, 3, 2, 1)] == [7, 6, 4, 4, 2, 2, 1]
    assert type(times[2:4]) is type(times[0]) is type(times * 1) is torch.Tensor
    assert torch.equal(times[2:], torch.as_tensor(times)[2:])
    four = PlanScheduler.from_config({**SD, "prediction_type": "epsilon"}, sampler="rk4")
    four.set_timesteps(4)
    with pytest.raises(fs.InvalidInput, match="cannot end inside a step, after 6 of its 13 evaluations"):
        four.timesteps[:6]
    for kept in (copy.deepcopy(times), pickle.loads(pickle.dumps(times)), copy.deepcopy(scheduler).timesteps):
        assert torch.equal(torch.as_tensor(kept), torch.as_tensor(times))
