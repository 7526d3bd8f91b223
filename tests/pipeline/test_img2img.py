"""Image-to-image: the two meanings of strength, equality with diffusers, and wrong arguments."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import fewstep as fs
from fewstep import InvalidInput
from fewstep.drawing import read
from fewstep.models.codec import Latents
from fewstep.pipeline import Pipeline, load
from fewstep.pipeline.img2img import encoded
from fewstep.pipeline.order import Origin
from fewstep.pipeline.stages import start
from fewstep.pipeline.strength import Strength, time_of_level
from fewstep.run.noise import START, unit_noise
from models.tiny_diffusers import Twins

Models = Callable[..., Twins]
SIZE: dict[str, Any] = {"height": 16, "width": 24}


def picture(height: int = 16, width: int = 24, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8))


@pytest.fixture
def sd(models: Models) -> Pipeline:
    """A pipeline with a cache of its own."""
    return load(models("sd").folder)


@pytest.fixture
def latents(monkeypatch: pytest.MonkeyPatch) -> list[torch.Tensor]:
    """The latents of each batch that is decoded."""
    seen: list[torch.Tensor] = []
    decode = Latents.decode

    def watch(self: Latents, z: torch.Tensor, *how: Any) -> torch.Tensor:
        seen.append(z)
        return decode(self, z, *how)

    monkeypatch.setattr(Latents, "decode", watch)
    return seen


@pytest.mark.parametrize(("strength", "guidance"), [(0.6, 1.0), (0.6, 5.0), (1.0, 5.0), (0.25, 5.0)])
def test_it_is_that_of_diffusers(
    models: Models, latents: list[torch.Tensor], monkeypatch: pytest.MonkeyPatch, strength: float, guidance: float
) -> None:
    from diffusers import StableDiffusionImg2ImgPipeline
    from diffusers.pipelines.stable_diffusion import pipeline_stable_diffusion_img2img as module

    native, own, _ = models("sd")
    pipe = StableDiffusionImg2ImgPipeline(**own.components, requires_safety_checker=False)
    pipe.set_progress_bar_config(disable=True)
    seeds = [7, 8]

    def same_noise(shape: tuple[int, ...], **_: Any) -> torch.Tensor:
        return unit_noise(seeds, START, torch.empty(shape))

    monkeypatch.setattr(module, "randn_tensor", same_noise)
    image = picture()
    pixels = pipe.image_processor.preprocess(image)
    with torch.no_grad():
        encoded = pipe.vae.encode(pixels).latent_dist.mode() * pipe.vae.config.scaling_factor
    steps = 8
    expected = pipe(
        ["a red circle", "green lion"],
        encoded.repeat(2, 1, 1, 1),
        strength=strength,
        num_inference_steps=steps,
        guidance_scale=guidance,
        negative_prompt=["blue"] * 2 if guidance > 1 else None,
        output_type="latent",
    ).images
    own.scheduler.set_timesteps(steps)
    images = native.img2img(
        image,
        ["a red circle", "green lion"],
        strength=strength,
        sampler="ddim",
        sampling={"times": [*own.scheduler.timesteps.tolist(), 0.0]},  # where the DDIM of Stable Diffusion ends
        guidance=guidance,
        negative="blue" if guidance > 1 else None,
        seed=7,
        **SIZE,
    )
    assert images.nfe == int(steps * strength) * (1 if guidance == 1 else 2)
    assert (latents[-1] - expected).abs().max() < 1e-5 * expected.abs().max()


@pytest.mark.parametrize("name", ["sd", "sdxl", "sd3", "flux", "pixart"])
def test_latents_of_a_picture_are_those_of_diffusers(models: Models, name: str) -> None:
    native, own, _ = models(name)
    image = picture()
    pixels = torch.from_numpy(np.asarray(image, np.float32) / 127.5 - 1).permute(2, 0, 1)[None]
    found = encoded(native.model, image, (16, 24), "exact").latents
    config = own.vae.config
    with torch.no_grad():
        z = own.vae.encode(pixels).latent_dist.mode()
    if name == "sdxl":
        mean, std = (torch.tensor(v).view(1, 4, 1, 1) for v in (config.latents_mean, config.latents_std))
        expected = (z - mean) * config.scaling_factor / std
    else:
        expected = (z - (config.shift_factor or 0)) * config.scaling_factor
    assert (found - expected).abs().max() < 1e-6
    with torch.no_grad():
        pictures = own.vae.decode(z).sample
    assert (native.decode(found) - pictures).abs().max() < 1e-5


@pytest.mark.parametrize("name", ["sd", "sd2", "sd3", "flux"])
@pytest.mark.parametrize("meaning", ["steps", "noise"])
def test_a_run_starts_at_exactly_the_level_of_its_plan(models: Models, name: str, meaning: str) -> None:
    native = models(name).native
    images = native.img2img(
        picture(), "lion", strength=0.5, strength_of=meaning, steps=8, guidance=1.0, sampler="euler", **SIZE
    )
    assert images.drawing.source is not None
    share = Strength(images.drawing.source.strength, meaning)
    plan = share.plan(native.schedule_at(**SIZE), images.drawing.sampling)
    assert plan.digest == images.made.plan
    times = plan.recipe.times
    alpha, sigma = (float(f(times[0])) for f in (native.model.schedule.alpha, native.model.schedule.sigma))
    assert plan.entry == pytest.approx((alpha, sigma), abs=1e-12)
    whole = native.plan("euler", steps=8, **SIZE).recipe.times
    if meaning == "steps":
        assert times == whole[4:]
    else:
        assert sigma == pytest.approx(0.5, abs=1e-9)
        assert set(times[1:]) <= set(whole)
        assert not any(times[1] < t < times[0] - (times[1] - times[2]) / 4 for t in whole)
    x0 = torch.randn(1, 4, 8, 12, generator=torch.Generator().manual_seed(0))
    state = start(native.model, plan, [images.drawing.but(seed=3)], Origin(x0))
    assert torch.allclose((state - alpha * x0) / sigma, unit_noise([3], START, x0), atol=1e-5)


def test_a_weak_strength_stays_near_the_picture_and_a_strong_one_leaves_it(
    sd: Pipeline, latents: list[torch.Tensor]
) -> None:
    x0 = encoded(sd.model, picture(), (16, 24), "crop").latents
    away = []
    for strength in (0.05, 0.3, 0.95):
        sd.img2img(picture(), "lion", strength=strength, strength_of="noise", steps=20, guidance=1.0, **SIZE)
        away.append(float((latents[-1] - x0).std()))
    assert away[0] < away[1] < away[2]
    assert away[0] < 0.2


def test_levels_of_noise_have_their_times() -> None:
    linear, flow, edm = fs.schedules.linear(), fs.schedules.flow(shift=3.0), fs.schedules.edm()
    assert float(linear.sigma(time_of_level(linear, 0.3))) == pytest.approx(0.3)
    assert time_of_level(flow, 0.3) == pytest.approx(0.3)
    assert time_of_level(edm, 0.6) == pytest.approx(0.75)  # 0.75 / hypot(1, 0.75)
    assert time_of_level(linear, 0.999999) == linear.t_max


def test_the_picture_is_encoded_once_and_redrawn_from_its_file(sd: Pipeline, tmp_path: Any) -> None:
    picture(40, 30).save(tmp_path / "in.png")
    settings: dict[str, Any] = {"strength": 0.5, "steps": 6, "sampler": "unipc-2", "guidance": 3.0, **SIZE}
    images = sd.img2img(tmp_path / "in.png", "a red circle", count=2, seed=3, **settings)
    before = sd.cache.encodes
    again = sd.img2img(tmp_path / "in.png", "a red circle", count=2, seed=3, **settings)
    assert (sd.cache.encodes, again.digest) == (before, images.digest)
    assert set(images.timings) == {"picture", "encode", "denoise", "decode"}
    stamp = read(images[1].save(tmp_path / "out.png"))
    assert (stamp.drawing, stamp.made.keep) == (images.drawing, (1,))
    redrawn = sd.redraw(stamp, image=tmp_path / "in.png")
    assert redrawn.digest == stamp.made.pixels
    with pytest.raises(InvalidInput, match="give the picture, and no mask"):
        sd.redraw(stamp)
    with pytest.raises(InvalidInput, match="the picture has the digest"):
        sd.redraw(stamp, image=picture())
    with pytest.raises(InvalidInput, match="drawn without a picture"):
        sd.redraw(sd("lion", steps=1, **SIZE), image=picture())


def test_a_given_plan_says_where_it_starts(sd: Pipeline) -> None:
    plan = fs.compile("ddim", schedule=sd.model.schedule, times=[400, 200, 0])
    images = sd.img2img(picture(), "lion", sampler=plan, guidance=1.0, **SIZE)
    assert images.nfe == 2
    with pytest.raises(InvalidInput, match="already decides where to start"):
        sd.img2img(picture(), "lion", sampler=plan, strength=0.5, **SIZE)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"strength": 0}, "strength must be a number above 0"),
        ({"strength": 1.1}, "strength must be a number above 0"),
        ({"strength": True}, "strength must be a number above 0"),
        ({"strength": float("nan")}, "strength must be a number above 0"),
        ({"strength": 0.1, "steps": 5}, "of 5 steps leaves none"),
        ({"strength_of": "time"}, "strength_of must be one of"),
        ({"fit": "cover"}, "fit has to be 'crop', 'stretch' or 'exact', got 'cover'"),
        ({"fit": "exact"}, "30 x 20 pixels and 24 x 16 are needed"),
        ({"height": 15}, "height is 15"),
        ({"sampler": "ddi"}, "did you mean 'ddim'"),
        ({"count": 0}, "count has to be greater than or equal to 1, got 0"),
    ],
)
def test_what_cannot_be_done_is_said(sd: Pipeline, wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        sd.img2img(picture(20, 30), "lion", **{**SIZE, **wrong})


def test_a_misspelt_setting_is_refused(sd: Pipeline) -> None:
    with pytest.raises(InvalidInput, match="unknown argument 'guidence': did you mean 'guidance'"):
        sd.img2img(picture(), "lion", guidence=3.0, **SIZE)
