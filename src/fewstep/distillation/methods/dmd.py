"""Distribution matching: what the student draws is to be distributed as the data, whatever noise it is drawn from.

The teacher knows the score of noised data; a second network, the fake score, learns that of the student's own noised
drawings as these change. At a drawing x = f(z) that is noised to x_t, with the estimates of the data D_real and D_fake
there, the gradient of the reverse divergence goes into x alone (Yin et al. 2024, arXiv 2405.14867, DMD2):

    dL / dx = h (D_fake - D_real) / mean |x - D_real|

h = 1 is the reverse divergence of Kullback and Leibler; others are functions of the ratio of densities, exp of what the
discriminator answers (Xu et al. 2025, arXiv 2502.15681, f-distill). "sid" is another gradient over the same networks,
score identity distillation, which goes through both of them (Zhou et al. 2024, arXiv 2404.04057, eq. 23; with the
discriminator it is SiDA, arXiv 2410.14919):

    L = (D_real - D_fake) ((D_real - x) - a (D_real - D_fake)) / mean |x - D_real|

The fake score takes `ratio` steps to one of the student. The discriminator, heads on the middle of the fake score,
tells noised data from noised drawings, which adds what the teacher does not know. In several rows the student learns
from the states of its own drawing. Guidance is in the real score alone: the student has it inside.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from fewstep.core.errors import InvalidInput, is_finite
from fewstep.core.plan import Plan
from fewstep.denoise.base import Level
from fewstep.denoise.convert import Network
from fewstep.distillation.terms import checks
from fewstep.distillation.terms.heads import CRITIC, features_of, heads_of, heads_on, layers_of
from fewstep.distillation.terms.matching import (
    FAKE,
    FAKE_SCORE,
    TOLD_APART,
    accuracy,
    between,
    output_error,
    telling_apart,
)
from fewstep.distillation.terms.simulation import drawn, plan_among, plans_of, turns_of
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
    another,
    one_stage,
    schedule_of,
    still,
)
from fewstep.training.levels import at_times, noised

GRADIENTS = ("dmd", "sid")
MOST_LOG_RATIO = 3.0
"""Of densities, up to which the discriminator is believed."""
DIVERGENCES: Mapping[str, Callable[[Tensor], Tensor]] = {
    "reverse-kl": torch.ones_like,
    "jensen-shannon": lambda r: 2 * r / (1 + r),
    "hellinger": torch.sqrt,
    "jeffreys": lambda r: (1 + r) / 2,
    "forward-kl": lambda r: r,
}
"""h of the ratio of the density of data to that of drawings, as f''(r) r^2 with h(1) = 1."""


@dataclass(frozen=True)
class DistributionMatching:
    """Settings of distribution matching.

    Attributes:
        rows: evaluations of the student, 1 to 8.
        sampler: of its plan: "consistency" draws noise anew between rows, "ddim" does not.
        times: of its rows, the noisiest first, in the schedule's own time; empty are those of the trailing grid. Where
            one is above the one before, another plan begins, of another number of rows, which the student learns too.
        gradient: "dmd" or "sid"; `alpha` is the a of "sid", 1.2 in its first paper, 1 with a discriminator.
        divergence: h, one of `DIVERGENCES`; others than "reverse-kl" ask the discriminator.
        ratio: steps of the fake score to one of the student, at least 1.
        fake_rate, critic_rate: learning rates of the fake score and of the discriminator's heads; None is the
            student's.
        lowest, highest: between which shares of the range of noise the scores are compared.
        adversary: weight of the discriminator in the student's loss, 0 without; `critic` in that of the fake score.
        adversary_from: the share of the training after which the student hears of it.
        layers: of the fake score that the discriminator looks at; empty are its middle, or three of its blocks.
    """

    name: ClassVar[str] = "dmd"
    needs: ClassVar[Needs] = Needs(teacher=True, images=True)
    paired: ClassVar[bool] = False

    rows: int = 1
    sampler: str = "consistency"
    times: tuple[float, ...] = ()
    gradient: str = "dmd"
    alpha: float = 1.0
    divergence: str = "reverse-kl"
    ratio: int = 5
    fake_rate: float | None = None
    critic_rate: float | None = None
    lowest: float = 0.02
    highest: float = 0.98
    adversary: float = 0.0
    critic: float = 0.01
    adversary_from: float = 0.0
    layers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        checks.take_lists(self, "times", "layers")
        checks.check_counts(self, rows=8, ratio=1000)
        checks.check_times(self)
        checks.check_weights(self, "alpha", "adversary", "critic")
        checks.check_rates(self, "fake_rate", "critic_rate")
        checks.check_range(self)
        checks.check_known(self, gradient=GRADIENTS, divergence=DIVERGENCES, sampler=("consistency", "ddim"))
        self._check_adversary()

    def _check_adversary(self) -> None:
        if not (is_finite(self.adversary_from) and 0 <= self.adversary_from < 1):
            raise InvalidInput(f"adversary_from is a share of the training, 0 to 1, got {self.adversary_from!r}")
        if not self.adversary and (self.layers or self.adversary_from or self.critic_rate or self.discerning):
            raise InvalidInput(
                "layers, adversary_from, critic_rate and divergences other than reverse-kl are of the discriminator, "
                "and there is none: give adversary, its weight, such as 0.001"
            )
        if self.adversary and not self.critic:
            raise InvalidInput("a discriminator that does not learn tells nothing: give critic above 0")
        if self.gradient == "sid" and self.discerning:
            raise InvalidInput("divergences are of the gradient dmd: leave out divergence, or take gradient=dmd")

    @property
    def discerning(self) -> bool:
        """Whether the gradient of the scores asks the discriminator."""
        return self.divergence != "reverse-kl"

    @property
    def without_data(self) -> str:
        """Real pictures are what the discriminator compares drawings with; the scores ask for none."""
        if self.adversary:
            return ""
        return "it shows pictures to a discriminator alone, and there is none: give adversary, its weight"

    @property
    def cycle(self) -> int:
        """Steps from one of the student to the next."""
        return self.ratio

    def hardest(self, steps: int) -> int:
        """A step of the student, with the discriminator where there is one."""
        first = math.ceil(self.adversary_from * steps / self.ratio) * self.ratio
        return min(first, (steps - 1) // self.ratio * self.ratio)

    def phase(self, step: int, steps: int) -> Phase:
        return one_stage(step, steps)

    def roles(self, roles: Roles, batch: Batch) -> dict[str, Role]:
        """The fake score, as the teacher, and the discriminator."""
        roles[STUDENT].module.eval()  # dropout would change what it draws
        fake = another(roles, self.fake_rate)
        if not self.adversary:
            return {FAKE: fake}
        layers = layers_of(fake.module, self.layers)
        level = at_times(schedule_of(fake.network), between(schedule_of(fake.network), 0.5), batch.data)
        with torch.no_grad():
            features = features_of(fake.network, fake.answering(batch), batch.data, level, layers)[1]
        return {FAKE: fake, CRITIC: heads_on(fake.network, features, self.critic_rate)}

    def losses(self, roles: Roles, batch: Batch, phase: Phase, draws: Draws) -> Iterator[Loss]:
        yield from self.of_plans(self.plans(roles[STUDENT].network), roles, batch, phase, draws)

    def of_plans(self, plans: Sequence[Plan], roles: Roles, batch: Batch, phase: Phase, draws: Draws) -> Iterator[Loss]:
        """The losses of a student that draws by some plans."""
        student, fake = roles[STUDENT], roles[FAKE]
        check_alike(roles[TEACHER].network, fake.network)
        turns = turns_of(plans, draws)
        if phase.step % self.ratio == 0:
            x = drawn(turns, student, batch, draws)
            with still(*(roles[name] for name in (FAKE, CRITIC) if name in roles)):  # until it is back-propagated
                yield self.of_student(roles, batch, x, self.noised(roles, x, draws, "student"), phase)
            x = x.detach()
        else:
            with torch.no_grad():
                x = drawn(turns, student, batch, draws)
        yield self.of_fake(roles, batch, x, draws)

    def noised(self, roles: Roles, x: Tensor, draws: Draws, purpose: str) -> Noised:
        """Drawings (B, ..) at levels of noise of their own."""
        schedule = schedule_of(roles[TEACHER].network)
        share = self.lowest + (self.highest - self.lowest) * draws.spread(f"time of the {purpose}")
        level = at_times(schedule, between(schedule, share), x)
        return Noised(noised(x, draws.normal(f"noise of the {purpose}", x.shape[1:]).to(x), level), level)

    def of_student(self, roles: Roles, batch: Batch, x: Tensor, at: Noised, phase: Phase) -> Loss:
        """The student's loss, of its drawings (B, ..) as they are noised."""
        hears = self.adversary > 0 and phase.share >= self.adversary_from
        real = roles[TEACHER].answering(batch, guided=True)
        if self.gradient == "sid" or hears:
            theirs, told = self.by_fake(roles, batch, at)
        else:
            with torch.no_grad():
                theirs, told = self.by_fake(roles, batch, at)
        if self.gradient == "sid":
            value = identity(x, real.estimate(at.states, at.level)[0], theirs, self.alpha)
        else:
            with torch.no_grad():
                ours = real.estimate(at.states, at.level)[0]
            gradient = direction(x.detach(), ours, theirs.detach())
            if told is not None and self.discerning:
                gradient = self.weight(told.detach()).reshape(-1, *[1] * (x.ndim - 1)) * gradient
            value = towards(x, gradient)
        if hears and told is not None:
            value = value + self.adversary * functional.softplus(-told).mean()
        return Loss(STUDENT, value)

    def by_fake(self, roles: Roles, batch: Batch, at: Noised) -> tuple[Tensor, Tensor | None]:
        """The fake score's estimate, and what the discriminator answers (B, places), where there is one."""
        fake = roles[FAKE]
        if not self.adversary:
            return fake.answering(batch).estimate(at.states, at.level)[0], None
        layers = layers_of(fake.module, self.layers)
        estimate, features = features_of(fake.network, fake.answering(batch), at.states, at.level, layers)
        return estimate, heads_of(roles)(features)

    def weight(self, told: Tensor) -> Tensor:
        """h (B,) of what the discriminator answers (B, places)."""
        return DIVERGENCES[self.divergence](told.mean(1).clamp(-MOST_LOG_RATIO, MOST_LOG_RATIO).exp())

    def of_fake(self, roles: Roles, batch: Batch, x: Tensor, draws: Draws) -> Loss:
        """The loss of the fake score on drawings (B, ..), and of the discriminator on these and on data."""
        at = self.noised(roles, x, draws, "fake")
        estimate, told = self.by_fake(roles, batch, at)
        value = output_error(roles[FAKE].network, estimate, x, at.level)
        if told is None:
            return Loss(FAKE, value)
        noise = draws.normal("noise of data", x.shape[1:]).to(x)
        of_data = self.by_fake(roles, batch, Noised(noised(batch.data, noise, at.level), at.level))[1]
        assert of_data is not None
        value = value + self.critic * telling_apart(of_data, told)
        return Loss(FAKE, value, {TOLD_APART: accuracy(of_data, told)}, also=(CRITIC,))

    def signs(self, roles: Roles, batch: Batch, draws: Draws) -> dict[str, float]:
        """How the fake score keeps up, and how well the discriminator tells data from drawings, on held-out noise."""
        return self.signs_of(self.plans(roles[STUDENT].network), roles, batch, draws)

    def signs_of(self, plans: Sequence[Plan], roles: Roles, batch: Batch, draws: Draws) -> dict[str, float]:
        """As `signs`, of a student that draws by some plans."""
        x = drawn(turns_of(plans, draws), roles[STUDENT], batch, draws)
        theirs, of_data = (self.noised(roles, states, draws, "sign") for states in (x, batch.data))
        estimate, told = self.by_fake(roles, batch, theirs)
        own = output_error(roles[FAKE].network, estimate, x, theirs.level)
        known = roles[TEACHER].answering(batch).estimate(of_data.states, of_data.level)[0]
        found = {FAKE_SCORE: float(own / output_error(roles[TEACHER].network, known, batch.data, of_data.level))}
        if told is None:
            return found
        answers = self.by_fake(roles, batch, of_data)[1]
        assert answers is not None
        return found | {TOLD_APART: accuracy(answers, told)}

    def plan(self, network: Network, rows: int | None = None) -> Plan:
        return plan_among(self.plans(network), rows, self.name)

    def plans(self, network: Network) -> tuple[Plan, ...]:
        """Those that the student learns, the one that it recommends first."""
        return plans_of(schedule_of(network), self.sampler, self.rows, self.times)


