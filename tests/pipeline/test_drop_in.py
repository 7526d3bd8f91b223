"""The same plan natively and as the scheduler of diffusers' own pipeline gives the same latents."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch

import fewstep as fs
from fewstep.adapters.diffusers import PlanScheduler

from .conftest import Model
from .test_families import PROMPTS, SIZE, WIDE, apart, noise, pack

CALLS: dict[str, dict[str, Any]] = {
    "sd": {"guidance_scale": 4.0},
    "sd2": {"guidance_scale": 4.0},
    "sdxl": {"guidance_scale": 4.0},
    "sd3": {"guidance_scale": 4.0},
    "flux": {"guidance_scale": 4.0},
    "pixart": {"guidance_scale": 4.0, "use_resolution_binning": False, "clean_caption": False},
    "sana": {"guidance_scale": 4.0, "use_resolution_binning": False, "complex_human_instruction": None},
}


@pytest.mark.parametrize(
    ("sampler", "grid"), [("unipc-3", "karras"), ("dpmpp-2m", "trailing"), ("heun", "exponential")]
)
@pytest.mark.parametrize("name", CALLS)
def test_native_and_drop_in_give_the_same_latents(
    models: Callable[..., Model], name: str, sampler: str, grid: str
) -> None:
    native, own, _ = models(name)
    size = WIDE if name == "sana" else SIZE
    z = noise((2, *native.latent_shape(**size)))
    plan = native.plan(sampler, steps=4, grid=grid, **size)
    found = fs.sample(plan, native.denoiser(PROMPTS, guidance=4.0, **size), noise=z)
    pipe = copy.copy(own)
    pipe.scheduler = PlanScheduler.from_config(own.scheduler, sampler=sampler, grid=grid, init_noise="entry")
    drawn = pipe(
        PROMPTS,
        num_inference_steps=4,
        latents=pack(z) if name == "flux" else z,
        output_type="latent",
        **CALLS[name],
        **size,
    ).images
    assert apart(pack(found) if name == "flux" else found, torch.as_tensor(drawn)) < 1e-5
