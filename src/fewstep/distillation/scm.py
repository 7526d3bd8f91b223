"""Continuous-time consistency: the estimate does not change along a trajectory of the flow, by its derivative there.

Lu & Song 2024, arXiv 2410.11081 (sCM). Their TrigFlow is x_trig = cos t x0 + sin t z with z of the data's deviation d,
so k = sigma / alpha = d tan t, and a network F of theirs has the estimate D = cos t x_trig - sin t d F (eq. 5). Any
denoiser has such an F, that is (cos t x_trig - D) / (d sin t), and eq. 8 for it is a loss of D. With c = cos t and s =
sin t, by the level,

    g = (c^2 (1 - r) (D - D') + r dD / d log k) / s         cos t dD/dt; r rises from 0 to 1 in the warm-up
    loss = |(D - stopped D) / (s d) + g / (|g| + 0.1)|^2

where D' is what the trajectory has for the data at this state: the teacher's estimate, guided where it guides, and the
derivative is taken along its trajectory (distillation, sCD); or the clean data themselves, along their own noise
(training, sCT). At r = 0 the loss leads D to D'. |g| is the root mean square over a sample's values, so 0.1 means
the same for all sizes (the paper's norm is that times the root of their number).

Levels are drawn by log k ~ N(mean, deviation^2). The paper's prior weight 1 / (d tan t) is in g. Its other weight,
learned along by a network of t, is left out: it evens out the loss over t, which a tangent of norm 1 is already.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fewstep.core.errors import InvalidInput, number, positive, unknown_name
from fewstep.core.plan import Plan
from fewstep.core.schedule import Schedule
from fewstep.denoise.base import Level
from fewstep.denoise.convert import Network
from fewstep.distillation import derivative
from fewstep.distillation.consistency import NOISIEST, masked, noisiest, plan_to, quietest
from fewstep.distillation.derivative import DERIVATIVE, direction_of, pace_of_log_ratio, tested
from fewstep.training import STUDENT, TEACHER, Batch, Draws, Loss, Needs, Phase, Role, Roles, one_stage, schedule_of
from fewstep.training.draws import Float
from fewstep.training.levels import at_times, noised, time_of_ratio

VELOCITIES = ("teacher", "data")
CONSTANT = 0.1
"""c of g / (|g| + c)."""


@dataclass(frozen=True)
class ContinuousConsistency:
    """Settings of continuous-time consistency distillation and training.

    Attributes:
        velocity: of the trajectory, the "teacher"'s, or that of the "data" with their own noise, which asks no teacher.
        derivative: "jvp", "difference", or "auto", which takes the first where the network allows it.
        warmup: the share of the steps in which r rises to 1.
        least: the smallest k, above 0; where the schedule's own is larger, which networks were trained down to, it is
            that.
        mean, deviation: of log k, from which levels are drawn.
        spread: the standard deviation of the data, for TrigFlow; pixels from -1 to 1 have about 0.5, latents 1.
        rows: of the plan that the student is to be sampled with.
    """

    name: ClassVar[str] = "scm"
    needs: ClassVar[Needs] = Needs(images=True)

    velocity: str = "teacher"
    derivative: str = "auto"
    warmup: float = 0.1
    least: float = 0.002
    mean: float = -1.0
    deviation: float = 1.4
    spread: float = 0.5
    rows: int = 1

    def __post_init__(self) -> None:
        if self.velocity not in VELOCITIES:
            raise unknown_name("velocity", str(self.velocity), VELOCITIES)
        derivative.check_way(self.derivative)
        if type(self.rows) is not int or self.rows < 1:
            raise InvalidInput(f"rows must be a whole number of at least 1, got {self.rows!r}")
        number("mean", self.mean)
        for name in ("least", "deviation", "spread"):
            positive(name, getattr(self, name))
        if not 0 <= number("warmup", self.warmup) <= 1:
            raise InvalidInput(f"warmup is a share of the steps, from 0 to 1, got {self.warmup:g}")
        if self.least >= NOISIEST:
            raise InvalidInput(f"least must be below {NOISIEST:g}, the largest k that is trained, got {self.least:g}")

    def phase(self, step: int, steps: int) -> Phase:
        return one_stage(step, steps)

    def roles(self, student: Role, batch: Batch) -> dict[str, Role]:
        """How the derivative is taken, after a test on some samples; see `derivative.tested`."""
        derivative.check_network(student.network, self.name)
        schedule, count = schedule_of(student.network), len(batch)
        draws = Draws(0, 0, range(count), range(count), count, batch.data.device)
        level = at_times(schedule, self.times(schedule, (np.arange(count) + 0.5) / count, 0.0), batch.data)
        noise = draws.normal("noise", batch.data.shape[1:]).to(batch.data)
        direction = direction_of(schedule, level, batch.data, noise, pace_of_log_ratio(schedule, level))
        estimate = partial(masked, student.answering(batch), draws=draws)
        span = math.log(noisiest(schedule) / quietest(schedule, self.least))
        role = tested(self.derivative, student, estimate, noised(batch.data, noise, level), level, direction, span)
        return {DERIVATIVE: role}

    def losses(self, roles: Roles, batch: Batch, phase: Phase, draws: Draws) -> Iterator[Loss]:
        student, differentiated = roles[STUDENT], derivative.differentiated(roles, self.name)
        schedule = schedule_of(student.network)
        level = at_times(schedule, self.times(schedule, draws.spread("time"), differentiated.step), batch.data)
        noise = draws.normal("noise", batch.data.shape[1:])
        x = noised(batch.data, noise, level)
        data = batch.data
        if self.velocity == "teacher":
            with torch.no_grad():
                data = roles[TEACHER].answering(batch, guided=True).estimate(x, level)[0]
            noise = (x - level.alpha * data) / level.sigma
        direction = direction_of(schedule, level, data, noise, pace_of_log_ratio(schedule, level))
        along = differentiated.along(
            partial(masked, differentiated.bare.answering(batch), draws=draws), x, level, direction
        )
        estimate = masked(student.answering(batch), x, level, draws)
        yield Loss(STUDENT, self.distance(estimate, data, along, level, phase))

    def distance(self, estimate: Tensor, data: Tensor, along: Tensor, level: Level, phase: Phase) -> Tensor:
        """The loss of estimates of the data, the mean over a batch."""
        k = level.sigma / level.alpha
        sine, cosine = k / (k**2 + self.spread**2).sqrt(), self.spread / (k**2 + self.spread**2).sqrt()
        r = min(1.0, phase.share / self.warmup) if self.warmup else 1.0
        still = estimate.detach()
        tangent = (cosine**2 * (1 - r) * (still - data) + r * along) / sine
        return ((estimate - still) / (sine * self.spread) + normalised(tangent)).square().mean()

    def times(self, schedule: Schedule, share: Float, margin: float) -> Float:
        """The times (B,) of some shares (B,) of the distribution of log k, a margin of log k inside of its ends."""
        normal = torch.special.ndtri(torch.from_numpy(share.clip(1e-9, 1 - 1e-9))).numpy()
        ends = math.log(quietest(schedule, self.least)) + margin, math.log(noisiest(schedule)) - margin
        return time_of_ratio(schedule, np.exp(np.clip(self.mean + self.deviation * normal, *ends)))

    def consistent(self, schedule: Schedule) -> tuple[float, float]:
        """The levels k between which the estimate is to be the same all along a trajectory."""
        return quietest(schedule, self.least), noisiest(schedule)

    def plan(self, network: Network, rows: int | None = None) -> Plan:
        return plan_to(schedule_of(network), self.rows if rows is None else rows, self.mean, self.least)


def normalised(tangent: Tensor) -> Tensor:
    """g / (|g| + 0.1), with the root mean square over each sample's values for |g|."""
    norm = tangent.square().flatten(1).mean(1).sqrt()
    return tangent / (norm.reshape(-1, *[1] * (tangent.ndim - 1)) + CONSTANT)
