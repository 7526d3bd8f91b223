"""What a model draws while it is trained, always from the same noise: sheets of pictures beside the states."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from fewstep.drawing import Layout
from fewstep.drawing.png import png_bytes
from fewstep.files import write_whole
from fewstep.models import Model
from fewstep.pipeline import Order, sheet_of
from fewstep.pipeline.draw import LostImages, draw
from fewstep.pipeline.stages import encode
from fewstep.training.look import Seen
from fewstep.training.roles import STUDENT, Roles

SHEETS = "samples"
"""The folder."""
MOST = 16
"""Pictures of a sheet."""


@dataclass(frozen=True, eq=False)
class Sheets:
    """A look that draws some pictures by the averaged weights, and writes `step-00000200.png` into a folder.

    Attributes:
        draw: (n, c, h, w) on the host, pictures by the student of the roles; `value_range`: theirs. What is not finite
            becomes the value 0.
    """

    draw: Callable[[Roles], Tensor]
    value_range: tuple[float, float]
    folder: Path
    every: int

    def __call__(self, step: int, roles: Roles) -> Seen:
        images = self.draw(roles).nan_to_num(0.0)
        low, high = self.value_range
        self.folder.mkdir(parents=True, exist_ok=True)
        height, width = images.shape[-2:]
        sheet = sheet_of(images, (low, high), Layout.fitting(len(images), width, None, None, height))
        write_whole(self.folder / f"step-{step:08d}.png", png_bytes(sheet))
        return Seen(pictures={"samples": ((images - low) / (high - low)).clamp(0, 1)})


def by_order(model: Model, order: Order) -> Callable[[Roles], Tensor]:
    """Draws the pictures of an order by a model, with the student of the roles in the place of its network."""
    encoded = encode(model, list(order.drawing.each))

    def pictures(roles: Roles) -> Tensor:
        own = replace(model, network=roles[STUDENT].network.network)
        try:
            return draw(own, order, encoded=encoded).tensor
        except LostImages as lost:
            return lost.everything.tensor

    return pictures
