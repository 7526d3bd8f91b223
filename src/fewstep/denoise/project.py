"""Projections of the estimated data: nonlinear, so they live in the denoiser and not in the plan."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from fewstep.core.errors import InvalidInput
from fewstep.denoise.base import Denoiser, Wrapper


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
    denoiser: Denoiser | Callable[[Tensor, Tensor], Tensor], percentile: float = 0.995, maximum: float = 1.0
) -> Projected:
    """Clip each image to its own percentile of absolute values, s in [1, maximum], and divide by s.

    Saharia et al. 2022, arXiv 2205.11487, section 2.3. A percentile below 1 counts as 1.
    """
    if not 0 < percentile <= 1:
        raise InvalidInput(f"percentile must lie in (0, 1], got {percentile}")
    if not maximum >= 1:
        raise InvalidInput(f"maximum must be at least 1, got {maximum}")

    def threshold(x0: Tensor) -> Tensor:
        flat = x0.flatten(1).abs()
        s = torch.quantile(flat.float(), percentile, dim=1).to(x0.dtype).clamp(1, maximum)
        s = s.reshape(-1, *[1] * (x0.ndim - 1))
        return torch.minimum(torch.maximum(x0, -s), s) / s

    return Projected(denoiser, threshold)
