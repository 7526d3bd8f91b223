"""From pictures of any size and mode to tensors of one shape.

A picture is scaled until it covers the size, by Lanczos, and its middle is cut out; what is transparent is laid over
white; colours become grey, or grey RGB, as the model takes them. So `fewstep.pipeline` reads pictures too.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fewstep.core.errors import InvalidInput
from fewstep.pipeline.pictures import fitted, opaque

MODES = {1: "L", 3: "RGB"}
"""By the channels of the model."""


def framed(picture: Image.Image | Tensor, shape: Sequence[int]) -> Tensor:
    """A picture as a tensor of `shape` (C, H, W), float32 in [-1, 1].

    Raises `InvalidInput` for other channels than 1 and 3, and for a tensor of another shape, which is never scaled.
    """
    channels, height, width = shape = tuple(shape)
    if isinstance(picture, Tensor):
        if tuple(picture.shape) != shape:
            raise InvalidInput(
                f"a picture of numbers has shape {tuple(picture.shape)}, and the model takes {shape}: give bytes "
                "(uint8), which are scaled, or a model of that shape"
            )
        return picture
    if channels not in MODES:
        raise InvalidInput(f"pictures are grey or RGB, and the model takes {channels} channels")
    image = fitted(opaque(picture), (height, width), "crop").convert(MODES[channels])
    pixels = torch.from_numpy(np.asarray(image, np.float32) / 127.5 - 1)
    return pixels[None] if channels == 1 else pixels.permute(2, 0, 1).contiguous()


def mirrored(picture: Tensor) -> Tensor:
    """A tensor (C, H, W) with left and right exchanged."""
    return picture.flip(-1)
