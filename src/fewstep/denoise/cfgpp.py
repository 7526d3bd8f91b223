"""CFG++: Chung et al. 2024, arXiv 2406.08070, algorithm 2.

    data = D_n + w (D_c - D_n),  0 <= w <= 1        the estimate of x0, between the branches and not beyond them
    raw  = D_n                                       what the noise is taken from

A DDIM step is alpha_q data + sigma_q eps, with eps = (x - alpha raw) / sigma: guided data, noised again with the
unconditional noise, which keeps the state on the model's own path. So CFG++ acts through the second column of a plan's
B, and samplers that take data and noise from one estimate cannot tell it from interpolation: they are refused.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from fewstep.core.errors import InvalidInput
from fewstep.core.plan import Plan
from fewstep.denoise.base import Level
from fewstep.denoise.branches import Branch, ConditionGuidance, evaluate
from fewstep.denoise.convert import Network
from fewstep.denoise.scale import EVERYWHERE, GuidanceSchedule, Weight, column

OUTSIDE = math.inf
"""In place of the weight of an image outside the interval: no weight is infinite."""


class CFGPlusPlus(ConditionGuidance):
    """A conditional network under CFG++, for samplers that take the noise apart from the data: "ddim" and "tcd".

    Args:
        network, condition, negative: as in `Guided`.
        scale: w (lambda in the paper) in [0, 1], or a `GuidanceSchedule`; one for all images or one for each. 0.6 is
            about scale 7.5 of `Guided`, by the paper's table 1. At 0 an image is the model under `negative`, at one
            evaluation.
        interval: as in `Guided`; outside it an image is the conditional model's, at one evaluation.
    """

    def __init__(
        self,
        network: Network,
        condition: Mapping[str, Any],
        negative: Mapping[str, Any],
        scale: Weight | Sequence[Weight],
        *,
        interval: tuple[float, float] = EVERYWHERE,
    ):
        super().__init__(network, condition, negative, scale, interval, off=OUTSIDE)
        for w in self.scale.each:
            _check(w.values or [] if isinstance(w, GuidanceSchedule) else [w])

    @property
    def affine(self) -> bool:
        return False

    def check(self, plan: Plan) -> None:
        super().check(plan)
        if not plan.uses_raw:
            raise InvalidInput(
                f"CFG++ takes the noise from the unconditional estimate, and {plan.recipe.sampler} has one estimate "
                "for noise and data: use the sampler 'ddim' or 'tcd', or guide with fewstep.Guided"
            )

    def output(self, x: Tensor, level: Level) -> Tensor:
        raise InvalidInput("CFG++ has two estimates and no single output: ask for estimate(x, level)")

    def estimate(self, x: Tensor, level: Level) -> tuple[Tensor, Tensor]:
        batch = x.shape[0]
        weights = self.scale.weights(batch, level)
        _check([w for w in weights if w != OUTSIDE])
        with_condition = [i for i, w in enumerate(weights) if w != 0]
        with_negative = [i for i, w in enumerate(weights) if w != OUTSIDE]
        parts = [Branch(self.condition, with_condition), Branch(self.negative, with_negative)]
        conditional, negative = evaluate(self.network, x, level, parts)
        both = [i for i in with_condition if weights[i] != OUTSIDE]
        weight = column([weights[i] for i in both], x) if both else 0.0
        if len(both) == batch:
            raw, data = negative, negative + weight * (conditional - negative)
        else:
            raw = torch.empty_like(x)
            raw[with_condition] = conditional
            raw[with_negative] = negative
            data = raw
            if both:
                ahead = conditional[[with_condition.index(i) for i in both]]
                data = raw.clone()
                data[both] += weight * (ahead - raw[both])
        skip, out = self.coefficients_at(level)
        estimates = [skip * x + out * F for F in ([raw] if data is raw else [data, raw])]
        return estimates[0], estimates[-1]


def _check(weights: Sequence[float]) -> None:
    for w in weights:
        if not 0 <= w <= 1:
            raise InvalidInput(
                f"the scale of CFG++ must lie in [0, 1], got {w}: it goes from the negative estimate to the "
                "conditional one, and 0.6 is about scale 7.5 of fewstep.Guided"
            )
