"""CFG-Zero*: Fan et al. 2025, arXiv 2503.18886, for networks that predict a flow's velocity.

    s = <v_c, v_n> / |v_n|^2          image by image: s v_n is as near to v_c as a multiple of v_n can be
    v = s v_n + w (v_c - s v_n)
    v = 0 in the first rows           zero-init: there a guided velocity can be worse than none

At s = 1 it is classifier-free guidance.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from fewstep.core.errors import InvalidInput
from fewstep.core.plan import Plan
from fewstep.denoise.base import Level, Value
from fewstep.denoise.branches import ConditionGuidance
from fewstep.denoise.convert import Network
from fewstep.denoise.scale import EVERYWHERE, Weight


class CFGZero(ConditionGuidance):
    """A conditional flow network under CFG-Zero*.

    Args:
        network, condition, negative, scale, interval: as in `Guided`; the network predicts `flow`.
        zero_init: how many rows, from a plan's first, have velocity 0 for the images guided there, at no evaluation.
            Such a row says that the noise is the data, which a multistep sampler would remember: it is refused.
    """

    def __init__(
        self,
        network: Network,
        condition: Mapping[str, Any],
        negative: Mapping[str, Any],
        scale: Weight | Sequence[Weight],
        *,
        zero_init: int = 1,
        interval: tuple[float, float] = EVERYWHERE,
    ):
        super().__init__(network, condition, negative, scale, interval)
        if network.prediction != "flow":
            raise InvalidInput(
                f"CFG-Zero* is about velocities, so it needs a network that predicts flow, got {network.prediction}: "
                "use fewstep.Guided or fewstep.APG"
            )
        if not isinstance(zero_init, int) or isinstance(zero_init, bool) or zero_init < 0:
            raise InvalidInput(f"zero_init is how many rows have velocity 0, a whole number from 0, got {zero_init!r}")
        self.zero_init = zero_init
        self.needs_run = self.needs_run or zero_init > 0

    def check(self, plan: Plan) -> None:
        super().check(plan)
        if self.zero_init >= plan.nfe:
            raise InvalidInput(f"zero_init {self.zero_init} leaves no row of this plan of {plan.nfe}: give less of it")
        if plan.B[: self.zero_init, 1:].any():
            raise InvalidInput(
                f"{plan.recipe.sampler} remembers the data estimates of its first rows, which zero_init makes noise: "
                "use a sampler of one evaluation a step such as 'euler', or zero_init=0"
            )

    def output(self, x: Tensor, level: Level) -> Tensor:
        rows = level.rows or ()
        if not any(row < self.zero_init for row in rows):
            return super().output(x, level)
        batch = x.shape[0]
        weights = self.scale.weights(batch, level)
        zero = [i for i in range(batch) if rows[i % len(rows)] < self.zero_init and weights[i] != 1]
        if len(zero) == batch:
            return torch.zeros_like(x)
        result = super().output(x, level)
        return result.index_fill(0, torch.tensor(zero, device=x.device), 0) if zero else result

    def combine(
        self, conditional: Tensor, negative: Tensor, weight: Value, x: Tensor, level: Level, images: Sequence[int]
    ) -> Tensor:
        dims = tuple(range(1, x.ndim))
        size = negative.square().sum(dim=dims, keepdim=True).clamp_min(torch.finfo(x.dtype).tiny)
        base = (conditional * negative).sum(dim=dims, keepdim=True) / size * negative
        return base + weight * (conditional - base)
