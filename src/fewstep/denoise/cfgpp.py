"""CFG++: Chung et al. 2024, arXiv 2406.08070, algorithm 2.

    data = D_n + w (D_c - D_n),  0 <= w <= 1        the estimate of x0, between the branches and not beyond them
    raw  = D_n                                       what the noise is taken from

A DDIM step is alpha_q data + sigma_q eps, with eps = (x - alpha raw) / sigma: guided data, noised again with the
unconditional noise, which keeps the state on the model's own path. So CFG++ acts through the second column of a plan's
B, and samplers that take data and noise from one estimate cannot tell it from interpolation: they are refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from fewstep.core.errors import InvalidInput
from fewstep.denoise.method import NEGATIVE, POSITIVE, BatchState, Combined, Method, Outputs, Setup
from fewstep.denoise.scale import GuidanceSchedule, Moment


@dataclass(frozen=True)
class CFGPlusPlus(Method):
    """CFG++, for samplers that take the noise apart from the data: "ddim" and "tcd".

    Its scale w (lambda in the paper) lies in [0, 1]. 0.6 is about scale 7.5 of classifier-free guidance, by the paper's
    table 1. At 0 an image is the model under the negative condition, at one evaluation.
    """

    name: ClassVar[str] = "cfg++"
    usual_scale: ClassVar[float | None] = 0.6
    idle: ClassVar[float] = 0.0
    splits: ClassVar[bool] = True

    def branches(self, at: Moment, weight: float | None) -> tuple[str, ...]:
        if weight is None:
            return (POSITIVE,)
        _check_weight(weight)
        return (NEGATIVE,) if weight == 0 else (POSITIVE, NEGATIVE)

    def combine(self, outputs: Outputs, weight: Any, at: BatchState, memory: Any) -> Combined:
        conditional, negative = outputs[POSITIVE], outputs[NEGATIVE]
        return negative + weight * (conditional - negative), negative, None

    def check(self, setup: Setup) -> None:
        super().check(setup)
        for weight in setup.weights:
            known = weight.values or () if isinstance(weight, GuidanceSchedule) else [weight]
            for number in known:
                _check_weight(number)
        plan = setup.plan
        if plan is not None and not plan.uses_raw:
            raise InvalidInput(
                f"CFG++ takes the noise from the unconditional estimate, and {plan.recipe.sampler} has one estimate "
                "for noise and data: use the sampler 'ddim' or 'tcd', or the guidance method 'cfg'"
            )


def _check_weight(weight: float) -> None:
    if not 0 <= weight <= 1:
        raise InvalidInput(
            f"the scale of CFG++ must lie in [0, 1], got {weight}: it goes from the negative estimate to the "
            "conditional one, and 0.6 is about scale 7.5 of classifier-free guidance, fewstep.CFG"
        )
