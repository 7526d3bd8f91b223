"""The teacher, found in a share of the time; the images of a tuning with its solutions; and its path."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fewstep.core.plan import Plan
from fewstep.core.schedule import Float, Schedule
from fewstep.denoise.base import Denoiser, Level, Wrapper
from fewstep.measure.converged import LEAST_FINDING, ConvergedPlan, Goal, find_plan
from fewstep.solvers.compiler import compile
from fewstep.tuning.problem import Problem, Solutions
from fewstep.tuning.settings import HELD_OUT, TRAIN, VALIDATION, Sizes
from fewstep.tuning.task import TuningTask
from fewstep.tuning.timelimit import TimeLimit

SHARE = 0.03
"""Of the error of the default: that of the teacher is less than its last change, which is bounded by this."""
FINDING_SHARE, SOLVING_SHARE = 0.1, 0.4
"""Of the time: what finding the teacher may take, and then the solutions, with the rivals on held-out images."""
RIVALS = 6
"""About so many are measured on all held-out images."""
PILOT, FEWEST_PILOTS = 16, 4
"""Images on which the teacher is found where no sizes are given, and of a model that is too slow for so many."""


class Lessons(NamedTuple):
    """The teacher, the images with its solutions, and `each`, the seconds that one row of one image takes."""

    teacher: ConvergedPlan
    sizes: Sizes
    each: float
    train: Solutions
    validation: Solutions
    held_out: Solutions


def lessons_of(task: TuningTask) -> Lessons:
    """Find the teacher for plans like the default, and solve; sizes that are not given are what the time allows.

    The least is done whatever it takes: one doubling of the teacher's steps, and the smallest sizes.
    """
    problem, time, sizes = task.problem, task.time, task.settings.sizes
    task.watch("teacher", 0, 4, "how many steps converge")
    pilots = range(TRAIN, TRAIN + (_pilots(problem, time) if sizes is None else sizes.pilot))
    before = time.elapsed
    teacher = find_plan(
        problem.flow,
        pilots,
        Goal(SHARE, judged=task.default, objective=problem.objective),
        enough=lambda more: time.elapsed + more > FINDING_SHARE * time.allowed,
        clock=time.clock,
    )
    each = (time.elapsed - before) / teacher.rows
    steps = len(teacher.plan.rows)
    judging = each * (steps + RIVALS * task.rows)
    sizes = sizes or Sizes.affordable(SOLVING_SHARE * time.allowed, each * steps, judging)
    finer = _twice(problem.schedule, teacher.plan)
    parts = []
    for first, count, plan in (
        (TRAIN, sizes.train, teacher.plan),
        (VALIDATION, sizes.validation, teacher.plan),
        (HELD_OUT, sizes.held_out, finer),
    ):
        numbers = range(first, first + count)
        task.watch("teacher", len(parts) + 1, 4, f"{count} images in {len(plan.rows)} steps")
        parts.append(Solutions(numbers, problem.solve(plan, numbers)))
    return Lessons(teacher, sizes, each, *parts)


def _twice(schedule: Schedule, plan: Plan) -> Plan:
    """The plan with twice as many steps. A learned plan has the teacher's own error too, as it learned it, and would be
    judged too well by it.
    """
    recipe = plan.recipe
    return compile(recipe.sampler, schedule=schedule, steps=2 * recipe.steps, grid=recipe.grid)


def _pilots(problem: Problem, time: TimeLimit) -> int:
    """On how many images the teacher is found: fewer where the least that finds one takes long."""
    step = compile("ddim", schedule=problem.schedule, steps=1, grid="quadratic")
    each = 0.0
    for _ in range(2):  # what a model does once, when it is first called, is not what it costs
        before = time.elapsed
        problem.solve(step, range(TRAIN, TRAIN + PILOT))
        each = (time.elapsed - before) / PILOT
    count = PILOT
    while count > FEWEST_PILOTS and count * LEAST_FINDING * each > FINDING_SHARE * time.allowed:
        count //= 2
    return count


class TeacherPath(NamedTuple):
    """A solution as it goes, of the images of these `numbers`: `times` (m + 1,), decreasing; at each of them the states
    (B, ..), and but for the last time the estimates of the data (B, ..) there.
    """

    numbers: Sequence[int]
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


def watched_run(problem: Problem, plan: Plan, numbers: Sequence[int]) -> tuple[Tensor, Tensor]:
    """The inputs of the rows of a plan and the result, (rows + 1, B, ..), and what they answered, (rows, B, ..)."""
    watched: list[Watched] = []

    def around(denoiser: Denoiser) -> Denoiser:
        watched.append(Watched(denoiser))
        return watched[-1]

    ends = problem.solve(plan, numbers, around)
    rows = range(len(plan.rows))
    states = [torch.cat([one.states[i] for one in watched]) for i in rows]
    data = [torch.cat([one.data[i] for one in watched]) for i in rows]
    return torch.stack([*states, ends]), torch.stack(data)


def path_of(problem: Problem, plan: Plan, numbers: Sequence[int], through: Iterable[float] = ()) -> TeacherPath:
    """The path of the teacher's `plan` for these images. It also goes `through` these times, and keeps what it has
    there.
    """
    recipe = plan.recipe
    through = {*map(float, through)}
    times = np.array(sorted({*recipe.times, *through}, reverse=True))
    if len(times) > len(recipe.times):
        # A step much shorter than its neighbours would spoil the higher orders: the teacher's times give way.
        kept = through | {float(times[0]), float(times[-1])}
        times = np.array([t for t in times if t in kept or not _crowds(problem.schedule, t, kept, times)])
        plan = compile(recipe.sampler, schedule=problem.schedule, times=times)
    return TeacherPath(numbers, times, *watched_run(problem, plan, numbers))


def _crowds(schedule: Schedule, t: float, kept: set[float], times: Float) -> bool:
    """Whether `t` is nearer to a kept time than half the usual step in lambda."""
    lam = float(schedule.lam(t))
    inner = [float(schedule.lam(k)) for k in times[1:-1]]
    usual = (max(inner) - min(inner)) / max(len(inner) - 1, 1)
    return any(abs(float(schedule.lam(k)) - lam) < 0.5 * usual for k in kept if k not in (times[0], times[-1]))
