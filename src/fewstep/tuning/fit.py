"""Where learning starts: the tables of plans, and tables fitted to a converged path without gradients.

With the times given, the weights of each state that bring it nearest to the path's are a small linear problem (variable
projection: Golub & Pereyra 1973), so that a search needs to move the times alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fewstep.core.plan import Plan
from fewstep.core.schedule import Float
from fewstep.measure.distance import overall, squares
from fewstep.tuning.learning import estimate, points_at, ridged
from fewstep.tuning.problem import Problem
from fewstep.tuning.table import Table, table_of, whole
from fewstep.tuning.teacher import TeacherPath, path_of

MOVED = 2
"""Fitted tables whose times are moved."""


class Fitted(NamedTuple):
    """A table, its error on the images it was fitted to, and the factors of guidance it was fitted with."""

    table: Table
    error: float
    factors: tuple[float, ...] | None = None


def fitted_table(problem: Problem, path: TeacherPath, times: Float, factors: Sequence[float] | None = None) -> Fitted:
    """The table whose states are one by one the nearest to the `path`, by least squares.

    `times` (N + 1,) are among the path's; `factors` (N,) are those of guidance by row. It costs one evaluation of each
    row and no gradient.
    """
    targets, (first, *later) = path.at(times), points_at(problem.schedule, np.asarray(times, np.float64))
    n = len(later)
    x = problem.noise(path.numbers) * float(first.sigma)
    sums, state, denoiser = torch.zeros(n, n, dtype=torch.float64), x, problem.begun(path.numbers)
    outputs: list[Tensor] = []
    by_row = [None] * n if factors is None else [torch.tensor(r) if r else 0.0 for r in factors]
    with torch.no_grad():
        for i, (point, after) in enumerate(zip([first, *later], later, strict=False)):
            outputs.append(estimate(denoiser, state, (point, after), i, by_row[i]))
            share = float(after.sigma / first.sigma)
            total = float(after.alpha - first.alpha * share)
            missing = (targets[i + 1] - share * x) / total - outputs[i]
            if i:
                steps = torch.stack(outputs).diff(dim=0).flatten(1).double()
                product = (steps @ missing.flatten().double() / steps.shape[1]).cpu()
                sums[i, :i] = torch.linalg.solve(ridged((steps @ steps.mT / steps.shape[1]).cpu()), -product)
            made = outputs[i]
            for c, one, other in zip(sums[i].tolist(), outputs, outputs[1:], strict=False):
                made = made - c * (other - one)
            state = share * x + total * made
    weights = torch.eye(n, dtype=torch.float64)
    weights[:, :-1] += sums[:, :-1]
    weights[:, 1:] -= sums[:, :-1]
    error = overall(squares(state, targets[-1]), problem.objective)
    table = Table(np.asarray(times, np.float64), whole(np.tril(weights.numpy())))
    return Fitted(table, error, None if factors is None else tuple(factors))


def moved_times(
    problem: Problem,
    path: TeacherPath,
    fitted: Fitted,
    enough: Callable[[], bool] = lambda: False,
) -> Fitted:
    """The best table that is found by moving one time after the other along the path, in steps that become smaller.

    `enough` is asked before each trial; True ends the search.
    """
    own = path.times.tolist()
    places = [own.index(t) for t in fitted.table.times.tolist()]
    width = max(1, len(own) // (4 * len(places)))
    while width:
        better = False
        for k in range(1, len(places) - 1):
            for move in (-width, width):
                if not places[k - 1] < places[k] + move < places[k + 1]:
                    continue
                if enough():
                    return fitted
                trial = [*places[:k], places[k] + move, *places[k + 1 :]]
                found = fitted_table(problem, path, path.times[trial], fitted.factors)
                if found.error < fitted.error:
                    fitted, places, better = found, trial, True
                    break
        width = width if better else width // 2
    return fitted


def starting_tables(
    problem: Problem,
    teacher: Plan,
    path: TeacherPath,
    times: Sequence[Float],
    plans: Sequence[Plan],
    enough: Callable[[float], bool] = lambda part: False,
    watch: Callable[[int, float], None] = lambda done, error: None,
) -> list[Table]:
    """The tables of `plans`, the weights fitted at the first one's times and at each of `times`, and these moved.

    Args:
        times: some that are among the path's.
        enough: asked while times are moved, with the part of that search that is over at the end of the current one;
            and before each fit, with all of it, whether the tables of plans are to do.
        watch: told how many are moved, and the error of the next.
    """
    tables = [table for plan in plans if (table := table_of(plan)) is not None]
    fitted: list[Fitted] = []
    for at in times:
        if tables and enough(1.0):
            return tables
        fitted.append(fitted_table(problem, path, at))
    fitted.sort(key=lambda one: one.error)
    if tables:
        own = tables[0].times
        tables.append(fitted_table(problem, path_of(problem, teacher, path.numbers, own), own).table)
    for i, one in enumerate(fitted[:MOVED]):
        watch(i, one.error)
        part = (i + 1) / MOVED
        tables += [one.table, moved_times(problem, path, one, lambda part=part: enough(part)).table]
    return tables
