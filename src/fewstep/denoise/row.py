"""What a network knows of the row that it is asked for: where the row leads, and the data on the way there.

Most networks know where they are alone. One that is told a second time r as well answers for the whole way from t to r,
such as by an average velocity u(x, t, r) (Geng et al. 2025, arXiv 2505.13447, eq. 3). DDIM with its estimate of the
data goes exactly there, so it is drawn with by DDIM, over any times.

A network may also give several estimates of the data in one call, D_1 .. D_n, which belong to places on the way: a
policy, which needs no further call until the way is over ("DX" of Chen et al. 2025, arXiv 2510.14974). The places lie
evenly between both ends in the time of a flow model, u = sigma / (alpha + sigma), and between them the estimate is
linear in u. Given x_k at its beginning the way is a linear equation, whose solution in s = sigma / alpha is

    x_r / alpha_r = r / k x_k / alpha_k + r int_r^k D(s) / s^2 ds

which is DDIM from k to r with one estimate: the mean of D(s) over 1 / s, of which 1 / u differs by a constant. So the
estimates become one, with weights that depend on the two ends alone; where the way ends clean it is the last of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from fewstep.core.errors import InvalidInput
from fewstep.core.plan import Plan
from fewstep.core.schedule import Float

Triple = tuple[float, float, float]
MOST_GUESSES = 64
SHORT = 1e-6
"""Of its length in u: on a shorter way the mean is the value in its middle, which rounding leaves more of."""
SAME = 1e-9


@dataclass(frozen=True)
class RowFacts:
    """What a network knows of its rows.

    Attributes:
        second_time: whether it is told where its row leads, as `r`, a time of its own as `t` is.
        guesses: how many estimates of the data it gives in one call, as so many times the channels, those of the
            first estimate first.
    """

    second_time: bool = False
    guesses: int = 1

    def __post_init__(self) -> None:
        if type(self.second_time) is not bool:
            raise InvalidInput(f"second_time is true or false, got {self.second_time!r}")
        if type(self.guesses) is not int or not 1 <= self.guesses <= MOST_GUESSES:
            raise InvalidInput(f"guesses must be a whole number from 1 to {MOST_GUESSES}, got {self.guesses!r}")

    def __bool__(self) -> bool:
        """Whether it knows anything."""
        return self.second_time or self.guesses > 1

    def __str__(self) -> str:
        """What it does, after the name of a network."""
        told = ["is told where each row leads"] if self.second_time else []
        return " and ".join(told + ([f"gives {self.guesses} guesses for a row"] if self.guesses > 1 else []))

    def check(self, plan: Plan, name: str = "this network") -> None:
        """Raise `InvalidInput` where the network `name` cannot be drawn with by a plan."""
        if self and not is_direct(plan):
            recipe = plan.recipe
            how = f"{recipe.sampler} on a grid that goes up" if recipe.reverse else recipe.sampler
            raise InvalidInput(
                f"{name} {self}, and goes there in one step of DDIM: {how} has memory, stages or noise, or goes to "
                "more noise. Draw by its own plan, or by ddim where it may have other times"
            )


NO_ROW = RowFacts()
"""Of a network that knows nothing of its rows."""


def is_direct(plan: Plan) -> bool:
    """Whether each row of a plan is DDIM from its input to where it leads, at less noise, and nothing else."""
    if plan.registers != 1 or plan.stochastic or plan.inputs != 1:
        return False
    for row, (_, alpha, sigma), kept, data in zip(plan.rows, plan.ends, plan.A[:, 0, 0], plan.B[:, 0], strict=True):
        share = sigma / row.sigma
        other = np.abs([kept - share, data.sum() - (alpha - row.alpha * share)]).max() > SAME * max(1.0, sigma)
        if other or sigma * row.alpha >= alpha * row.sigma:
            return False
    return True


def flow_time(alpha: ArrayLike, sigma: ArrayLike) -> Float:
    """u = sigma / (alpha + sigma), from 1, all noise, to 0, clean data."""
    alpha, sigma = np.asarray(alpha, np.float64), np.asarray(sigma, np.float64)
    return sigma / (alpha + sigma)


class Way:
    """Ways from some times u (B,) of a flow down to others, and the places of `count` estimates on each."""

    def __init__(self, begins: ArrayLike, ends: ArrayLike, count: int) -> None:
        ends, begins = np.atleast_1d(np.asarray(ends, np.float64)), np.atleast_1d(np.asarray(begins, np.float64))
        self.begins, self.ends = np.broadcast_arrays(begins, ends)
        self.count = count
        share = np.linspace(0.0, 1.0, count)
        self.places = self.begins[:, None] + (self.ends - self.begins)[:, None] * share

    @staticmethod
    def of(here: Sequence[Triple], there: Sequence[Triple], count: int) -> Way:
        """Between levels (t, alpha, sigma), one for all or one for each."""
        begins, ends = (np.array(each, np.float64) for each in (here, there))
        return Way(flow_time(begins[:, 1], begins[:, 2]), flow_time(ends[:, 1], ends[:, 2]), count)

    def at(self, u: ArrayLike) -> Float:
        """(B, count) weights of the estimates at times u (B,) of the way."""
        u = np.broadcast_to(np.asarray(u, np.float64), self.begins.shape)
        if self.count == 1:
            return np.ones((len(u), 1))
        length = np.where(self.begins > self.ends, self.begins - self.ends, 1.0)
        share = np.clip((self.begins - u) / length, 0.0, 1.0) * (self.count - 1)
        return np.clip(1 - np.abs(share[:, None] - np.arange(self.count)), 0.0, 1.0)

    def between(self, first: ArrayLike, last: ArrayLike) -> Float:
        """(B, count) weights of the estimates in the one with which DDIM goes from u = `first` to u = `last`."""
        first, last = (np.broadcast_to(np.asarray(u, np.float64), self.begins.shape) for u in (first, last))
        short = first - last <= SHORT * first
        middle = self.at(np.where(short, (first + last) / 2, last))  # all that counts on ways that end clean
        if self.count == 1:
            return middle
        whole = short | (last == 0)
        a, b = first[:, None], np.where(whole, first / 2, last)[:, None]
        high, low = (np.clip(self.places[:, i : self.count - 1 + i], b, a) for i in (0, 1))
        area, mass = 1 / low - 1 / high, np.log(high / low)  # the integrals of 1 / u^2 and 1 / u
        width = self.places[:, :-1] - self.places[:, 1:]
        width = np.where(width > 0, width, 1.0)
        later = (self.places[:, :-1] * area - mass) / width  # of the estimate at the lower end of each part
        weights = np.zeros((len(first), self.count))
        weights[:, :-1] += area - later
        weights[:, 1:] += later
        weights = weights / (1 / b - 1 / a)
        return np.where(whole[:, None], middle, weights)

    @property
    def weights(self) -> Float:
        """(B, count) of the whole way."""
        return self.between(self.begins, self.ends)
