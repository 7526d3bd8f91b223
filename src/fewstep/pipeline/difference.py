"""Whether a picture still has the pixels that its recipe draws, and which of them differ."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np
from PIL import Image

from fewstep.core.errors import InvalidInput
from fewstep.drawing import Layout
from fewstep.files import open_regular
from fewstep.pipeline.images import Images


@dataclass(frozen=True)
class Difference:
    """Between a picture and the sheet of images that were drawn again.

    Attributes:
        size: (width, height) of the picture; `drawn`: of the sheet. Where they differ, nothing else is compared.
        pixels: how many differ in any channel, of `of`.
        largest: the largest distance of a channel, 0 to 255.
        images: which images differ, by their place in the picture.
    """

    size: tuple[int, int]
    drawn: tuple[int, int]
    pixels: int = 0
    of: int = 0
    largest: int = 0
    images: tuple[int, ...] = ()

    def __bool__(self) -> bool:
        """Whether anything differs."""
        return self.size != self.drawn or self.pixels > 0

    @property
    def words(self) -> str:
        """What differs, for people."""
        if self.size != self.drawn:
            return f"it has {self.size[0]} x {self.size[1]} pixels, drawn again {self.drawn[0]} x {self.drawn[1]}"
        if not self:
            return "nothing differs"
        first = ", ".join(map(str, self.images[:10])) + (", .." if len(self.images) > 10 else "")
        where = f"in image{'s' * (len(self.images) != 1)} {first}" if self.images else "between the images"
        return f"{self.pixels:,} of {self.of:,} pixels differ, by up to {self.largest} of 255, {where}"


def difference(path: str | os.PathLike[str], images: Images, layout: Layout) -> Difference:
    """Between the PNG at `path` and `images` in the layout that it was written in.

    Raises:
        OSError: the file cannot be read.
        InvalidInput: its pixels are damaged.
    """
    sheet = images.sheet(layout)
    with open_regular(path) as file:
        try:
            with Image.open(file, formats=("PNG",)) as picture:
                if picture.size != sheet.size:
                    return Difference(picture.size, sheet.size)
                found = np.asarray(picture.convert("RGBA")).astype(np.int16)
        except (SyntaxError, ValueError, OSError) as error:
            raise InvalidInput(f"the pixels of {path} are damaged ({error}): give the original") from error
    distance = np.abs(found - np.asarray(sheet.convert("RGBA"))).max(axis=2)
    boxes = enumerate(layout.boxes(len(images), *images.tensor.shape[-2:]))
    differing = tuple(i for i, (left, top, right, bottom) in boxes if distance[top:bottom, left:right].any())
    return Difference(sheet.size, sheet.size, int((distance > 0).sum()), distance.size, int(distance.max()), differing)
