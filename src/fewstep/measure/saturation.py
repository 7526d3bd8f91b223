"""How saturated are images? Two figures that rise with the guidance scale long before a picture is lost."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from fewstep.core.errors import InvalidInput


class Saturation(NamedTuple):
    """Of each image, (B,): `share` of pixels at or beyond the range in some channel; `chroma`, the mean over pixels of
    the largest channel less the smallest, in shares of the range, 0 for greys.
    """

    share: Tensor
    chroma: Tensor


def saturation(images: Tensor, low: float = -1.0, high: float = 1.0, *, margin: float = 0.0) -> Saturation:
    """`Saturation` of `images` (B, channels, height, width), before they are rounded to bytes.

    Args:
        low, high: the range that is drawn; values beyond it count as its ends.
        margin: share of the range at either end that counts as the end: 1 / 255 for images that were bytes.

    Raises:
        InvalidInput: for other shapes, an empty range, and values that are not finite.
    """
    if images.ndim != 4 or not images.is_floating_point() or 0 in images.shape:
        raise InvalidInput(
            f"images are floating point tensors (batch, channels, height, width), got {images.dtype} of shape "
            f"{tuple(images.shape)}"
        )
    if not low < high or not 0 <= margin < 0.5:
        raise InvalidInput(f"saturation needs low < high and a margin in [0, 0.5), got {low}, {high} and {margin}")
    if not bool(images.isfinite().all()):
        raise InvalidInput("images that hold NaN or infinity have no saturation: leave them out")
    edge = margin * (high - low)
    ends = ((images <= low + edge) | (images >= high - edge)).any(dim=1)
    shown = images.double().clamp(low, high)
    chroma = (shown.amax(dim=1) - shown.amin(dim=1)) / (high - low)
    return Saturation(ends.double().mean(dim=(1, 2)), chroma.mean(dim=(1, 2)))
