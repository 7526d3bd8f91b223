"""Guidance distillation: the guidance scale becomes an input of the network, so a guided row costs one evaluation.

Meng et al. 2023, arXiv 2210.03142, stage one. For a scale s drawn from an interval, with conditional and unconditional
estimates D_c and D_u of the teacher,

    loss = w |f(x_t, t, s) - (D_u + s (D_c - D_u))|^2

The student is drawn with in as many rows as its teacher. `Progressive` then takes it as a teacher, and halves them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch

from fewstep.core.plan import Plan
from fewstep.denoise.convert import Network
from fewstep.distillation.methods.progressive import WEIGHTS, weight_of
from fewstep.distillation.terms import checks
from fewstep.solvers.compiler import compile
from fewstep.training import STUDENT, TEACHER, Batch, Draws, Loss, Needs, Phase, Roles, one_stage, schedule_of
from fewstep.training.levels import at_times, noised
from fewstep.training.scale import Scales, checked

OUTPUT = "output"


@dataclass(frozen=True)
class GuidanceInput:
    """Settings of guidance distillation.

    Attributes:
        lowest, highest: guidance scales that the student is told, drawn evenly; 1 is the conditional model.
        weight: of the error of the estimate of the data, "snr+1" or "truncated-snr"; "output" is the plain error of
            what the network predicts.
        sampler, grid, rows: of the plan that the student is to be drawn with.
    """

    name: ClassVar[str] = "guidance"
    needs: ClassVar[Needs] = Needs(teacher=True, images=True)

    lowest: float = 1.0
    highest: float = 5.0
    weight: str = OUTPUT
    sampler: str = "dpmpp-2m"
    grid: str = "trailing"
    rows: int = 10

    def __post_init__(self) -> None:
        checked((self.lowest, self.highest))
        checks.check_known(self, weight=(OUTPUT, *WEIGHTS))
        checks.check_counts(self, rows=None)

    @property
    def scales(self) -> Scales:
        """The interval of guidance scales that the student is told."""
        return checked((self.lowest, self.highest))

    def phase(self, step: int, steps: int) -> Phase:
        return one_stage(step, steps)

    def losses(self, roles: Roles, batch: Batch, phase: Phase, draws: Draws) -> Iterator[Loss]:
        student, schedule = roles[STUDENT], schedule_of(roles[STUDENT].network)
        times = schedule.t_min + (schedule.t_max - schedule.t_min) * draws.spread("time")
        level = at_times(schedule, times, batch.data)
        x = noised(batch.data, draws.normal("noise", batch.data.shape[1:]), level)
        batch = student.asked(batch, draws)
        with torch.no_grad():
            target = roles[TEACHER].answering(batch, guided=True).estimate(x, level)[0]
        difference = student.answering(batch).estimate(x, level)[0] - target
        if self.weight == OUTPUT:
            yield Loss(STUDENT, (difference / student.network.coefficients_at(level)[1]).square().mean())
        else:
            yield Loss(STUDENT, (weight_of(self.weight, level) * difference.square().flatten(1).mean(1)).mean())

    def plan(self, network: Network, rows: int | None = None) -> Plan:
        steps = self.rows if rows is None else rows
        return compile(self.sampler, schedule=schedule_of(network), steps=steps, grid=self.grid)
