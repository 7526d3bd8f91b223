"""What a student draws while it learns, always from the same noise: sheets of pictures beside the states."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from fewstep.core.plan import Plan
from fewstep.distillation.pairs import Pairs, noise_of, run
from fewstep.drawing import Layout
from fewstep.drawing.png import png_bytes
from fewstep.files import write_whole
from fewstep.pipeline import sheet_of
from fewstep.pipeline.stages import decode
from fewstep.training import STUDENT, Roles, Seen

MOST = 16
"""Pictures of a sheet."""


@dataclass(frozen=True, eq=False)
class Samples:
    """A look that draws some held-out pairs with the averaged student, and writes `step-00000200.png` into a folder.

    Attributes:
        plan: of the roles, by which their student draws.
    """

    held_out: Pairs
    plan: Callable[[Roles], Plan]
    folder: Path
    every: int

    def __call__(self, step: int, roles: Roles) -> Seen:
        images = self.draw(roles)
        low, high = self.held_out.teacher.pipe.model.codec.value_range
        self.folder.mkdir(parents=True, exist_ok=True)
        height, width = images.shape[-2:]
        sheet = sheet_of(images, (low, high), Layout.fitting(len(images), width, None, None, height))
        write_whole(self.folder / f"step-{step:08d}.png", png_bytes(sheet))
        return Seen(pictures={"samples": ((images - low) / (high - low)).clamp(0, 1)})

    def draw(self, roles: Roles) -> Tensor:
        """(n, c, h, w) on the host, pictures of the first pairs."""
        held_out, model = self.held_out, self.held_out.teacher.pipe.model
        numbers = [held_out.first + number for number in range(min(MOST, held_out.count))]
        denoiser = roles[STUDENT].at(held_out.teacher.guidance).given(held_out.conditions.of(numbers).positive)
        noise = noise_of(numbers, held_out.shape, model.device)
        states = run(self.plan(roles), denoiser, noise, numbers)
        return decode(model, states.to(model.device), held_out.teacher.order.drawing).nan_to_num(0.0)
