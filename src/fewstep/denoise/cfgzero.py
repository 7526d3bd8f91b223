"""CFG-Zero*: Fan et al. 2025, arXiv 2503.18886, for networks that predict a flow's velocity.

    s = <v_c, v_n> / |v_n|^2          image by image: s v_n is as near to v_c as a multiple of v_n can be
    v = s v_n + w (v_c - s v_n)
    v = 0 in the first rows           zero-init: there a guided velocity can be worse than none

At s = 1 it is classifier-free guidance.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from fewstep.core.errors import InvalidInput, shown
from fewstep.denoise.method import NEGATIVE, POSITIVE, BatchState, Combined, Method, Outputs, Setup, inner, squared
from fewstep.denoise.scale import Moment


@dataclass(frozen=True)
class CFGZero(Method):
    """CFG-Zero*, for a network that predicts `flow`.

    Args:
        zero_init: how many rows, from a plan's first, have velocity 0 for the images guided there, at no evaluation.
            Such a row says that the noise is the data, which a multistep sampler would remember: it is refused.
    """

    name: ClassVar[str] = "cfg-zero*"

    zero_init: int = 1

    def __post_init__(self) -> None:
        if type(self.zero_init) is not int or self.zero_init < 0:
            raise InvalidInput(f"the guidance option zero_init is a whole number from 0, got {shown(self.zero_init)}")
        object.__setattr__(self, "needs_run", self.zero_init > 0)

    def branches(self, at: Moment, weight: float | None) -> tuple[str, ...]:
        needed = super().branches(at, weight)
        zero = at.row is not None and at.row < self.zero_init
        return () if zero and NEGATIVE in needed else needed

    def combine(self, outputs: Outputs, weight: Any, at: BatchState, memory: Any) -> Combined:
        conditional, negative = outputs[POSITIVE], outputs[NEGATIVE]
        base = inner(conditional, negative) / squared(negative) * negative
        guided = base + weight * (conditional - base)
        return guided, guided, None

    def check(self, setup: Setup) -> None:
        super().check(setup)
        prediction, plan = setup.network.prediction, setup.plan
        if prediction != "flow":
            raise InvalidInput(
                f"CFG-Zero* is about velocities, so it needs a network that predicts flow, got {prediction}: "
                "use the guidance method 'cfg' or 'apg'"
            )
        if plan is None:
            return
        rows = len(plan.rows)
        if self.zero_init >= rows:
            raise InvalidInput(f"zero_init={self.zero_init} leaves none of the {rows} rows of this plan: give fewer")
        if plan.B[: self.zero_init, 1:].any():
            raise InvalidInput(
                f"{plan.recipe.sampler} remembers the data estimates of its first rows, which zero_init makes noise: "
                "use a sampler of one evaluation a step such as 'euler', or zero_init=0"
            )
