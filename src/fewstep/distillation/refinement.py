"""Refinement: one student of several counts of rows, whose every row estimates what the teacher made of the noise.

The first row estimates the teacher's picture from the noise alone. A later row is given that estimate back, renoised by
DDIM with the noise that the picture began from, at a lower level, and estimates the same picture again:

    x_0 = sigma_0 eps,     x_(j+1) = alpha D_j + sigma_(j+1) / sigma_j (x_j - alpha_j D_j),     loss = |D_j - x0|^2

The rows before the one that learns are the student's own, without a gradient, so it learns from the states that it will
meet (Ross et al. 2011, arXiv 1011.0686), and the graph of one evaluation is in memory. The pairs of noise and picture
are those of regression (Luhman & Luhman 2021, arXiv 2101.02388), which is this method with one row. As all plans begin
with the same row and end on the same target, one network serves them all, and more rows refine what fewer have drawn.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from fewstep.core.errors import InvalidInput
from fewstep.core.plan import Plan
from fewstep.denoise.convert import Network
from fewstep.distillation.regression import MOST_ROWS, student_plan
from fewstep.training import STUDENT, Batch, Draws, Loss, Needs, Phase, Role, Roles, one_stage, schedule_of
from fewstep.training.levels import of_rows, stepped


@dataclass(frozen=True)
class Refinement:
    """Settings of refinement.

    Attributes:
        rows: of the plan that the student recommends, 1 to 8, a power of two. It learns to draw in each power of two up
            to that.
        first: how many of the samples learn the first row, in [0, 1]; the others are shared out evenly to the later
            rows of all plans.
        grid: of the plans.
    """

    name: ClassVar[str] = "refinement"
    needs: ClassVar[Needs] = Needs(teacher=True, pairs=True)

    rows: int = 4
    first: float = 0.4
    grid: str = "trailing"

    def __post_init__(self) -> None:
        counts = [2**i for i in range(MOST_ROWS.bit_length())]
        if self.rows not in counts or type(self.rows) is not int:
            raise InvalidInput(f"rows must be one of {', '.join(map(str, counts))}, got {self.rows!r}")
        if isinstance(self.first, bool) or not isinstance(self.first, int | float) or not 0 < self.first <= 1:
            raise InvalidInput(f"first, a share of the samples, must be above 0 and at most 1, got {self.first!r}")

    @property
    def counts(self) -> tuple[int, ...]:
        """The numbers of rows that the student learns."""
        return tuple(2**i for i in range(self.rows.bit_length()))

    def phase(self, step: int, steps: int) -> Phase:
        return one_stage(step, steps)

    def losses(self, roles: Roles, batch: Batch, phase: Phase, draws: Draws) -> Iterator[Loss]:
        if batch.noise is None:
            raise InvalidInput("refinement learns from pairs of noise and what the teacher makes of it: give those")
        role = roles[STUDENT]
        plans = [student_plan(schedule_of(role.network), "ddim", rows, self.grid) for rows in self.counts]
        chosen = self.chosen(draws)
        x = states(plans, chosen, role, batch)
        here = of_rows([level_of(plans[i], row) for i, row in chosen], x)
        estimate = role.answering(batch).estimate(x, here)[0]
        yield Loss(STUDENT, (estimate - batch.data).square().mean())

    def chosen(self, draws: Draws) -> list[tuple[int, int]]:
        """Which row of which plan each sample learns."""
        later = [(i, row) for i, rows in enumerate(self.counts) for row in range(1, rows)]
        share = draws.spread("row")
        if not later:
            return [(0, 0)] * len(share)
        places = np.floor((share - self.first) / (1 - self.first + 1e-12) * len(later)).astype(int)
        return [(0, 0) if place < 0 else later[min(place, len(later) - 1)] for place in places]

    def plan(self, network: Network, rows: int | None = None) -> Plan:
        wanted = self.rows if rows is None else rows
        if wanted not in self.counts:
            raise InvalidInput(f"a student of refinement draws in {', '.join(map(str, self.counts))} rows, got {rows}")
        return student_plan(schedule_of(network), "ddim", wanted, self.grid)


def level_of(plan: Plan, row: int) -> tuple[float, float, float]:
    """(t, alpha, sigma) of the state that a row is given."""
    return plan.rows[row].t, plan.rows[row].alpha, plan.rows[row].sigma


@torch.no_grad()
def states(plans: Sequence[Plan], chosen: Sequence[tuple[int, int]], role: Role, batch: Batch) -> Tensor:
    """(B, ..) what each sample's row is given: its noise, taken through the rows of its plan before that one.

    `chosen` are the plan and the row of each sample. The samples on their way in a step share one evaluation.
    """
    assert batch.noise is not None
    x = torch.stack([noise * plans[i].entry[1] for (i, _), noise in zip(chosen, batch.noise, strict=True)])
    for step in range(max(row for _, row in chosen)):
        places = [place for place, (_, row) in enumerate(chosen) if row > step]
        plan = [plans[chosen[place][0]] for place in places]
        here, there = (of_rows([level_of(one, row) for one in plan], x[places]) for row in (step, step + 1))
        data = role.answering(batch.part(places)).estimate(x[places], here)[0]
        x[places] = stepped(x[places], data, here, there)
    return x
