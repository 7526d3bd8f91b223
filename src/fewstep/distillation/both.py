"""Trajectories of two teachers as one set of data: each sample is one of the first or one of the second."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fewstep.distillation.pairs import Pairs, noise_of
from fewstep.models import Model
from fewstep.pipeline.stages import Conditioned
from fewstep.training import Batch


@dataclass(frozen=True, eq=False)
class Both:
    """Pairs of `first`, and after them those of `second`, as a student of one model meets them.

    Both teachers have the student's shapes, so what one of them was told is told to the student as it is.
    """

    model: Model
    first: Pairs
    second: Pairs

    @property
    def count(self) -> int:
        """How many there are."""
        return self.first.count + self.second.count

    @property
    def identity(self) -> Mapping[str, Any]:
        """What names them."""
        return {"new": dict(self.first.identity), "kept": dict(self.second.identity)}

    def batch(self, numbers: Sequence[int]) -> Batch:
        """Some samples, where the network is. None of them guides, as only a teacher is guided."""
        of = [(self.first, n) if n < self.first.count else (self.second, n - self.first.count) for n in numbers]
        told = [pairs.conditions.told(pairs.first + n) for pairs, n in of]
        device = self.model.device
        states = torch.cat([pairs.states([n]) for pairs, n in of]).to(device)
        noise = torch.cat([noise_of([pairs.first + n], pairs.shape, device) for pairs, n in of])
        along: Tensor | None = None
        if self.first.along:
            along = torch.cat([pairs.rows(pairs.along, [n]) for pairs, n in of]).to(device)
        return Batch(states, noise, Conditioned.of(self.model, told).positive, along=along)
