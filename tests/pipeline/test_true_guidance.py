"""Real guidance with a negative prompt, beside the scale that a guidance-distilled network is told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import fewstep as fs
from fewstep.models import NoEffect
from models.test_families import PROMPTS, SIZE, apart, noise, pack
from models.tiny_diffusers import Twins

Models = Callable[..., Twins]
QUICK: dict[str, Any] = {"steps": 2, "height": 16, "width": 16}


@pytest.mark.parametrize("negative", ["blue", None])
def test_flux_is_guided_as_by_diffusers(models: Models, negative: str | None) -> None:
    native, own, _ = models("flux")
    start = noise((2, 4, 8, 12))
    expected = own(
        PROMPTS,
        negative_prompt=[negative or ""] * 2,
        true_cfg_scale=3.0,
        guidance_scale=2.5,
        num_inference_steps=5,
        latents=pack(start),
        output_type="latent",
        **SIZE,
    ).images
    plan = native.plan("euler", steps=5, **SIZE)
    denoiser = native.denoiser(PROMPTS, guidance=fs.Guidance(2.5, true_cfg=3.0), negative=negative, **SIZE)
    assert apart(pack(fs.sample(plan, denoiser, start=start)), expected) < 1e-5
    told = native.denoiser(PROMPTS, guidance=2.5, **SIZE)
    assert apart(pack(fs.sample(plan, told, start=start)), expected) > 1e-3


def test_it_costs_two_evaluations_a_row_and_is_drawn_again(models: Models, tmp_path: Path) -> None:
    flux = models("flux").native
    images = flux("lion", negative="blue", guidance=fs.Guidance(2.5, true_cfg=4.0), **QUICK)
    assert (images.nfe, flux("lion", guidance=2.5, **QUICK).nfe) == (4, 2)
    stamp = fs.drawing.read(images.save(tmp_path / "a.png"))
    assert (stamp.drawing.guidance.true_cfg, stamp.drawing.guidance.scale) == (4.0, 2.5)
    assert torch.equal(flux.redraw(stamp).tensor, images.tensor)
    other = flux("lion", negative="blue", guidance=fs.Guidance(2.5, true_cfg=2.0), **QUICK)
    assert not torch.allclose(other.tensor, images.tensor, atol=1e-3)
    alone = flux("lion", guidance=fs.Guidance(2.5, true_cfg=1.0), **QUICK)
    assert alone.nfe == 2
    assert torch.equal(alone.tensor, flux("lion", guidance=2.5, **QUICK).tensor)


def test_a_method_acts_at_the_true_scale(models: Models) -> None:
    lcm = models("lcm").native
    plain = lcm("lion", negative="blue", guidance=fs.Guidance(6.0, true_cfg=2.0), **QUICK)
    apg = lcm("lion", negative="blue", guidance=fs.Guidance(6.0, true_cfg=2.0, method="apg", norm_limit=0.1), **QUICK)
    assert apg.nfe == plain.nfe == 4
    assert not torch.allclose(apg.tensor, plain.tensor, atol=1e-3)
    rows = fs.pipeline.draw_in_slots(
        lcm.model,
        [lcm.order("lion", negative="blue", seed=s, guidance=fs.Guidance(6.0, true_cfg=2.0), **QUICK) for s in (0, 1)],
        2,
    )
    assert torch.allclose(rows[0].tensor, plain.tensor, atol=1e-5)


def test_where_there_is_nothing_to_be_true_it_is_refused(models: Models, pipe: fs.Pipeline) -> None:
    for model in (models("sd").native, pipe):
        subject: Any = "lion" if model.model.conditioner.field == "prompts" else [1]
        with pytest.raises(fs.InvalidInput, match="true_cfg is for a network that is told its guidance scale"):
            model(subject, guidance=fs.Guidance(2.0, true_cfg=2.0), steps=1)
    flux = models("flux").native
    with pytest.raises(fs.InvalidInput, match="has nothing to guide: leave the guidance method out, or give true_cfg"):
        flux("lion", guidance={"method": "apg"}, **QUICK)
    with pytest.warns(NoEffect, match="true_cfg guides away from it, at twice the cost"):
        flux("lion", negative="blue", **QUICK)
    with pytest.raises(fs.InvalidInput, match="true_cfg"):
        fs.Guidance(2.0, true_cfg=float("inf"))
