"""Adaptive projected guidance: Sadat et al. 2024, arXiv 2410.02416.

High guidance scales oversaturate. With D_c and D_n the estimates of x0 under both conditions,

    d = D_c - D_n + momentum d_previous                  d_previous is that of the image's last guided row
    d = d min(1, norm_limit / |d|)                       norms over all values of an image
    x0 = D_c + (w - 1) (d_orthogonal + eta d_parallel)   parallel to D_c, the part that saturates

Without the three (eta 1, no limit, no momentum) it is classifier-free guidance. It is written here for the network's
output, F = F_c + (w - 1) (..) / out, so that it stays affine for drivers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from fewstep.core.errors import InvalidInput, number, positive
from fewstep.denoise.method import NEGATIVE, POSITIVE, BatchState, Combined, Method, Outputs, dims_of, inner, squared


@dataclass(frozen=True)
class APG(Method):
    """Adaptive projected guidance; see the module's docstring for the formula.

    Momentum remembers d from row to row, image by image; the driver of a run keeps it. A run starts without a past, a
    call outside a run has none, and a row where an image is not guided leaves its d as it was.

    Args:
        eta: share of the parallel part that is kept; the paper takes 0, and 1 keeps all.
        norm_limit: r, the largest norm of d over all values of an image; None for none. Good values grow with the
            size of the latents: the paper starts at 2.5 for the smallest.
        momentum: beta; the paper takes -0.5 to -0.75, and 0 is none. |beta| < 1.
    """

    name: ClassVar[str] = "apg"

    eta: float = 0.0
    norm_limit: float | None = None
    momentum: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "eta", number("the guidance option eta", self.eta))
        object.__setattr__(self, "momentum", number("the guidance option momentum", self.momentum))
        if self.norm_limit is not None:
            object.__setattr__(self, "norm_limit", positive("norm_limit", self.norm_limit))
        if not -1 < self.momentum < 1:
            raise InvalidInput(
                f"momentum of projected guidance must lie in (-1, 1), mostly below 0, got {self.momentum}"
            )
        object.__setattr__(self, "remembers", self.momentum != 0)
        object.__setattr__(self, "needs_run", self.remembers)

    def combine(self, outputs: Outputs, weight: Any, at: BatchState, memory: Any) -> Combined:
        conditional, negative = outputs[POSITIVE], outputs[NEGATIVE]
        data = at.skip * at.x + at.out * conditional
        d = at.out * (conditional - negative)
        if memory is not None:
            d = d + self.momentum * memory
        past = d if self.remembers else None
        if self.norm_limit is not None:
            d = d * (self.norm_limit / d.square().sum(dim=dims_of(d), keepdim=True).sqrt()).clamp(max=1)
        if self.eta != 1:
            d = d - (1 - self.eta) * inner(d, data) / squared(data) * data
        guided = conditional + (weight - 1) / at.out * d
        return guided, guided, past
