"""Projections of the estimated data: nonlinear, so they live in the denoiser and not in the plan."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from fewstep.core.errors import InvalidInput
from fewstep.denoise.base import Denoiser, Wrapper

_QUANTILE_LIMIT = 16_000_000
"""Most values that `torch.quantile` takes at once."""
LARGEST = 3e38
"""The largest finite threshold: float32 ends there."""


class Projected(Wrapper):
    """A denoiser whose estimate of x0 passes through `function`; solvers that ask see the one before it, too."""

    def __init__(self, denoiser: Denoiser | Callable[[Tensor, Tensor], Tensor], function: Callable[[Tensor], Tensor]):
        super().__init__(denoiser)
        self.project = function


def clip(denoiser: Denoiser | Callable[[Tensor, Tensor], Tensor], low: float = -1.0, high: float = 1.0) -> Projected:
    """Clip the estimate of x0 to [low, high]."""
    if not low < high:
        raise InvalidInput(f"clip needs low < high, got {low} and {high}")
    return Projected(denoiser, lambda x0: x0.clamp(low, high))


def dynamic_threshold(
    denoiser: Denoiser | Callable[[Tensor, Tensor], Tensor],
    percentile: float = 0.995,
    maximum: float = 1.0,
    *,
    low: float = -1.0,
    high: float = 1.0,
) -> Projected:
    """Clip each image to its own percentile of absolute values, s in [1, maximum], and divide by s.

    Saharia et al. 2022, arXiv 2205.11487, section 2.3, who have no maximum, `math.inf`. A percentile below 1 counts as
    1, so that with maximum 1, the default of diffusers, it is `clip`. For data from `low` to `high` all is relative to
    their middle and half their distance.
    """
    if not 0 < percentile <= 1:
        raise InvalidInput(f"percentile must lie in (0, 1], got {percentile}")
    if not (1 <= maximum <= LARGEST or maximum == math.inf):
        raise InvalidInput(f"maximum must be from 1 to {LARGEST:.3g}, or infinite, got {maximum:g}")
    if not low < high:
        raise InvalidInput(f"dynamic_threshold needs low < high, got {low} and {high}")
    middle, half = (low + high) / 2, (high - low) / 2

    def threshold(data: Tensor) -> Tensor:
        x0 = data if (middle, half) == (0, 1) else (data - middle) / half
        flat = x0.flatten(1).abs().float()
        parts = flat.split(max(1, _QUANTILE_LIMIT // flat.shape[1]))
        s = torch.cat([torch.quantile(part, percentile, dim=1) for part in parts]).to(x0.dtype).clamp(1, maximum)
        s = s.reshape(-1, *[1] * (x0.ndim - 1))
        inside = torch.minimum(torch.maximum(x0, -s), s) / s
        return inside if x0 is data else middle + half * inside

    return Projected(denoiser, threshold)
