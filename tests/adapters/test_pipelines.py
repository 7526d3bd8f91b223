"""Pipelines of diffusers under our scheduler: equal to their own of the same sampler, and every sampler runs."""

from __future__ import annotations

from typing import Any

import diffusers
import pytest
import torch

import fewstep as fs
from fewstep.adapters.diffusers import PlanScheduler

from .pipelines import PIPELINES, draw
from .tiny import FIRST

TOLERANCE = 1e-5
"""Of the largest value: the schedulers of diffusers hold their tables in float32."""


def differs(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return float((ours - theirs).abs().max() / theirs.abs().max())


@pytest.mark.parametrize("name", [name for name in PIPELINES if name != "StableAudio"])  # it draws Brownian noise
def test_a_pipeline_draws_what_it_draws_with_its_own_scheduler(name: str):
    own = PIPELINES[name][0]().scheduler
    ours = PlanScheduler.from_config(own, round_times=name in ("PixArt", "Sana"))
    assert differs(draw(name, ours), draw(name)) < TOLERANCE
    assert differs(draw(name, ours, seed=1), draw(name)) > 0.01


@pytest.mark.parametrize("name", [*FIRST, "LatentUpscale", "StableAudio"])
def test_every_sampler_runs_on_every_pipeline(name: str):
    config = PIPELINES[name][0]().scheduler
    drawn = {}
    for sampler in fs.SAMPLERS:
        drawn[sampler] = draw(name, PlanScheduler.from_config(config, sampler=sampler))
        assert torch.isfinite(drawn[sampler]).all(), sampler
    assert differs(drawn["unipc-3"], drawn["ddim"]) > 1e-4


D, UNIPC = diffusers.DPMSolverMultistepScheduler, diffusers.UniPCMultistepScheduler
NAMED: list[tuple[str, str, Any, dict[str, Any], dict[str, Any]]] = [
    ("StableDiffusion", "dpmpp-2m", D, {}, {}),
    ("StableDiffusion", "dpmpp-2m", D, {"use_karras_sigmas": True}, {"round_times": True}),
    ("StableDiffusion", "sde-dpmpp-2m", D, {"algorithm_type": "sde-dpmsolver++"}, {"variant": "midpoint"}),
    ("StableDiffusion", "unipc-3", UNIPC, {"solver_order": 3}, {}),
    ("StableDiffusion", "unipc-2", UNIPC, {"timestep_spacing": "trailing"}, {}),
    ("StableDiffusion", "deis-2", diffusers.DEISMultistepScheduler, {}, {}),
    ("StableDiffusion", "pndm", diffusers.PNDMScheduler, {"skip_prk_steps": True}, {"warmup": "multistep"}),
    ("StableDiffusion", "euler", diffusers.EulerDiscreteScheduler, {}, {}),
    ("StableDiffusion", "euler", diffusers.EulerDiscreteScheduler, {"use_karras_sigmas": True}, {}),
    ("StableDiffusion", "euler-a", diffusers.EulerAncestralDiscreteScheduler, {}, {}),
    ("StableDiffusion", "heun", diffusers.HeunDiscreteScheduler, {}, {}),
    ("StableDiffusion", "lms-4", diffusers.LMSDiscreteScheduler, {}, {}),
    ("StableDiffusion", "dpm2", diffusers.KDPM2DiscreteScheduler, {}, {}),
    ("StableDiffusion", "dpm2-a", diffusers.KDPM2AncestralDiscreteScheduler, {}, {}),
    ("StableDiffusion", "ddpm", diffusers.DDPMScheduler, {}, {}),
    ("StableDiffusion", "tcd", diffusers.TCDScheduler, {}, {"eta": 0.0}),
    ("StableDiffusionImg2Img", "dpmpp-2m", D, {}, {}),
    ("StableDiffusionImg2Img", "unipc-2", UNIPC, {}, {}),
    ("StableDiffusionImg2Img", "heun", diffusers.HeunDiscreteScheduler, {}, {}),
    ("StableDiffusionInpaint", "dpmpp-2m", D, {}, {}),
    ("StableDiffusionInpaint", "euler-a", diffusers.EulerAncestralDiscreteScheduler, {}, {}),
    ("SDXL", "dpmpp-2m", D, {"use_karras_sigmas": True}, {"round_times": True}),
    ("SD3", "heun", diffusers.FlowMatchHeunDiscreteScheduler, {}, {}),
    ("DiT", "dpmpp-3m", D, {"solver_order": 3}, {}),
    ("DDPM", "dpmpp-2m", D, {}, {}),
    ("DDPM", "ddim", diffusers.DDIMScheduler, {}, {}),
    ("AnimateDiff", "dpmpp-2m", D, {}, {}),
]


@pytest.mark.parametrize(
    ("name", "sampler", "kind", "settings", "options"), NAMED, ids=[f"{c[0]}-{c[1]}-{list(c[3])}" for c in NAMED]
)
def test_a_named_sampler_draws_what_the_diffusers_class_of_that_name_draws(name, sampler, kind, settings, options):
    config = PIPELINES[name][0]().scheduler.config
    theirs = draw(name, kind.from_config(config, **settings))
    shared = {k: v for k, v in settings.items() if k.startswith(("use_", "timestep_"))}
    ours = draw(name, PlanScheduler.from_config(config, sampler=sampler, **shared, **options))
    # Heun's and DPM-2's float32 tables lose more, where the last sigma is 500 times below the first
    assert differs(ours, theirs) < (2e-5 if sampler in ("heun", "dpm2", "dpm2-a") else TOLERANCE)


def test_untold_rounding_moves_a_karras_run_by_little_and_says_the_time_of_the_noise():
    config = PIPELINES["StableDiffusion"][0]().scheduler.config
    ours = PlanScheduler.from_config(config, sampler="dpmpp-2m", grid="karras")
    drawn = draw("StableDiffusion", ours)
    assert ours.timesteps.dtype == torch.float32
    assert float(ours.timesteps[1]) % 1 > 0.01
    assert 1e-5 < differs(drawn, draw("StableDiffusion", D.from_config(config, use_karras_sigmas=True))) < 2e-3


@pytest.mark.parametrize("sampler", ["unipc-3", "heun", "dpmpp-fast", "euler-a", "edm", "rk4", "sa", "dpm2"])
@pytest.mark.parametrize("begin", [1, 2])
def test_a_run_that_begins_late_is_the_plan_on_the_rest_of_the_grid(sampler: str, begin: int):
    schedule = fs.schedules.scaled_linear()
    config = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "prediction_type": "sample"}
    ours = PlanScheduler.from_config(config, sampler=sampler, grid="trailing")
    ours.set_timesteps(5)
    at = begin * ours.order
    ours.set_begin_index(at)
    times = ours.plan.recipe.times[begin:]
    churn = {"s_churn": 5.0 * (5 - begin) / 5} if sampler == "edm" else {}
    plan = fs.compile(sampler, schedule=schedule, times=times, **churn)
    x = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    state, draws = x, []
    generator = torch.Generator().manual_seed(1)
    for t in ours.timesteps[at:]:
        state = ours.step(torch.tanh(state + float(t) / 1000), t, state, generator=generator).prev_sample
    registers = [x * c for c in plan.init[:, 0] / plan.init[0, 0]]  # the host has noised up to the first row
    generator = torch.Generator().manual_seed(1)
    for i, row in enumerate(plan.rows):
        data = torch.tanh(registers[0] + float(ours.timesteps[at + i]) / 1000)
        noise = torch.zeros_like(x)
        if row.noise is not None:
            noise = torch.randn(x.shape, generator=generator, dtype=x.dtype)
            draws.append(i)
        registers = [
            sum(a * r for a, r in zip(plan.A[i, k], registers, strict=True)) + plan.B[i, k].sum() * data
            + plan.s[i, k] * noise
            for k in range(plan.registers)
        ]  # fmt: skip
    assert len(ours.timesteps[at:]) == len(plan.rows)
    assert float((state - registers[0]).abs().max()) < 1e-12
    assert bool(draws) == plan.stochastic
