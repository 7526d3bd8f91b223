"""From a picture and words to pictures: image-to-image and inpainting.

A run starts at x = alpha x0 + sigma eps with exactly the (alpha, sigma) of `plan.entry`, x0 the latents of the picture.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple, Unpack

import torch
from torch import Tensor

from fewstep.core.plan import Plan
from fewstep.core.schedule import Schedule
from fewstep.denoise.known import Known
from fewstep.pipeline.asked import Asked, Settings, asked
from fewstep.pipeline.draw import Given, Means
from fewstep.pipeline.images import Images
from fewstep.pipeline.input import Picture, read_mask, read_picture
from fewstep.pipeline.picturerecipe import PictureRecipe
from fewstep.pipeline.tail import Strength, plan_from
from fewstep.pipeline.vaecode import digest_of, encode
from fewstep.run.noise import START, unit_noise

if TYPE_CHECKING:
    from fewstep.pipeline.text import TextPipeline

IMG2IMG_STRENGTH, INPAINT_STRENGTH = 0.8, 1.0
"""Where the caller gives no strength."""


class Encoded(NamedTuple):
    """A picture (1, 3, H, W) in [-1, 1], its latents (1, c, h, w), and the seconds that reading and encoding took."""

    pixels: Tensor
    latents: Tensor
    seconds: float


def img2img(
    pipe: TextPipeline,
    image: Picture,
    prompts: str | Sequence[str],
    *,
    strength: float | None = None,
    strength_of: str = "steps",
    height: int | None = None,
    width: int | None = None,
    fit: str = "crop",
    **settings: Unpack[Settings],
) -> Images:
    """Draw from a picture: noise it to some level, and denoise it with other words.

    Args:
        image: a path, a `PIL.Image`, or a tensor (3, H, W) in [-1, 1].
        prompts: one, or several, each drawn from the picture.
        strength: how much is drawn anew, in (0, 1]; 1 is all. None is 0.8, or where a given plan starts.
        strength_of: "steps", the last share of the grid, floor(strength N) of N steps, as in diffusers; or "noise",
            the standard deviation of the noise at the start (t of a flow model), below which the grid stays as it is.
        height, width: of the result, in pixels; None is what the model was made for.
        fit: how a picture of another size is fitted: "crop", "stretch", or "exact", which refuses it.
        settings: of the sampler, the words and the drawing, as in `TextPipeline.__call__`.

    Raises:
        OSError: the picture's file cannot be read.
        InvalidInput: a picture that is damaged or too large, a strength that leaves no step, and what drawing refuses.
        LostImages: some images are not finite. The others are in it.
    """
    size = pipe._size(height, width)
    share = Strength.of_caller(strength, strength_of, IMG2IMG_STRENGTH)
    wanted = asked(pipe, prompts, size, _tail(share), **settings)
    picture = encoded(pipe, image, size, fit)
    recipe = recipe_of(wanted, "img2img", picture, share)
    return drawn_img2img(pipe, recipe, wanted.plan, picture, wanted.means)


def inpaint(
    pipe: TextPipeline,
    image: Picture,
    mask: Picture,
    prompts: str | Sequence[str],
    *,
    strength: float | None = None,
    strength_of: str = "steps",
    height: int | None = None,
    width: int | None = None,
    fit: str = "crop",
    paste: bool = True,
    **settings: Unpack[Settings],
) -> Images:
    """Repaint the white part of `mask` in a picture.

    An ordinary model is told the latents of what is kept in every evaluation (`fewstep.denoise.known`), so it works
    with every sampler; a model that was trained to inpaint gets the mask and the kept picture as further channels.

    Args:
        image, strength_of, height, width, fit, settings: as in `img2img`.
        mask: as `image`, fitted in the same way; its lighter half is repainted. A tensor is (H, W) in [0, 1].
        strength: as in `img2img`, but None is 1: what is repainted starts from noise alone.
        paste: put the kept pixels of the picture itself over the result, where the VAE would have changed them.

    Raises:
        As `img2img`, and `InvalidInput` for a mask that is dark everywhere.
    """
    size = pipe._size(height, width)
    share = Strength.of_caller(strength, strength_of, INPAINT_STRENGTH)
    wanted = asked(pipe, prompts, size, _tail(share), **settings)
    picture, chosen = encoded(pipe, image, size, fit), read_mask(mask, size, fit)
    recipe = recipe_of(wanted, "inpaint", picture, share, mask=digest_of(chosen), paste=bool(paste))
    return drawn_inpaint(pipe, recipe, wanted.plan, picture, chosen, wanted.means)


def encoded(pipe: TextPipeline, image: Picture, size: tuple[int, int], fit: str) -> Encoded:
    """A picture and its latents."""
    began = time.perf_counter()
    pixels = read_picture(image, size, fit)
    latents = encode(pipe.decoder, pipe.encoder.cache, pixels).to(pipe.device)
    return Encoded(pixels, latents, time.perf_counter() - began)


def noised(plan: Plan, latents: Tensor, seeds: Sequence[int]) -> Tensor:
    """States (B, c, h, w) at the plan's entry: the latents (1, c, h, w) with the noise of each seed."""
    alpha, sigma = plan.entry
    noise = unit_noise(seeds, START, latents.expand(len(seeds), -1, -1, -1))
    return alpha * latents + sigma * noise


