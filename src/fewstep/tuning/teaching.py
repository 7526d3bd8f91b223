"""The teacher, found in a share of the time, and the images of a tuning with their converged solutions."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from fewstep.core.plan import Plan
from fewstep.solvers.compile import compile
from fewstep.tuning.problem import Known, Problem
from fewstep.tuning.sizes import HELD_OUT, TRAIN, VALIDATION, Sizes
from fewstep.tuning.stopwatch import Stopwatch
from fewstep.tuning.teacher import LEAST_FINDING, Teacher, find_teacher

FINDING_SHARE, SOLVING_SHARE = 0.1, 0.2
"""Of the time, that finding the teacher and then the converged solutions may take."""
PILOT, FEWEST_PILOTS = 16, 4
"""Images on which the teacher is found where no sizes are given, and of a model that is too slow for so many."""

Watch = Callable[[str, int, int, str], None]


class Taught(NamedTuple):
    """The teacher, the images, and `each`, the seconds that one evaluation of one image takes."""

    teacher: Teacher
    sizes: Sizes
    each: float
    train: Known
    validation: Known
    held_out: Known


def taught(problem: Problem, judged: Plan, sizes: Sizes | None, time: Stopwatch, watch: Watch) -> Taught:
    """Find the teacher for plans like the one that is `judged`, and solve; sizes of None are what the time allows.

    The least is done whatever it takes: one doubling of the teacher's steps, and the smallest sizes.
    """
    watch("teacher", 0, 4, "how many steps converge")
    pilots = range(TRAIN, TRAIN + (_pilots(problem, time) if sizes is None else sizes.pilot))
    before = time.elapsed
    teacher = find_teacher(
        problem,
        pilots,
        judged,
        enough=lambda more: time.elapsed + more > FINDING_SHARE * time.allowed,
        clock=time.clock,
    )
    each = (time.elapsed - before) / teacher.evaluations
    sizes = sizes or Sizes.affordable(SOLVING_SHARE * time.allowed, each * teacher.plan.nfe)
    parts = []
    for first, count in ((TRAIN, sizes.train), (VALIDATION, sizes.validation), (HELD_OUT, sizes.held_out)):
        numbers = range(first, first + count)
        watch("teacher", len(parts) + 1, 4, f"{count} images in {teacher.plan.nfe} steps")
        parts.append(Known(numbers, problem.solve(teacher.plan, numbers)))
    return Taught(teacher, sizes, each, *parts)


def _pilots(problem: Problem, time: Stopwatch) -> int:
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
