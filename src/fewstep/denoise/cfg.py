"""Classifier-free guidance: Ho & Salimans 2022, arXiv 2207.12598, eq. 6, w = 1 + theirs.

    F = F_negative + w (F_condition - F_negative)

An empty or a negative condition stands in the same place. At w = 1, or outside the interval, the image costs one
evaluation and is the conditional model's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from fewstep.core.errors import InvalidInput, number
from fewstep.denoise.method import NEGATIVE, POSITIVE, BatchState, Combined, Method, Outputs, dims_of


@dataclass(frozen=True)
class CFG(Method):
    """Classifier-free guidance.

    Args:
        rescale: in [0, 1], how far the guided output is scaled back to the standard deviation of the conditional one,
            image by image (Lin et al. 2023, arXiv 2305.08891, eq. 15 and 16).
    """

    name: ClassVar[str] = "cfg"

    rescale: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "rescale", number("the guidance option rescale", self.rescale))
        if not 0 <= self.rescale <= 1:
            raise InvalidInput(f"guidance rescale must lie in [0, 1], got {self.rescale}")

    def combine(self, outputs: Outputs, weight: Any, at: BatchState, memory: Any) -> Combined:
        conditional, negative = outputs[POSITIVE], outputs[NEGATIVE]
        guided = negative + weight * (conditional - negative)
        if self.rescale:
            dims = dims_of(guided)
            std = conditional.std(dim=dims, keepdim=True) / guided.std(dim=dims, keepdim=True)
            guided = guided * (1 + self.rescale * (std - 1))
        return guided, guided, None
