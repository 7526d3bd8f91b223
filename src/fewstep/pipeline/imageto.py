"""From a picture and words to pictures: image-to-image and inpainting.

A run starts at x = alpha x0 + sigma eps with exactly the (alpha, sigma) of `plan.entry`, x0 the latents of the picture.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple, Unpack

import torch
from torch import Tensor

from fewstep.core.errors import InvalidInput
from fewstep.core.plan import Plan
from fewstep.denoise.known import Known
from fewstep.pipeline.asked import Asked, Settings, asked
from fewstep.pipeline.draw import Given, OnRow
from fewstep.pipeline.images import Images
from fewstep.pipeline.input import Picture, read_mask, read_picture
from fewstep.pipeline.picturerecipe import PictureRecipe
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
    wanted = asked(pipe, prompts, size, (strength, strength_of, IMG2IMG_STRENGTH), **settings)
    picture = encoded(pipe, image, size, fit)
    recipe = _recipe(wanted, "img2img", picture, strength_of)
    return _img2img(pipe, recipe, wanted.plan, picture, wanted.on_row, wanted.overlap)


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
    wanted = asked(pipe, prompts, size, (strength, strength_of, INPAINT_STRENGTH), **settings)
    picture, chosen = encoded(pipe, image, size, fit), read_mask(mask, size, fit)
    recipe = replace(
        _recipe(wanted, "inpaint", picture, strength_of, mask=digest_of(chosen), strength=wanted.strength),
        paste=bool(paste),
    )
    return _inpaint(pipe, recipe, wanted.plan, picture, chosen, wanted.on_row, wanted.overlap)


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


def redraw(
    pipe: TextPipeline,
    recipe: PictureRecipe,
    plan: Plan,
    image: Picture | None,
    mask: Picture | None,
    fit: str,
    on_row: OnRow | None,
) -> Images:
    """Draw the images of a recipe again, whose picture and mask have to be given once more."""
    if image is None or (mask is None) != (recipe.mask is None):
        needed = "the picture and the mask" if recipe.mask is not None else "the picture, and no mask,"
        raise InvalidInput(f"this was drawn by {recipe.task}: give {needed} that it was drawn from")
    size = recipe.height, recipe.width
    picture = encoded(pipe, image, size, fit)
    _same("picture", digest_of(picture.pixels), recipe.picture)
    if mask is None:
        return _img2img(pipe, recipe, plan, picture, on_row, False)
    chosen = read_mask(mask, size, fit)
    _same("mask", digest_of(chosen), recipe.mask)
    return _inpaint(pipe, recipe, plan, picture, chosen, on_row, False)


def _same(what: str, got: str, wanted: str | None) -> None:
    if got != wanted:
        raise InvalidInput(
            f"the {what} has the digest {got} after fitting, the recipe is of {wanted}: give the same {what} and fit"
        )


def _recipe(wanted: Asked, task: str, picture: Encoded, strength_of: str, **more: Any) -> PictureRecipe:
    facts = {"picture": digest_of(picture.pixels), "strength": wanted.strength, "strength_of": strength_of, **more}
    return PictureRecipe(**{**vars(wanted.recipe), "task": task, **facts})


def _img2img(
    pipe: TextPipeline, recipe: PictureRecipe, plan: Plan, picture: Encoded, on_row: OnRow | None, overlap: bool
) -> Images:
    given = Given(lambda seeds: noised(plan, picture.latents, seeds), seconds={"picture": picture.seconds})
    return pipe._draw(recipe, plan, on_row, overlap, given)


def _inpaint(
    pipe: TextPipeline,
    recipe: PictureRecipe,
    plan: Plan,
    picture: Encoded,
    mask: Tensor,
    on_row: OnRow | None,
    overlap: bool,
) -> Images:
    channels = pipe.family.extra(pipe.config)
    make = _told_by_channels if channels else _told_by_estimate
    images = pipe._draw(recipe, plan, on_row, overlap, make(pipe, plan, picture, mask, recipe.strength == 1))
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
        lambda seeds: noised(plan, latents, seeds),
        channels=torch.cat([small, kept], dim=1),
        seconds={"picture": seconds},
    )


def _told_by_estimate(pipe: TextPipeline, plan: Plan, picture: Encoded, mask: Tensor, anew: bool) -> Given:
    """For ordinary networks. A latent is drawn anew where any of its pixels is repainted."""
    small = torch.nn.functional.max_pool2d(mask, pipe.decoder.factor).to(pipe.device)
    latents = picture.latents * (1 - small) if anew else picture.latents
    return Given(
        lambda seeds: noised(plan, latents, seeds),
        around=lambda denoiser: Known(denoiser, picture.latents, small),
        seconds={"picture": picture.seconds},
    )
