"""Drawings that start from a picture, by task: for the first time, and again from what a PNG keeps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from torch import Tensor

from fewstep.core.errors import InvalidInput
from fewstep.core.plan import Plan
from fewstep.drawing import Drawing, Made, Sampling, Source
from fewstep.models import Model, check_lora, check_weaker, digest_of, weaker_of
from fewstep.models.defaults import INVERSION, STRENGTHS
from fewstep.models.weaker import Weak
from fewstep.pipeline import img2img, inpaint, inversion
from fewstep.pipeline.draw import draw
from fewstep.pipeline.images import Images
from fewstep.pipeline.img2img import EncodedPicture, encoded
from fewstep.pipeline.masks import read_mask
from fewstep.pipeline.order import OnRow, Order, Origin, Run, compiled, ordered
from fewstep.pipeline.pictures import Picture, opened
from fewstep.pipeline.slots import draw_in_slots
from fewstep.pipeline.stages import check
from fewstep.pipeline.strength import Strength

UNREAD = "0" * 16
"""The digest of a picture until it is read, which comes after all other checks."""
OriginOf = Callable[[Model, Order, EncodedPicture, Tensor | None], Origin]


class Task(NamedTuple):
    """How a task finds its plan, and what its images come from."""

    plan: Callable[[Strength], Any]
    origin: OriginOf
    usual: Mapping[str, Any]


def _tail_of(strength: Strength) -> Any:
    def plan_of(model: Model, sampling: Sampling, size: tuple[int, int]) -> Plan:
        return strength.plan(model.schedule_at(*size), sampling)

    return plan_of


TASKS: Mapping[str, Task] = {
    "img2img": Task(_tail_of, img2img.origin, {}),
    "inpaint": Task(_tail_of, inpaint.origin, {}),
    "edit": Task(inversion.down_plan_of, inversion.origin, INVERSION),
}


@dataclass(frozen=True, eq=False)
class Beside:
    """What travels beside a drawing: pictures, the weaker model, and a plan that a picture did not keep."""

    image: Picture | None = None
    mask: Picture | None = None
    weak: Weak = None
    plan: Plan | None = None


def from_picture(
    model: Model, prompts: Any, call: Mapping[str, Any], beside: Beside, task: str, facts: Mapping[str, Any]
) -> Images:
    """The images of a task; `facts` are the fields of its `Source` that the caller says."""
    strength, how = facts.get("strength"), TASKS[task]
    share = Strength(
        STRENGTHS[task] if strength is None else strength, facts.get("strength_of", "steps"), strength is not None
    )
    order = ordered(model, prompts, call, how.usual, how.plan(share))
    said = {**facts, "task": task, "strength": float(share.value)}
    source = Source(**said, picture=UNREAD, mask=None if beside.mask is None else UNREAD)
    order = replace(order, drawing=order.drawing.but(source=source))
    check(model, order)
    picture, mask = _pixels(model, order.drawing, beside, source.fit)
    source = source.but(picture=digest_of(picture.pixels), mask=None if mask is None else digest_of(mask))
    order = replace(order, drawing=order.drawing.but(source=source))
    return draw(model, replace(order, origin=how.origin(model, order, picture, mask)))


def again(model: Model, drawing: Drawing, made: Made, beside: Beside, on_row: OnRow | None = None) -> Images:
    """The images of a drawing as they were made."""
    check_lora(model, drawing)
    if made.model_digest != model.digest:
        raise InvalidInput(
            f"the picture was drawn by the model {made.model!r} with digest {made.model_digest}, this is "
            f"{model.name!r} with digest {model.digest}: give the model that drew it{model.identity.hint}"
        )
    plan = beside.plan
    if plan is not None and plan.digest != made.plan:
        raise InvalidInput(f"the picture was drawn with the plan {made.plan}, the given one is {plan.digest}")
    weaker = weaker_of(model, beside.weak)
    check_weaker(drawing.guidance.weaker, weaker)
    size, source = (drawing.height, drawing.width), drawing.source
    model.sizes.check(model.name, *size)
    if plan is None:
        strength = None if source is None else Strength(source.strength, source.strength_of)
        plan_of = compiled if source is None or strength is None else TASKS[source.task].plan(strength)
        plan = plan_of(model, drawing.sampling, size)
    order = Order(drawing, plan, Run(made.batch, on_row=on_row), weaker)
    check(model, order)
    if source is None:
        if beside.image is not None or beside.mask is not None:
            raise InvalidInput("the images were drawn without a picture: leave image and mask out")
        return _drawn(model, order, made)
    if beside.image is None or (beside.mask is None) != (source.mask is None):
        needed = "the picture and the mask" if source.mask is not None else "the picture, and no mask,"
        raise InvalidInput(f"this was drawn by {source.task}: give {needed} that it was drawn from")
    picture, mask = _pixels(model, drawing, beside, source.fit)
    _same("picture", digest_of(picture.pixels), source.picture)
    if mask is not None:
        _same("mask", digest_of(mask), source.mask)
    origin = TASKS[source.task].origin(model, order, picture, mask)
    return _drawn(model, replace(order, origin=origin), made)


def _drawn(model: Model, order: Order, made: Made) -> Images:
    """By the driver that drew it first."""
    if made.driver == "slots":
        return draw_in_slots(model, [order], made.batch)[0]
    return draw(model, order, made.keep)


def _pixels(model: Model, drawing: Drawing, beside: Beside, fit: str) -> tuple[EncodedPicture, Tensor | None]:
    size = drawing.height, drawing.width
    assert beside.image is not None
    image, mask = opened(beside.image), None
    if beside.mask is not None:
        sides = size if isinstance(image, Tensor) else (image.height, image.width)
        mask = read_mask(beside.mask, size, fit, of=sides)
    return encoded(model, image, size, fit), mask


def _same(what: str, got: str, wanted: str | None) -> None:
    if got != wanted:
        raise InvalidInput(f"the {what} has the digest {got} after fitting, the drawing is of {wanted}: give the same")
