"""The four stages of drawing, functions from values to values over any images: encode, start, denoise, decode.

A call runs them one after the other, a batch over many drawings, a server each where it likes. An image is a drawing of
one image, see `Drawing.each`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fewstep.core.errors import InvalidInput
from fewstep.core.plan import Plan
from fewstep.denoise.base import Denoiser
from fewstep.denoise.guided import Guided
from fewstep.denoise.known import Known
from fewstep.denoise.method import Setup
from fewstep.denoise.project import clip, dynamic_threshold
from fewstep.denoise.scale import GuidanceSchedule
from fewstep.drawing import Drawing, Estimate, Guidance
from fewstep.models import Conditions, Model, check_lora, learned_plans
from fewstep.models.model import Counted
from fewstep.pipeline.memory import check_memory
from fewstep.pipeline.order import NOISE_ALONE, OnRow, Order, Origin
from fewstep.run.eager import sample
from fewstep.run.noise import START, unit_noise

MAX_ROWS, MAX_BYTES = 100_000, 4 << 30
"""Most rows of a plan that are drawn, and most bytes of the images of one drawing."""


def check(model: Model, order: Order) -> None:
    """The second validation, of what only the model knows.

    Raises `InvalidInput`, and warns of what cannot act.
    """
    check_asked(model, order)
    check_memory(model, order)
    guidance, plan, weaker = order.drawing.guidance, order.plan, order.weaker is not None
    method, away = guidance.how, model.conditioner.guides_away(guidance)
    acts = method.own_scale or any(weight != method.idle for weight in guidance.weights)
    if plan.guidance_factors is not None and method.name != "cfg" and acts:
        raise InvalidInput(
            "the plan was tuned with guidance by row, which classifier-free guidance alone follows, and the method is "
            f"{method.name}: leave the guidance method out, or tune with --constant-guidance"
        )
    if away or method.negative != "needed":
        method.check(Setup(model, weights_of(guidance, [away or weaker]), away, weaker, plan))


def check_asked(model: Model, order: Order) -> None:
    """As `check`, whatever plan will be run."""
    drawing, plan = order.drawing, order.plan
    check_lora(model, drawing)
    check_student(model, drawing)
    check_rows(model, plan)
    shape = model.state_shape(drawing.height, drawing.width)
    if len(plan.rows) > MAX_ROWS:
        raise InvalidInput(f"the plan has {len(plan.rows)} rows, at most {MAX_ROWS} are drawn: use fewer steps")
    for each in (shape, model.codec.pixel_shape(shape)):
        if len(drawing) * math.prod(each) * 4 > MAX_BYTES:
            raise InvalidInput(
                f"{len(drawing)} images of {each} take more than {MAX_BYTES >> 30} GiB: draw fewer at once"
            )
    model.codec.check(model.name, drawing)
    model.conditioner.check(model.name, drawing, plan)
    if order.weaker is not None:
        order.weaker.state_shape(drawing.height, drawing.width)


def check_student(model: Model, drawing: Drawing) -> None:
    """Raise `InvalidInput` for guidance or a negative that a student does not take, which has no negative branch."""
    teacher, negative = model.teacher, [text for text in drawing.negative if text is not None]
    if teacher is None:
        return
    scale = drawing.guidance.scale
    if teacher.scales is None:
        inside, allowed = f"with guidance {teacher.guidance:g} inside", "guidance 1"
        fits = drawing.guidance == Guidance(1.0)
    else:
        low, high = teacher.scales
        inside = f"that is told its guidance scale, from {low:g} to {high:g}"
        allowed = f"guidance from {low:g} to {high:g}"
        fits = not isinstance(scale, tuple) and low <= scale <= high and drawing.guidance == Guidance(scale)
    if not fits or negative:
        raise InvalidInput(
            f"{model.name} is a student {inside}, and has no negative branch: draw with {allowed} and no negative, or "
            f"use its teacher, {teacher.name}, for other guidance or a negative"
        )


def check_rows(model: Model, plan: Plan) -> None:
    """Raise `InvalidInput` for a plan with rows that a network which knows of its rows cannot go, or did not learn."""
    model.rows.check(plan, model.name)
    if model.rows.guesses == 1 or model.rows.second_time:
        return
    plans = learned_plans(model)
    known = np.reshape([way for one in plans.values() for way in ways_of(one)], (-1, 2))
    strange = [way for way in ways_of(plan) if not np.isclose(known, way, rtol=1e-6, atol=1e-6).all(-1).any()]
    if strange:
        begin, end = strange[0]
        raise InvalidInput(
            f"{model.name} {model.rows}, which it learned for the rows of its own plan alone, and the plan has one "
            f"from {begin:g} to {end:g}: leave sampler, steps, grid and strength out"
        )


def ways_of(plan: Plan) -> list[tuple[float, float]]:
    """The times that each row begins at and leads to."""
    return [(row.t, end[0]) for row, end in zip(plan.rows, plan.ends, strict=True)]


class Encoded(NamedTuple):
    """The conditions of one image: its own, the negative, and its own as the weaker model reads it."""

    positive: Conditions
    negative: Conditions | None
    weak: Conditions | None


def encode(model: Model, images: Sequence[Drawing], weaker: Model | None = None, warn: bool = False) -> list[Encoded]:
    """The conditions of images, each text encoded once; `warn` of words that an encoder cuts."""
    own = model.conditioner.encode(images, warn)
    if weaker is None:
        return [Encoded(*each, None) for each in own]
    theirs = weaker.conditioner.encode(images)
    return [Encoded(*each, other.positive) for each, other in zip(own, theirs, strict=True)]


def start(
    model: Model, plan: Plan, images: Sequence[Drawing], origin: Origin = NOISE_ALONE
) -> Tensor | tuple[Tensor, Tensor]:
    """The states (B, c, h, w) at the plan's entry, a pair of them for a plan that starts from one.

    Each is alpha latents + sigma noise, with the noise of the image's own seed.
    """
    if origin.states:
        first, *rest = (state.expand(len(images), -1, -1, -1) for state in origin.states)
        return (first, rest[0]) if rest else first
    alpha, sigma = plan.entry
    shape = model.state_shape(images[0].height, images[0].width)
    like = torch.empty(len(images), *shape, device=model.device)
    noise = unit_noise([image.seeds[0] for image in images], START, like)
    return noise * sigma if origin.latents is None else alpha * origin.latents + sigma * noise


def denoise(
    order: Order,
    denoiser: Denoiser,
    images: Sequence[Drawing],
    states: Tensor | tuple[Tensor, Tensor],
    on_row: OnRow | None = None,
) -> Tensor:
    """The states (B, c, h, w) at the end of the order's plan. Raises as `fewstep.sample`."""
    return sample(order.plan, denoiser, start=states, seed=[image.seeds[0] for image in images], on_row=on_row)


