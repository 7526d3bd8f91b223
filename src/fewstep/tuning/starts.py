"""Where learning starts: the tables of plans, and weights that are fitted at good times."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from fewstep.core.plan import Plan, TunedFor
from fewstep.core.schedule import Float, Schedule
from fewstep.denoise.factors import factors_of
from fewstep.tuning.fitted import Fitted, fitted_table, moved_times
from fewstep.tuning.problem import Problem
from fewstep.tuning.table import Table, plan_of, table_of
from fewstep.tuning.teacher import Path, Teacher, path_of

MOVED = 2
"""Fitted tables whose times are moved."""


class Start(NamedTuple):
    """A table, and the factors of guidance where they are learned; a row whose factor is 0 is not guided."""

    table: Table
    factors: tuple[float, ...] | None = None

    @staticmethod
    def of(plan: Plan) -> Start | None:
        """The start that a learned plan is; None where it has no table, as far from any sampler as it may be."""
        table = table_of(plan)
        return None if table is None else Start(table, factors_of(plan))

    @property
    def guided(self) -> tuple[bool, ...]:
        """Which rows are guided, where that is learned."""
        return tuple(map(bool, self.factors or ()))

    def plan(self, schedule: Schedule, tuned_for: TunedFor | None = None) -> Plan:
        """As it is before learning. Raises `InvalidInput` as `plan_of`."""
        return plan_of(self.table, schedule, tuned_for, None if all(self.guided) else self.factors)


def fitted_starts(
    problem: Problem,
    teacher: Teacher,
    path: Path,
    times: Sequence[Float],
    plans: Sequence[Plan],
    numbers: Sequence[int],
    enough: Callable[[float], bool] = lambda part: False,
    watch: Callable[[int, float], None] = lambda done, error: None,
) -> list[Table]:
    """The tables of `plans`, the weights fitted at the first one's times and at each of `times`, and these moved.

    Args:
        path: of the images of these `numbers`; `times` are among its own.
        enough: asked while times are moved, with the part of that search that is over at the end of the current one;
            and before each fit, with all of it, whether the tables of plans are to do.
        watch: told how many are moved, and the error of the next.
    """
    tables = [table for plan in plans if (table := table_of(plan)) is not None]
    fitted: list[Fitted] = []
    for at in times:
        if tables and enough(1.0):
            return tables
        fitted.append(fitted_table(problem, path, at, numbers))
    fitted.sort(key=lambda one: one.error)
    if tables:
        own = tables[0].times
        tables.append(fitted_table(problem, path_of(problem, teacher, numbers, own), own, numbers).table)
    for i, one in enumerate(fitted[:MOVED]):
        watch(i, one.error)
        part = (i + 1) / MOVED
        tables += [one.table, moved_times(problem, path, one, numbers, lambda part=part: enough(part)).table]
    return tables
