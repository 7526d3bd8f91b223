"""The search of a family of plans by what they are worth alone: where noise is drawn between rows, or all pictures are
judged together, there is no error whose gradient could lead.

First many plans around the own one, on few images and the better ones on all (as `fewstep.tuning.search`), then an
evolution strategy from the best: the covariance matrix adaptation (Hansen 2016, arXiv 1604.00772) of its author's
package `cma`. Every plan sees the same images and draws the same noise, so that what differs is the plan.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from fewstep.core.errors import InvalidInput
from fewstep.core.plan import Plan
from fewstep.core.schedule import Float
from fewstep.tuning.family import Family

if TYPE_CHECKING:
    from cma import CMAEvolutionStrategy

Score = Callable[[Plan, int], float]
"""What a plan is worth on the first so many training images; less is better, infinite where images are lost."""
RANDOM, SPREADS = 26, (0.5, 1.0, 2.0)
"""Plans that are tried first at random, and how far from the own one, in turn."""
FEWER, KEPT = 4, 4
"""The first are tried on so many times fewer images, and one in so many on all of them."""
FIRST_SHARE = 0.4
"""Of the time of the search."""
STEP, NEAR, LEAST_STEP = 0.6, 0.15, 0.02
"""Of the evolution at first; where the own plan is still the best, as the best is near it then; and where it ends."""
FINALISTS = 4


class Found(NamedTuple):
    """A point of a family, its plan, and what it is worth on all training images."""

    point: Float
    plan: Plan
    value: float


@dataclass(eq=False)
class BlindSearch:
    """A search for the best plans of a family; `run` it.

    Attributes:
        own: the plan at the origin of the family, the first that is tried.
        images: training images; `most`: plans that the evolution tries.
        enough: whether so much of the search is over, a share of it.
        watch: told how many plans were tried, of at most how many, and the best value so far.
        best: the best plans so far on all images, the foremost first; `planned`: how many plans may be tried, `tried`:
            how many were, and `cut`: whether the time ended it.
    """

    family: Family
    own: Plan
    score: Score
    images: int
    most: int
    seed: int = 0
    enough: Callable[[float], bool] = lambda part: False
    watch: Callable[[int, int, float], None] = lambda done, of, best: None
    best: list[Found] = field(default_factory=list, init=False)
    planned: int = field(default=0, init=False)
    tried: int = field(default=0, init=False)
    cut: bool = field(default=False, init=False)

    def run(self) -> None:
        """Search. Raises `InvalidInput` where the own plan gives no finite images."""
        self.note(Found(np.zeros(self.family.dimensions), self.own, self.score(self.own, self.images)))
        if not math.isfinite(self.best[0].value):
            raise InvalidInput("the student's own plan gives images that are not finite: try `fewstep doctor`")
        fewer = max(2, self.images // FEWER)
        points = first_points(self.family, self.seed)
        self.planned = len(points) + self.most
        ranked = self.each(points, fewer, FIRST_SHARE / 2)
        self.each([one.point for one in ranked[: max(1, round(len(ranked) / KEPT))]], self.images, FIRST_SHARE)
        self.evolve()

    def each(self, points: Sequence[Float], images: int, share: float) -> list[Found]:
        """What some points are worth, the best first, as long as this share of the search is not over."""
        found = []
        for point in points:
            if self.enough(share):
                self.cut = True
                break
            found += filter(None, [self.valued(point, images)])
        return sorted(found, key=lambda one: one.value)

    def evolve(self) -> None:
        """Go on from the best point."""
        best = self.best[0].point
        strategy, spent = evolution(best, STEP if np.any(best) else NEAR, self.seed), 0
        while spent + strategy.popsize <= self.most and strategy.sigma > LEAST_STEP and not strategy.stop():
            points = strategy.ask()
            values: list[float] = []
            for point in points:
                if self.enough(1.0):
                    self.cut = True
                    return
                found = self.valued(point, self.images)
                values.append(math.inf if found is None else found.value)
            spent += len(points)
            strategy.tell(points, values)

    def valued(self, point: Float, images: int) -> Found | None:
        """What a point is worth; None for one that is no plan, as its times do not fall."""
        try:
            plan = self.family.plan(point)
        except InvalidInput:
            return None
        found = Found(point, plan, self.score(plan, images))
        if images == self.images:
            self.note(found)
        self.tried += 1
        self.watch(self.tried, self.planned, self.best[0].value)
        return found

    def note(self, found: Found) -> None:
        """Keep the best."""
        if math.isfinite(found.value) or not self.best:
            self.best = sorted([*self.best, found], key=lambda one: one.value)[:FINALISTS]


def evolution(mean: Float, step: float, seed: int) -> CMAEvolutionStrategy:
    """A strategy from a mean (d,) with a standard deviation of `step` in every direction. It is silent, and leaves
    numpy's generator alone.
    """
    from cma import CMAEvolutionStrategy  # takes a second, as it loads matplotlib where there is one

    rng = np.random.default_rng(seed)
    own = {"randn": lambda *shape: rng.standard_normal(shape), "seed": math.nan, "verbose": -9}
    return CMAEvolutionStrategy(mean, step, own)


def first_points(family: Family, seed: int) -> list[Float]:
    """What is tried first: the same fresh noise in all rows, and points around the own plan."""
    rng = np.random.default_rng([seed, 1])
    around = [SPREADS[i % len(SPREADS)] * rng.standard_normal(family.dimensions) for i in range(RANDOM)]
    return [*family.levels(), *around]
