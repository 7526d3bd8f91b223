"""Flow maps by average velocities: one call answers for the whole way from one level to another.

MeanFlow (Geng et al. 2025, arXiv 2505.13447). On a flow y = (1 - t) x0 + t e with velocity v, the average velocity from
t down to r, u(y, t, r) = int_r^t v dt' / (t - r), fulfils (eq. 6)

    u = v - (t - r) du/dt,      du/dt = du/dy v + du/dt at r held still

so a step of any length y_r = y - (t - r) u is exact. The loss is that of iMF (Geng et al. 2025, arXiv 2512.02012), a
regression on velocities, with "improved"; or "original", the same but for the direction of the derivative:

    loss = |V - v|^2 / stopped(|V - v|^2 + c)^p,      V = u + (t - r) stopped(du/dt)

v is e - x0 of the data with their own noise, or the teacher's velocity, guided where it guides. The derivative of
"improved" is along the velocity that the student predicts, u(y, t, t), which has no noise in it; of "original" along v.
A teacher's velocity has no noise either: with it both are one loss, along v. |.| is the root mean square over the
values of a sample.

On any noise schedule y = x / (alpha + sigma) and t = sigma / (alpha + sigma). The student's estimate of the data is
D = y - t u, so the student is drawn with by DDIM, in any number of rows, and with k = sigma / alpha

    (t - r) du/dt = (1 - r / t) (v - u - dD/dt),      dD/dt = dD/d log k / (t (1 - t))
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from fewstep.core.errors import InvalidInput, not_negative, number, positive
from fewstep.core.plan import Plan
from fewstep.core.schedule import Schedule
from fewstep.denoise.base import Denoiser, Level
from fewstep.denoise.convert import Network
from fewstep.denoise.row import RowFacts
from fewstep.distillation.methods.scm import VELOCITIES
from fewstep.distillation.terms import checks, derivative
from fewstep.distillation.terms.derivative import differentiated, direction_of
from fewstep.distillation.terms.span import NOISIEST, noisiest, quietest, ratios
from fewstep.distillation.terms.targets import masked
from fewstep.solvers.compiler import compile
from fewstep.training import STUDENT, TEACHER, Batch, Draws, Loss, Needs, Phase, Role, Roles, one_stage, schedule_of
from fewstep.training.draws import Float
from fewstep.training.levels import at_times, column, noised, time_of_ratio
from fewstep.training.scale import Scales, checked

LOSSES = ("improved", "original")
MEAN = -0.4
"""Of log k, with a deviation of 1, for the pictures of Geng et al. 2025 (table 4)."""


@dataclass(frozen=True)
class MeanFlow:
    """Settings of MeanFlow.

    Attributes:
        velocity: the "teacher"'s, or that of the "data" with their own noise, which asks no teacher.
        loss: "improved" or "original", which is for the velocity of data alone.
        derivative: "jvp", "difference", or "auto", which takes the first where the network allows it.
        still: the share of samples whose way has no length, r = t, which learn the velocity itself.
        power, constant: p and c of the weight.
        least: the smallest k, above 0, at which the student is asked; where the schedule's own is larger, it is that.
            Ways go on to the clean data.
        mean, deviation: of log k = log t / (1 - t), from which both ends of a way are drawn; a deviation of 0 draws
            them evenly in t, so that long ways, of which few rows are made, are not rare.
        lowest, highest: guidance scales that the student is told, drawn evenly; None has the one that the teacher draws
            with inside.
        rows: of the plan that the student is to be sampled with, evenly in t.
    """

    name: ClassVar[str] = "meanflow"
    needs: ClassVar[Needs] = Needs(images=True)
    row_facts: ClassVar[RowFacts] = RowFacts(second_time=True)

    velocity: str = "teacher"
    loss: str = "improved"
    derivative: str = "auto"
    still: float = 0.25
    power: float = 0.5
    constant: float = 1e-3
    least: float = 0.002
    mean: float = MEAN
    deviation: float = 0.0
    lowest: float | None = None
    highest: float | None = None
    rows: int = 1

    def __post_init__(self) -> None:
        checks.check_known(self, velocity=VELOCITIES, loss=LOSSES)
        if (self.velocity, self.loss) == ("teacher", "original"):
            raise InvalidInput(
                "the original loss differs for velocities of data alone, as a teacher's has no noise in it: give "
                "velocity=data, or leave the loss improved"
            )
        derivative.check_way(self.derivative)
        checks.check_counts(self, rows=None)
        if not 0 <= number("still", self.still) < 1:
            raise InvalidInput(f"still is a share of the samples, from 0 and below 1, got {self.still:g}")
        number("mean", self.mean)
        not_negative(power=self.power, deviation=self.deviation)
        positive("constant", self.constant)
        if positive("least", self.least) >= NOISIEST:
            raise InvalidInput(f"least must be below {NOISIEST:g}, the largest k that is trained, got {self.least:g}")
        if not self.deviation and self.mean != MEAN:
            raise InvalidInput(f"a mean of log k goes with a deviation above 0, got the mean {self.mean:g} alone")
        if self.scales is not None and self.velocity != "teacher":
            raise InvalidInput("scales of guidance are a teacher's: give velocity=teacher, or no lowest and highest")

    @property
    def scales(self) -> Scales | None:
        """The interval of guidance scales that the student is told."""
        given = (self.lowest, self.highest)
        return None if given == (None, None) else checked(given)

    def phase(self, step: int, steps: int) -> Phase:
        return one_stage(step, steps)

    def roles(self, roles: Roles, batch: Batch) -> dict[str, Role]:
        """How the derivative is taken, after a test on some samples; see `derivative.tested`."""
        student, share = roles[STUDENT], (np.arange(len(batch)) + 0.5) / len(batch)
        schedule = schedule_of(student.network)
        t = self.times(schedule, share)
        here, there = (self.level(schedule, times, batch.data) for times in (t, t / 2))
        low, high = self.between(schedule)
        span = math.log(high / low)
        return derivative.role_of(self.name, self.derivative, student, batch, here.towards(there), span)

    def losses(self, roles: Roles, batch: Batch, phase: Phase, draws: Draws) -> Iterator[Loss]:
        student, moved = roles[STUDENT], differentiated(roles, self.name)
        schedule, batch = schedule_of(student.network), student.asked(batch, draws)
        t, r = self.ways(schedule, draws, moved.step)
        here, there = (self.level(schedule, each, batch.data) for each in (t, r))
        x, denoiser = batch.data, student.answering(batch)
        aim = Flow(batch.data, draws.normal("noise", x.shape[1:]))
        x = noised(aim.data, aim.noise, here)
        if self.velocity == "teacher":
            aim = velocity_of(roles[TEACHER].answering(batch, guided=True), x, here, draws)
        predicts = self.velocity == "data" and self.loss == "improved"
        going = velocity_of(denoiser, x, here.towards(here), draws) if predicts else aim
        way = here.towards(there)
        along = moved.along(batch, x, way, direction_of(schedule, way, *going), draws)
        estimate = masked(denoiser, x, way, draws)
        time, length = column(t, x), column(1 - r / t, x)
        average = (x / (here.alpha + here.sigma) - estimate) / time
        slope = going.velocity - average.detach() - along / (time * (1 - time))
        squared = (average + length * slope - aim.velocity).square().flatten(1).mean(1)
        weight = (squared.detach() + self.constant) ** -self.power
        yield Loss(STUDENT, (weight * squared).mean(), {"velocity": float(squared.detach().mean())})

    def ways(self, schedule: Schedule, draws: Draws, margin: float = 0.0) -> tuple[Float, Float]:
        """The ends t and r <= t (B,) of ways, in times of a flow; t is a margin of log k inside of what is asked."""
        first, other = (self.times(schedule, share, margin) for share in (draws.spread("time"), draws.uniform("end")))
        t, r = np.maximum(first, other), np.minimum(first, other)
        least = flow_times(self.between(schedule)[0] * math.exp(margin))
        return t, np.where(draws.uniform("still") < self.still, t, np.where(r > least, r, 0.0))

    def times(self, schedule: Schedule, share: Float, margin: float = 0.0) -> Float:
        """The times of a flow (B,) of some shares (B,) of the distribution, a margin of log k inside of its ends."""
        low, high = self.between(schedule)
        ends = low * math.exp(margin), high * math.exp(-margin)
        if self.deviation:
            return flow_times(ratios(share, self.mean, self.deviation, ends))
        low, high = map(flow_times, ends)
        return np.maximum(high * share, low)

    def level(self, schedule: Schedule, t: Float, x: Tensor) -> Level:
        """The level of states `x` (B, ..) at times t (B,) of a flow, below 1."""
        return at_times(schedule, time_of_ratio(schedule, t / (1 - t)), x)

    def between(self, schedule: Schedule) -> tuple[float, float]:
        """The least and the largest k at which the student is asked."""
        return quietest(schedule, self.least), noisiest(schedule)

    def plan(self, network: Network, rows: int | None = None) -> Plan:
        schedule, rows = schedule_of(network), self.rows if rows is None else rows
        low, high = map(flow_times, self.between(schedule))
        t = np.linspace(high, low, rows + 1)[:-1]
        times = time_of_ratio(schedule, t / (1 - t))
        return compile("ddim", schedule=schedule, times=[*map(float, times), schedule.t_clean])


class Flow(NamedTuple):
    """Where a state is between, (B, ..) each: data and noise, or estimates of them."""

    data: Tensor
    noise: Tensor

    @property
    def velocity(self) -> Tensor:
        """dy/dt."""
        return self.noise - self.data


@torch.no_grad()
def velocity_of(denoiser: Denoiser, x: Tensor, level: Level, draws: Draws) -> Flow:
    """What a denoiser says of states `x` (B, ..) at a level."""
    data = masked(denoiser, x, level, draws)
    return Flow(data, (x - level.alpha * data) / level.sigma)


def flow_times(k: ArrayLike) -> Float:
    """t = k / (1 + k)."""
    k = np.asarray(k, np.float64)
    return k / (1 + k)
