"""Classifier-free guidance, in one doubled batch that only the rows that need it pay for.

    F = F_negative + w (F_condition - F_negative)      Ho & Salimans 2022, arXiv 2207.12598, eq. 6, w = 1 + theirs

F is the network's output. As x0 is affine in F with the same coefficients in both branches, guiding F is guiding x0.
An empty or a negative condition stands in the same place. At w = 1, or outside the interval, the image costs one
evaluation and is the conditional model's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from fewstep.core.errors import InvalidInput
from fewstep.core.plan import Plan
from fewstep.denoise.base import Level, Value
from fewstep.denoise.branches import ConditionGuidance
from fewstep.denoise.convert import Network
from fewstep.denoise.scale import EVERYWHERE, GuidanceSchedule, Weight, column


class Guided(ConditionGuidance):
    """A conditional network under classifier-free guidance.

    Args:
        network: the network; its own condition is replaced.
        condition, negative: keyword arguments for the two branches; tensors have the batch first, in both the same
            keys.
        scale: w, a number or a `GuidanceSchedule`, one for all images or one for each; 1 is the conditional model
            alone, at one evaluation.
        interval: (low, high) in sigma / alpha; guidance acts for low < sigma / alpha <= high only (Kynkaanniemi et al.
            2024, arXiv 2404.07724).
        rescale: in [0, 1], how far the guided output is scaled back to the standard deviation of the conditional one,
            image by image (Lin et al. 2023, arXiv 2305.08891, eq. 15 and 16).
    """

    def __init__(
        self,
        network: Network,
        condition: Mapping[str, Any],
        negative: Mapping[str, Any],
        scale: Weight | Sequence[Weight] = 1.0,
        *,
        interval: tuple[float, float] = EVERYWHERE,
        rescale: float = 0.0,
    ):
        super().__init__(network, condition, negative, scale, interval)
        if not 0 <= rescale <= 1:
            raise InvalidInput(f"guidance rescale must lie in [0, 1], got {rescale}")
        self.rescale = rescale

    def combine(
        self, conditional: Tensor, negative: Tensor, weight: Value, x: Tensor, level: Level, images: Sequence[int]
    ) -> Tensor:
        guided = negative + weight * (conditional - negative)
        if self.rescale:
            dims = tuple(range(1, x.ndim))
            std = conditional.std(dim=dims, keepdim=True) / guided.std(dim=dims, keepdim=True)
            guided = guided * (1 + self.rescale * (std - 1))
        return guided

    def estimate_by(self, factor: Tensor, x: Tensor, level: Level) -> Tensor:
        """The estimate of x0 with 1 + (w - 1) `factor` in place of w; it is differentiable in the factor, ()."""
        images = range(x.shape[0])
        conditional, negative = self.both(x, level, images)
        weight = 1 + (column(self.scale.weights(len(images), level), x) - 1) * factor.to(x)
        skip, out = self.coefficients_at(level)
        return skip * x + out * self.combine(conditional, negative, weight, x, level, images)

    def following(self, plan: Plan) -> Guided:
        """This denoiser, its weights as the rows of a tuned plan take them; see `GuidanceSchedule.following`."""
        each = [GuidanceSchedule.following(w, plan) for w in self.scale.each]
        return Guided(
            self.network,
            self.condition,
            self.negative,
            each,
            interval=self.scale.interval,
            rescale=self.rescale,
        )
