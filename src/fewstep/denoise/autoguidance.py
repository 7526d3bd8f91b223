"""Autoguidance: away from a weaker version of the model itself. Karras et al. 2024, arXiv 2406.02507.

    F = F_weak + w (F - F_weak)

The weaker network is smaller or trained less, on the same task and data; its condition is the same. It may predict
something else or be on another noise schedule: then its estimate of x0 is what is guided away from.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from fewstep.core.errors import InvalidInput
from fewstep.denoise.method import POSITIVE, WEAK, BatchState, Combined, Method, Outputs, Setup
from fewstep.denoise.scale import Moment


@dataclass(frozen=True)
class AutoGuidance(Method):
    """Guidance away from a weaker network, for `Guided(.., weaker=)`; it needs no negative condition."""

    name: ClassVar[str] = "autoguidance"
    usual_scale: ClassVar[float | None] = 2.0
    negative: ClassVar[str] = "unused"

    def branches(self, at: Moment, weight: float | None) -> tuple[str, ...]:
        return (POSITIVE,) if weight is None or weight == self.idle else (POSITIVE, WEAK)

    def combine(self, outputs: Outputs, weight: Any, at: BatchState, memory: Any) -> Combined:
        weak = outputs[WEAK]
        guided = weak + weight * (outputs[POSITIVE] - weak)
        return guided, guided, None

    def check(self, setup: Setup) -> None:
        if setup.negative:
            raise InvalidInput("a negative condition cannot act in autoguidance: leave it out")
        if not setup.weaker:
            raise InvalidInput("autoguidance moves away from a weaker model: give weaker=")
        super().check(setup._replace(negative=True))
