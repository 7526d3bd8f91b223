"""How constant an estimate is along the teacher's own trajectories, from noise to picture.

A consistency student is to answer x_0 at every state x_k of a trajectory that ends in x_0. Its error at a level k is
the root mean square of f(x_k) - x_0, as a share of that of x_0; at the least noise, the boundary, it is to be next to
nothing, whatever was learnt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from fewstep.core.schedule import Schedule
from fewstep.denoise.convert import Network
from fewstep.distillation.methods.regression import unrolled
from fewstep.distillation.pictures.pairs import Pairs
from fewstep.distillation.pictures.recording import Recorded
from fewstep.distillation.pictures.teacher import noise_of
from fewstep.pipeline.stages import denoiser_of
from fewstep.training import schedule_of
from fewstep.training.levels import at_times, noised, time_of_ratio

STATIONS = 5
"""Levels of a trajectory that are looked at, beside the boundary."""
CLEAN = 0.1
"""The ratio of noise to data up to which a state is next to the picture itself."""


@runtime_checkable
class Consistent(Protocol):
    """A method whose student's estimate is to be the same all along a trajectory."""

    def consistent(self, schedule: Schedule) -> tuple[float, float]:
        """Between which ratios of noise to data, the least first."""
        ...


class Station(NamedTuple):
    """States (B, c, h, w) of all trajectories at one time."""

    time: float
    ratio: float
    states: Tensor


@dataclass(frozen=True, eq=False)
class Trajectories:
    """The teacher's way from the noise of some pairs to its pictures.

    Attributes:
        pairs: noise and end of each; `stations`: the noisiest first.
        boundary: the ends with the least noise, None where that is much.
    """

    pairs: Pairs
    stations: tuple[Station, ...]
    boundary: Station | None

    @staticmethod
    def of(pairs: Pairs, between: tuple[float, float], batch: int = 64) -> Trajectories:
        """The states that the teacher's own plan meets between two ratios of noise to data, a few of them."""
        teacher = pairs.teacher
        plan, schedule = teacher.order.plan, schedule_of(teacher.pipe.model.denoiser())
        ratios = schedule.ratio([row.t for row in plan.rows])
        met = np.flatnonzero((between[0] <= ratios) & (ratios <= between[1])).tolist()
        rows = [met[i] for i in sorted({round(i) for i in np.linspace(0, len(met) - 1, STATIONS)})] if met else []
        parts = [followed(pairs, range(i, min(i + batch, pairs.count)), rows) for i in range(0, pairs.count, batch)]
        stations = [
            Station(plan.rows[row].t, float(ratios[row]), torch.cat([part[i] for part in parts]))
            for i, row in enumerate(rows)
        ]
        if between[0] > CLEAN:
            return Trajectories(pairs, tuple(stations), None)
        time = float(time_of_ratio(schedule, between[0]))
        ends = pairs.states(range(pairs.count))
        noise = noise_of([pairs.first + i for i in range(pairs.count)], pairs.shape, "cpu")
        states = noised(ends, noise, at_times(schedule, time, ends))
        return Trajectories(pairs, tuple(stations), Station(time, between[0], states))

    @torch.no_grad()
    def errors(self, network: Network, batch: int = 64) -> dict[str, float]:
        """ "boundary", "self-consistency", the largest over the other levels, and those at each of them."""
        each = {f"self-consistency at {at.ratio:.3g}": self.error(network, at, batch) for at in self.stations}
        largest = {"self-consistency": max(each.values())} if each else {}
        boundary = {} if self.boundary is None else {"boundary": self.error(network, self.boundary, batch)}
        return boundary | largest | each

    def error(self, network: Network, at: Station, batch: int) -> float:
        """Of the estimates at one level."""
        schedule, device = schedule_of(network), self.pairs.teacher.pipe.model.device
        squared = 0.0
        for part in torch.arange(self.pairs.count).split(batch):
            numbers = [self.pairs.first + int(i) for i in part]
            x = at.states[part].to(device)
            denoiser = network.given(self.pairs.conditions.of(numbers).positive)
            estimate = denoiser.estimate(x, at_times(schedule, at.time, x))[0].cpu()
            squared += float((estimate - self.pairs.states(part.tolist())).double().square().sum())
        return (squared / float(self.pairs.states(range(self.pairs.count)).double().square().sum())) ** 0.5


@torch.no_grad()
def followed(pairs: Pairs, part: Sequence[int], rows: Sequence[int]) -> list[Tensor]:
    """The states at some rows of the teacher's plan, from the noise of some pairs."""
    teacher, numbers = pairs.teacher, [pairs.first + i for i in part]
    model, order = teacher.pipe.model, teacher.order
    denoiser = denoiser_of(model, order.drawing.guidance, pairs.conditions.of(numbers), order.plan)
    recorded = Recorded(denoiser)
    unrolled(order.plan, recorded, noise_of(numbers, pairs.shape, model.device) * order.plan.entry[1])
    return [recorded.states[row].cpu() for row in rows]
