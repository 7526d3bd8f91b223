"""From a picture back to the noise that draws it, and from that noise to the picture with other words.

The sampler's grid is run upwards, from its least noisy time to its noisiest, and then down again. The latents of the
picture are taken for the state at the least noisy time, whose noise is far below what a VAE keeps; so both runs end
where the other begins, and what is lost is the error of the inversion alone (Song et al. 2020, arXiv 2010.02502, 4.3).
An exactly invertible sampler (`belm`) ends in a pair of states, from which it comes back to rounding.

States are in float64, where the device has it: an exact inversion amplifies what is rounded.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import torch
from torch import Tensor

from fewstep.core.errors import InvalidInput
from fewstep.core.plan import Plan
from fewstep.core.schedule import Schedule
from fewstep.pipeline.asked import Drawing, Grid, Settings, Words, asked, grid_of
from fewstep.pipeline.choices import chosen_plan, given_texts
from fewstep.pipeline.draw import Given, Means, OnRow
from fewstep.pipeline.guidance import given_scale
from fewstep.pipeline.images import Images, sheet_of
from fewstep.pipeline.imageto import Encoded, encoded, recipe_of
from fewstep.pipeline.input import Picture
from fewstep.pipeline.picturerecipe import PictureRecipe
from fewstep.pipeline.png import save_png
from fewstep.pipeline.recipe import compiled
from fewstep.pipeline.stamp import Layout
from fewstep.pipeline.tail import Strength
from fewstep.run.eager import sample_pair

if TYPE_CHECKING:
    from fewstep.pipeline.text import TextPipeline

SAMPLER, STEPS, GRID = "ddim", 50, "trailing"
"""What is inverted with unless the caller says otherwise."""
WHOLE = Strength(1.0, "steps", False)
States = tuple[Tensor, ...]


@dataclass(frozen=True, eq=False)
class Inversion:
    """A picture, the noise that was found for it, and what comes back from that noise.

    Attributes:
        noise: the state (1, c, h, w) at `down.entry`, or the pair of an exactly invertible sampler.
        up, down: the plans of the two runs.
        pixels, latents: the picture (1, 3, H, W) in [-1, 1], and its latents (1, c, h, w).
        found, drawn: the latents and the picture that come back.
        psnr_latents: of `found` against `latents` in decibels, whose peak is the range of `latents`.
        psnr_pixels: of `drawn` against the picture; `psnr_vae`: of the picture after the VAE alone, which no
            inversion can better.
        error: largest distance of `found` from `latents`.
        timings: seconds of each stage.
    """

    noise: States
    up: Plan
    down: Plan
    pixels: Tensor
    latents: Tensor
    found: Tensor
    drawn: Tensor
    psnr_latents: float
    psnr_pixels: float
    psnr_vae: float
    error: float
    timings: Mapping[str, float]

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the picture and what came back, side by side, as one PNG."""
        both = torch.cat([self.pixels, self.drawn])
        return save_png(sheet_of(both, (-1.0, 1.0), Layout.of(2, both.shape[-1], 2, 1)), path)


def invert(
    pipe: TextPipeline,
    image: Picture,
    prompt: str = "",
    *,
    sampler: str = SAMPLER,
    guidance: float | None = 1.0,
    guidance_method: str = "cfg",
    guidance_options: Mapping[str, Any] | None = None,
    weak: TextPipeline | str | os.PathLike[str] | None = None,
    negative: str | None = None,
    clip_skip: int | None = None,
    height: int | None = None,
    width: int | None = None,
    fit: str = "crop",
    sliced: bool = False,
    tiled: bool = False,
    on_row: OnRow | None = None,
    **grid: Unpack[Grid],
) -> Inversion:
    """Find the noise of a picture and draw the picture from it again.

    Args:
        image, height, width, fit: as in `img2img`.
        prompt: what the picture shows; empty is the model's own idea of pictures.
        guidance: of both runs. Guidance makes the way up differ from the way down, so 1 comes back best.
        guidance_method, guidance_options, weak: as in `TextPipeline.__call__`, of both runs.
        negative, clip_skip, sliced, tiled, on_row: as in `TextPipeline.__call__`. `on_row` counts the rows of each run.
        sampler: its name; "belm" is exactly invertible.
        grid: as in `TextPipeline.__call__`; None of it is 50 steps.

    Raises:
        InvalidInput: what `img2img` refuses; a plan in place of a sampler's name, and a sampler that draws noise.
        NonFinite: the states left all bounds.
    """
    size = pipe._size(height, width)
    [text] = given_texts(prompt, "prompt") if isinstance(prompt, str) else _refuse_prompt(prompt)
    schedule = pipe.schedule_at(*size)
    down = down_plan(schedule, sampler, grid_of(**grid), WHOLE)
    if guidance is not None and not isinstance(given_scale(guidance, down, guidance_method, 1.0), int | float):
        raise InvalidInput("inversion is guided by one number both ways, up and down, and got weights by row")
    words: Words = {"negative": negative, "guidance": guidance, "clip_skip": clip_skip}
    words |= {"guidance_method": guidance_method, "guidance_options": guidance_options, "weak": weak}
    denoiser = pipe.denoiser(text, height=size[0], width=size[1], **words)
    picture = encoded(pipe, image, size, fit)
    began = time.perf_counter()
    up = up_plan(schedule, down)
    noise = sample_pair(up, denoiser, start=_start(pipe, picture), on_row=on_row)
    seconds, began = time.perf_counter() - began, time.perf_counter()
    found = sample_pair(down, denoiser, start=_entry(noise), on_row=on_row)[0].to(picture.latents.dtype)
    again, began = time.perf_counter() - began, time.perf_counter()
    decoded = [pipe.decoder(z, sliced=sliced, tiled=tiled) for z in (found, picture.latents)]
    drawn, through = (each.clamp(-1, 1) for each in decoded)
    timings = {"picture": picture.seconds, "invert": seconds, "denoise": again, "decode": time.perf_counter() - began}
    latents = picture.latents
    return Inversion(
        noise=noise,
        up=up,
        down=down,
        pixels=picture.pixels,
        latents=latents,
        found=found,
        drawn=drawn,
        psnr_latents=psnr(found, latents, float(latents.max() - latents.min())),
        psnr_pixels=psnr(drawn, picture.pixels, 2.0),
        psnr_vae=psnr(through, picture.pixels, 2.0),
        error=float((found - latents).abs().max()),
        timings=timings,
    )


