"""Perturbed-attention guidance: Ahn et al. 2024, arXiv 2403.17377.

    F = F_c + s (F_c - F_p) + (w - 1) (F_c - F_n)

F_p is the network's own output with the identity in place of some self-attention maps: a picture whose parts do not
agree, to be guided away from. It needs no negative condition, so it guides unconditional models too; with one, it adds
to classifier-free guidance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from fewstep.core.errors import InvalidInput, number, shown
from fewstep.denoise.attention import named
from fewstep.denoise.method import NEGATIVE, PERTURBED, POSITIVE, BatchState, Combined, Method, Outputs, Setup
from fewstep.denoise.scale import GuidanceSchedule, Moment, by_row, check_negative, column

MOST_LAYERS = 32


@dataclass(frozen=True)
class PAG(Method):
    """Perturbed-attention guidance of a network of diffusers, beside classifier-free guidance by w.

    Args:
        scale: s, a number or a `GuidanceSchedule`; 0 is none, at no cost. The paper takes 2 to 5.
        layers: names of self-attention layers, or parts of them, such as "mid" or "down_blocks.2" (`blocks.14` in a
            transformer); every word must name at least one. A text may hold several, with commas between.
    """

    name: ClassVar[str] = "pag"
    negative: ClassVar[str] = "optional"

    scale: float | GuidanceSchedule = 3.0
    layers: Sequence[str] = ("mid",)

    def __post_init__(self) -> None:
        scale = GuidanceSchedule(self.scale) if callable(self.scale) else self.scale
        if not isinstance(scale, GuidanceSchedule):
            scale = number("the guidance option scale", scale)
        object.__setattr__(self, "scale", scale)
        object.__setattr__(self, "needs_run", by_row(scale))
        object.__setattr__(self, "own_scale", scale != 0)
        words = self.layers.split(",") if isinstance(self.layers, str) else self.layers
        several = isinstance(words, list | tuple) and 1 <= len(words) <= MOST_LAYERS
        if not several or not all(isinstance(word, str) and word.strip() for word in words):
            raise InvalidInput(
                "the guidance option layers is a name, several with commas between, or a list of at most "
                f"{MOST_LAYERS}, got {shown(self.layers)}"
            )
        object.__setattr__(self, "layers", tuple(word.strip() for word in words))
        object.__setattr__(self, "perturbs", self.layers)

    def branches(self, at: Moment, weight: float | None) -> tuple[str, ...]:
        needed = super().branches(at, weight)
        return needed if weight is None or self._scale_at(at) == 0 else (*needed, PERTURBED)

    def combine(self, outputs: Outputs, weight: Any, at: BatchState, memory: Any) -> Combined:
        conditional = guided = outputs[POSITIVE]
        if NEGATIVE in outputs:
            pull = column([w - 1 for w in at.weights], at.x)  # before it is rounded
            guided = guided + pull * (conditional - outputs[NEGATIVE])
        if PERTURBED in outputs:
            s = column([self._scale_at(moment) for moment in at.moments], at.x)
            guided = guided + s * (conditional - outputs[PERTURBED])
        return guided, guided, None

    def check(self, setup: Setup) -> None:
        named(setup.network.module, self.layers)
        if setup.negative:
            check_negative(setup.weights)
        super().check(setup)
        if setup.plan is not None and isinstance(self.scale, GuidanceSchedule):
            self.scale.check(setup.plan)

    def _scale_at(self, at: Moment) -> float:
        return self.scale.at(at) if isinstance(self.scale, GuidanceSchedule) else self.scale
