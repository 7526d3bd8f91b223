"""How a drawing was made, and what a picture keeps: both together draw the same pixels again."""

from __future__ import annotations

import importlib.metadata
import math
from collections.abc import Iterator
from functools import cache
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from fewstep.core.errors import InvalidInput, shown
from fewstep.drawing.drawing import MAX_IMAGES, Drawing
from fewstep.drawing.value import Digest, Value, several

MAX_BATCH, MAX_SCALE, MAX_PIXELS = 1024, 64, 64_000_000
FORMAT = 2
ALONE, TOGETHER = 512, 64
"""Pixels along the side of an image that is enlarged by default: of one alone, and of one among others."""


_version = cache(importlib.metadata.version)  # which reads a file each time


def _printable(text: str) -> str:
    if not text.isprintable():
        raise InvalidInput(f"it has to be printable, got {shown(text)}")
    return text


Name = Annotated[str, Field(max_length=200), AfterValidator(_printable)]


class Made(Value):
    """How images were made from a drawing, as far as that decides their bits, and the digest of the result."""

    called: ClassVar[str] = "the record of the making"

    model: Name = Field(description="Name of the model.")
    model_digest: Digest = Field(description="Digest of its weights, and of what was made of them.")
    plan: Digest = Field(description="Digest of the plan that ran.")
    batch: int = Field(ge=1, le=MAX_BATCH, description="Images that the network saw at once.")
    keep: Annotated[tuple[int, ...], BeforeValidator(several)] | None = Field(
        default=None, description="Which images of the drawing are there; None means all."
    )
    driver: Literal["eager", "slots"] = Field(default="eager", description="What ran the plan.")
    dtype: Name = Field(default="float32", description="What the network ran in.")
    device: Name = Field(default="cpu", description="Where the network ran.")
    pixels: Digest | None = Field(default=None, description="Digest of the pixels, to compare those drawn again.")
    fewstep: Name = Field(default_factory=lambda: _version("fewstep"))
    torch: Name = Field(default_factory=lambda: _version("torch"))

    def kept(self, images: int) -> tuple[int, ...]:
        """Indices of the images that are there, of so many. Raises `InvalidInput` where they are not among these."""
        keep = tuple(range(images)) if self.keep is None else self.keep
        if not keep or not all(0 <= i < images for i in keep):
            raise InvalidInput(f"keep must name some of the images 0 .. {images - 1}, got {keep}")
        return keep


class Layout(Value):
    """How images become one picture: rows of `columns` images, each pixel a square of `scale` pixels.

    `gap` is between images and around them, in pixels of an image.
    """

    called: ClassVar[str] = "the layout"

    columns: int = Field(ge=1, le=MAX_IMAGES)
    scale: int = Field(ge=1, le=MAX_SCALE)
    gap: int = Field(default=1, ge=0, le=8)

    @staticmethod
    def fitting(
        count: int, width: int, columns: int | None = None, scale: int | None = None, height: int = 0
    ) -> Layout:
        """For `count` images of `width` pixels: by default nearly square, each image about 64 pixels wide.

        One image stands alone, without a border, and is enlarged to as much as fits into 512 x 512 pixels.
        """
        usual = ALONE // max(width, height) if count == 1 else TOGETHER // width
        return Layout(
            columns=columns or max(1, math.isqrt(count)),
            scale=scale or max(1, min(MAX_SCALE, usual)),
            gap=0 if count == 1 else 1,
        )

    def size(self, count: int, height: int, width: int) -> tuple[int, int]:
        """(width, height) of the picture of `count` images. Raises `InvalidInput` where it is too large."""
        columns = min(self.columns, count)
        rows = -(-count // columns)
        across = (columns * (width + self.gap) + self.gap) * self.scale
        down = (rows * (height + self.gap) + self.gap) * self.scale
        if across * down > MAX_PIXELS:
            lower = f"use a scale below {self.scale}, or " if self.scale > 1 else ""
            raise InvalidInput(
                f"a picture of {across} x {down} pixels has more than {MAX_PIXELS:,}: {lower}draw fewer or smaller "
                "images"
            )
        return across, down

    def boxes(self, count: int, height: int, width: int) -> Iterator[tuple[int, int, int, int]]:
        """(left, top, right, bottom) of each of `count` images in the picture, in its pixels."""
        columns, scale = min(self.columns, count), self.scale
        for i in range(count):
            left, top = self.gap + i % columns * (width + self.gap), self.gap + i // columns * (height + self.gap)
            yield left * scale, top * scale, (left + width) * scale, (top + height) * scale


class Stamp(Value):
    """What a picture keeps: the drawing, how it was made, and how its images are laid out."""

    called: ClassVar[str] = "the recipe"

    format: Literal[2] = FORMAT
    drawing: Drawing
    made: Made
    layout: Layout