def edit(
    pipe: TextPipeline,
    image: Picture,
    source: str,
    prompts: str | Sequence[str],
    *,
    strength: float | None = None,
    strength_of: str = "steps",
    height: int | None = None,
    width: int | None = None,
    fit: str = "crop",
    **settings: Unpack[Drawing],
) -> Images:
    """Invert a picture with the words that describe it, and draw from that noise with others.

    Args:
        image, height, width, fit: as in `img2img`.
        source: what the picture shows.
        prompts: what it shall show: one, or several.
        strength, strength_of: how far up to go, as in `img2img`; None is 1, all the way to noise. Less keeps more.
        settings: as in `TextPipeline.__call__`, of the way down; the way up is not guided. By default 50 steps of
            "ddim". There is no seed: nothing is drawn at random.

    Raises:
        As `img2img`, and `InvalidInput` for a sampler that draws noise.
    """
    size = pipe._size(height, width)
    share = Strength.of_caller(strength, strength_of, 1.0)

    def plan_of(schedule: Schedule, sampler: str | Plan | None, given: dict[str, Any]) -> Plan:
        return down_plan(schedule, sampler, given, share)

    shown: Settings = {**settings}
    wanted = asked(pipe, prompts, size, plan_of, **shown)
    [told] = given_texts(source, "prompt") if isinstance(source, str) else _refuse_prompt(source)
    picture = encoded(pipe, image, size, fit)
    recipe = recipe_of(wanted, "edit", picture, share, source=told)
    return drawn_edit(pipe, recipe, wanted.plan, picture, wanted.means)


def drawn_edit(pipe: TextPipeline, recipe: PictureRecipe, down: Plan, picture: Encoded, means: Means) -> Images:
    """The images of the recipe of an edit."""
    began = time.perf_counter()
    size = recipe.height, recipe.width
    denoiser = pipe.denoiser(
        recipe.source or "", guidance=1.0, clip_skip=recipe.clip_skip, height=size[0], width=size[1]
    )
    noise = sample_pair(up_plan(pipe.schedule_at(*size), down), denoiser, start=_start(pipe, picture))
    seconds = {"picture": picture.seconds, "invert": time.perf_counter() - began}

    def start(_: slice, seeds: Sequence[int]) -> Tensor | tuple[Tensor, Tensor]:
        return _entry(tuple(state.expand(len(seeds), -1, -1, -1) for state in noise))

    return pipe._draw(recipe, down, means, Given(start, seconds=seconds))


def down_plan(schedule: Schedule, sampler: str | Plan | None, given: Mapping[str, Any], strength: Strength) -> Plan:
    """The plan from noise to the grid's least noisy time, which starts from a pair where the sampler is invertible."""
    if isinstance(sampler, Plan):
        raise InvalidInput("inversion runs a sampler both ways: give its name and its grid in place of a plan")
    name = sampler or SAMPLER
    if given["times"] is None and given["sigmas"] is None:
        given = {**given, "grid_options": {"final": "sigma_min", **(given["grid_options"] or {})}}
    whole = chosen_plan(schedule, name, given, STEPS, GRID)
    if whole.stochastic:
        raise InvalidInput(f"{name} draws noise on its way, so it cannot be inverted: use ddim, or belm for exactness")
    times = tuple(t for t in strength.tail(schedule, whole.recipe.times) if float(schedule.sigma(t)) > 0)
    if len(times) < 2:
        raise InvalidInput(f"inversion needs at least 2 noisy times, got {len(times)}: use more steps or strength")
    options = dict(given["options"] or {})
    if whole.outputs == 2:
        options["start"] = "pair"
    return compiled(name, schedule, options, times=times)


def up_plan(schedule: Schedule, down: Plan) -> Plan:
    """The plan that `down` inverts: from the least noisy time up."""
    options = {name: value for name, value in down.recipe.options.items() if name != "start"}
    return compiled(down.recipe.sampler, schedule, options, times=down.recipe.times, reverse=True)


def psnr(found: Tensor, wanted: Tensor, peak: float) -> float:
    """Peak signal-to-noise ratio in decibels, 10 log10(peak^2 / mean square error); infinite where nothing differs."""
    error = float((found.double() - wanted.double()).square().mean())
    return math.inf if error == 0 else 10 * math.log10(peak**2 / error)


def _start(pipe: TextPipeline, picture: Encoded) -> Tensor:
    exact = torch.device(pipe.device).type != "mps"
    return picture.latents.double() if exact else picture.latents


def _entry(states: States) -> Tensor | tuple[Tensor, Tensor]:
    return (states[0], states[1]) if len(states) == 2 else states[0]


def _refuse_prompt(prompt: object) -> list[str]:
    raise InvalidInput(f"one picture has one prompt, a text, got {prompt!r:.100}")
