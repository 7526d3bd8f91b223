"""Regression on the endpoint: every state of the teacher's trajectory is mapped to the picture that it ends in.

The teacher's trajectories are drawn once, with their states x_k at some levels of noise, and the student's estimate of
the data at each of them is to be the end:

    loss = |D(x_k, k) - x_0|^2

That is the consistency function (Song et al. 2023, arXiv 2303.01469) by its definition. Nothing is bootstrapped, so no
error of the student's own estimate at a lower level becomes a target at a higher one; the price is the trajectories.
At the first level alone it is knowledge distillation (Luhman & Luhman 2021, arXiv 2101.02388).

The student draws at some of the levels, in any number of rows up to theirs, with noise drawn anew between them (ibid.,
algorithm 1): a row is given what the one before estimated under noise of less level, and mends what that got wrong.
Noised anew, an estimate is a state like those of the trajectories. DDIM, which puts back the noise that the row saw,
leaves them: one estimate of the end is not the way there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import ClassVar

import numpy as np
import torch

from fewstep.core.errors import InvalidInput, positive
from fewstep.core.plan import Plan
from fewstep.core.schedule import Schedule
from fewstep.denoise.convert import Network
from fewstep.distillation.terms import checks
from fewstep.solvers.compiler import compile
from fewstep.training import STUDENT, Batch, Draws, Loss, Needs, Phase, Roles, one_stage, schedule_of
from fewstep.training.levels import at_times

MOST_LEVELS = 100
WAYS = ("consistency", "ddim")
"""Samplers that the student can be drawn by."""


@dataclass(frozen=True)
class Endpoint:
    """Settings of regression on the endpoint.

    Attributes:
        rows: of the plan that the student recommends, 1 to `levels`.
        levels: times of the trajectories that it learns, spread over the rows of the teacher's plan.
        first: the share of the samples that learn the noisiest level, which every drawing begins with, above 0 and at
            most 1; the others are shared out evenly to the lower ones.
        times: the levels themselves, the noisiest first; empty are those of the teacher's plan.
        sampler: of its plan: "consistency" draws noise anew between rows, "ddim" does not.
    """

    name: ClassVar[str] = "endpoint"
    needs: ClassVar[Needs] = Needs(teacher=True, pairs=True)

    rows: int = 4
    levels: int = 10
    first: float = 0.4
    times: tuple[float, ...] = ()
    sampler: str = "consistency"

    def __post_init__(self) -> None:
        checks.check_known(self, sampler=WAYS)
        checks.check_counts(self, levels=MOST_LEVELS)
        checks.check_counts(self, rows=self.levels)
        if positive("first", self.first) > 1:
            raise InvalidInput(f"first is a share of the samples, at most 1, got {self.first:g}")

    def along(self, schedule: Schedule) -> tuple[float, ...]:
        """The times of the teacher's trajectories that are kept, the noisiest first."""
        return self.times or levels_of(schedule, self.levels)

    def consistent(self, schedule: Schedule) -> tuple[float, float]:
        """The levels k between which the estimate is to be the same all along a trajectory."""
        times = self.along(schedule)
        return float(schedule.ratio(times[-1])), float(schedule.ratio(times[0]))

    def suited(self, plan: Plan) -> Endpoint:
        """These settings for a teacher that draws by a plan. Raises `InvalidInput` where that has too few rows."""
        return self if self.times else replace(self, times=met(plan, self.levels, self.name))

    def phase(self, step: int, steps: int) -> Phase:
        return one_stage(step, steps)

    def losses(self, roles: Roles, batch: Batch, phase: Phase, draws: Draws) -> Iterator[Loss]:
        if batch.along is None:
            raise InvalidInput(
                "endpoint learns from the teacher's trajectories: give their states along with their end"
            )
        role = roles[STUDENT]
        chosen = self.chosen(draws)
        x = batch.along[torch.arange(len(batch)), torch.from_numpy(chosen)].to(batch.data.dtype)
        times = np.array(self.along(schedule_of(role.network)))[chosen]
        estimate = role.answering(batch).estimate(x, at_times(schedule_of(role.network), times, x))[0]
        yield Loss(STUDENT, (estimate - batch.data).square().mean())

    def chosen(self, draws: Draws) -> np.ndarray:
        """(B,) which level each sample learns."""
        share = draws.spread("level")
        if self.levels == 1:
            return np.zeros(len(share), int)
        lower = 1 + np.floor((share - self.first) / (1 - self.first + 1e-12) * (self.levels - 1)).astype(int)
        return np.where(share < self.first, 0, np.clip(lower, 1, self.levels - 1))

    def plan(self, network: Network, rows: int | None = None) -> Plan:
        schedule, rows = schedule_of(network), self.rows if rows is None else rows
        if not 1 <= rows <= self.levels:
            raise InvalidInput(f"a student by endpoint draws in 1 to {self.levels} rows, its levels, got {rows}")
        times = [self.along(schedule)[place] for place in spread(self.levels, rows)]
        return compile(self.sampler, schedule=schedule, times=[*times, schedule.t_clean])


def met(plan: Plan, levels: int, method: str) -> tuple[float, ...]:
    """So many of the times of a teacher's plan, evenly. Raises `InvalidInput` where it has too few."""
    times = list(dict.fromkeys(row.t for row in plan.rows))
    if len(times) < levels:
        raise InvalidInput(
            f"{method} learns {levels} levels, and the teacher's plan has {len(times)}: give the teacher more steps, "
            f"or levels={len(times)}"
        )
    return tuple(times[place] for place in spread(len(times), levels))


def spread(count: int, some: int) -> list[int]:
    """So many of the places 0 .. count - 1, evenly, the first among them."""
    return np.floor(np.linspace(0, count, some, endpoint=False)).astype(int).tolist()


@lru_cache(maxsize=16)  # every step asks for it
def levels_of(schedule: Schedule, levels: int) -> tuple[float, ...]:
    """The times of the trailing grid of so many steps, without the clean one."""
    return tuple(row.t for row in compile("ddim", schedule=schedule, steps=levels, grid="trailing").rows)
