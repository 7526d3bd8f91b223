"""Guidance weights: one for all images or one for each, the same in all rows or following the level or the row.

A weight is not a coefficient of the plan: it stands beside the table, and is looked up at the level of each evaluation.
That is also what it means for a sampler of several stages, whose rows are not steps.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from numbers import Real
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from fewstep.core.errors import InvalidInput, shown
from fewstep.core.plan import Plan

if TYPE_CHECKING:
    from torch import Tensor

Weight = Any
"""A number; a `GuidanceSchedule`; or any function of sigma / alpha, inf where alpha is 0."""

EVERYWHERE = (0.0, math.inf)


class Moment(NamedTuple):
    """When an image is evaluated: the row of its plan, None where no plan is run, and sigma / alpha, maybe infinite."""

    row: int | None
    ratio: float


def moments_of(levels: Sequence[Sequence[Any]], rows: Sequence[int | None]) -> list[Moment]:
    """The moments at levels that begin with (t, alpha, sigma), in some rows; of both one for all, or one for each."""
    found = []
    for i in range(max(len(levels), len(rows))):
        _, alpha, sigma = levels[i % len(levels)][:3]
        found.append(Moment(rows[i % len(rows)], sigma / alpha if alpha else math.inf))
    return found


class GuidanceSchedule:
    """A weight that follows the level: `GuidanceSchedule(f)` is f(sigma / alpha); or one for each row, see `rows`.

    u = sigma / (alpha + sigma), the time of a flow model at the same level, goes from 1, all noise, to 0, clean data.
    """

    def __init__(self, weight: Callable[[float], float], values: Sequence[float] | None = None):
        self._weight = weight
        self.values = None if values is None else _finite(values, "weights by row")

    @staticmethod
    def linear(noisy: float, clean: float) -> GuidanceSchedule:
        """From `noisy` at u = 1 to `clean` at u = 0, linear in u. Wang et al. 2024, arXiv 2404.13040, find weights that
        grow as the noise falls better than constant ones.
        """
        noisy, clean = _finite([noisy, clean], "the ends of a guidance schedule")
        return GuidanceSchedule(lambda ratio: clean + (noisy - clean) * _share(ratio))

    @staticmethod
    def cosine(noisy: float, clean: float) -> GuidanceSchedule:
        """From `noisy` at u = 1 to `clean` at u = 0 along half a cosine, flat at both ends (arXiv 2404.13040)."""
        noisy, clean = _finite([noisy, clean], "the ends of a guidance schedule")
        return GuidanceSchedule(lambda ratio: noisy + (clean - noisy) * (1 + math.cos(math.pi * _share(ratio))) / 2)

    @staticmethod
    def table(weights: Mapping[float, float]) -> GuidanceSchedule:
        """Piecewise constant: the key is the highest sigma / alpha, inclusive, where its weight holds; inf may be one.

        Above the highest key the weight is 1.
        """
        try:
            ends = sorted(float(ratio) for ratio in weights) if isinstance(weights, Mapping) else []
        except (TypeError, ValueError):
            ends = []
        if not ends or not ends[0] > 0:
            raise InvalidInput(
                "a guidance table maps a sigma / alpha above 0, up to which a weight holds, to the weight: got "
                f"{weights!r}"
            )
        steps = [*_finite([weights[ratio] for ratio in sorted(weights)], "the weights of a guidance table"), 1.0]
        return GuidanceSchedule(lambda ratio: steps[bisect_left(ends, ratio)])

    @staticmethod
    def rows(weights: Sequence[float]) -> GuidanceSchedule:
        """One weight for each row of a plan, in its order; a plan with another number of rows is refused."""

        def no_row(ratio: float) -> float:
            raise InvalidInput(
                "these guidance weights are numbered by the rows of a plan, and no plan is run here: use "
                "fewstep.sample, or a GuidanceSchedule of sigma / alpha"
            )

        return GuidanceSchedule(no_row, weights)

    @staticmethod
    def following(scale: Weight, plan: Plan | None) -> Weight:
        """`scale` as the rows of a tuned plan take it: 1 + (w - 1) r in a row whose factor is r.

        Factors are relative, so that they carry over to other scales. They are `Plan.guidance_factors`; without them,
        and at scale 1, it is `scale` itself.
        """
        if plan is None or plan.guidance_factors is None or scale == 1:
            return scale
        w = _weight(scale)
        each = w.over(plan) if isinstance(w, GuidanceSchedule) else [w] * len(plan.rows)
        return GuidanceSchedule.rows([1 + (at - 1) * r for at, r in zip(each, plan.guidance_factors, strict=True)])

    def over(self, plan: Plan) -> list[float]:
        """The weight in each row of a plan. Raises `InvalidInput` where they are by row, and it has other rows."""
        self.check(plan)
        return [self.at(moment) for moment in moments_of(plan.rows, range(len(plan.rows)))]

    def check(self, plan: Plan) -> None:
        """Raise `InvalidInput` where there are weights by row, and the plan has another number of rows."""
        if self.values is not None and len(self.values) != len(plan.rows):
            raise InvalidInput(
                f"{len(self.values)} guidance weights were given by row, this plan of {plan.recipe.sampler} has "
                f"{len(plan.rows)} rows"
            )

    def at(self, moment: Moment) -> float:
        """The weight at a moment."""
        row, ratio = moment
        if self.values is not None and row is not None:
            return self.values[row]
        try:
            w = float(self._weight(ratio))
        except (TypeError, ArithmeticError) as error:
            raise InvalidInput(f"the guidance schedule has no weight at sigma / alpha = {ratio:g}: {error}") from error
        if not math.isfinite(w):
            raise InvalidInput(f"the guidance schedule gives {w} at sigma / alpha = {ratio:g}; weights are finite")
        return w


def weights_of(scale: Weight | Sequence[Weight]) -> list[float | GuidanceSchedule]:
    """The weights of a batch, one for all images or one for each. Raises `InvalidInput` for one that is not finite."""
    single = isinstance(scale, Real | GuidanceSchedule) or callable(scale) or getattr(scale, "ndim", None) == 0
    try:
        given: Any = [scale] if single else scale
        each = [] if isinstance(scale, str) else [_weight(w) for w in given]
    except (TypeError, ValueError, OverflowError):
        each = []
    if not each or any(isinstance(w, float) and not math.isfinite(w) for w in each):
        raise InvalidInput(
            "a guidance scale is a finite number or a function of sigma / alpha, or one of these for each image, "
            f"got {shown(scale)}"
        )
    return each


def by_row(weight: Weight) -> bool:
    """Whether a weight is given for each row of a plan."""
    return isinstance(weight, GuidanceSchedule) and weight.values is not None


def column(weights: Sequence[float], x: Tensor) -> Any:
    """Weights that multiply states like `x`: a number where they are equal, else a tensor (n, 1, ..)."""
    if len(set(weights)) == 1:
        return weights[0]
    return x.new_tensor(weights).reshape(-1, *[1] * (x.ndim - 1))


def check_negative(scale: Weight | Sequence[Weight], *, distilled: bool = False) -> None:
    """Raise `InvalidInput` where a negative prompt that somebody wrote cannot act; call it where prompts come in.

    Args:
        scale: of guidance; where it is one for each image, one of them other than 1 is enough.
        distilled: the network has guidance built in, as FLUX.1-dev and LCM, and no other is asked for.
    """
    if any(w != 1 for w in weights_of(scale)):
        return
    if distilled:
        raise InvalidInput(
            "a negative prompt cannot act on a guidance-distilled network, which takes the guidance scale as an input "
            "and runs no negative branch: leave it out, or ask for classifier-free guidance with a scale other than 1, "
            "at two evaluations a row"
        )
    raise InvalidInput(
        "a negative prompt cannot act at guidance scale 1, which is the conditional model alone: leave it out, or "
        "raise the guidance scale"
    )


def _weight(w: Weight) -> float | GuidanceSchedule:
    if isinstance(w, GuidanceSchedule):
        return w
    return GuidanceSchedule(cast(Callable[[float], float], w)) if callable(w) else float(w)


def _share(ratio: float) -> float:
    """sigma / (alpha + sigma)."""
    return ratio / (1 + ratio) if ratio < math.inf else 1.0


def _finite(values: Sequence[float], what: str) -> list[float]:
    try:
        numbers = [] if isinstance(values, str) else [float(v) for v in values]
    except (TypeError, ValueError, OverflowError):
        numbers = []
    if not numbers or not all(math.isfinite(v) for v in numbers):
        raise InvalidInput(f"{what} are finite numbers, got {shown(values)}")
    return numbers
