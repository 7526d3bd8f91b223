"""What a PNG of fewstep says of itself: its recipe, how it is laid out, and what its pixels were."""

from __future__ import annotations

import importlib.metadata
import json
import math
import os
from dataclasses import dataclass
from typing import Any

from fewstep.core.errors import InvalidInput
from fewstep.pipeline import png
from fewstep.pipeline.fields import Fields
from fewstep.pipeline.picturerecipe import read_recipe
from fewstep.pipeline.recipe import MAX_IMAGES, ImageRecipe

FORMAT = 1
MAX_SCALE, MAX_PIXELS = 64, 64_000_000
_BOUNDS = (("columns", 1, MAX_IMAGES), ("scale", 1, MAX_SCALE), ("gap", 0, 8))


@dataclass(frozen=True)
class Layout:
    """How images become one picture: rows of `columns` images, each pixel a square of `scale` pixels.

    `gap` is between images and around them, in pixels of an image.
    """

    columns: int
    scale: int
    gap: int = 1

    def __post_init__(self) -> None:
        for name, low, high in _BOUNDS:
            value = getattr(self, name)
            if type(value) is not int or not low <= value <= high:
                raise InvalidInput(f"{name} must be a whole number from {low} to {high}, got {value!r}")

    @staticmethod
    def of(count: int, width: int, columns: int | None = None, scale: int | None = None) -> Layout:
        """For `count` images of `width` pixels: by default nearly square, each image about 64 pixels wide.

        One image of that width or more stands alone, without a border.
        """
        square = max(1, math.isqrt(count))
        gap = 0 if count == 1 and width >= 64 else 1
        return Layout(columns or square, scale or max(1, min(MAX_SCALE, 64 // width)), gap)

    def size(self, count: int, height: int, width: int) -> tuple[int, int]:
        """(width, height) of the picture of `count` images. Raises `InvalidInput` where it is too large."""
        columns = min(self.columns, count)
        rows = -(-count // columns)
        size = tuple(
            (n * (length + self.gap) + self.gap) * self.scale for n, length in ((columns, width), (rows, height))
        )
        if size[0] * size[1] > MAX_PIXELS:
            raise InvalidInput(
                f"a picture of {size[0]} x {size[1]} pixels has more than {MAX_PIXELS:,}: "
                f"use a scale below {self.scale}, or fewer images"
            )
        return size[0], size[1]


@dataclass(frozen=True)
class Stamp:
    """The text of a picture.

    Attributes:
        pixels: digest of the images' pixels, so that drawing again can be checked.
        fewstep, torch: versions that drew it.
    """

    recipe: ImageRecipe
    layout: Layout
    pixels: str
    fewstep: str
    torch: str

    @staticmethod
    def now(recipe: ImageRecipe, layout: Layout, pixels: str) -> Stamp:
        """With the versions that are installed."""
        return Stamp(recipe, layout, pixels, *(importlib.metadata.version(name) for name in ("fewstep", "torch")))

    def to_json(self) -> str:
        """The text, in ASCII."""
        content: dict[str, Any] = {"format": FORMAT, **vars(self)}
        content |= {"recipe": self.recipe.to_json(), "layout": vars(self.layout)}
        return json.dumps(content, allow_nan=False)

    @staticmethod
    def from_json(text: str) -> Stamp:
        """The inverse of `to_json`. Raises `InvalidInput`, naming what is wrong."""
        try:
            content = json.loads(text, parse_constant=_refuse)
        except (ValueError, RecursionError) as error:
            raise InvalidInput(f"it is no JSON ({error})") from error
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            got = content.get("format") if isinstance(content, dict) else content
            raise InvalidInput(
                f"its format is {str(got)[:40]!r}, this fewstep reads {FORMAT}: use the one that drew it"
            )
        fields = Fields(content, "the text", {"format", *Stamp.__dataclass_fields__})
        layout = Fields(content["layout"], "the layout", Layout.__dataclass_fields__)
        return Stamp(
            recipe=read_recipe(content["recipe"]),
            layout=Layout(**{name: layout.whole(name, low, high) for name, low, high in _BOUNDS}),
            pixels=fields.digest("pixels"),
            fewstep=fields.text("fewstep"),
            torch=fields.text("torch"),
        )


def read(path: str | os.PathLike[str]) -> Stamp:
    """What the PNG at `path` says of itself; its pixels are not looked at.

    Raises:
        OSError: the file cannot be read.
        InvalidInput: it is no PNG of fewstep, or its text is damaged.
    """
    text = png.read_text(path)
    try:
        return Stamp.from_json(text)
    except InvalidInput as error:
        raise InvalidInput(f"the recipe in {path} cannot be used: {error}") from error


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")
