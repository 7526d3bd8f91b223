"""Adaptive projected guidance: Sadat et al. 2024, arXiv 2410.02416.

High guidance scales oversaturate. With D_c and D_n the estimates of x0 under both conditions,

    d = D_c - D_n + momentum d_previous                  d_previous is that of the row before
    d = d min(1, norm_limit / |d|)                       norms over all values of an image
    x0 = D_c + (w - 1) (d_orthogonal + eta d_parallel)   parallel to D_c, the part that saturates

Without the three (eta 1, no limit, no momentum) it is classifier-free guidance. It is written here for the network's
output, F = F_c + (w - 1) (..) / out, so that it stays affine for drivers and is the conditional model, bit for bit, at
w = 1.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from fewstep.core.errors import InvalidInput, positive
from fewstep.denoise.base import Level, Value
from fewstep.denoise.branches import ConditionGuidance
from fewstep.denoise.convert import Network
from fewstep.denoise.scale import EVERYWHERE, Weight


class APG(ConditionGuidance):
    """A conditional network under adaptive projected guidance; see the module's docstring for the formula.

    Momentum remembers d from row to row, image by image. A run keeps it: each run of `fewstep.sample` works on a copy
    from `begin`, so threads may share the denoiser, and a run starts without a past. A call outside a run has no past
    either. A row where an image is not guided leaves its d as it was.

    Args:
        network, condition, negative, scale, interval: as in `Guided`.
        eta: share of the parallel part that is kept; the paper takes 0, and 1 keeps all.
        norm_limit: r, the largest norm of d over all values of an image; None for none. Good values grow with the
            size of the latents: the paper starts at 2.5 for the smallest.
        momentum: beta; the paper takes -0.5 to -0.75, and 0 is none. |beta| < 1.
    """

    def __init__(
        self,
        network: Network,
        condition: Mapping[str, Any],
        negative: Mapping[str, Any],
        scale: Weight | Sequence[Weight],
        *,
        eta: float = 0.0,
        norm_limit: float | None = None,
        momentum: float = 0.0,
        interval: tuple[float, float] = EVERYWHERE,
    ):
        super().__init__(network, condition, negative, scale, interval)
        if not math.isfinite(eta):
            raise InvalidInput(f"eta of projected guidance is a finite number, mostly in [0, 1], got {eta}")
        if not -1 < momentum < 1:
            raise InvalidInput(f"momentum of projected guidance must lie in (-1, 1), mostly below 0, got {momentum}")
        self.eta, self.momentum = float(eta), float(momentum)
        self.norm_limit = None if norm_limit is None else positive("norm_limit", norm_limit)
        self.needs_run = self.needs_run or momentum != 0
        self._past: dict[int, Tensor] | None = None  # d of each image at its last guided row, in a run's own copy

    def begin(self) -> APG:
        if self.momentum == 0:
            return self
        run = copy.copy(self)
        run._past = {}
        return run

    def combine(
        self, conditional: Tensor, negative: Tensor, weight: Value, x: Tensor, level: Level, images: Sequence[int]
    ) -> Tensor:
        skip, out = self.coefficients_at(level)
        data = skip * x + out * conditional
        d = out * (conditional - negative)
        if self._past is not None:
            zero = torch.zeros_like(d[0])
            d = d + self.momentum * torch.stack([self._past.get(i, zero) for i in images])
            self._past.update(zip(images, d, strict=True))
        dims = tuple(range(1, x.ndim))
        if self.norm_limit is not None:
            d = d * (self.norm_limit / d.square().sum(dim=dims, keepdim=True).sqrt()).clamp(max=1)
        if self.eta != 1:
            size = data.square().sum(dim=dims, keepdim=True).clamp_min(torch.finfo(data.dtype).tiny)
            d = d - (1 - self.eta) * (d * data).sum(dim=dims, keepdim=True) / size * data
        return conditional + (weight - 1) / out * d
