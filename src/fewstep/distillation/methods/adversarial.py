"""Adversarial distillation: a discriminator on features of a frozen network tells the student's drawings from data.

The student answers data that is noised to the times of its rows, in one evaluation. Heads look at the features of its
answer x and of data. Of pictures these are those of a frozen network for pictures (ADD, Sauer et al. 2023, arXiv
2311.17042); of any model, and so of latents, those of the teacher itself, where both are noised to a level of their own
(LADD, Sauer et al. 2024, arXiv 2403.12015). With D the answers of the heads,

    student        -D(x) + distil alpha |x - stopped teacher(noised x)|^2
    discriminator  max(0, 1 - D(data)) + max(0, 1 + D(x)) + r1 |dD / d data|^2

The second term of the student is score distillation, with alpha of the level of that noise (ADD, eq. 5); LADD has none.
The penalty R1 (Mescheder et al. 2018, arXiv 1801.04406) is taken by a difference over a step of noise, which needs no
second derivative: (D(data + e n) - D(data))^2 / e^2 is |dD / d data|^2 on average.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from fewstep.core.plan import Plan
from fewstep.denoise.convert import Network
from fewstep.distillation.terms import checks
from fewstep.distillation.terms.eyes import Eyes, eyes_of
from fewstep.distillation.terms.heads import CRITIC, features_of, heads_of, heads_on, layers_of
from fewstep.distillation.terms.matching import TOLD_APART, accuracy, between
from fewstep.distillation.terms.simulation import level_of, plan_among, plans_of, turns_of
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
    one_stage,
    schedule_of,
    still,
)
from fewstep.training.levels import at_times, noised

OWN = "teacher"
STEP = 0.1
"""e: the standard deviation of the noise of the penalty."""


@dataclass(frozen=True)
class Adversarial:
    """Settings of adversarial distillation.

    Attributes:
        rows: evaluations of the student, 1 to 8; `times` of them, the noisiest first, in the schedule's own time, empty
            for those of the trailing grid. Where one is above the one before, another plan begins, of another number
            of rows, which the student learns too.
        features: what the discriminator looks at: "teacher" (LADD), or a network for pictures (ADD), "clip:FOLDER",
            "dinov2:FOLDER" or the file of a classifier of digits. Never what the student is judged by.
        layers: of that network; empty are the middle of a U-Net, three blocks of a transformer, or all convolutions.
        distil: weight of score distillation, 0 without.
        r1: weight of the penalty, 0 without.
        ratio: steps of the discriminator to one of the student, at least 1.
        critic_rate: learning rate of the heads; None is the student's.
        lowest, highest: between which shares of the range of noise the teacher sees drawings and data.
    """

    name: ClassVar[str] = "add"
    needs: ClassVar[Needs] = Needs(teacher=True, images=True)
    paired: ClassVar[bool] = False

    rows: int = 1
    times: tuple[float, ...] = ()
    features: str = OWN
    layers: tuple[str, ...] = ()
    distil: float = 0.0
    r1: float = 0.1
    ratio: int = 1
    critic_rate: float | None = None
    lowest: float = 0.02
    highest: float = 0.9

    def __post_init__(self) -> None:
        checks.take_lists(self, "times", "layers")
        checks.check_counts(self, rows=8, ratio=1000)
        checks.check_times(self)
        checks.check_weights(self, "distil", "r1")
        checks.check_rates(self, "critic_rate")
        checks.check_range(self)

    @property
    def eyes(self) -> Eyes | None:
        """The network for pictures, None where the teacher's own features are looked at."""
        return None if self.features == OWN else opened(self.features, self.layers)

    @property
    def cycle(self) -> int:
        """Steps from one of the student to the next."""
        return self.ratio

    def phase(self, step: int, steps: int) -> Phase:
        return one_stage(step, steps)

    def roles(self, roles: Roles, batch: Batch) -> dict[str, Role]:
        """The discriminator."""
        roles[STUDENT].module.eval()  # dropout would change what it draws
        with torch.no_grad():
            features = self.seen(roles, batch, batch.data, None)
        return {CRITIC: heads_on(roles[TEACHER].network, features, self.critic_rate)}

    def losses(self, roles: Roles, batch: Batch, phase: Phase, draws: Draws) -> Iterator[Loss]:
        if phase.step % self.ratio == 0:
            x = self.answered(roles, batch, draws)
            with still(roles[CRITIC]):  # until it is back-propagated
                value = -heads_of(roles)(self.seen(roles, batch, x, draws)).mean()
                if self.distil:
                    value = value + self.distil * self.distilled(roles, batch, x, draws)
                yield Loss(STUDENT, value)
            x = x.detach()
        else:
            with torch.no_grad():
                x = self.answered(roles, batch, draws)
        yield self.of_critic(roles, batch, x, draws)

    def answered(self, roles: Roles, batch: Batch, draws: Draws) -> Tensor:
        """The student's estimates (B, ..) of data that is noised to the times of its rows."""
        student = roles[STUDENT]
        level = level_of(turns_of(self.plans(student.network), draws), batch.data)
        noise = draws.normal("start", batch.data.shape[1:]).to(batch.data)
        return student.answering(batch).estimate(noised(batch.data, noise, level), level)[0]

    def seen(self, roles: Roles, batch: Batch, x: Tensor, draws: Draws | None, what: str = "x") -> list[Tensor]:
        """The features of clean states (B, ..), noised first where it is the teacher that looks at them."""
        eyes = self.eyes
        if eyes is not None:
            return eyes(x)
        teacher = roles[TEACHER]
        share = draws.spread("time of the look") if draws is not None else 0.5
        times = between(schedule_of(teacher.network), self.lowest + (self.highest - self.lowest) * share)
        level = at_times(schedule_of(teacher.network), times, x)
        if draws is not None:
            x = noised(x, draws.normal(f"noise of the look at {what}", x.shape[1:]).to(x), level)
        layers = layers_of(teacher.module, self.layers)
        return features_of(teacher.network, teacher.answering(batch), x, level, layers)[1]

    def distilled(self, roles: Roles, batch: Batch, x: Tensor, draws: Draws) -> Tensor:
        """How far drawings are from what the teacher makes of them when they are noised, guided where it guides."""
        schedule = schedule_of(roles[TEACHER].network)
        share = self.lowest + (self.highest - self.lowest) * draws.spread("time of the teacher")
        level = at_times(schedule, between(schedule, share), x)
        noise = draws.normal("noise of the teacher", x.shape[1:]).to(x)
        with torch.no_grad():
            teacher = roles[TEACHER].answering(batch, guided=True)
            target = teacher.estimate(noised(x, noise, level), level)[0]
        return (level.alpha * (x - target).square()).mean()

    def of_critic(self, roles: Roles, batch: Batch, x: Tensor, draws: Draws) -> Loss:
        """The discriminator's loss on data and on drawings (B, ..)."""
        heads = heads_of(roles)
        with torch.no_grad():  # what looks is frozen
            drawings, data = self.seen(roles, batch, x, draws), self.seen(roles, batch, batch.data, draws, "data")
        of_drawings, of_data = heads(drawings), heads(data)
        value = functional.relu(1 - of_data).mean() + functional.relu(1 + of_drawings).mean()
        if self.r1:
            moved = batch.data + STEP * draws.normal("noise of the penalty", x.shape[1:]).to(x)
            with torch.no_grad():
                beside = self.seen(roles, batch, moved, draws, "data")
            value = value + self.r1 * penalty(of_data, heads(beside))
        return Loss(CRITIC, value, {TOLD_APART: accuracy(of_data, of_drawings)})

    def signs(self, roles: Roles, batch: Batch, draws: Draws) -> dict[str, float]:
        """How well the discriminator tells data from drawings, on held-out data."""
        heads = heads_of(roles)
        drawings = heads(self.seen(roles, batch, self.answered(roles, batch, draws), draws))
        return {TOLD_APART: accuracy(heads(self.seen(roles, batch, batch.data, draws, "data")), drawings)}

    def plan(self, network: Network, rows: int | None = None) -> Plan:
        return plan_among(self.plans(network), rows, self.name)

    def plans(self, network: Network) -> tuple[Plan, ...]:
        """Those that the student learns, the one that it recommends first."""
        return plans_of(schedule_of(network), "consistency", self.rows, self.times)


def penalty(answers: Tensor, beside: Tensor) -> Tensor:
    """The square of the gradient of a discriminator's answers (B, places), from those at a step of noise beside."""
    return (beside - answers).mean(1).square().mean() / STEP**2


@lru_cache(maxsize=4)
def opened(features: str, layers: tuple[str, ...]) -> Eyes:
    """A network for pictures, read once."""
    return eyes_of(features, layers)
