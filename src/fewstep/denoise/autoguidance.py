"""Autoguidance: away from a weaker version of the model itself. Karras et al. 2024, arXiv 2406.02507.

    D = D_weak + w (D_strong - D_weak)

The weaker network is smaller or trained less, on the same task and data; its condition is the same. It may predict
something else or be on another noise schedule: then its estimate of x0 is what is guided away from.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fewstep.denoise.base import Denoiser, Level, Value
from fewstep.denoise.branches import Guidance, check_network, picked
from fewstep.denoise.convert import Network, OnSchedule
from fewstep.denoise.scale import EVERYWHERE, Weight


class AutoGuided(Guidance):
    """A network guided away from a weaker one.

    Args:
        network, weaker: both with their own conditions; tensors have the batch first.
        scale: w, a number or a `GuidanceSchedule`, one for all images or one for each; 1 is `network` alone, at one
            evaluation, otherwise the weaker one is evaluated too.
        interval: as in `Guided`.
    """

    def __init__(
        self,
        network: Network,
        weaker: Network,
        scale: Weight | Sequence[Weight],
        *,
        interval: tuple[float, float] = EVERYWHERE,
    ):
        super().__init__(network, scale, interval)
        check_network(weaker)
        same = len({s.fingerprint for s in (network.schedule, weaker.schedule) if s is not None}) == 1
        self.weaker = weaker
        self._schedule = None if same else network.schedule
        self._same_output = same and (weaker.prediction, weaker.sigma_data) == (network.prediction, network.sigma_data)

    def alone(self, x: Tensor, level: Level) -> Tensor:
        return self.network.output(x, level)

    def both(self, x: Tensor, level: Level, images: Sequence[int]) -> tuple[Tensor, Tensor]:
        batch, strong = x.shape[0], self.alone(x, level)
        if len(images) < batch:
            index = torch.tensor(images, device=x.device)
            x, level = x[index], level.take(index, images)
        weaker: Denoiser = self.weaker.given(
            {name: picked(name, value, images, batch) for name, value in self.weaker.condition.items()}
        )
        if self._same_output:
            return strong, weaker.output(x, level)
        if self._schedule is not None:
            weaker = OnSchedule(weaker, self._schedule)
        skip, out = self.coefficients_at(level)
        return strong, (weaker.estimate(x, level)[1] - skip * x) / out  # what this network would say for that data

    def combine(
        self, conditional: Tensor, negative: Tensor, weight: Value, x: Tensor, level: Level, images: Sequence[int]
    ) -> Tensor:
        return negative + weight * (conditional - negative)
