"""Inpainting: what is known stays, networks with more channels, pasting, and wrong arguments."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import fewstep as fs
from fewstep import InvalidInput
from fewstep.denoise.known import Known
from fewstep.drawing import read
from fewstep.pipeline import Pipeline, load
from fewstep.pipeline.img2img import encoded
from fewstep.run.noise import START, unit_noise
from models import tiny_diffusers
from models.tiny_diffusers import Twins

from .test_img2img import SIZE, latents, picture, sd

__all__ = ["latents", "sd"]
Models = Callable[..., Twins]


def mask(left: int = 8) -> Image.Image:
    """White to the left."""
    array = np.zeros((16, 24), np.uint8)
    array[:, :left] = 255
    return Image.fromarray(array)


@pytest.fixture(scope="module")
def nine(tmp_path_factory: pytest.TempPathFactory) -> Twins:
    """A model with the nine input channels of one that was trained to inpaint, and diffusers' own pipeline."""
    from diffusers import StableDiffusionInpaintPipeline

    folder = tmp_path_factory.mktemp("models") / "nine"
    parts = tiny_diffusers.sd(folder.with_name("making")).components
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        parts["unet"] = tiny_diffusers.sd_unet(in_channels=9)
    own = StableDiffusionInpaintPipeline(**parts, requires_safety_checker=False)
    for i, part in enumerate(parts.values()):
        if isinstance(part, torch.nn.Module):
            tiny_diffusers.enliven(part, i)
    own.save_pretrained(folder)
    own.set_progress_bar_config(disable=True)
    return Twins(load(folder), own, folder)


@pytest.mark.parametrize("sampler", ["ddim", "unipc-3", "dpmpp-2m", "heun", "ddpm", "lcm", "sde-dpmpp-2m"])
@pytest.mark.parametrize("strength", [0.6, 1.0])
def test_what_is_kept_ends_as_the_known_latents_with_every_kind_of_sampler(
    sd: Pipeline, latents: list[torch.Tensor], sampler: str, strength: float
) -> None:
    sd.inpaint(picture(), mask(), "a red circle", sampler=sampler, steps=6, strength=strength, guidance=2.0, **SIZE)
    known = encoded(sd.model, picture(), (16, 24), "crop").latents
    assert (latents[-1][..., 4:] - known[..., 4:]).abs().max() < 1e-5
    assert (latents[-1][..., :4] - known[..., :4]).abs().mean() > 0.05


