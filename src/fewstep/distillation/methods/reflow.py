"""Reflow: a flow model is trained again on its own pairs of noise and result, between which the way is straight.

With x_t = (1 - t) x0 + t e, e the noise and x0 what the teacher makes of it, the student's velocity is to be e - x0
(Liu et al. 2023, arXiv 2209.03003, section 2.2). Once the way is straight, one step of Euler goes it as well as many; a
student that has been straightened is a better teacher for `Regression` (InstaFlow, Liu et al. 2024, arXiv 2309.06380).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fewstep.core.errors import InvalidInput
from fewstep.core.plan import Plan
from fewstep.core.schedule import Schedule
from fewstep.denoise.convert import Network
from fewstep.distillation.methods.regression import student_plan
from fewstep.distillation.terms import checks
from fewstep.training import STUDENT, Batch, Draws, Loss, Needs, Phase, Roles, one_stage, schedule_of
from fewstep.training.draws import Float
from fewstep.training.levels import at_times, noised

TIMES = ("uniform", "ends")
STEEP = 4.0


@dataclass(frozen=True)
class Reflow:
    """Settings of reflow.

    Attributes:
        times: "uniform", or "ends", more of them near both ends, in proportion to exp(4 u) + exp(-4 u), with u from
            -1/2 to 1/2 over the range of times (a density of the kind of Lee et al. 2024, arXiv 2405.20320).
        rows: steps of Euler of the plan that the student is to be sampled with.
    """

    name: ClassVar[str] = "reflow"
    needs: ClassVar[Needs] = Needs(teacher=True, pairs=True, predictions=("flow",))

    times: str = "uniform"
    rows: int = 2

    def __post_init__(self) -> None:
        checks.check_known(self, times=TIMES)
        checks.check_counts(self, rows=None)

    def phase(self, step: int, steps: int) -> Phase:
        return one_stage(step, steps)

    def losses(self, roles: Roles, batch: Batch, phase: Phase, draws: Draws) -> Iterator[Loss]:
        network = roles[STUDENT].network
        if batch.noise is None:
            raise InvalidInput("reflow learns from pairs of noise and what the teacher makes of it: give those")
        schedule = schedule_of(network)
        level = at_times(schedule, self.at(schedule, draws.spread("time")), batch.data)
        x = noised(batch.data, batch.noise, level)
        velocity = network.given(batch.condition).output(x, level)
        yield Loss(STUDENT, (velocity - (batch.noise - batch.data)).square().mean())

    def at(self, schedule: Schedule, share: Float) -> Float:
        """The times (B,) of some shares (B,) of their distribution, noisy ones alone."""
        if self.times == "ends":  # the inverse of the density's integral
            low = np.sinh(-STEEP / 2)
            share = 0.5 + np.arcsinh(low + share * (np.sinh(STEEP / 2) - low)) / STEEP
        return schedule.t_min + (schedule.t_max - schedule.t_min) * share

    def plan(self, network: Network, rows: int | None = None) -> Plan:
        return student_plan(schedule_of(network), "euler", self.rows if rows is None else rows, "trailing")
