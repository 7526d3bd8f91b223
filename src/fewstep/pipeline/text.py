"""A text-to-image model: prompts are encoded, latents denoised, pictures decoded, and each stage is timed."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fewstep import schedules
from fewstep.core.errors import InvalidInput
from fewstep.core.plan import Plan
from fewstep.core.schedule import Schedule
from fewstep.denoise.base import Denoiser
from fewstep.pipeline.asked import asked
from fewstep.pipeline.cache import CacheCounts
from fewstep.pipeline.choices import check_model, chosen_plan, given_negatives, given_texts
from fewstep.pipeline.conditioning import check_guidance, chosen_guidance, conditioned, embed
from fewstep.pipeline.decode import Decoder
from fewstep.pipeline.draw import WORDS_ALONE, Canvas, Counted, Given, Means, OnRow, check_cost, draw
from fewstep.pipeline.encode import TextEncoder
from fewstep.pipeline.families import Family, shift_of
from fewstep.pipeline.guidance import EVERYWHERE, GivenScale
from fewstep.pipeline.images import Images
from fewstep.pipeline.input import Picture
from fewstep.pipeline.picturerecipe import PictureRecipe
from fewstep.pipeline.recipe import MAX_SIDE, ImageRecipe, PromptRecipe
from fewstep.pipeline.tasks import Tasks, redraw
from fewstep.pipeline.tuned import resolved
from fewstep.pipeline.weaker import check_weaker, weaker_of

SAMPLER, STEPS, GRID, BATCH = "dpmpp-2m", 20, "trailing", 4
"""What is drawn with unless the caller says otherwise."""
MAX_PIXELS = 1 << 26
"""Most pixels of one image: 8192 x 8192."""


@dataclass(frozen=True, eq=False)
class TextPipeline(Tasks):
    """A text-to-image model of diffusers' format and the call that draws with it. Holds no state of a run.

    Attributes:
        module: the network; `config` is its configuration.
        family: what its family of models needs.
        name: for people, and for the names of files.
        digest: over the files of all parts and the dtype.
        schedule: the noise schedule; on a flow whose shift depends on the size, that of the default size.
        prediction: what the network was trained to predict.
        encoder, decoder: of prompts and of latents.
        scheduler: the configuration of the model's scheduler.
        zero_negative: the empty condition is zeros, as SDXL was trained, and not the encoding of no words.
        recommended: the guidance scale that the folder recommends.
        plans: the folder of the tuned plans that come with the model, for `sampler="tuned"`.
        in_float32: finds the digest that the model has in float32, where it runs in another dtype.
    """

    module: Any
    family: Family
    config: Mapping[str, Any]
    name: str
    digest: str
    schedule: Schedule
    prediction: str
    encoder: TextEncoder
    decoder: Decoder
    scheduler: Mapping[str, Any]
    zero_negative: bool = False
    dtype: torch.dtype = torch.float32
    device: torch.device | str = "cpu"
    recommended: float | None = None
    plans: Path | None = None
    in_float32: Callable[[], str] | None = None

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the images that the model was made for."""
        side = self.config.get("sample_size") or self.family.side
        height, width = side if isinstance(side, list | tuple) else (side, side)
        return int(height) * self.decoder.factor, int(width) * self.decoder.factor

    @property
    def weights(self) -> str:
        """The digest that the model has in float32, by which tuned plans know it, whatever it runs in."""
        return self.digest if self.in_float32 is None else self.in_float32()

    @property
    def multiple(self) -> int:
        """Height and width are multiples of it."""
        return self.decoder.factor * self.family.patch(self.config)

    @property
    def guidance(self) -> float:
        """The guidance scale where the caller gives none: what the folder recommends, else the family's usual one."""
        return self.recommended if self.recommended is not None else self.family.default_guidance(self.config)

    @property
    def distilled(self) -> bool:
        """Whether the guidance scale is told to the network and no negative prompt can act."""
        return self.family.distilled(self.config)

    @property
    def cache(self) -> CacheCounts:
        """What the cache of embeddings of prompts and latents of pictures did so far."""
        return self.encoder.cache.counts

    def latent_shape(self, height: int | None = None, width: int | None = None) -> tuple[int, int, int]:
        """(C, H, W) of the latents of an image. Raises `InvalidInput` for a size that the model cannot make."""
        height, width = self._size(height, width)
        factor = self.decoder.factor
        return self.family.channels(self.config), height // factor, width // factor

    def schedule_at(self, height: int | None = None, width: int | None = None) -> Schedule:
        """The noise schedule for images of a size: on some flows the shift grows with the number of patches."""
        if not self.scheduler.get("use_dynamic_shifting"):
            return self.schedule
        _, h, w = self.latent_shape(height, width)
        tokens = h * w // self.family.patch(self.config) ** 2
        return schedules.flow(shift_of(self.scheduler, tokens), t_min=self.schedule.t_min)

    def plan(
        self,
        sampler: str | Plan = SAMPLER,
        *,
        height: int | None = None,
        width: int | None = None,
        steps: int | None = None,
        grid: str | None = None,
        grid_options: Mapping[str, Any] | None = None,
        times: Sequence[float] | None = None,
        sigmas: Sequence[float] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> Plan:
        """`fewstep.compile` for this model's schedule at a size, with this module's defaults."""
        given = {"steps": steps, "grid": grid, "grid_options": grid_options, "times": times, "sigmas": sigmas}
        sampler, chosen = resolved(self, sampler, {**given, "options": options})
        return chosen_plan(self.schedule_at(height, width), sampler, chosen, STEPS, GRID)

    def denoiser(
        self,
        prompts: str | Sequence[str],
        *,
        negative: str | Sequence[str] | None = None,
        guidance: GivenScale = None,
        guidance_method: str = "cfg",
        guidance_options: Mapping[str, Any] | None = None,
        weak: TextPipeline | str | os.PathLike[str] | None = None,
        interval: tuple[float, float] = EVERYWHERE,
        rescale: float = 0.0,
        clip_skip: int | None = None,
        height: int | None = None,
        width: int | None = None,
        plan: Plan | None = None,
    ) -> Denoiser:
        """The denoiser of a batch of latents with these prompts, for `fewstep.sample`; arguments as in `__call__`.

        `plan` is the one it will run, whose guidance by row it then follows; guidance by row or by a schedule needs it.
        """
        texts = given_texts(prompts, "prompt")
        negatives = given_negatives(negative, len(texts), 1)
        size = self._size(height, width)
        weaker = weaker_of(self, weak, size)
        settings = chosen_guidance(
            self,
            negatives,
            plan,
            guidance=guidance,
            method=guidance_method,
            options=guidance_options,
            weak=weaker,
            interval=interval,
            rescale=rescale,
        )
        pairs = [(text, negatives[i % len(negatives)]) for i, text in enumerate(texts)]
        embedded = embed(self, pairs, settings, clip_skip, weaker)
        return conditioned(self, embedded, pairs, settings, size, weak=weaker, plan=plan)

    def __call__(
        self,
        prompts: str | Sequence[str],
        *,
        negative: str | Sequence[str] | None = None,
        guidance: GivenScale = None,
        guidance_method: str = "cfg",
        guidance_options: Mapping[str, Any] | None = None,
        weak: TextPipeline | str | os.PathLike[str] | None = None,
        sampler: str | Plan = SAMPLER,
        steps: int | None = None,
        grid: str | None = None,
        grid_options: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
        times: Sequence[float] | None = None,
        sigmas: Sequence[float] | None = None,
        interval: tuple[float, float] = EVERYWHERE,
        rescale: float = 0.0,
        clip_skip: int | None = None,
        height: int | None = None,
        width: int | None = None,
        seed: int | Sequence[int] = 0,
        count: int = 1,
        batch: int = BATCH,
        sliced: bool = False,
        tiled: bool = False,
        overlap: bool = False,
        on_row: OnRow | None = None,
    ) -> Images:
        """Draw `count` images for each prompt.

        Args:
            prompts: one, or several.
            negative: what to be guided away from: one for all, or one for each prompt; None is the model's own empty
                condition.
            guidance: the scale; 1 is the conditional model alone, at half the cost. Where the model is `distilled` it
                is told the scale, at no cost. None is the family's usual one, or the method's. A sequence is one weight
                for each row of the plan, its evaluations in order; a `GuidanceSchedule` follows the level.
            guidance_method: "cfg", classifier-free guidance; "apg", "cfg++" (scale in [0, 1], by default 0.6),
                "cfg-zero*" or "cfg-zero", "pag" (beside `guidance`, at one more evaluation), or "autoguidance".
            guidance_options: of the method: eta, norm_limit and momentum of "apg", zero_init of "cfg-zero*", scale and
                layers of "pag"; see `APG`, `CFGZero` and `PAG`.
            weak: the weaker model of "autoguidance": a loaded pipeline, or what `fewstep.load` takes.
            sampler: a name from `fewstep samplers`; or a plan, which then decides steps, grid and options too; or
                "tuned", the plan of `steps` evaluations that was tuned to this model and lies in its folder `plans`.
            steps, grid, grid_options, times, sigmas: the time grid, as in `fewstep.compile`.
            options: of the sampler, such as `{"eta": 1}` for "ddim".
            interval: (low, high) in sigma / alpha where guidance acts; `rescale`: of "cfg", see `Guided`.
            clip_skip: layers at the end of CLIP that the prompt leaves out, as in diffusers.
            height, width: in pixels, multiples of `multiple`; None is what the model was made for.
            seed: of the first image, the next ones counting up; or one for each image.
            count: images of each prompt.
            batch: images that the network sees at once; it bounds the memory.
            sliced: decode one image at a time; `tiled`: in tiles. Both save memory.
            overlap: decode a batch while the next one is denoised; it holds the memory of both.
            on_row: called after each network evaluation of each batch; True cancels with `Cancelled`.

        Raises:
            InvalidInput: for unknown names, values out of range, sizes that the model cannot make, a plan that does
                not fit, and a method of guidance that the network or the sampler does not allow.
            LostImages: some images are not finite. The others are in it.

        Warns:
            TruncatedPrompt: a prompt is longer than an encoder reads; the warning says what was cut.
            NoEffect: a negative prompt cannot act.
        """
        wanted = asked(
            self,
            prompts,
            self._size(height, width),
            usual_plan,
            negative=negative,
            guidance=guidance,
            guidance_method=guidance_method,
            guidance_options=guidance_options,
            weak=weak,
            sampler=sampler,
            steps=steps,
            grid=grid,
            grid_options=grid_options,
            options=options,
            times=times,
            sigmas=sigmas,
            interval=interval,
            rescale=rescale,
            clip_skip=clip_skip,
            seed=seed,
            count=count,
            batch=batch,
            sliced=sliced,
            tiled=tiled,
            overlap=overlap,
            on_row=on_row,
        )
        return self._draw(wanted.recipe, wanted.plan, wanted.means)

    def redraw(
        self,
        recipe: ImageRecipe,
        *,
        plan: Plan | None = None,
        image: Picture | None = None,
        mask: Picture | None = None,
        fit: str = "crop",
        weak: TextPipeline | str | os.PathLike[str] | None = None,
        on_row: OnRow | None = None,
    ) -> Images:
        """Draw the images of a recipe again.

        Args:
            recipe: `fewstep.pipeline.read(path).recipe` of a PNG.
            plan: only needed for a plan too long to be kept in the picture.
            image, mask, fit: what the images were drawn from, where that is a picture.
            weak: the weaker model, for a recipe of autoguidance.

        Raises:
            InvalidInput: the recipe is for another model, or cannot be used.
        """
        check_model(recipe, self.name, self.digest, plan)
        if not isinstance(recipe, PromptRecipe):
            raise InvalidInput(f"the recipe has no prompts, and {self.name!r} draws from prompts")
        means = Means(on_row, weak=weaker_of(self, weak, (recipe.height, recipe.width)))
        check_weaker(recipe.guidance, means.weak)
        plan = plan or recipe.plan.compile(self.schedule_at(recipe.height, recipe.width))
        check_guidance(self, recipe.guidance, recipe.negatives, plan, means.weak)
        if isinstance(recipe, PictureRecipe):
            return redraw(self, recipe, plan, image, mask, fit, means)
        if image is not None or mask is not None:
            raise InvalidInput("the images of this recipe were drawn from words alone: leave image and mask out")
        return self._draw(recipe, plan, means)

    def _draw(self, recipe: PromptRecipe, plan: Plan, means: Means, given: Given = WORDS_ALONE) -> Images:
        shape, settings = self.latent_shape(recipe.height, recipe.width), recipe.guidance
        check_cost(plan, len(recipe.labels), shape, self.decoder.pixels(shape))
        began = time.perf_counter()
        pairs = [(recipe.prompts[i], recipe.negative(i)) for i in range(len(recipe.labels))]
        drawn = [pairs[i] for i in recipe.kept]
        embedded = embed(self, drawn, settings, recipe.clip_skip, means.weak, warn=True)
        seconds = time.perf_counter() - began

        def denoiser(counted: Counted, part: slice) -> Denoiser:
            own = [pair if pair in embedded else drawn[0] for pair in pairs[part]]  # of the others no image is kept
            size = recipe.height, recipe.width
            more: dict[str, Any] = {"channels": given.channels, "weak": means.weak, "counted": counted, "plan": plan}
            return given.around(conditioned(self, embedded, own, settings, size, **more))

        canvas = Canvas(
            shape=shape,
            pixels=self.decoder.pixels(shape),
            value_range=(-1.0, 1.0),
            denoiser=denoiser,
            decode=lambda latents: self.decoder(latents, sliced=recipe.sliced, tiled=recipe.tiled),
            overlap=means.overlap,
            device=self.device,
            start=given.start,
        )
        return draw(recipe, plan, canvas, means.on_row, {**given.seconds, "encode": seconds})

    @property
    def _network(self) -> Callable[..., Tensor]:
        return partial(self.family.call, self.module)

    def _size(self, height: int | None, width: int | None) -> tuple[int, int]:
        """(height, width), the model's own for None. Raises `InvalidInput` where the model cannot make them."""
        size = tuple(own if given is None else given for given, own in zip((height, width), self.size, strict=True))
        most = self.family.limit(self.config)
        side = MAX_SIDE if most is None else min(MAX_SIDE, most * self.decoder.factor)
        for name, value in zip(("height", "width"), size, strict=True):
            if type(value) is not int or value % self.multiple or not 0 < value <= side:
                raise InvalidInput(
                    f"{name} is {value!r}; {self.name} makes multiples of {self.multiple} up to {side} pixels"
                )
        if size[0] * size[1] > MAX_PIXELS:
            raise InvalidInput(f"an image of {size[1]} x {size[0]} pixels has more than {MAX_PIXELS:,}: use fewer")
        return size[0], size[1]


def usual_plan(schedule: Schedule, sampler: str | Plan | None, given: dict[str, Any]) -> Plan:
    """The plan of a sampler and a grid, with this module's defaults."""
    return chosen_plan(schedule, sampler or SAMPLER, given, STEPS, GRID)