def test_along_an_ode_the_network_sees_the_known_data_with_its_first_noise() -> None:
    schedule = fs.schedules.scaled_linear()
    known, region = torch.randn(1, 2, 4, 4, generator=torch.Generator().manual_seed(0)), torch.zeros(1, 1, 4, 4)
    region[..., :2] = 1
    seen = []

    def network(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        seen.append((x.clone(), float(t[0])))
        return 0.3 * x

    noise = unit_noise([5], START, known)
    plan = fs.compile("unipc-3", schedule=schedule, steps=6)
    start = plan.entry[0] * known + plan.entry[1] * noise
    result = fs.sample(plan, Known(fs.Network(network, schedule), known, region), start=start)
    assert len(seen) == len(plan.rows)
    for x, t in seen:
        expected = float(schedule.alpha(t)) * known + float(schedule.sigma(t)) * noise
        assert (x - expected)[..., 2:].abs().max() < 1e-5
    assert (seen[-1][0] - expected)[..., :2].abs().max() > 0.01
    assert torch.allclose(result[..., 2:], known[..., 2:], atol=1e-6)


def test_pasted_pixels_are_those_of_the_picture_exactly(sd: Pipeline) -> None:
    settings: dict[str, Any] = {"steps": 2, "guidance": 1.0, **SIZE}
    pasted = sd.inpaint(picture(), mask(), "lion", **settings)
    raw = sd.inpaint(picture(), mask(), "lion", paste=False, **settings)
    array = np.asarray(picture())
    assert np.array_equal(pasted.pixels[0, :, 8:], array[:, 8:])
    assert not np.array_equal(raw.pixels[0, :, 8:], array[:, 8:])
    assert np.array_equal(pasted.pixels[0, :, :8], raw.pixels[0, :, :8])
    assert pasted.drawing.source is not None
    assert raw.drawing.source is not None
    assert (pasted.drawing.source.paste, raw.drawing.source.paste) == (True, False)


def test_a_latent_is_drawn_anew_where_any_of_its_pixels_is(sd: Pipeline, latents: list[torch.Tensor]) -> None:
    sd.inpaint(picture(), mask(left=7), "lion", steps=3, guidance=1.0, **SIZE)
    known = encoded(sd.model, picture(), (16, 24), "crop").latents
    assert (latents[-1][..., 3] - known[..., 3]).abs().min() > 1e-5
    assert (latents[-1][..., 4] - known[..., 4]).abs().max() < 1e-5


def test_all_white_is_drawing_from_words(sd: Pipeline) -> None:
    settings: dict[str, Any] = {"steps": 3, "guidance": 3.0, "seed": 4, **SIZE}
    assert np.array_equal(
        sd.inpaint(picture(), Image.new("L", (24, 16), 255), "lion", **settings).pixels, sd("lion", **settings).pixels
    )


@pytest.mark.parametrize("guidance", [1.0, 4.0])
def test_a_network_that_was_trained_to_inpaint_draws_as_in_diffusers(
    nine: Twins, latents: list[torch.Tensor], monkeypatch: pytest.MonkeyPatch, guidance: float
) -> None:
    from diffusers.pipelines.stable_diffusion import pipeline_stable_diffusion_inpaint as module

    native, own, _ = nine

    def same_noise(shape: tuple[int, ...], **_: Any) -> torch.Tensor:
        return unit_noise([7], START, torch.empty(shape))

    monkeypatch.setattr(module, "randn_tensor", same_noise)
    monkeypatch.setattr(module, "retrieve_latents", lambda output, **_: output.latent_dist.mode())
    expected = own(
        "a red circle",
        picture(),
        mask(),
        strength=0.75,
        num_inference_steps=8,
        guidance_scale=guidance,
        output_type="latent",
        **SIZE,
    ).images
    own.scheduler.set_timesteps(8)
    times = [*own.scheduler.timesteps.tolist(), 0.0]
    native.inpaint(
        picture(),
        mask(),
        "a red circle",
        strength=0.75,
        sampler="ddim",
        sampling={"times": times},
        guidance=guidance,
        seed=7,
        **SIZE,
    )
    assert (latents[-1] - expected).abs().max() < 1e-5 * expected.abs().max()


def test_such_a_network_draws_nothing_without_a_picture(nine: Twins) -> None:
    for act in (
        lambda: nine.native("lion", steps=1, **SIZE),
        lambda: nine.native.denoiser("lion", **SIZE),
        lambda: nine.native.img2img(picture(), "lion", steps=4, **SIZE),
    ):
        with pytest.raises(InvalidInput, match="trained to inpaint"):
            act()


def test_a_picture_carries_what_it_was_inpainted_from(sd: Pipeline, tmp_path: Path) -> None:
    images = sd.inpaint(picture(), mask(), "lion", steps=2, guidance=1.0, **SIZE)
    stamp = read(images.save(tmp_path / "out.png"))
    assert sd.redraw(stamp, image=picture(), mask=mask()).digest == stamp.made.pixels
    for given, words in [
        ({"image": picture()}, "give the picture and the mask"),
        ({"image": picture(), "mask": mask(9)}, "the mask has the digest"),
    ]:
        with pytest.raises(InvalidInput, match=words):
            sd.redraw(stamp, **given)


def test_masks_that_tell_nothing_are_refused(sd: Pipeline) -> None:
    with pytest.raises(InvalidInput, match="dark everywhere"):
        sd.inpaint(picture(), Image.new("L", (24, 16)), "lion", **SIZE)
    with pytest.raises(InvalidInput, match="must have shape"):
        sd.inpaint(picture(), torch.ones(8, 8), "lion", **SIZE)
    x = torch.zeros(1, 2, 4, 4)
    with pytest.raises(InvalidInput, match="differ in channels only"):
        Known(lambda x, t: x, x, torch.zeros(1, 1, 2, 2))
    with pytest.raises(InvalidInput, match=r"lie in \[0, 1\]"):
        Known(lambda x, t: x, x, torch.full((1, 1, 4, 4), 2.0))


def test_a_picture_and_its_mask_are_fitted_as_one(sd: Pipeline) -> None:
    wide = np.zeros((24, 64, 3), np.uint8)
    wide[:, 20:30] = 255
    marked = Image.fromarray(wide[..., 0])
    few = {"steps": 2, "guidance": 1.0, **SIZE}
    images = sd.inpaint(wide, marked, "lion", **few)
    twice = sd.inpaint(wide, marked.resize((128, 48), Image.Resampling.NEAREST), "lion", **few)
    assert images.drawing == twice.drawing  # the digests of both after fitting are there
    with pytest.raises(InvalidInput, match="the mask has 24 x 24 pixels and the picture 64 x 24"):
        sd.inpaint(wide, marked.resize((24, 24)), "lion", **few)


def test_what_the_pipeline_drew_is_a_picture_and_a_mask(sd: Pipeline, tmp_path: Path) -> None:
    few = {"steps": 2, "guidance": 1.0, **SIZE}
    drawn = sd("a red circle", **few)
    (tmp_path / "pictures").mkdir()
    (path,) = drawn.save_each(tmp_path / "pictures")
    by_file = sd.img2img(path, "lion", **few)
    for source in (drawn, drawn.images[0], drawn.pixels, drawn.pixels[0], drawn.pixels[0] / np.float32(255)):
        assert sd.img2img(source, "lion", **few).drawing == by_file.drawing
    several = sd(["a red circle", "lion"], **few)
    assert sd.img2img(several[0], "lion", **few).nfe == by_file.nfe
    with pytest.raises(InvalidInput, match="a picture is one image, and 2 were drawn"):
        sd.img2img(several, "lion", **few)
    assert sd.inpaint(drawn, mask(), "lion", **few).drawing.source.picture == by_file.drawing.source.picture
