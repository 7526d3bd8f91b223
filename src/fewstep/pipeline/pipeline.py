"""A model and the methods that people expect of it."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Unpack

import torch
from torch import Tensor

from fewstep.core.errors import InvalidInput
from fewstep.core.plan import Plan
from fewstep.core.schedule import Schedule
from fewstep.denoise.base import Denoiser
from fewstep.drawing import Drawing, Stamp
from fewstep.models import CacheCounts, Claims, Files, Model, NetworkSpec, load_model, place_of, weaker_of
from fewstep.models.lora import Loras
from fewstep.models.weaker import Weak
from fewstep.pipeline.draw import draw
from fewstep.pipeline.images import Images
from fewstep.pipeline.interpolation import Frames, interpolate
from fewstep.pipeline.inversion import Inversion, invert, refuse_random
from fewstep.pipeline.order import OnRow, Order, Run, compiled, ordered
from fewstep.pipeline.pictures import Picture
from fewstep.pipeline.source import Beside, again, from_picture
from fewstep.pipeline.stages import Conditioned, check, check_asked, denoiser_of, encode
from fewstep.variants import is_variant
from fewstep.variants import load as load_variant

Negative = str | int | Sequence[Any]


@dataclass(frozen=True, eq=False)
class Pipeline:
    """A model, and the calls that draw with it. Holds no state of a run."""

    model: Model

    def __call__(
        self,
        subjects: str | int | Sequence[Any] | None = None,
        *,
        negative: Negative | None = None,
        guidance: Any = None,
        sampler: str | Plan | None = None,
        steps: int | None = None,
        grid: str | None = None,
        seed: int | Sequence[int] | None = None,
        count: int | None = None,
        height: int | None = None,
        width: int | None = None,
        clip_skip: int | None = None,
        sampling: Any = None,
        estimate: Any = None,
        decode: Any = None,
        preset: str | None = None,
        weak: Weak = None,
        batch: int | None = None,
        overlap: bool | None = None,
        on_row: OnRow | None = None,
    ) -> Images:
        """Draw `count` images for each prompt or label.

        What is not given is what the model recommends, or the preset.

        Args:
            subjects: prompts, or labels 0 .. classes - 1 with None for no condition; one, or several. Without any, one
                image of each class.
            negative: what to guide away from: one for all, or one for each subject; None is the model's own empty
                condition.
            guidance: the scale; 1 is the conditional model alone, at half the cost. A sequence is one weight for each
                row of the plan; a function of sigma / alpha or a `GuidanceSchedule` follows the level. Say more with
                `fewstep.Guidance(9, method="apg", norm_limit=7.5)`, or a mapping of some of its fields.
            sampler: a name from `fewstep samplers`; or a plan, which then decides steps, grid and options too; or
                "tuned", the plan that was tuned to this model, lies beside it and costs as much as `steps` guided rows.
            steps, grid: of the time grid, as in `fewstep.compile`.
            seed: of the first image, the next ones counting up; or one for each image.
            height, width: in pixels, multiples of what the model allows.
            clip_skip: layers to leave out at the end of CLIP, as in diffusers.
            sampling: more of the sampler and its grid, a `fewstep.Sampling` or a mapping of some of its fields.
            estimate: `fewstep.Estimate`, how to bring estimates of pixels into their range.
            decode: `fewstep.Decode`, which saves memory where a VAE decodes.
            preset: a name in `fewstep.PRESETS`.
            weak: the weaker model of autoguidance: a loaded pipeline, or what `fewstep.load` takes.
            batch: images that the network sees at once, 1 to 1024; it bounds the memory.
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
        call = {
            "negative": negative,
            "guidance": guidance,
            "sampler": sampler,
            "steps": steps,
            "grid": grid,
            "seed": seed,
            "count": count,
            "height": height,
            "width": width,
            "clip_skip": clip_skip,
            "sampling": sampling,
            "estimate": estimate,
            "decode": decode,
            "preset": preset,
            "weak": weak,
            "batch": batch,
            "overlap": overlap,
            "on_row": on_row,
        }
        order = ordered(self.model, subjects, call)
        check(self.model, order)
        return draw(self.model, order)

    def order(self, subjects: Any = None, **call: Any) -> Order:
        """What a call would draw, complete and with its plan; arguments as in `__call__`."""
        return ordered(self.model, subjects, call)

    def draw(self, drawing: Drawing | Order, *, weak: Weak = None, run: Run | None = None) -> Images:
        """Draw a complete drawing, or an order. For one that starts from a picture, call its task, or `redraw`."""
        order = drawing if isinstance(drawing, Order) else self._order_of(drawing, weak, run)
        check(self.model, order)
        return draw(self.model, order)

    def _order_of(self, drawing: Drawing, weak: Weak, run: Run | None) -> Order:
        plan = compiled(self.model, drawing.sampling, (drawing.height, drawing.width))
        return Order(drawing, plan, run or Run(self.model.batch), weaker_of(self.model, weak))

    def redraw(
        self,
        stamp: Stamp | Images,
        *,
        image: Picture | None = None,
        mask: Picture | None = None,
        weak: Weak = None,
        plan: Plan | None = None,
        on_row: OnRow | None = None,
    ) -> Images:
        """Draw images again, to the bit on the same machine.

        Args:
            stamp: `fewstep.drawing.read(path)` of a PNG, or images.
            image, mask: what the images were drawn from, where that is a picture.
            weak: the weaker model of autoguidance.
            plan: only needed for a plan too long to be kept in the picture.

        Raises:
            InvalidInput: the images are of another model, or what they were drawn from is not what is given.
        """
        return again(self.model, stamp.drawing, stamp.made, Beside(image, mask, weak, plan), on_row)

    def img2img(
        self,
        image: Picture,
        prompts: str | Sequence[str],
        *,
        strength: float | None = None,
        strength_of: str = "steps",
        fit: str = "crop",
        **call: Any,
    ) -> Images:
        """Draw from a picture: noise it to some level, and denoise it with other words.

        Args:
            image: a path, a `PIL.Image`, or a tensor (3, H, W) in [-1, 1].
            prompts: one, or several, each drawn from the picture.
            strength: how much is drawn anew, in (0, 1]; 1 is all. None is 0.8, or where a given plan starts.
            strength_of: "steps", the last share of the grid, floor(strength N) of N steps, as in diffusers; or
                "noise", the standard deviation of the noise at the start (t of a flow model), below which the grid
                stays as it is.
            fit: how a picture of another size is fitted: "crop", "stretch", or "exact", which refuses it.
            call: as in `__call__`.

        Raises:
            OSError: the picture's file cannot be read.
            InvalidInput: a picture that is damaged or too large, a strength that leaves no step, and what drawing
                refuses.
            LostImages: some images are not finite.
        """
        facts = {"strength": strength, "strength_of": strength_of, "fit": fit}
        return from_picture(self.model, prompts, call, Beside(image, weak=call.get("weak")), "img2img", facts)

    def inpaint(
        self,
        image: Picture,
        mask: Picture,
        prompts: str | Sequence[str],
        *,
        strength: float | None = None,
        strength_of: str = "steps",
        fit: str = "crop",
        paste: bool = True,
        **call: Any,
    ) -> Images:
        """Repaint the white part of `mask` in a picture.

        Args:
            image, strength_of, fit, call: as in `img2img`.
            mask: as `image`, fitted in the same way; its lighter half is repainted. A tensor is (H, W) in [0, 1].
            strength: as in `img2img`, but None is 1: what is repainted starts from noise alone.
            paste: put the kept pixels of the picture itself over the result, where the VAE would have changed them.

        Raises:
            As `img2img`, and `InvalidInput` for a mask that is dark everywhere.
        """
        facts = {"strength": strength, "strength_of": strength_of, "fit": fit, "paste": bool(paste)}
        return from_picture(self.model, prompts, call, Beside(image, mask), "inpaint", facts)

    def edit(
        self,
        image: Picture,
        source: str,
        prompts: str | Sequence[str],
        *,
        strength: float | None = None,
        strength_of: str = "steps",
        fit: str = "crop",
        **call: Any,
    ) -> Images:
        """Invert a picture with the words that describe it, and draw from that noise with others.

        Args:
            image, fit: as in `img2img`.
            source: what the picture shows.
            prompts: what to show instead: one, or several.
            strength, strength_of: how far up to go, as in `img2img`; None is 1, all the way to noise. Less keeps more.
            call: as in `__call__`, of the way down; the way up is not guided. By default 50 steps of "ddim". There is
                no seed: nothing is drawn at random.

        Raises:
            As `img2img`, and `InvalidInput` for a sampler that draws noise.
        """
        refuse_random(call)
        facts = {"strength": strength, "strength_of": strength_of, "fit": fit, "prompt": source}
        return from_picture(self.model, prompts, call, Beside(image), "edit", facts)

    def invert(self, image: Picture, prompt: str = "", *, fit: str = "crop", **call: Any) -> Inversion:
        """Find the noise of a picture and draw the picture from it again.

        Args:
            image, fit: as in `img2img`.
            prompt: what the picture shows; empty is the model's own idea of pictures.
            call: as in `__call__`; `on_row` counts the rows of each run. By default 50 steps of "ddim"; "belm" is
                exactly invertible. Guidance makes the way up differ from the way down, so 1, the default, comes back
                best.

        Raises:
            InvalidInput: what `img2img` refuses; a plan in place of a sampler's name, and a sampler that draws noise.
            NonFinite: the states left all bounds.
        """
        return invert(self.model, image, prompt, fit, call)

    def interpolate(
        self, prompts: str | Sequence[str], *, seeds: int | Sequence[int] = 0, frames: int = 8, **call: Any
    ) -> Frames:
        """Draw the pictures between two prompts, two seeds, or both.

        Args:
            prompts: of the first and the last frame; one for both.
            seeds: of the first and the last frame; one for both. A stochastic sampler's further noise is the first
                one's.
            frames: 2 to 1000, the two ends included. The ends are what `__call__` draws.
            call: as in `__call__`.

        Raises:
            InvalidInput: the two ends are the same, and what drawing refuses.
            LostImages: some frames are not finite.
        """
        return interpolate(self.model, prompts, seeds, frames, call)

    def plan(self, sampler: str | None = None, **call: Any) -> Plan:
        """`fewstep.compile` with this model's schedule and defaults; arguments as in `__call__`."""
        return ordered(self.model, _anything(self.model), {"sampler": sampler, **call}).plan

    def denoiser(self, subjects: Any = None, *, plan: Plan | None = None, **call: Any) -> Denoiser:
        """The denoiser of a batch of states, one for each subject, for `fewstep.sample`; arguments as in `__call__`.

        `plan` is the one it will run, whose guidance by row it then follows; guidance by row or by a schedule needs it.
        """
        order = ordered(self.model, subjects, {**call, "sampler": plan})
        if plan is None and isinstance(order.drawing.guidance.scale, tuple):
            raise InvalidInput("guidance by row is that of a plan: give the plan, or a number")
        check_asked(self.model, order)
        rows = encode(self.model, list(order.drawing.each), order.weaker)
        return denoiser_of(
            self.model,
            order.drawing.guidance,
            Conditioned.of(self.model, rows, order.weaker),
            plan,
            weaker=order.weaker,
            estimate=order.drawing.estimate,
        )

    def decode(self, states: Tensor) -> Tensor:
        """Pictures (B, C, H, W), float32 on the host, of states at the end of a run."""
        return self.model.codec.decode(states)

    @property
    def name(self) -> str:
        """For people, and for the names of files."""
        return self.model.name

    @property
    def value_range(self) -> tuple[float, float]:
        """Least and greatest value of pictures."""
        return self.model.codec.value_range

    @property
    def cache(self) -> CacheCounts:
        """What the cache of embeddings of prompts and latents of pictures did so far."""
        return self.model.cache.counts

    def schedule_at(self, height: int | None = None, width: int | None = None) -> Schedule:
        """The noise schedule for images of a size."""
        return self.model.schedule_at(height, width)

    def state_shape(self, height: int | None = None, width: int | None = None) -> tuple[int, int, int]:
        """(C, H, W) of the state of an image."""
        return self.model.state_shape(height, width)

    def pixel_shape(self, height: int | None = None, width: int | None = None) -> tuple[int, ...]:
        """(C, H, W) of an image."""
        return self.model.codec.pixel_shape(self.model.state_shape(height, width))


