"""From a picture and words to pictures: the picture is noised to some level, and denoised with other words.

A run starts at x = alpha x0 + sigma eps with exactly the (alpha, sigma) of `plan.entry`, x0 the latents of the picture.
"""

from __future__ import annotations

import time
from typing import NamedTuple

from torch import Tensor

from fewstep.models import Model
from fewstep.pipeline.order import Order, Origin
from fewstep.pipeline.pictures import Picture, read_picture


class EncodedPicture(NamedTuple):
    """A picture (1, 3, H, W) in [-1, 1], its latents (1, c, h, w), and the seconds that reading and encoding took."""

    pixels: Tensor
    latents: Tensor
    seconds: float


def encoded(model: Model, image: Picture, size: tuple[int, int], fit: str) -> EncodedPicture:
    """A picture and its latents."""
    began = time.perf_counter()
    pixels = read_picture(image, size, fit)
    latents = model.codec.encode(pixels, model.cache).to(model.device)
    return EncodedPicture(pixels, latents, time.perf_counter() - began)


def origin(model: Model, order: Order, picture: EncodedPicture, mask: Tensor | None) -> Origin:
    """What the images of the task come from."""
    return Origin(picture.latents, seconds={"picture": picture.seconds})
