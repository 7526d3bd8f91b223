"""Inpainting: the white part of a mask is repainted.

For an ordinary model, the kept latents take their place in every estimate (`fewstep.denoise.known`), so every sampler
inpaints. A model that was trained to inpaint gets the mask and the kept picture as further channels.
"""

from __future__ import annotations

import time

import torch
from torch import Tensor
from torch.nn.functional import interpolate, max_pool2d

from fewstep.models import Model
from fewstep.pipeline.img2img import EncodedPicture
from fewstep.pipeline.order import Order, Origin


def origin(model: Model, order: Order, picture: EncodedPicture, mask: Tensor | None) -> Origin:
    """What the images of the task come from; `mask` is (1, 1, H, W)."""
    source = order.drawing.source
    assert mask is not None
    assert source is not None
    pasted = (mask, picture.pixels) if source.paste else None
    anew, began = source.strength == 1, time.perf_counter()
    if model.conditioner.task.get("further input channels"):
        small = interpolate(mask, size=picture.latents.shape[-2:]).to(model.device)  # the nearest pixel of a latent
        kept = model.codec.encode(picture.pixels * (mask < 0.5), model.cache).to(model.device)
        seconds = picture.seconds + time.perf_counter() - began
        return Origin(
            torch.zeros_like(kept) if anew else picture.latents,
            channels=torch.cat([small, kept], dim=1),
            pasted=pasted,
            seconds={"picture": seconds},
        )
    small = max_pool2d(mask, model.codec.factor).to(model.device)  # anew where any of its pixels is repainted
    return Origin(
        picture.latents * (1 - small) if anew else picture.latents,
        known=(picture.latents, small),
        pasted=pasted,
        seconds={"picture": picture.seconds},
    )
