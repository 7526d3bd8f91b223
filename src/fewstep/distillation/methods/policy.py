"""Imitation by a policy: one call gives estimates of the data all along a row, on whose way the teacher is asked.

pi-Flow (Chen et al. 2025, arXiv 2510.14974) with its policy "DX". From a state at the beginning of a row the student
says once what the data is at places on the way to its end, which makes a way of any number of inner steps without
another call, in closed form: see `fewstep.denoise.row`. The teacher is asked at states that the student's own way
visits, and the velocity of the way is to be the teacher's there:

    loss = |v(x_u, u) - v_teacher(x_u, u)|^2,      v = (x_u - D(u)) / u,      u = sigma / (alpha + sigma)

in the coordinates of a flow, x_u = x / (alpha + sigma), whatever the noise schedule. No gradient goes through the
states or the teacher, so this is a plain regression, without a derivative and without an adversary. Early in the
training a part of the way from a visited state to the next is gone by the teacher's own estimate there, as the states
of a student that knows little say little; that part falls to nothing, as its states are not the student's.

Rows begin at noised pictures of the teacher's. The result is an ordinary model whose rows are DDIM, at one call each.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fewstep.core.errors import InvalidInput, number, positive
from fewstep.core.plan import Plan
from fewstep.core.schedule import Float, Schedule
from fewstep.denoise.base import Denoiser, Level
from fewstep.denoise.convert import Network
from fewstep.denoise.row import MOST_GUESSES, RowFacts, Way, flow_time
from fewstep.distillation.methods.regression import student_plan
from fewstep.distillation.terms import checks
from fewstep.training import (
    STUDENT,
    TEACHER,
    Batch,
    Draws,
    Loss,
    Needs,
    Phase,
    Roles,
    check_rows,
    one_stage,
    schedule_of,
)
from fewstep.training.levels import at_times, column, noised, stepped, time_of_ratio

MOST_ROWS, MOST_VISITS = 16, 64


@dataclass(frozen=True)
class Policy:
    """Settings of imitation by a policy.

    Attributes:
        rows: evaluations of the student, 1 to 16; `grid`: of its times.
        guesses: estimates of the data that one evaluation gives, 1 to 64. One is held still on the whole way.
        visits: states of each way at which the teacher is asked, 1 to 64, an evaluation each, and two where it guides.
        mixing: the share of the training in which the teacher's part of the ways falls from all to nothing, 0 to 1.
        least: the least noise of a visited state, as sigma / (alpha + sigma), above 0; it is raised to the least of the
            schedule.
    """

    name: ClassVar[str] = "policy"
    needs: ClassVar[Needs] = Needs(teacher=True, images=True)

    rows: int = 4
    guesses: int = 4
    visits: int = 4
    grid: str = "trailing"
    mixing: float = 0.5
    least: float = 0.02

    def __post_init__(self) -> None:
        checks.check_counts(self, rows=MOST_ROWS, guesses=MOST_GUESSES, visits=MOST_VISITS)
        if not 0 <= number("mixing", self.mixing) <= 1:
            raise InvalidInput(f"mixing is a share, from 0 to 1, got {self.mixing:g}")
        if positive("least", self.least) >= 1:
            raise InvalidInput(f"least must be below 1, got {self.least:g}")

    @property
    def row_facts(self) -> RowFacts:
        """What the student's network knows of its rows."""
        return RowFacts(guesses=self.guesses)

    def phase(self, step: int, steps: int) -> Phase:
        return one_stage(step, steps)

    def losses(self, roles: Roles, batch: Batch, phase: Phase, draws: Draws) -> Iterator[Loss]:
        student = roles[STUDENT].network.given(batch.condition)
        schedule, times = schedule_of(student), np.array(self.plan(student).recipe.times)
        row = np.minimum((draws.spread("row") * self.rows).astype(int), self.rows - 1)
        here, there = (at_times(schedule, times[row + later], batch.data) for later in (0, 1))
        x = noised(batch.data, draws.normal("noise", batch.data.shape[1:]), here)
        guesses = student.guesses(x, here.towards(there))
        way = Way.of(here.host, there.host, self.guesses)
        places, led = self.places(way, schedule, draws), self.led(phase, draws)
        teacher = roles[TEACHER].answering(batch, guided=True)
        with torch.no_grad():
            targets = answers(teacher, x, here, guesses, Along(schedule, way, places, led))
        loss = x.new_zeros(())
        for u, target in zip(places, targets, strict=True):
            difference = (joined(guesses, way.at(u)) - target) / column(u, x)  # of the velocities, at the same state
            loss = loss + difference.square().mean() / self.visits
        yield Loss(STUDENT, loss)

    def places(self, way: Way, schedule: Schedule, draws: Draws) -> Float:
        """(visits, B) times u of a flow at which the teacher is asked, one in each of as many equal parts of a way."""
        share = (np.arange(self.visits)[:, None] + draws.spread("place")) / self.visits
        least = max(self.least, float(flow_time(schedule.alpha(schedule.t_min), schedule.sigma(schedule.t_min))))
        u = way.begins + (way.ends - way.begins) * share
        return np.minimum(np.maximum(u, least), way.begins)

    def led(self, phase: Phase, draws: Draws) -> list[np.ndarray]:
        """(visits, B): whether a sample comes to a place by the teacher's answer at the one before."""
        share = max(0.0, 1 - phase.share / self.mixing) if self.mixing else 0.0
        return [draws.uniform(f"led to {i}") < share for i in range(self.visits)]

    def plan(self, network: Network, rows: int | None = None) -> Plan:
        check_rows(self.name, self.rows, rows)
        return student_plan(schedule_of(network), "ddim", self.rows, self.grid)


class Along(NamedTuple):
    """The ways of a batch on a noise schedule, the places (visits, B) on them, and which of these are come to by the
    teacher's answer.
    """

    schedule: Schedule
    way: Way
    places: Float
    led: Sequence[np.ndarray]


def answers(teacher: Denoiser, x: Tensor, here: Level, guesses: Tensor, along: Along) -> list[Tensor]:
    """What the teacher says of the data at the places of ways from the states `x` at `here`, which are gone by what the
    student guesses, or by the teacher where a sample is led.
    """
    schedule, way, places, led = along
    found: list[Tensor] = []
    u = way.begins
    for place, by_teacher in zip(places, led, strict=True):
        there = at_flow_times(schedule, place, x)
        data = joined(guesses, way.between(u, place))
        if found:
            data = torch.where(column(by_teacher, x).bool(), found[-1], data)
        x = stepped(x, data, here, there)
        found.append(teacher.estimate(x, there)[0])
        here, u = there, place
    return found


def at_flow_times(schedule: Schedule, u: Float, x: Tensor) -> Level:
    """The level of states `x` (B, ..) at times u (B,) of a flow."""
    with np.errstate(divide="ignore"):
        return at_times(schedule, time_of_ratio(schedule, u / (1 - u)), x)


def joined(guesses: Tensor, weights: Float) -> Tensor:
    """The mean of guesses (B, n, ..) by weights (B, n)."""
    factors = guesses.new_tensor(weights)
    return (guesses * factors.reshape(*factors.shape, *[1] * (guesses.ndim - 2))).sum(1)
