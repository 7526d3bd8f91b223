"""Perturbed-attention guidance: Ahn et al. 2024, arXiv 2403.17377.

    F = F_c + s (F_c - F_p) + (w - 1) (F_c - F_n)

F_p is the network's own output with the identity in place of some self-attention maps: a picture whose parts do not
agree, to be guided away from. It needs no negative condition, so it guides unconditional models too; with one, it adds
to classifier-free guidance. All branches are one call.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from fewstep.core.errors import InvalidInput
from fewstep.core.plan import Plan
from fewstep.denoise.attention import install, perturbed
from fewstep.denoise.base import Denoiser, Level, Value
from fewstep.denoise.branches import Branch, check_conditions, check_network, evaluate
from fewstep.denoise.convert import Network
from fewstep.denoise.scale import EVERYWHERE, Scale, Weight, check_negative, column


class PAG(Denoiser):
    """A network of diffusers under perturbed-attention guidance, with or without classifier-free guidance.

    Args:
        network: the network; its own condition is replaced.
        condition: keyword arguments of the network; tensors have the batch first.
        scale: s, a number or a `GuidanceSchedule`, one for all images or one for each; 0 is none, at no cost. The paper
            takes 2 to 5.
        layers: names of self-attention layers, or parts of them, such as "mid" or "down_blocks.2" (`blocks.14` in a
            transformer); every word must name at least one.
        negative, guidance: w and its negative condition, as `scale` and `negative` of `Guided`.
        interval: of both, as in `Guided`.
        module: where the layers are, if `network.network` is not the torch module itself.

    Raises:
        InvalidInput: for a network without such layers; for a negative condition that guidance 1 would ignore.
    """

    def __init__(
        self,
        network: Network,
        condition: Mapping[str, Any],
        scale: Weight | Sequence[Weight] = 3.0,
        *,
        layers: str | Sequence[str] = "mid",
        negative: Mapping[str, Any] | None = None,
        guidance: Weight | Sequence[Weight] = 1.0,
        interval: tuple[float, float] = EVERYWHERE,
        module: torch.nn.Module | None = None,
    ):
        self.network = check_network(network)
        self.schedule = network.schedule
        self.scale = Scale(scale, interval, off=0.0)
        self.guidance = Scale(guidance, interval)
        if negative is not None:
            check_negative(guidance)
            check_conditions(condition, negative)
        elif not self.guidance.idle:
            raise InvalidInput(
                "guidance other than 1 needs a negative condition: give negative=, or leave guidance out"
            )
        self.condition = dict(condition)
        self.negative = self.condition if negative is None else dict(negative)
        self.needs_run = self.scale.by_row or self.guidance.by_row
        self.module = network.network if module is None else module
        self._layers = install(self.module, layers)

    def coefficients(self, t: Value, alpha: Value, sigma: Value) -> tuple[Value, Value]:
        return self.network.coefficients(t, alpha, sigma)

    def check(self, plan: Plan) -> None:
        self.scale.check(plan)
        self.guidance.check(plan)

    def output(self, x: Tensor, level: Level) -> Tensor:
        batch = x.shape[0]
        s, w = self.scale.weights(batch, level), self.guidance.weights(batch, level)
        broken = [i for i in range(batch) if s[i] != 0]
        guided = [i for i in range(batch) if w[i] != 1]
        parts = [
            Branch(self.condition, range(batch)),
            Branch(self.negative, guided),
            Branch(self.condition, broken),
        ]
        total = batch + len(guided) + len(broken)
        with perturbed(self._layers, total, len(broken)) if broken else nullcontext():
            conditional, negative, other = evaluate(self.network, x, level, parts)
        result = conditional
        pulls = ((guided, [w[i] - 1 for i in guided], negative), (broken, [s[i] for i in broken], other))
        for images, weights, away in pulls:
            if not images:
                continue
            weight = column(weights, x)
            if len(images) == batch:
                result = result + weight * (conditional - away)
            else:
                index = torch.tensor(images, device=x.device)
                result = result.index_add(0, index, weight * (conditional[index] - away))
        return result
