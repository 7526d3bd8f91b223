"""The same plan natively and as the scheduler of diffusers' own pipeline gives the same latents."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import fewstep as fs
from fewstep.adapters.byrow import GuidanceByRow
from fewstep.adapters.diffusers import PlanScheduler
from fewstep.core.plan import TunedFor
from models.by_hand import fitted
from models.test_families import PROMPTS, SIZE, WIDE, apart, noise, pack
from models.tiny_diffusers import Twins

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
    models: Callable[..., Twins], name: str, sampler: str, grid: str
) -> None:
    native, own, _ = models(name)
    size = WIDE if name == "sana" else SIZE
    z = noise((2, *native.state_shape(**size)))
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


def tuned(native: Any, factors: list[float]) -> fs.Plan:
    plan = native.plan("unipc-2", steps=len(factors), **SIZE)
    return fitted(plan, model=native.model.weights, factors=factors)


def hosted(own: Any, plan: fs.Plan) -> Any:
    pipe = copy.copy(own)
    pipe.scheduler = PlanScheduler.from_plan(plan, own.scheduler.config, init_noise="entry")
    return pipe


@pytest.mark.parametrize("name", ["sd", "sdxl", "sd3"])
def test_guidance_by_row_goes_through_the_callback(models: Callable[..., Twins], name: str) -> None:
    native, own, _ = models(name)
    plan, z = tuned(native, [0.0, 1.25, 0.8, 0.0]), noise((2, *native.state_shape(**SIZE)))
    found = fs.sample(plan, native.denoiser(PROMPTS, guidance=4.0, plan=plan, **SIZE), noise=z)
    by_row = GuidanceByRow(plan, 4.0)
    assert by_row.weights == pytest.approx((1.0, 4.75, 3.4, 1.0))
    given: dict[str, Any] = {"num_inference_steps": 4, "latents": z, "output_type": "latent", **SIZE}
    pipe = hosted(own, by_row.plan)
    for _ in range(2):  # nothing is left of a run
        drawn = pipe(PROMPTS, guidance_scale=by_row.first, callback_on_step_end=by_row, **given).images
        assert apart(found, torch.as_tensor(drawn)) < 1e-5
    constant = pipe(PROMPTS, guidance_scale=4.0, **given).images
    assert apart(found, torch.as_tensor(constant)) > 1e-3


def test_a_callback_that_cannot_guide_by_row_says_why(models: Callable[..., Twins]) -> None:
    native, own, _ = models("sd")
    plan = tuned(native, [1.0, 0.5])
    by_row = GuidanceByRow(plan, 4.0)
    given: dict[str, Any] = {"num_inference_steps": 2, "output_type": "latent", "callback_on_step_end": by_row, **SIZE}
    with pytest.raises(fs.InvalidInput, match="the first row was guided by 3, and this plan guides it by 4"):
        hosted(own, by_row.plan)(PROMPTS, guidance_scale=3.0, **given)
    with pytest.raises(fs.InvalidInput, match="the pipeline runs another plan"):
        own(PROMPTS, guidance_scale=4.0, **given)
    with pytest.raises(fs.InvalidInput, match="list has no guidance scale that can be set"):
        by_row([], 0, 0, {})
    with pytest.raises(fs.InvalidInput, match="has no guidance by row: give it to"):
        GuidanceByRow(by_row.plan, 4.0)
    for scale in (1.0, float("nan"), "4", True):
        with pytest.raises(fs.InvalidInput, match="scale must be a number above 1"):
            GuidanceByRow(plan, scale)  # type: ignore[arg-type]
    with pytest.raises(fs.InvalidInput, match="GuidanceByRow"):
        hosted(own, plan)


def test_the_callback_reads_a_file(models: Callable[..., Twins], tmp_path: Path) -> None:
    plan = tuned(models("sd").native, [1.0, 0.5])
    plan.save(tmp_path / "plan.json")
    by_row = GuidanceByRow(tmp_path / "plan.json", 3.0)
    assert (by_row.first, by_row.weights) == (3.0, (3.0, 2.0))
    assert by_row.plan.guidance_factors is None
    assert by_row.plan.tuned_for == TunedFor(models("sd").native.model.weights)
