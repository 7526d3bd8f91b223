"""The samples of a step: what is learned, under which conditions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor


@dataclass(frozen=True, eq=False)
class Batch:
    """The samples of a step, or of a part of it.

    Attributes:
        data: (B, ..) clean states: images, or what the teacher made of the noise of pairs.
        noise: (B, ..) of pairs, unit; None where images are not paired with noise.
        condition, negative: keyword arguments of the network, with the batch first; without `negative` nothing guides.
        scales: (B,) of guidance, where each sample has its own.
        along: (B, levels, ..) states of the teacher's trajectories of which the data are the ends, where a method asks
            for them.
    """

    data: Tensor
    noise: Tensor | None = None
    condition: Mapping[str, Any] = field(default_factory=dict)
    negative: Mapping[str, Any] | None = None
    scales: tuple[float, ...] | None = None
    along: Tensor | None = None

    def __len__(self) -> int:
        return len(self.data)

    def take(self, samples: Sequence[int]) -> Batch:
        """Some of the samples, by their places."""
        places = list(samples)
        return Batch(
            self.data[places],
            None if self.noise is None else self.noise[places],
            chosen(self.condition, places),
            None if self.negative is None else chosen(self.negative, places),
            None if self.scales is None else tuple(self.scales[place] for place in places),
            None if self.along is None else self.along[places],
        )


def chosen(condition: Mapping[str, Any], places: Sequence[int]) -> dict[str, Any]:
    """The arguments of some samples of a batch, by their places."""
    return {name: value[list(places)] if isinstance(value, Tensor) else value for name, value in condition.items()}
