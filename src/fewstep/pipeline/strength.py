"""Plans that start in the middle of a grid: the sampler is compiled anew on the times that are left.

A plan cannot be cut, as a multistep sampler would miss its history. Strength has two meanings:

    "steps"   the last share of the grid: floor(strength N) of N steps, as in diffusers
    "noise"   the sigma of the start: of x = alpha x0 + sigma eps where alpha^2 + sigma^2 = 1, and t of a flow
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from fewstep.core.errors import InvalidInput, one_of
from fewstep.core.plan import Plan
from fewstep.core.schedule import Schedule
from fewstep.drawing import Sampling

MEANINGS = ("steps", "noise")


@dataclass(frozen=True)
class Strength:
    """How much of a grid is run.

    Attributes:
        value: in (0, 1]; 1 is all of it.
        of: one of `MEANINGS`.
        given: whether the caller chose the value.
    """

    value: float
    of: str = "steps"
    given: bool = False

    def __post_init__(self) -> None:
        one_of("strength_of", self.of, MEANINGS)
        share = self.value
        if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share <= 1:
            raise InvalidInput(f"strength must be a number above 0 and at most 1, got {share!r}")

    def times(self, schedule: Schedule, times: tuple[float, ...]) -> tuple[float, ...]:
        """The times that are left of a grid."""
        if self.value == 1:
            return times
        return _last_steps(times, self.value) if self.of == "steps" else _below(schedule, times, self.value)

    def plan(self, schedule: Schedule, sampling: Sampling) -> Plan:
        """The plan of the part of a grid that is left. A given plan decides where to start itself."""
        whole = sampling.compile(schedule)
        if sampling.plan is not None:
            if self.given:
                raise InvalidInput("the plan already decides where to start: leave strength out, or name a sampler")
            return whole
        times = self.times(schedule, whole.recipe.times)
        return whole if times == whole.recipe.times else on_times(sampling, times).compile(schedule)


def on_times(sampling: Sampling, times: tuple[float, ...]) -> Sampling:
    """The sampler of a sampling on given times."""
    return Sampling(sampling.sampler, times=times, options=sampling.options)


def _last_steps(times: tuple[float, ...], share: float) -> tuple[float, ...]:
    steps = len(times) - 1
    kept = int(steps * share)
    if kept < 1:
        raise InvalidInput(
            f"strength {share:g} of {steps} steps leaves none: use a strength of at least {1 / steps:.3g}, more steps, "
            'or strength_of="noise"'
        )
    return times[steps - kept :]


def _below(schedule: Schedule, times: tuple[float, ...], level: float) -> tuple[float, ...]:
    """The time of a level of noise, and the times of the grid below it.

    A time nearer to the start than a quarter of the step that follows is left out: multistep samplers suffer where a
    step is much longer than the one before.
    """
    start = time_of_level(schedule, level)
    below = [t for t in times if t < start]
    if len(below) > 1 and start - below[0] < 0.25 * (below[0] - below[1]):
        del below[0]
    if not below:
        raise InvalidInput(f"no time of the grid is below the noise level {level:g}: use a greater strength")
    return start, *below


def time_of_level(schedule: Schedule, level: float) -> float:
    """The time at which a state holds noise of standard deviation `level` in (0, 1); the noisiest where none does.

    Where the data's share does not shrink (`edm`), it is that of the state scaled to alpha^2 + sigma^2 = 1.
    """
    alpha = 1 - level if schedule.kind == "flow" else math.sqrt((1 - level) * (1 + level))
    lam = math.log(alpha / level)
    if lam <= float(schedule.lam(schedule.t_max)):
        return schedule.t_max
    return float(schedule.time_of_lambda(lam))
