"""The converged solution from the same noise: what a plan of few rows is measured against.

Samplers of high order double their steps until a doubling changes the images by less than is asked for. That change is
reported as the error of the reference: it is the error of half the steps, so it is more than that of the reference.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fewstep.core.errors import InvalidInput
from fewstep.core.plan import Plan
from fewstep.core.schedule import Float, Schedule
from fewstep.denoise.base import Denoiser, Level, Wrapper
from fewstep.solvers.compile import compile
from fewstep.tuning.problem import Problem, overall, squares

FAMILIES = (("deis-3", "quadratic"), ("unipc-3", "quadratic"), ("unipc-3", "exponential"))
FEWEST, MOST = 24, 384
LEAST_FINDING = 3 * FEWEST * len(FAMILIES)
"""Evaluations of an image that tell by how much one doubling of the fewest steps moves it."""
SHARE = 0.03
"""Of the error of the default: that of the reference is less than its last change, which is bounded by this."""


class Teacher(NamedTuple):
    """`plan` gives the reference, whose distance to the solution is at most about `error` (root mean square).

    `evaluations` is what it took to know, counting each image of a batch.
    """

    plan: Plan
    error: float
    evaluations: int


def find_teacher(
    problem: Problem,
    numbers: Sequence[int],
    judged: Plan,
    share: float = SHARE,
    most: int = MOST,
    enough: Callable[[float], bool] = lambda more: False,
    clock: Callable[[], float] = time.perf_counter,
) -> Teacher:
    """The cheapest plan of `FAMILIES` whose last doubling changed these images by at most `share` of the error of the
    plan that is `judged` by it.

    Where none does within `most` steps, the one that changed least. After a doubling, `enough` is told how many seconds
    by `clock` the next one will take; True ends the search too. Raises `InvalidInput` where no image is finite.
    """
    best: Teacher | None = None
    usual = 0.0
    last: dict[tuple[str, str], Tensor] = {}
    steps, evaluations = FEWEST, judged.nfe * len(numbers)
    own = problem.solve(judged, numbers)
    while steps <= most:
        began = clock()
        for family in FAMILIES:
            plan = compile(family[0], schedule=problem.schedule, steps=steps, grid=family[1])
            now = problem.solve(plan, numbers)
            evaluations += plan.nfe * len(numbers)
            if family in last:
                change = overall(squares(last[family], now), problem.objective)
                if best is None or change < best.error:
                    best = Teacher(plan, change, evaluations)
                    usual = overall(squares(own, now), problem.objective)
            last[family] = now
        if best is not None and best.error < torch.inf and best.error <= share * usual:
            return best._replace(evaluations=evaluations)
        if best is not None and enough(2 * (clock() - began)):
            break
        steps *= 2
    if best is None or not best.error < torch.inf:
        raise InvalidInput(f"{problem.name} gives no finite images in {min(steps, most)} steps: try `fewstep doctor`")
    return best._replace(evaluations=evaluations)


class Path(NamedTuple):
    """A solution as it goes: `times` (m + 1,), decreasing; at each of them the states (B, ..), and but for the last
    time the estimates of the data (B, ..) there.
    """

    times: Float
    states: Tensor  # (m + 1, B, ..)
    data: Tensor  # (m, B, ..)

    def at(self, times: Iterable[float]) -> list[Tensor]:
        """The states at some of the times."""
        own = self.times.tolist()
        return [self.states[own.index(float(t))] for t in times]


class Watched(Wrapper):
    """A denoiser that keeps what it was asked and what it answered."""

    def __init__(self, denoiser: Denoiser):
        super().__init__(denoiser)
        self.states: list[Tensor] = []
        self.data: list[Tensor] = []

    @property
    def affine(self) -> bool:
        return False

    def estimate(self, x: Tensor, level: Level) -> tuple[Tensor, Tensor]:
        data, raw = self.inner.estimate(x, level)
        self.states.append(x.clone())
        self.data.append(data.clone())
        return data, raw


def path_of(problem: Problem, teacher: Teacher, numbers: Sequence[int], through: Iterable[float] = ()) -> Path:
    """The teacher's path for these images. It also goes `through` these times, and keeps what it has there."""
    recipe = teacher.plan.recipe
    through = {*map(float, through)}
    times = np.array(sorted({*recipe.times, *through}, reverse=True))
    plan = teacher.plan
    if len(times) > len(recipe.times):
        # A step much shorter than its neighbours would spoil the higher orders: the teacher's times give way.
        kept = through | {float(times[0]), float(times[-1])}
        times = np.array([t for t in times if t in kept or not _crowds(problem.schedule, t, kept, times)])
        plan = compile(recipe.sampler, schedule=problem.schedule, times=times)
    watched: list[Watched] = []

    def around(denoiser: Denoiser) -> Denoiser:
        watched.append(Watched(denoiser))
        return watched[-1]

    ends = problem.solve(plan, numbers, around)
    states = [torch.cat([one.states[i] for one in watched]) for i in range(plan.nfe)]
    data = [torch.cat([one.data[i] for one in watched]) for i in range(plan.nfe)]
    return Path(times, torch.stack([*states, ends]), torch.stack(data))


def _crowds(schedule: Schedule, t: float, kept: set[float], times: Float) -> bool:
    """Whether `t` is nearer to a kept time than half the usual step in lambda."""
    lam = float(schedule.lam(t))
    inner = [float(schedule.lam(k)) for k in times[1:-1]]
    usual = (max(inner) - min(inner)) / max(len(inner) - 1, 1)
    return any(abs(float(schedule.lam(k)) - lam) < 0.5 * usual for k in kept if k not in (times[0], times[-1]))