def decode(model: Model, states: Tensor, drawing: Drawing) -> Tensor:
    """Pictures (B, C, H, W), float32 on the host, of states."""
    return model.codec.decode(states, drawing.decode)


@dataclass(frozen=True, eq=False)
class Conditioned:
    """The conditions of a batch, where the networks are; see `Encoded`.

    Attributes:
        acting: whether each image is guided.
    """

    positive: dict[str, Tensor]
    negative: dict[str, Tensor] | None
    weak: dict[str, Tensor] | None
    acting: tuple[bool, ...]

    @staticmethod
    def of(model: Model, rows: Sequence[Encoded], weaker: Model | None = None, origin: Origin = NOISE_ALONE) -> Any:
        """The batch of some images."""
        more = {} if origin.channels is None else {"channels": origin.channels}
        own = [{**row.positive, **more} for row in rows]
        away = [{**(row.negative or row.positive), **more} for row in rows]
        weak = [{**(row.weak or {}), **more} for row in rows]
        acting = tuple(weaker is not None or row.negative is not None for row in rows)
        return Conditioned(
            positive=model.placed(own),
            negative=model.placed(away) if any(row.negative for row in rows) else None,
            weak=None if weaker is None else weaker.placed(weak),
            acting=acting,
        )


def denoiser_of(
    model: Model,
    guidance: Guidance,
    conditions: Conditioned,
    plan: Plan | None = None,
    *,
    weaker: Model | None = None,
    estimate: Estimate | None = None,
    known: tuple[Tensor, Tensor] | None = None,
    counted: Counted = lambda network: network,
) -> Denoiser:
    """The denoiser of a batch under its conditions: guided, with estimates in their range, or with known data in them.

    Raises `InvalidInput` where the method does not fit the network or the plan.
    """
    network = model.denoiser(counted)
    result: Denoiser
    if conditions.negative is None and guidance.how.negative == "needed":
        result = network.given(conditions.positive)
    else:
        scales = weights_of(guidance, conditions.acting)
        result = Guided(
            network,
            conditions.positive,
            conditions.negative,
            scales if len(set(conditions.acting)) > 1 else scales[0],
            method=guidance.how,
            interval=guidance.interval,
            weaker=None if weaker is None else weaker.denoiser(counted).given(conditions.weak or {}),
        ).following(plan)
    if estimate is not None:
        result = bounded(result, estimate, model.codec.value_range)
    return result if known is None else Known(result, *known)


def bounded(denoiser: Denoiser, estimate: Estimate, value_range: tuple[float, float]) -> Denoiser:
    """The denoiser with its estimates brought into the range of the data."""
    if estimate.threshold is not None:
        return dynamic_threshold(denoiser, *estimate.threshold, low=value_range[0], high=value_range[1])
    return clip(denoiser, *value_range) if estimate.clip else denoiser


def weights_of(guidance: Guidance, guided: Sequence[bool]) -> list[Any]:
    """The scale of each image, which is the method's idle one for those that are not guided."""
    acting = GuidanceSchedule.rows(guidance.pull) if isinstance(guidance.pull, tuple) else guidance.pull
    return [acting if acts else guidance.how.idle for acts in guided]
