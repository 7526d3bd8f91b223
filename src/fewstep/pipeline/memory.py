"""Whether images fit into the memory there is: an estimate before anything is taken.

The system does not refuse memory in time, so a run that cannot fit would end with the whole process. What is counted is
the least that a batch needs: the states in all registers of the plan; or what decoding holds, two feature maps of the
first width at the size of the picture, of one image where it is sliced and of none where it is tiled.
"""

from __future__ import annotations

import math

from fewstep.core.errors import InvalidInput
from fewstep.models import Model
from fewstep.pipeline.order import Order
from fewstep.run.memory import free_bytes, readable


def check_memory(model: Model, order: Order) -> None:
    """Raise `InvalidInput` for images that cannot fit, and say which would."""
    drawing, free = order.drawing, free_bytes(model.device)
    images = min(order.run.batch, len(drawing))
    shape = model.state_shape(drawing.height, drawing.width)
    states = 4 * images * math.prod(shape) * order.plan.registers
    decoding = model.codec.decoding_bytes(shape, images, drawing.decode)
    least = max(states, decoding)
    if least <= free:
        return
    multiple = max(1, model.sizes.multiple)
    shorter = math.sqrt(free / least)
    height, width = (max(1, int(side * shorter) // multiple) * multiple for side in (drawing.height, drawing.width))
    ways = [f"at most {height} x {width}"]
    ways += ["fewer images at once (batch)"] if images > 1 else []
    ways += ["with decode.tiled, in tiles"] if decoding > states else []
    what = f"{images} images at once need" if images > 1 else "an image needs"
    raise InvalidInput(
        f"{what} {readable(least)} of memory at least at {drawing.height} x {drawing.width} pixels, and "
        f"{readable(free)} are free: draw {' or '.join(ways)}"
    )