def _anything(model: Model) -> Any:
    """Some subjects that the model can draw."""
    return model.conditioner.subjects or ("",)


def load(
    source: str | os.PathLike[str] | Callable[..., Any],
    *,
    spec: NetworkSpec | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | str | None = None,
    prediction: str | None = None,
    zero_snr: bool | None = None,
    lora: Loras = None,
    **files: Unpack[Files],
) -> Pipeline:
    """The pipeline of a model.

    Args:
        source: the name of a shipped model ("digits", "scenes"); the path of a .safetensors file that fewstep trained;
            a folder in the format of diffusers, or its id on the Hugging Face hub ("org/name"); a folder that
            `fewstep.optimize` wrote; the folder of one network in the format of diffusers, or the .safetensors file in
            it; an original checkpoint, which is one .safetensors file with all parts (Stable Diffusion 1, 2, XL and 3,
            FLUX); or a callable `network(x, t)`.
        spec: the schedule, prediction and the like of a callable, or of one network alone.
        device: where the model runs; `dtype` in what: "float32" (the default), "float16" or "bfloat16". Of callables,
            only modules can be converted, as copies; None leaves them as they are.
        prediction: what the network predicts, such as "v_prediction", where the configuration of its scheduler says
            something else. `zero_snr`: the same of zero terminal SNR. None reads both: see docs/models.md.
        lora: LoRAs to merge into the weights: the path of a .safetensors file, a pair (path, scale), or a list of
            these. Pictures keep the digest and scale of each.
        variant: of the files of weights, such as "fp16".
        allow_pickle: load weights that exist only as a pickle, with `weights_only=True`.
        config: for an original checkpoint, a folder or an id on the hub in the format of diffusers with the
            configurations, tokenizers and scheduler of its kind, and the weights of parts that the file does not hold.
            None takes the id that diffusers knows for the file's kind.
        cache: of prompt embeddings; by default one of this pipeline's own, in memory.

    Raises:
        FileNotFoundError: there is no file at the path.
        InvalidInput: for an unknown name, for a file that is missing, damaged or not of a known kind, and for one that
            says of itself what its configuration or the caller contradicts.
    """
    place = place_of(device, dtype, Claims(prediction, zero_snr), lora, **files)
    if not callable(source) and is_variant(source):
        return Pipeline(load_variant(Path(source), place, spec))
    return Pipeline(load_model(source, place, spec))
