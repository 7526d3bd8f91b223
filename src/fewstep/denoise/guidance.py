"""Classifier-free guidance, in one doubled batch that only the rows that need it pay for.

    F = F_negative + w (F_condition - F_negative)      Ho & Salimans 2022, arXiv 2207.12598, eq. 6, w = 1 + theirs

F is the network's output. As x0 is affine in F with the same coefficients in both branches, guiding F is guiding x0.
An empty or a negative condition stands in the same place. At w = 1, or outside the interval, the image costs one
evaluation and is the conditional model's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from fewstep.core.errors import InvalidInput
from fewstep.denoise.base import Denoiser, Level, Value
from fewstep.denoise.convert import Network


class Guided(Denoiser):
    """A conditional network under classifier-free guidance.

    Args:
        network: the network; its own condition is replaced.
        condition, negative: keyword arguments for the two branches; tensors have the batch first, in both the same
            keys.
        scale: w, one for all images or one for each; 1 is the conditional model alone.
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
        scale: float | Sequence[float] = 1.0,
        *,
        interval: tuple[float, float] = (0.0, math.inf),
        rescale: float = 0.0,
    ):
        if condition.keys() != negative.keys():
            raise InvalidInput(
                f"condition and negative must name the same arguments, got {sorted(condition)} and {sorted(negative)}"
            )
        for name, value in condition.items():
            other, tensor = negative[name], isinstance(value, Tensor)
            if tensor != isinstance(other, Tensor) or (not tensor and value is not other and value != other):
                raise InvalidInput(
                    f"argument {name!r} differs between condition and negative, and is not a tensor in both: the two "
                    "branches share one call of the network, so only tensors with the batch first may differ"
                )
        if not isinstance(network, Network):
            raise InvalidInput(
                f"guidance needs a fewstep.Network, whose condition it sets, got {type(network).__name__}: build "
                "fewstep.Network(module, schedule, prediction), and put clip or OnSchedule around the Guided denoiser"
            )
        single = isinstance(scale, Real) or (isinstance(scale, Tensor) and scale.ndim == 0)
        try:
            scales = [] if isinstance(scale, str) else [float(w) for w in ([scale] if single else scale)]  # type: ignore[union-attr]
        except (TypeError, ValueError):
            scales = []
        if not scales or not all(math.isfinite(w) for w in scales):
            raise InvalidInput(f"a guidance scale is a finite number, or one for each image, got {scale!r}")
        if not 0 <= rescale <= 1:
            raise InvalidInput(f"guidance rescale must lie in [0, 1], got {rescale}")
        if not 0 <= interval[0] < interval[1]:
            raise InvalidInput(f"a guidance interval needs 0 <= low < high in sigma / alpha, got {interval}")
        self.network = network
        self.schedule = network.schedule
        self.condition, self.negative = dict(condition), dict(negative)
        self.scales = scales
        self.interval = interval
        self.rescale = rescale

    def coefficients(self, t: Value, alpha: Value, sigma: Value) -> tuple[Value, Value]:
        return self.network.coefficients(t, alpha, sigma)

    def guided_images(self, batch: int, level: Level) -> list[int]:
        """The images of the batch that guidance acts on at `level`."""
        if len(self.scales) not in (1, batch):
            raise InvalidInput(
                f"guidance scales must be one for all or one for each of {batch} images, got {len(self.scales)}"
            )
        low, high = self.interval
        active = [low < (sigma / alpha if alpha else math.inf) <= high for _, alpha, sigma in level.host]
        return [i for i in range(batch) if self.scales[i % len(self.scales)] != 1 and active[i % len(active)]]

    def output(self, x: Tensor, level: Level) -> Tensor:
        batch = x.shape[0]
        images = self.guided_images(batch, level)
        if not images:
            return self.network.given(self.condition).output(x, level)
        everyone = len(images) == batch
        index = torch.arange(batch, device=x.device) if everyone else torch.tensor(images, device=x.device)

        def both(name: str) -> Any:
            value, other = self.condition[name], self.negative[name]
            if not isinstance(value, Tensor):
                return value
            for v in (value, other):
                if v.ndim < 1 or v.shape[0] not in (1, batch):
                    raise InvalidInput(
                        f"condition {name!r} has shape {tuple(v.shape)}, its first size must be 1 or the batch, {batch}"
                    )
            value, other = (v.expand(batch, *v.shape[1:]) for v in (value, other))
            return torch.cat([value, other if everyone else other[index]])

        doubled = torch.cat([x, x if everyone else x[index]])
        network = self.network.given({name: both(name) for name in self.condition})
        result = network.output(doubled, level.doubled(index, images))
        conditional, negative = result[:batch], result[batch:]
        positive = conditional if everyone else conditional[index]
        w: Value = self.scales[0]
        if len(self.scales) > 1:
            w = x.new_tensor([self.scales[i] for i in images]).reshape(-1, *[1] * (x.ndim - 1))
        guided = negative + w * (positive - negative)
        if self.rescale:
            dims = tuple(range(1, x.ndim))
            std = positive.std(dim=dims, keepdim=True) / guided.std(dim=dims, keepdim=True)
            guided = guided * (1 + self.rescale * (std - 1))
        return guided if everyone else conditional.index_copy(0, index, guided)
