"""Native and diffusers' own pipelines: one start, sampler and step count give one latent and one picture."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

import fewstep as fs
from fewstep.denoise.embedded import scale_embedding
from fewstep.models.families import call_sana, sizes_pixart
from fewstep.pipeline import Pipeline

from .tiny_diffusers import Twins

TOLERANCE = 1e-5
PROMPTS = ["a red circle", "blue square left of green lion"]


def noise(shape: tuple[int, ...], seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def pack(x: torch.Tensor) -> torch.Tensor:
    """Latents as the sequence of patches that FLUX knows."""
    b, c, h, w = x.shape
    return x.view(b, c, h // 2, 2, w // 2, 2).permute(0, 2, 4, 1, 3, 5).reshape(b, h * w // 4, 4 * c)


def ours(native: Pipeline, plan: fs.Plan, start: torch.Tensor, **settings: Any) -> torch.Tensor:
    return fs.sample(plan, native.denoiser(PROMPTS, **settings), start=start)


def theirs(own: Any, start: torch.Tensor, **settings: Any) -> torch.Tensor:
    return own(PROMPTS, num_inference_steps=5, latents=start, output_type="latent", **settings).images


def apart(a: torch.Tensor, b: torch.Tensor) -> float:
    """Largest distance, as a share of the largest value where that is above 1."""
    return float((a - b).abs().max() / b.abs().max().clamp_min(1))


def usual_scale(native: Pipeline) -> float:
    return native.model.recommended["guidance"]["scale"]


SIZE = {"height": 16, "width": 24}


@pytest.mark.parametrize(("guidance", "negative"), [(1.0, None), (5.0, None), (5.0, ["blue", "lion"])])
@pytest.mark.parametrize("name", ["sd", "sd2"])
def test_stable_diffusion_epsilon_and_v(
    models: Callable[..., Twins], name: str, guidance: float, negative: list[str] | None
) -> None:
    native, own, _ = models(name)
    assert native.model.prediction == ("epsilon" if name == "sd" else "v_prediction")
    start = noise((2, 4, 8, 12))
    expected = theirs(own, start, guidance_scale=guidance, negative_prompt=negative, **SIZE)
    # set_alpha_to_one=False of Stable Diffusion: the last step of diffusers ends at time 0 and not clean
    plan = native.plan("ddim", sampling={"times": [*own.scheduler.timesteps.tolist(), 0.0]})
    assert apart(ours(native, plan, start, guidance=guidance, negative=negative, **SIZE), expected) < TOLERANCE


def test_a_latent_consistency_model_is_told_its_scale(models: Callable[..., Twins]) -> None:
    native, own, _ = models("lcm")
    assert native.model.conditioner.facts.distilled
    start = noise((2, 4, 8, 12))
    drawn = own(PROMPTS, num_inference_steps=1, guidance_scale=3.0, latents=start, output_type="latent", **SIZE).images
    plan = native.plan("lcm", sampling={"times": [*own.scheduler.timesteps.tolist(), -1.0]})
    assert apart(ours(native, plan, start, guidance=3.0, **SIZE), drawn) < TOLERANCE
    assert apart(ours(native, plan, start, guidance=5.0, **SIZE), drawn) > 1e-3


@pytest.mark.parametrize("negative", [None, "blue"])
def test_sdxl(models: Callable[..., Twins], negative: str | None) -> None:
    native, own, _ = models("sdxl")
    assert native.model.conditioner.zero_negative
    start = noise((2, 4, 8, 12))
    others = None if negative is None else [negative] * 2
    expected = theirs(own, start, guidance_scale=4.0, negative_prompt=others, **SIZE)
    plan = native.plan("euler", steps=5, **SIZE)
    # diffusers' Euler lives at x / alpha, and multiplies what it is given by the first sigma or so
    first = plan.rows[0]
    scaled = start * own.scheduler.init_noise_sigma * first.alpha
    assert apart(ours(native, plan, scaled, guidance=4.0, negative=negative, **SIZE), expected) < TOLERANCE


@pytest.mark.parametrize("t5", [True, False])
def test_sd3_with_and_without_t5(models: Callable[..., Twins], t5: bool) -> None:
    native, own, _ = models("sd3", t5=t5)
    assert (native.model.prediction, native.model.schedule.shift) == ("flow", 3.0)
    start = noise((2, 4, 8, 12))
    expected = theirs(own, start, guidance_scale=4.0, negative_prompt=["blue", "lion"], **SIZE)
    plan = native.plan("euler", sampling={"sigmas": own.scheduler.sigmas.tolist()})
    found = ours(native, plan, start, guidance=4.0, negative=["blue", "lion"], **SIZE)
    assert apart(found, expected) < TOLERANCE


@pytest.mark.parametrize("guidance", [True, False])
def test_flux_with_and_without_a_guidance_embedding(models: Callable[..., Twins], guidance: bool) -> None:
    native, own, _ = models("flux", guidance=guidance)
    assert native.model.conditioner.facts.distilled == guidance
    assert usual_scale(native) == (3.5 if guidance else 1.0)
    start = noise((2, 4, 8, 12))
    settings = {"guidance": 2.5} if guidance else {}
    expected = theirs(own, pack(start), guidance_scale=2.5, **SIZE)
    plan = native.plan("euler", steps=5, **SIZE)
    assert plan.recipe.schedule["shift"] == pytest.approx(
        float(np.exp(0.5 + 0.65 * (24 - 256) / 3840)) if guidance else 1
    )
    assert apart(pack(ours(native, plan, start, **settings, **SIZE)), expected) < TOLERANCE


def test_pixart(models: Callable[..., Twins]) -> None:
    native, own, _ = models("pixart")
    start = noise((2, 4, 8, 12))
    expected = theirs(
        own,
        start,
        guidance_scale=4.5,
        negative_prompt="blue",
        use_resolution_binning=False,
        clean_caption=False,
        **SIZE,
    )
    plan = native.plan("dpmpp-2m", sampling={"times": [*own.scheduler.timesteps.tolist(), -1.0]})
    assert apart(ours(native, plan, start, guidance=4.5, negative="blue", **SIZE), expected) < TOLERANCE


WIDE = {"height": 32, "width": 64}
"""A size that Sana makes."""


def test_sana(models: Callable[..., Twins]) -> None:
    native, own, _ = models("sana")
    assert (native.model.prediction, native.model.schedule.shift, usual_scale(native)) == ("flow", 3.0, 4.5)
    start = noise((2, 4, 16, 32))
    settings = {"use_resolution_binning": False, "complex_human_instruction": None}
    expected = theirs(own, start, guidance_scale=4.5, negative_prompt="blue", **settings, **WIDE)

    def whole_times(module: Any, x: torch.Tensor, t: torch.Tensor, **condition: torch.Tensor) -> torch.Tensor:
        return call_sana(module, x, t.trunc(), **condition)  # as diffusers' DPM-Solver tells it

    told = Pipeline(replace(native.model, network=partial(whole_times, native.model.module)))
    plan = native.plan("dpmpp-2m", sampling={"sigmas": own.scheduler.sigmas.tolist()}, **WIDE)
    assert apart(ours(told, plan, start, guidance=4.5, negative="blue", **WIDE), expected) < TOLERANCE
    near = apart(ours(native, plan, start, guidance=4.5, negative="blue", **WIDE), expected)
    assert 1e-3 < near < 0.1


def test_sana_encodes_pictures_without_a_distribution(models: Callable[..., Twins]) -> None:
    native, own, _ = models("sana")
    pixels = noise((1, 3, 32, 64), 4).clamp(-1, 1)
    with torch.no_grad():
        expected = own.vae.encode(pixels).latent * 0.41407
    assert native.model.codec.pixel_shape((4, 16, 32)) == (3, 32, 64)
    assert apart(native.model.codec.encode(pixels, fs.TensorCache()), expected) < TOLERANCE


def test_dit_draws_classes(models: Callable[..., Twins]) -> None:
    native, own, _ = models("dit")
    assert native.model.conditioner.subjects == tuple(range(1000))
    images = own([3, 207], num_inference_steps=5, generator=torch.Generator().manual_seed(1), output_type="pt").images
    start = noise((2, 4, 8, 8), 1)
    plan = native.plan("ddim", steps=5, grid="leading")
    latents = fs.sample(plan, native.denoiser([3, 207], guidance=4.0), start=start)
    assert apart(native.decode(latents).clamp(-1, 1), images * 2 - 1) < TOLERANCE


def test_ddpm_draws_without_any_condition(models: Callable[..., Twins]) -> None:
    native, own, _ = models("ddpm")
    assert (native.model.conditioner.subjects, native.state_shape()) == ((None,), (3, 8, 8))
    with pytest.raises(fs.InvalidInput, match="takes no condition, so there is nothing to guide"):
        native([None], steps=2, guidance=3.0)
    with pytest.raises(fs.InvalidInput, match="has no label 0: known is None"):
        native([0], steps=2)
    generator = torch.Generator().manual_seed(2)
    expected = own(batch_size=2, num_inference_steps=5, generator=generator, output_type="np").images
    plan = native.plan("ddim", steps=5, grid="leading")
    found = fs.sample(plan, native.denoiser([None, None]), start=noise((2, 3, 8, 8), 2))
    pixels = torch.from_numpy(expected).permute(0, 3, 1, 2)
    assert apart((found / 2 + 0.5).clamp(0, 1), pixels) < TOLERANCE


@pytest.mark.parametrize("name", ["sd", "sdxl", "sd3", "flux", "pixart", "sana"])
def test_pictures_are_those_of_diffusers_after_the_vae(models: Callable[..., Twins], name: str) -> None:
    native, own, _ = models(name)
    latents = noise((2, 4, 8, 12), 3)
    if name == "sdxl":
        mean, std = (
            torch.tensor(v).view(1, 4, 1, 1) for v in (own.vae.config.latents_mean, own.vae.config.latents_std)
        )
        z = latents * std / 0.13 + mean
    else:
        z = latents / own.vae.config.scaling_factor + (own.vae.config.get("shift_factor") or 0.0)
    with torch.no_grad():
        expected = own.vae.decode(z).sample
    assert apart(native.decode(latents), expected) < TOLERANCE


def test_a_distilled_network_is_told_its_scale_as_in_diffusers(models: Callable[..., Twins]) -> None:
    own = models("sd").own
    scales = torch.tensor([0.0, 1.5, 6.5])
    for width in (16, 17):
        expected = own.get_guidance_scale_embedding(scales, embedding_dim=width)
        assert torch.allclose(scale_embedding(scales, width), expected, atol=1e-6)


def test_pixart_is_told_its_size_where_it_was_trained_to_be() -> None:
    assert sizes_pixart({"sample_size": 64}, 2, 512, 1024) == {}
    told = sizes_pixart({"sample_size": 128}, 2, 512, 1024)
    assert told["resolution"].tolist() == [[512, 1024]] * 2
    assert told["aspect_ratio"].tolist() == [[0.5]] * 2
    assert sizes_pixart({"sample_size": 128, "use_additional_conditions": False}, 2, 512, 1024) == {}