class Noised(NamedTuple):
    """States (B, ..) at levels of noise."""

    states: Tensor
    level: Level


def direction(x: Tensor, real: Tensor, fake: Tensor) -> Tensor:
    """dL / dx of drawings (B, ..), of whose noised states two scores give estimates of the data; each on its own."""
    return (fake - real) / scale_of(x, real)


def towards(x: Tensor, gradient: Tensor) -> Tensor:
    """A loss of drawings (B, ..) whose gradient is the one that is given, over how many numbers there are."""
    return 0.5 * (x - (x - gradient).detach()).square().mean()


def identity(x: Tensor, real: Tensor, fake: Tensor, alpha: float) -> Tensor:
    """The loss of score identity distillation, the mean over all numbers of drawings (B, ..)."""
    difference = real - fake
    return (difference * ((real - x) - alpha * difference) / scale_of(x, real)).mean()


def scale_of(x: Tensor, real: Tensor) -> Tensor:
    """The mean size of x - D_real of each drawing, (B, 1, ..), without gradients."""
    size = (x - real).detach().abs().flatten(1).mean(1).clamp_min(torch.finfo(x.dtype).tiny)
    return size.reshape(-1, *[1] * (x.ndim - 1))


def check_alike(real: Network, fake: Network) -> None:
    """Raise `InvalidInput` where two scores are of different kinds, so that their difference means nothing."""
    ours, theirs = schedule_of(real), schedule_of(fake)
    for what, one, other in (
        ("predicts", real.prediction, fake.prediction),
        ("has the noise schedule", ours.fingerprint, theirs.fingerprint),
    ):
        if one != other:
            raise InvalidInput(
                f"the teacher {what} {one} and the fake score {other}: their difference is no gradient; make the fake "
                "score of the teacher, as fewstep.training.another does"
            )
