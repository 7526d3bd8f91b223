"""From a picture back to the noise that draws it, and from that noise to the picture with other words.

The sampler's grid is run upwards, from its least noisy time to its noisiest, and then down again. The latents of the
picture are taken for the state at the least noisy time, whose noise is far below what a VAE keeps; so both runs end
where the other begins, and what is lost is the error of the inversion alone (Song et al. 2020, arXiv 2010.02502, 4.3).
An exactly invertible sampler (`belm`) ends in a pair of states, from which it comes back to rounding.

States are in float64, where the device has it: an exact inversion amplifies what is rounded.
"""

from __future__ import annotations

import hashlib
import math
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fewstep.core.errors import InvalidInput
from fewstep.core.plan import Plan
from fewstep.core.schedule import Schedule
from fewstep.denoise.base import Denoiser
from fewstep.drawing import Drawing, Layout, Sampling, save_png
from fewstep.models import Model, digest_of
from fewstep.models.defaults import INVERSION
from fewstep.pipeline.images import sheet_of
from fewstep.pipeline.img2img import EncodedPicture, encoded
from fewstep.pipeline.order import Order, Origin, ordered
from fewstep.pipeline.pictures import Picture
from fewstep.pipeline.stages import Conditioned, check, decode, denoiser_of, encode
from fewstep.pipeline.strength import Strength
from fewstep.run.eager import sample_pair
from fewstep.solvers.compiler import compile

WHOLE = Strength(1.0)
States = tuple[Tensor, ...]


