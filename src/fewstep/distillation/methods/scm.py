"""Continuous-time consistency: the estimate does not change along a trajectory of the flow, by its derivative there.

Lu & Song 2024, arXiv 2410.11081 (sCM). Their TrigFlow is x_trig = cos t x0 + sin t z with z of the data's deviation d,
so k = sigma / alpha = d tan t, and a network F of theirs has the estimate D = cos t x_trig - sin t d F (eq. 5). Any
denoiser has such an F, that is (cos t x_trig - D) / (d sin t), and eq. 8 for it is a loss of D:

    g = (cos^2 t (1 - r) (D - D') + r dD / d log k) / sin t       at r = 1 cos t dD/dt; r rises to 1 in the warm-up
    loss = |(D - stopped D) / (d sin t) + g / (|g| + c)|^2

where D' is what the trajectory has for the data at this state: the teacher's estimate, guided where it guides, and the
derivative is taken along its trajectory (distillation, sCD); or the clean data themselves, along their own noise
(training, sCT). At r = 0 the loss leads D to D'. |g| is the root mean square over a sample's values, so c means the
same for all sizes (the paper's norm is that times the root of their number).

Levels are drawn by log k ~ N(mean, deviation^2), cut at the k that networks were trained at, and at 80, so that alpha
is never too small for a network that predicts the noise. The paper's prior weight 1 / (d tan t) is in g. Its other
weight, learned along by a network of t, is left out: it evens out the loss over t, which a tangent of norm 1 is
already.

With a share of distribution matching beside it (rCM, Zheng et al. 2025, arXiv 2510.08431, who take 0.01) the student's
loss is

    loss + matching times that of `fewstep.distillation.methods.dmd`

of what the student draws by its own plan, with a fake score that learns of these drawings. Consistency keeps what the
teacher can draw, and matching sharpens what the student makes of much noise, where its own errors have added up.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from fewstep.core.errors import InvalidInput, number, positive
from fewstep.core.plan import Plan
from fewstep.core.schedule import Schedule
from fewstep.denoise.base import Level
from fewstep.denoise.convert import Network
from fewstep.distillation.methods.dmd import DistributionMatching
from fewstep.distillation.terms import checks, derivative
from fewstep.distillation.terms.derivative import differentiated, direction_of
from fewstep.distillation.terms.span import NOISIEST, noisiest, plan_to, quietest, ratios
from fewstep.distillation.terms.targets import masked
from fewstep.training import STUDENT, TEACHER, Batch, Draws, Loss, Needs, Phase, Role, Roles, one_stage, schedule_of
from fewstep.training.draws import Float
from fewstep.training.levels import at_times, noised, time_of_ratio

VELOCITIES = ("teacher", "data")


@dataclass(frozen=True)
class ContinuousConsistency:
    """Settings of continuous-time consistency distillation and training.

    Attributes:
        velocity: of the trajectory, the "teacher"'s, or that of the "data" with their own noise, which asks no teacher.
        derivative: "jvp", "difference", or "auto", which takes the first where the network allows it.
        warmup: the share of the steps in which r rises to 1; where it rises fast, a short training is not steady.
        least: the smallest k, above 0; where the schedule's own is larger, which networks were trained down to, it is
            that.
        mean, deviation: of log k, from which levels are drawn.
        sigma_data: d, the standard deviation of the data, for TrigFlow; pixels from -1 to 1 have about 0.5, latents 1.
        constant: c of g / (|g| + c), above 0.
        rows: of the plan that the student is to be sampled with.
        matching: the share of distribution matching, 0 without; with it the student has no dropout, and one step to
            `ratio` of the fake score, None being 5, which learns at `fake_rate`, None being the student's.
    """

    name: ClassVar[str] = "scm"
    needs: ClassVar[Needs] = Needs(images=True)

    velocity: str = "teacher"
    derivative: str = "auto"
    warmup: float = 0.5
    least: float = 0.002
    mean: float = -1.0
    deviation: float = 1.4
    sigma_data: float = 0.5
    constant: float = 0.1
    rows: int = 1
    matching: float = 0.0
    ratio: int | None = None
    fake_rate: float | None = None

    def __post_init__(self) -> None:
        checks.check_known(self, velocity=VELOCITIES)
        derivative.check_way(self.derivative)
        checks.check_counts(self, rows=None)
        number("mean", self.mean)
        for name in ("least", "deviation", "sigma_data", "constant"):
            positive(name, getattr(self, name))
        if not 0 <= number("warmup", self.warmup) <= 1:
            raise InvalidInput(f"warmup is a share of the steps, from 0 to 1, got {self.warmup:g}")
        if self.least >= NOISIEST:
            raise InvalidInput(f"least must be below {NOISIEST:g}, the largest k that is trained, got {self.least:g}")
        checks.check_weights(self, "matching")
        checks.check_rates(self, "fake_rate")
        if self.ratio is not None:
            checks.check_counts(self, ratio=1000)
        if not self.matching and (self.ratio, self.fake_rate) != (None, None):
            raise InvalidInput(
                "ratio and fake_rate are of the fake score, and there is none: give matching, its share, such as 0.01"
            )

    @property
    def matched(self) -> DistributionMatching:
        """The distribution matching beside consistency."""
        usual = DistributionMatching(fake_rate=self.fake_rate)
        return usual if self.ratio is None else replace(usual, ratio=self.ratio)

    @property
    def cycle(self) -> int:
        """Steps from one of the student to the next."""
        return self.matched.cycle if self.matching else 1

    def phase(self, step: int, steps: int) -> Phase:
        return one_stage(step, steps)

    def roles(self, roles: Roles, batch: Batch) -> dict[str, Role]:
        """How the derivative is taken, after a test on some samples; see `derivative.tested`."""
        student, schedule = roles[STUDENT], schedule_of(roles[STUDENT].network)
        level = at_times(schedule, self.times(schedule, (np.arange(len(batch)) + 0.5) / len(batch)), batch.data)
        low, high = self.consistent(schedule)
        further = self.matched.roles(roles, batch) if self.matching else {}
        return further | derivative.role_of(self.name, self.derivative, student, batch, level, math.log(high / low))

    def losses(self, roles: Roles, batch: Batch, phase: Phase, draws: Draws) -> Iterator[Loss]:
        if phase.step % self.cycle == 0:
            yield self.consistency(roles, batch, phase, draws)
        if self.matching:
            plans = (self.plan(roles[STUDENT].network),)
            for loss in self.matched.of_plans(plans, roles, batch, phase, draws):
                share = self.matching if loss.role == STUDENT else 1.0
                yield loss._replace(value=share * loss.value)

    def consistency(self, roles: Roles, batch: Batch, phase: Phase, draws: Draws) -> Loss:
        """The loss of the estimate's change along trajectories."""
        student, moved = roles[STUDENT], differentiated(roles, self.name)
        schedule, data = schedule_of(student.network), batch.data
        level = at_times(schedule, self.times(schedule, draws.spread("time"), moved.step), data)
        noise = draws.normal("noise", data.shape[1:])
        x = noised(data, noise, level)
        if self.velocity == "teacher":
            with torch.no_grad():
                data = roles[TEACHER].answering(batch, guided=True).estimate(x, level)[0]
            noise = (x - level.alpha * data) / level.sigma
        along = moved.along(batch, x, level, direction_of(schedule, level, data, noise), draws)
        estimate = masked(student.answering(batch), x, level, draws)
        tangent = self.tangent(estimate.detach(), data, along, level, phase)
        return Loss(STUDENT, self.loss(estimate, tangent, level), {"tangent": float(size_of(tangent).mean())})

    def signs(self, roles: Roles, batch: Batch, draws: Draws) -> dict[str, float]:
        """How the fake score keeps up, on held-out noise, where there is one."""
        if not self.matching:
            return {}
        return self.matched.signs_of((self.plan(roles[STUDENT].network),), roles, batch, draws)

    def tangent(self, estimate: Tensor, data: Tensor, along: Tensor, level: Level, phase: Phase) -> Tensor:
        """g (B, ..) of estimates of the data, and of their derivatives along a trajectory that has `data` there."""
        sine, cosine = self.angle(level)
        r = min(1.0, phase.share / self.warmup) if self.warmup else 1.0
        return (cosine**2 * (1 - r) * (estimate - data) + r * along) / sine

    def loss(self, estimate: Tensor, tangent: Tensor, level: Level) -> Tensor:
        """The mean over a batch."""
        sine, _ = self.angle(level)
        change = (estimate - estimate.detach()) / (sine * self.sigma_data)
        return (change + tangent / (size_of(tangent) + self.constant)).square().mean()

    def angle(self, level: Level) -> tuple[Tensor, Tensor]:
        """sin t and cos t (B, 1, ..) of TrigFlow."""
        k = level.sigma / level.alpha
        radius = (k**2 + self.sigma_data**2).sqrt()
        return k / radius, self.sigma_data / radius

    def times(self, schedule: Schedule, share: Float, margin: float = 0.0) -> Float:
        """The times (B,) of some shares (B,) of the distribution of log k, inside of its ends by a margin of log k."""
        low, high = self.consistent(schedule)
        ends = low * math.exp(margin), high * math.exp(-margin)
        return time_of_ratio(schedule, ratios(share, self.mean, self.deviation, ends))

    def consistent(self, schedule: Schedule) -> tuple[float, float]:
        """The levels k between which the estimate is to be the same all along a trajectory."""
        return quietest(schedule, self.least), noisiest(schedule)

    def plan(self, network: Network, rows: int | None = None) -> Plan:
        return plan_to(schedule_of(network), self.rows if rows is None else rows, self.mean, self.least)


def size_of(states: Tensor) -> Tensor:
    """(B, 1, ..): the root of the mean square over each sample's values."""
    return states.square().flatten(1).mean(1).sqrt().reshape(-1, *[1] * (states.ndim - 1))
