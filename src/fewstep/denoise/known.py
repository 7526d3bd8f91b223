"""Inpainting by any sampler: where the data is known, the estimate of it is what is known.

    x0 <- m x0 + (1 - m) known

It is applied to both estimates of a denoiser, the one after projections and the one before, as solvers take the noise
from the second. So along an ODE the known region is alpha known + sigma eps with the noise that it started with, which
is what the network expects around the region that it fills (compare Lugmayr et al. 2022, arXiv 2201.09865, eq. 8, which
draws new noise for it in each step).
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from fewstep.core.errors import InvalidInput
from fewstep.denoise.base import Denoiser, Level, Wrapper


class Known(Wrapper):
    """A denoiser that is told a part of the data.

    Args:
        denoiser: the one around which this is.
        known: the data, broadcastable to the states (B, ..).
        mask: in [0, 1], broadcastable too: 1 where the denoiser decides, 0 where the data is known.

    Raises:
        InvalidInput: the two do not fit, or the mask leaves [0, 1].
    """

    def __init__(self, denoiser: Denoiser | Callable[[Tensor, Tensor], Tensor], known: Tensor, mask: Tensor):
        super().__init__(denoiser)
        if known.ndim != mask.ndim or known.shape[2:] != mask.shape[2:]:
            raise InvalidInput(f"known {tuple(known.shape)} and mask {tuple(mask.shape)} must differ in channels only")
        if not bool(((mask >= 0) & (mask <= 1)).all()):
            raise InvalidInput(f"a mask must lie in [0, 1], got {float(mask.min()):g} .. {float(mask.max()):g}")
        self.known, self.mask = known, mask

    @property
    def affine(self) -> bool:
        return False

    def estimate(self, x: Tensor, level: Level) -> tuple[Tensor, Tensor]:
        data, raw = self.inner.estimate(x, level)
        kept = self._told(data)
        return kept, kept if raw is data else self._told(raw)

    def _told(self, x0: Tensor) -> Tensor:
        mask = self.mask.to(x0.device, x0.dtype)
        return mask * x0 + (1 - mask) * self.known.to(x0.device, x0.dtype)