@dataclass(frozen=True, eq=False)
class Inversion:
    """A picture, the noise that was found for it, and what comes back from that noise.

    Attributes:
        drawing: what was asked for of the way down.
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

    drawing: Drawing
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

    @property
    def digest(self) -> str:
        """Sixteen hexadecimal digits over what was asked for, and the picture's pixels."""
        return hashlib.sha256(f"{self.drawing.text} {digest_of(self.pixels)}".encode()).hexdigest()[:16]

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the picture and what came back, side by side, as one PNG."""
        both = torch.cat([self.pixels, self.drawn])
        return save_png(sheet_of(both, (-1.0, 1.0), Layout.fitting(2, both.shape[-1], 2, 1)), path)


def invert(model: Model, image: Picture, prompt: str, fit: str, call: Mapping[str, Any]) -> Inversion:
    """Find the noise of a picture and draw the picture from it again; see `Pipeline.invert`."""
    refuse_random(call, "estimate", "preset", "batch", "overlap")
    if not isinstance(prompt, str):
        raise InvalidInput(f"one picture has one prompt, a text, got {prompt!r:.100}")
    said = {**call, "guidance": 1.0 if call.get("guidance") is None else call["guidance"]}
    order = ordered(model, prompt, said, INVERSION, down_plan_of(WHOLE))
    if isinstance(order.drawing.guidance.scale, tuple):
        raise InvalidInput("inversion is guided by one number both ways, up and down, and got weights by row")
    check(model, order)
    picture = encoded(model, image, (order.drawing.height, order.drawing.width), fit)
    on_row, denoiser = order.run.on_row, _denoiser(model, order)
    began = time.perf_counter()
    up = up_plan(_schedule(model, order), order.plan)
    noise = sample_pair(up, denoiser, start=_exact(model, picture), on_row=on_row)
    seconds, began = time.perf_counter() - began, time.perf_counter()
    latents = picture.latents
    found = sample_pair(order.plan, denoiser, start=_entry(noise), on_row=on_row)[0].to(latents.dtype)
    again, began = time.perf_counter() - began, time.perf_counter()
    drawn, through = (decode(model, z, order.drawing).clamp(-1, 1) for z in (found, latents))
    timings = {"picture": picture.seconds, "invert": seconds, "denoise": again, "decode": time.perf_counter() - began}
    return Inversion(
        drawing=order.drawing,
        noise=noise,
        up=up,
        down=order.plan,
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


def origin(model: Model, order: Order, picture: EncodedPicture, mask: Tensor | None) -> Origin:
    """What the images of an edit come from: the noise that draws the picture with the words that describe it."""
    began = time.perf_counter()
    drawing = order.drawing
    assert drawing.source is not None
    alone = drawing.guidance.but(scale=1.0, method="cfg", options={}, weaker=None)
    told = drawing.but(prompts=(drawing.source.prompt,), negative=(None,), count=1, seed=0, guidance=alone)
    told = Order(told, order.plan, order.run)
    up = up_plan(_schedule(model, order), order.plan)
    noise = sample_pair(up, _denoiser(model, told), start=_exact(model, picture))
    return Origin(states=noise, seconds={"picture": picture.seconds, "invert": time.perf_counter() - began})


def down_plan_of(strength: Strength) -> Any:
    """Makes the plan from noise to the grid's least noisy time, which starts from a pair where the sampler is
    invertible.
    """

    def plan_of(model: Model, sampling: Sampling, size: tuple[int, int]) -> Plan:
        return down_plan(model.schedule_at(*size), sampling, strength)

    return plan_of


def down_plan(schedule: Schedule, sampling: Sampling, strength: Strength) -> Plan:
    """See `down_plan_of`."""
    if sampling.plan is not None:
        raise InvalidInput("inversion runs a sampler both ways: give its name and its grid in place of a plan")
    if sampling.steps is not None:
        sampling = sampling.but(grid_options={"final": "sigma_min", **sampling.grid_options})
    whole, name = sampling.compile(schedule), str(sampling.sampler)
    if whole.stochastic:
        raise InvalidInput(f"{name} draws noise on its way, so it cannot be inverted: use ddim, or belm for exactness")
    times = tuple(t for t in strength.times(schedule, whole.recipe.times) if float(schedule.sigma(t)) > 0)
    if len(times) < 2:
        raise InvalidInput(f"inversion needs at least 2 noisy times, got {len(times)}: use more steps or strength")
    pair = {"start": "pair"} if whole.outputs == 2 else {}
    return compile(name, schedule=schedule, times=times, **{**sampling.options, **pair})


def up_plan(schedule: Schedule, down: Plan) -> Plan:
    """The plan that `down` inverts: from the least noisy time up."""
    recipe = down.recipe
    options = {name: value for name, value in recipe.options.items() if name != "start"}
    return compile(recipe.sampler, schedule=schedule, times=recipe.times, reverse=True, **options)


def refuse_random(call: Mapping[str, Any], *more: str) -> None:
    """Raise `InvalidInput` for what has no meaning where nothing is drawn at random."""
    for name in ("seed", "count", *more):
        if call.get(name) is not None:
            raise InvalidInput(f"{name} means nothing here: the noise is that of the picture. Leave it out")


def psnr(found: Tensor, wanted: Tensor, peak: float) -> float:
    """Peak signal-to-noise ratio in decibels, 10 log10(peak^2 / mean square error); infinite where nothing differs."""
    error = float((found.double() - wanted.double()).square().mean())
    return math.inf if error == 0 else 10 * math.log10(peak**2 / error)


def _denoiser(model: Model, order: Order) -> Denoiser:
    """The denoiser of the one image of an order, for both runs."""
    rows = encode(model, [order.drawing], order.weaker)
    conditions = Conditioned.of(model, rows, order.weaker)
    return denoiser_of(model, order.drawing.guidance, conditions, weaker=order.weaker)


def _schedule(model: Model, order: Order) -> Schedule:
    return model.schedule_at(order.drawing.height, order.drawing.width)


def _exact(model: Model, picture: EncodedPicture) -> Tensor:
    exact = torch.device(model.device).type != "mps"
    return picture.latents.double() if exact else picture.latents


def _entry(states: States) -> Tensor | tuple[Tensor, Tensor]:
    return (states[0], states[1]) if len(states) == 2 else states[0]
