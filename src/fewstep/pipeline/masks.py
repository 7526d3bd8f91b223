"""Masks from outside: white is what is repainted."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from fewstep.core.errors import InvalidInput, one_of
from fewstep.pipeline.pictures import FITS, Picture, fitted, given_tensor, opaque, opened


def read_mask(source: Picture, size: tuple[int, int], fit: str = "crop") -> Tensor:
    """A mask as a tensor (1, 1, H, W) of 0 (kept) and 1 (repainted), the lighter half of its greys, on the host.

    Arguments and errors as in `read_picture`; a tensor is (H, W), (1, H, W) or (1, 1, H, W) in [0, 1].
    """
    one_of("fit", fit, FITS)
    if isinstance(source, Tensor):
        mask = given_tensor(source[None] if source.ndim == 2 else source, size, 1, 0.0)
    else:
        grey = fitted(opaque(opened(source)).convert("L"), size, fit)
        mask = torch.from_numpy(np.asarray(grey, np.float32) / 255)[None, None]
    mask = (mask >= 0.5).float()
    if not mask.any():
        raise InvalidInput("the mask is dark everywhere, so nothing would be repainted: white is what is repainted")
    return mask