def recipe_of(wanted: Asked, task: str, picture: Encoded, strength: Strength, **more: Any) -> PictureRecipe:
    """The recipe of a task."""
    facts = {"picture": digest_of(picture.pixels), "strength": strength.value, "strength_of": strength.of, **more}
    return PictureRecipe(**{**vars(wanted.recipe), "task": task, **facts})


def _tail(strength: Strength) -> Callable[[Schedule, str | Plan | None, dict[str, Any]], Plan]:
    """From a schedule, a sampler and a grid to the plan that `strength` leaves."""
    from fewstep.pipeline.text import GRID, SAMPLER, STEPS

    return lambda schedule, sampler, given: plan_from(schedule, sampler or SAMPLER, given, STEPS, GRID, strength)


def drawn_img2img(pipe: TextPipeline, recipe: PictureRecipe, plan: Plan, picture: Encoded, means: Means) -> Images:
    """The images of the recipe of an `img2img`."""
    given = Given(lambda _, seeds: noised(plan, picture.latents, seeds), seconds={"picture": picture.seconds})
    return pipe._draw(recipe, plan, means, given)


def drawn_inpaint(
    pipe: TextPipeline,
    recipe: PictureRecipe,
    plan: Plan,
    picture: Encoded,
    mask: Tensor,
    means: Means,
) -> Images:
    """The images of the recipe of an `inpaint`, its mask (1, 1, H, W)."""
    channels = pipe.family.extra(pipe.config)
    make = _told_by_channels if channels else _told_by_estimate
    images = pipe._draw(recipe, plan, means, make(pipe, plan, picture, mask, recipe.strength == 1))
    if not recipe.paste:
        return images
    return replace(images, tensor=torch.where(mask > 0, images.tensor, picture.pixels))


def _told_by_channels(pipe: TextPipeline, plan: Plan, picture: Encoded, mask: Tensor, anew: bool) -> Given:
    """For networks with input channels for the mask, at one latent the nearest pixel, and for what is kept."""
    began = time.perf_counter()
    small = torch.nn.functional.interpolate(mask, size=picture.latents.shape[-2:]).to(pipe.device)
    kept = encode(pipe.decoder, pipe.encoder.cache, picture.pixels * (mask < 0.5)).to(pipe.device)
    seconds = picture.seconds + time.perf_counter() - began
    latents = torch.zeros_like(kept) if anew else picture.latents
    return Given(
        lambda _, seeds: noised(plan, latents, seeds),
        channels=torch.cat([small, kept], dim=1),
        seconds={"picture": seconds},
    )


def _told_by_estimate(pipe: TextPipeline, plan: Plan, picture: Encoded, mask: Tensor, anew: bool) -> Given:
    """For ordinary networks. A latent is drawn anew where any of its pixels is repainted."""
    small = torch.nn.functional.max_pool2d(mask, pipe.decoder.factor).to(pipe.device)
    latents = picture.latents * (1 - small) if anew else picture.latents
    return Given(
        lambda _, seeds: noised(plan, latents, seeds),
        around=lambda denoiser: Known(denoiser, picture.latents, small),
        seconds={"picture": picture.seconds},
    )
