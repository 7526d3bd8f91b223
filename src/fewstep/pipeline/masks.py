"""Masks from outside: white is what is repainted, and what is transparent is not painted.

A mask lies over its picture, so it has the picture's proportions, and both are fitted as one.
"""

from __future__ import annotations

import warnings

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fewstep.core.errors import InvalidInput, one_of
from fewstep.pipeline.pictures import FITS, Picture, fitted, given_tensor, opaque, opened

BLACK = (0, 0, 0, 255)
DARK = "the mask is dark everywhere, so nothing would be repainted: white is what is repainted"


def read_mask(
    source: Picture, size: tuple[int, int], fit: str = "crop", *, of: tuple[int, int] | None = None
) -> Tensor:
    """A mask as a tensor (1, 1, H, W) of 0 (kept) and 1 (repainted), the lighter half of its greys, on the host.

    Arguments and errors as in `read_picture`. Transparent pixels are dark. A tensor is (H, W), (1, H, W) or
    (1, 1, H, W) in [0, 1].

    Args:
        of: (height, width) of the picture that it lies over; None is the mask's own size. A mask of another size is
            scaled to it first.

    Raises:
        InvalidInput: other proportions than the picture's, nothing is white, or what is white is cropped away.

    Warns where the crop loses a part of what is white.
    """
    one_of("fit", fit, FITS)
    image = opened(source)
    if isinstance(image, Tensor):
        mask = given_tensor(image[None] if image.ndim == 2 else image, size, 1, 0.0)
        found = (mask >= 0.5).float()
        if not found.any():
            raise InvalidInput(DARK)
        return found
    grey = opaque(image, BLACK).convert("L")
    if of is not None and fit != "exact":
        grey = _laid_over(grey, of)
    marked = np.asarray(grey) >= 128
    if not marked.any():
        raise InvalidInput(DARK)
    if fit == "crop":
        _say_loss(marked, size)
    found = np.asarray(fitted(grey, size, fit, "the mask"), np.float32) / 255 >= 0.5
    if not found.any():
        raise InvalidInput(f"what the mask marks vanishes at {size[1]} x {size[0]} pixels: paint more of it white")
    return torch.from_numpy(found.astype(np.float32))[None, None]


def _laid_over(grey: Image.Image, of: tuple[int, int]) -> Image.Image:
    """At the size of the picture. Raises `InvalidInput` where the proportions differ by more than a rounded pixel."""
    height, width = of
    across, down = grey.size
    if (across, down) == (width, height):
        return grey
    off = abs(across * height - down * width)
    if off >= max(width, height, across, down):
        raise InvalidInput(
            f"the mask has {across} x {down} pixels and the picture {width} x {height}, which are other proportions: "
            "give a mask that was painted over the whole picture"
        )
    return grey.resize((width, height), Image.Resampling.LANCZOS)


def _say_loss(marked: np.ndarray, size: tuple[int, int]) -> None:
    """Warn where the crop to a size loses some of what is marked, and refuse where it loses all."""
    height, width = marked.shape
    down, across = min(height, width * size[0] / size[1]), min(width, height * size[1] / size[0])
    top, left = (height - down) / 2, (width - across) / 2
    kept = marked[round(top) : round(top + down), round(left) : round(left + across)].sum() / marked.sum()
    advice = 'use fit="stretch", or a height and width in the proportions of the picture'
    if not kept:
        raise InvalidInput(f"the crop to {size[1]} x {size[0]} cuts off all that the mask marks: {advice}")
    if kept < 0.99:
        lost = f"{1 - kept:.0%} of what the mask marks"
        warnings.warn(f"the crop to {size[1]} x {size[0]} cuts off {lost}: {advice}", UserWarning, stacklevel=3)
