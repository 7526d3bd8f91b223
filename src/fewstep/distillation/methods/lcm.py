"""Latent consistency distillation: consistency along the trajectory of the guided teacher, in steps of DDIM.

On a grid of N times, with f the estimate of the data and x_s where one step of DDIM of the guided teacher leads from
x_t, skipping k - 1 times of the grid,

    loss = h(f(x_t, t) - stopped f(x_s, s)),      f = the data of x_s itself where s is clean

(Luo et al. 2023, arXiv 2310.04378, algorithm 1; by LoRA: arXiv 2311.05556). Guidance is in the teacher's step alone, so
the student has it inside. f is exact at the end as in `Consistency`, and not by scalings of the output; those of the
sampler "lcm", which are LCM's own, mix less than 1e-5 of the state into the data at the times of the grid. h is the
square or sqrt(d^2 + c^2) - c of each value.

The stopped f is asked of an average of the student, as there. Any f that is constant along trajectories has no loss but
in the last of the N steps, where the data are the target: what steps of the optimiser add by chance is left to grow
where the target has it too.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from fewstep.core.errors import InvalidInput, number
from fewstep.core.grid import grid_times
from fewstep.core.plan import Plan
from fewstep.core.schedule import Schedule
from fewstep.denoise.convert import Network
from fewstep.distillation.terms import checks
from fewstep.distillation.terms.targets import aim, masked
from fewstep.solvers.compiler import compile
from fewstep.training import (
    STUDENT,
    TEACHER,
    Batch,
    Draws,
    Loss,
    Needs,
    Phase,
    Role,
    Roles,
    follower,
    one_stage,
    schedule_of,
)
from fewstep.training.levels import at_times, euler, noised
from fewstep.training.scale import Scales, checked

MOST_ROWS, MOST_STEPS = 8, 1000
TARGET = "target"
"""The role of the average that is the target."""


@dataclass(frozen=True)
class LatentConsistency:
    """Settings of latent consistency distillation.

    Attributes:
        grid_steps: N of the grid, even in time (on edm that of Karras) and ending at clean data.
        skip: k, how many of them the teacher goes at once.
        huber: c of the distance; 0 is the square.
        average: the decay of the average of the student that targets are asked of, from 0, the student itself, to
            below 1.
        lowest, highest: guidance scales that the student is told, drawn evenly; None has the one that the teacher draws
            with inside.
        rows: evaluations of the student, 1 to 8, at times of the grid.
    """

    name: ClassVar[str] = "lcm"
    needs: ClassVar[Needs] = Needs(teacher=True, images=True)

    grid_steps: int = 50
    skip: int = 1
    huber: float = 0.001
    average: float = 0.95
    lowest: float | None = None
    highest: float | None = None
    rows: int = 4

    def __post_init__(self) -> None:
        checks.check_counts(self, grid_steps=MOST_STEPS)
        checks.check_counts(self, skip=self.grid_steps, rows=min(MOST_ROWS, self.grid_steps))
        checks.check_weights(self, "huber")
        if not 0 <= number("average", self.average) < 1:
            raise InvalidInput(f"average is a decay, from 0 and below 1, got {self.average:g}")
        if (self.lowest, self.highest) != (None, None):
            checked((self.lowest, self.highest))

    @property
    def scales(self) -> Scales | None:
        """The interval of guidance scales that the student is told."""
        return None if self.lowest is None else checked((self.lowest, self.highest))

    def phase(self, step: int, steps: int) -> Phase:
        return one_stage(step, steps)

    def roles(self, roles: Roles, batch: Batch) -> dict[str, Role]:
        """The average of the student that targets are asked of, where there is one."""
        return {TARGET: follower(roles, self.average)} if self.average else {}

    def times(self, schedule: Schedule) -> np.ndarray:
        """(N + 1,) times of the grid, falling to clean data."""
        return grid_times("karras" if schedule.kind == "edm" else "trailing", schedule, self.grid_steps)

    def consistent(self, schedule: Schedule) -> tuple[float, float]:
        """The levels k between which the estimate is to be the same all along a trajectory."""
        k = schedule.ratio(self.times(schedule)[:-1])
        return float(k[-1]), float(k[0])

    def losses(self, roles: Roles, batch: Batch, phase: Phase, draws: Draws) -> Iterator[Loss]:
        student, schedule = roles[STUDENT], schedule_of(roles[STUDENT].network)
        times = self.times(schedule)
        i = np.floor(draws.spread("time") * self.grid_steps).astype(int)
        j = np.minimum(i + self.skip, self.grid_steps)
        here, there = (at_times(schedule, times[each], batch.data) for each in (i, j))
        x = noised(batch.data, draws.normal("noise", batch.data.shape[1:]), here)
        batch = student.asked(batch, draws)
        with torch.no_grad():
            nearer = euler(roles[TEACHER].answering(batch, guided=True), x, here, there)
            aiming = (roles[TARGET] if self.average else student).answering(batch)
            target = aim(aiming, (x, nearer), (here, there), j == self.grid_steps, draws)
        yield Loss(STUDENT, self.distance(masked(student.answering(batch), x, here, draws) - target))

    def distance(self, difference: Tensor) -> Tensor:
        """The mean over all values."""
        if not self.huber:
            return difference.square().mean()
        return ((difference.square() + self.huber**2).sqrt() - self.huber).mean()

    def plan(self, network: Network, rows: int | None = None) -> Plan:
        schedule, rows = schedule_of(network), self.rows if rows is None else rows
        times = self.times(schedule)
        # as LCMScheduler of diffusers chooses them
        chosen = np.floor(np.linspace(0, self.grid_steps, rows, endpoint=False)).astype(int)
        return compile("lcm", schedule=schedule, times=[*times[chosen].tolist(), schedule.t_clean])
