"""What a data set is: a function from the number of a sample to the sample.

So the order in which a training meets samples is a matter of numbers, drawn by key: it is the same after an
interruption, and for any number of workers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, Protocol

from PIL import Image
from torch import Tensor

from fewstep.core.errors import InvalidInput

Told = Literal["labels", "prompts", "nothing"]
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
"""Of the files that are pictures."""
OTHERS = (".gif", ".tif", ".tiff", ".avif", ".heic", ".jp2", ".ppm", ".tga")
"""Of pictures that are not read."""


class Unreadable(InvalidInput):
    """A sample cannot be read; the message names it and says why."""


class Sample(NamedTuple):
    """A picture, upright and decoded, or a tensor (C, H, W) in [-1, 1]; and what it shows.

    The subject is a label, a caption, or None where the data have neither.
    """

    picture: Image.Image | Tensor
    subject: int | str | None


class Source(Protocol):
    """Samples by their numbers 0 .. count - 1.

    Properties:
        told: what the samples show is said by: labels, prompts or nothing.
        classes: how many labels there are, 0 where there are none.
        identity: plain JSON values that change whenever the data do, so that a run goes on with the same.
    """

    @property
    def count(self) -> int: ...

    @property
    def told(self) -> Told: ...

    @property
    def classes(self) -> int: ...

    @property
    def identity(self) -> Mapping[str, Any]: ...

    def read(self, number: int) -> Sample:
        """A sample, the same whenever and wherever it is asked for. Raises `Unreadable`."""
        ...

    def name(self, number: int) -> str:
        """What people call a sample, such as its file."""
        ...


def some(names: list[str]) -> str:
    """The first of many names."""
    return f"{', '.join(names[:4])}{' ..' if len(names) > 4 else ''}"
