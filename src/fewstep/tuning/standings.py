"""The rivals on the held-out images: measured before time goes to learning, so that what a plan is compared with does
not depend on how long that takes. All are measured on a few images, and on the others those that may be the best.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import NamedTuple

import torch
from torch import Tensor

from fewstep.core.plan import Plan
from fewstep.measure.distance import overall, squares
from fewstep.tuning.problem import Problem, Solutions

FIRST, MARGIN = 32, 1.5
"""Images that all rivals draw, and how many times the error of the best one may have to draw the others too: the errors
of two plans on 32 images tell more than a tenth apart.
"""


class Standing(NamedTuple):
    """A plan, the mean squared errors (n,) of the first n images, and the evaluations of the network that one takes."""

    plan: Plan
    errors: Tensor
    nfe: float

    @staticmethod
    def of(problem: Problem, plan: Plan, images: Solutions) -> Standing:
        """Draw the images with a plan."""
        states, evaluations = problem.solve_counted(plan, images.numbers)
        return Standing(plan, squares(states, images.targets), evaluations)

    def with_rest(self, problem: Problem, images: Solutions) -> Standing:
        """The same on all of these images, of which the first were drawn."""
        rest = images.after(len(self.errors))
        if not rest.numbers:
            return self
        return self._replace(errors=torch.cat([self.errors, Standing.of(problem, self.plan, rest).errors]))


@dataclass(frozen=True, eq=False)
class Standings:
    """The default and other untuned plans on the held-out images.

    Attributes:
        measured: the default first.
        missing: plans that there was no time for.
    """

    measured: tuple[Standing, ...]
    missing: tuple[Plan, ...]

    @property
    def default(self) -> Standing:
        """That of the plan that is used without tuning, on all images."""
        return self.measured[0]

    @property
    def foremost(self) -> list[Standing]:
        """Those on all images."""
        return [one for one in self.measured if len(one.errors) == len(self.default.errors)]

    @property
    def errors(self) -> Tensor:
        """Mean squared errors (plans, B) of the foremost."""
        return torch.stack([one.errors for one in self.foremost])

    def best(self, objective: str) -> Standing:
        """The one with the least error."""
        return min(self.foremost, key=lambda one: overall(one.errors, objective))

    def find(self, plan: Plan) -> Standing | None:
        """That of a plan, where it was measured on all images."""
        return next((one for one in self.foremost if one.plan.digest == plan.digest), None)


def standings_of(
    problem: Problem,
    default: Plan,
    contenders: Sequence[Plan],
    finalists: Sequence[Plan],
    images: Solutions,
    *,
    enough: Callable[[], bool] = lambda: False,
    watch: Callable[[int, int], None] = lambda done, of: None,
) -> Standings:
    """Measure the default, then the finalists of the search and the contenders in turn, until `enough`."""
    plans = list({plan.digest: plan for plan in (default, *_in_turn(finalists, contenders))}.values())
    first = images.first(FIRST)
    found: list[Standing] = []
    for done, plan in enumerate(plans):
        if found and enough():
            break
        watch(done, 2 * len(plans))
        found.append(Standing.of(problem, plan, first))
    errors = {one.plan.digest: overall(one.errors, problem.objective) for one in found}
    most = MARGIN * min(errors.values())
    ahead = sorted((digest for digest, error in errors.items() if error <= most), key=errors.__getitem__)
    known = {one.plan.digest: one for one in found}
    going = list(dict.fromkeys((default.digest, *ahead))) if len(images.numbers) > FIRST else []
    late: list[str] = []
    for done, digest in enumerate(going):
        if done and enough():
            late = going[done:]
            break
        watch(2 * len(plans) - len(going) + done, 2 * len(plans))
        known[digest] = known[digest].with_rest(problem, images)
    missing = [plan for plan in plans if plan.digest not in known or plan.digest in late]
    return Standings(tuple(known.values()), tuple(missing))


def _in_turn(*several: Sequence[Plan]) -> Iterator[Plan]:
    for some in zip_longest(*several):
        yield from (plan for plan in some if plan is not None)
