"""Images with different samplers, steps and guidance in one batch, each the same bit for bit whoever shares it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial

from torch import Tensor

from fewstep.core.errors import InvalidInput
from fewstep.denoise.base import Denoiser
from fewstep.denoise.known import Known
from fewstep.models import Model
from fewstep.pipeline.draw import made_by
from fewstep.pipeline.images import Images
from fewstep.pipeline.order import Order
from fewstep.pipeline.stages import Conditioned, bounded, decode, encode, start, weights_of
from fewstep.run.slots import Finished, Request, Slots


def draw_in_slots(model: Model, orders: Sequence[Order], capacity: int) -> list[Images]:
    """The images of orders of one image each, `capacity` of them at once; lost ones are not finite.

    The orders must share their size, the kinds of their conditions and the weaker model. Raises `InvalidInput` where
    they do not, and for a plan that starts from a pair of states.
    """
    began, first = time.perf_counter(), orders[0]
    if any(order.drawing.guidance.weaker != first.drawing.guidance.weaker for order in orders):
        raise InvalidInput("the images of one batch are guided away from one weaker model: draw them apart")
    slots = Slots(
        model.denoiser(),
        model.state_shape(first.drawing.height, first.drawing.width),
        capacity,
        registers=max(order.plan.registers for order in orders),
        device=model.device,
        weaker=None if first.weaker is None else first.weaker.denoiser(),
    )
    waiting, running = list(enumerate(orders)), dict[int, int]()
    finished: dict[int, Finished] = {}
    while waiting or running:
        while waiting and slots.free:
            place, order = waiting.pop(0)
            running[slots.admit(order.plan, request_of(model, order))] = place
        for one in slots.step():
            finished[running.pop(one.ticket)] = one
    seconds = (time.perf_counter() - began) / len(orders)
    return [_image(model, order, finished[i], capacity, seconds) for i, order in enumerate(orders)]


def request_of(model: Model, order: Order) -> Request:
    """The request to slots for an order of one image."""
    drawing, origin = order.drawing, order.origin
    conditions = Conditioned.of(model, encode(model, [drawing], order.weaker), order.weaker, origin)
    states = start(model, order.plan, [drawing], origin)
    if isinstance(states, tuple):
        raise InvalidInput(f"{order.plan.recipe.sampler} starts from a pair of states, which slots do not hold")

    def alone(values: dict[str, Tensor] | None) -> dict[str, Tensor] | None:
        return None if values is None else {name: value[0] for name, value in values.items()}

    around: list[Callable[[Denoiser], Denoiser]] = []
    if drawing.estimate.clip or drawing.estimate.threshold is not None:
        around.append(partial(bounded, estimate=drawing.estimate, value_range=model.codec.value_range))
    if origin.known is not None:
        around.append(partial(Known, known=origin.known[0], mask=origin.known[1]))
    return Request(
        seed=drawing.seeds[0],
        start=states[0],
        condition=alone(conditions.positive) or {},
        negative=alone(conditions.negative),
        weak=alone(conditions.weak),
        scale=weights_of(drawing.guidance, conditions.acting)[0],
        method=drawing.guidance.how,
        interval=drawing.guidance.interval,
        around=(lambda denoiser: _nested(denoiser, around)) if around else None,
    )


def _nested(denoiser: Denoiser, around: Sequence[Callable[[Denoiser], Denoiser]]) -> Denoiser:
    for wrap in around:
        denoiser = wrap(denoiser)
    return denoiser


def _image(model: Model, order: Order, finished: Finished, capacity: int, seconds: float) -> Images:
    """Decoded alone, so that it does not depend on the other images here either."""
    began = time.perf_counter()
    picture = order.origin.paste(decode(model, finished.sample[None], order.drawing))
    decoding = time.perf_counter() - began
    made = made_by(model, order, driver="slots").but(batch=capacity)
    timings = {"denoise": seconds, "decode": decoding}
    return Images(picture, model.codec.value_range, order.drawing, made, finished.nfe, seconds + decoding, timings)
