"""Guidance in some rows alone: at the cost of N guided rows more rows, of which fewer are guided.

A guided row costs two evaluations, another one. Guidance matters at the noise levels in between (Kynkaanniemi et al.
2024, arXiv 2404.07724), so that a step more can be worth more than guidance in a row at the ends. For 2 N evaluations
there are layouts of N to 2 N - 1 rows, whose guided ones stand together; this finds the best of them by least squares.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from fewstep.core.errors import InvalidInput
from fewstep.core.schedule import Float
from fewstep.tuning.fit import Fitted, fitted_table, moved_times
from fewstep.tuning.problem import Problem
from fewstep.tuning.teacher import TeacherPath
from fewstep.tuning.times import cheapest_times

KEPT, MOVED = 6, 2
"""Layouts that are tried at more times, and whose times are moved."""


class RowLayout(NamedTuple):
    """`rows`, of which `guided` are guided from row `first` on."""

    rows: int
    first: int
    guided: int

    @property
    def evaluations(self) -> int:
        """Of the network, an image."""
        return self.rows + self.guided

    @property
    def factors(self) -> tuple[float, ...]:
        """By row, as in `fewstep.Plan`: 0 is not guided."""
        after = self.rows - self.first - self.guided
        return (0.0,) * self.first + (1.0,) * self.guided + (0.0,) * after


def layouts(evaluations: int, most: int) -> list[RowLayout]:
    """Those that cost so many evaluations an image in at most `most` rows, all rows guided first."""
    return [
        RowLayout(evaluations - guided, first, guided)
        for guided in range(evaluations // 2, 0, -1)
        if evaluations - guided <= most
        for first in range(evaluations - 2 * guided + 1)
    ]


def fitted_layouts(
    problem: Problem,
    path: TeacherPath,
    costs: Float,
    evaluations: int,
    most: int,
    discounts: Sequence[float],
    enough: Callable[[], bool] = lambda: False,
    watch: Callable[[int, int, float], None] = lambda done, of, error: None,
) -> list[Fitted]:
    """The best tables for these evaluations, each of another layout, the best first; all but one guide some rows alone.

    Args:
        costs: of `step_costs`, for times by dynamic programming with each of the `discounts`.
        enough: asked before each fit; True ends the search.
        watch: told the fits that are done, of how many, and the least error so far.
    """
    best: dict[RowLayout, Fitted] = {}
    done, known = 0, [one for one in layouts(evaluations, most) if one.rows < len(path.times)]
    middle = sorted(discounts)[len(discounts) // 2]
    total = len(known) + min(KEPT, len(known)) * (len(discounts) - 1)

    def fit(layout: RowLayout, discount: float) -> None:
        nonlocal done
        try:
            times = cheapest_times(path, costs, layout.rows, discount)
            found = fitted_table(problem, path, times, layout.factors)
        except InvalidInput:
            return
        finally:
            done += 1
        if layout not in best or found.error < best[layout].error:
            best[layout] = found
        watch(done, total, min(one.error for one in best.values()))

    def ranked() -> list[RowLayout]:
        return sorted(best, key=lambda one: best[one].error)

    for layout in known:
        if not enough():
            fit(layout, middle)
    for layout in ranked()[:KEPT]:
        for discount in discounts:
            if discount != middle and not enough():
                fit(layout, discount)
    for layout in ranked()[:MOVED]:
        best[layout] = moved_times(problem, path, best[layout], enough)
    return [best[layout] for layout in ranked()]
