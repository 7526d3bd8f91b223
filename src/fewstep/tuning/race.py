"""Learning in the time that is left: from the best start, and of several layouts of guidance after a short race."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import suppress

from fewstep.core.errors import InvalidInput
from fewstep.tuning.learning import Learned, Pace, Start, learn
from fewstep.tuning.task import Best, TuningTask
from fewstep.tuning.teacher import Lessons

RACED, RACE, RACE_SHARE = 3, 100, 0.3
"""Layouts of guidance that learn against each other, iterations of each, and their share of the time to learn."""


def ranked(task: TuningTask, lessons: Lessons, starts: Sequence[Start], best: Best) -> list[Start]:
    """Those that give finite images, the best on the validation images first."""
    scored = []
    for start in starts:
        with suppress(InvalidInput):  # weights so large that rounding alone departs from the schedule
            plan = start.plan(task.problem.schedule, task.tuned_for)
            scored.append((best.tried(task, plan, lessons.validation), start))
    scored.sort(key=lambda one: one[0])
    return [start for error, start in scored if error < math.inf]


def seconds_left(task: TuningTask, lessons: Lessons) -> float:
    """Seconds to learn in: the certificate has to be made in what is left of them all."""
    rows = task.rows * 7 + 30 * len(task.problem.elsewhere)
    return task.time.allowed - task.time.elapsed - lessons.each * lessons.sizes.held_out * rows


def learn_from(
    task: TuningTask, lessons: Lessons, starts: Sequence[Start], best: Best, watch: Callable[[int, int], None]
) -> str:
    """Learn from the `starts`, the best first, into `best`; returns why it did not, or ""."""
    most, left = task.settings.iterations, seconds_left(task, lessons)
    if not starts or not most or left <= 0:
        return "no time was left to learn" if most else ""

    def see(done: int, of: int, found: Learned) -> None:
        best.note(found.plan, found.error, task.time)
        best.learning = {"iterations": done, "at_most": most, "best": found.best}
        watch(done, of)

    def learned(start: Start, iterations: int, seconds: float) -> Learned:
        ends = task.time.elapsed + seconds
        pace = Pace(
            iterations,
            batch=min(task.problem.batch, max(32, min(256, len(lessons.train.numbers) // 4))),
            seed=task.problem.seed,
            seconds=lambda: ends - task.time.elapsed,
        )
        return learn(task.problem, start, lessons.train, lessons.validation, pace, task.tuned_for, see)

    ends = task.time.elapsed + left
    start = _winner(starts, lambda one, racers: learned(one, min(RACE, most), RACE_SHARE * left / racers))
    learned(start, most, ends - task.time.elapsed)
    return ""


def _winner(starts: Sequence[Start], race: Callable[[Start, int], Learned]) -> Start:
    """The best start; where they differ in which rows are guided, what the best of each layout learned in a race."""
    layouts: dict[tuple[bool, ...], Start] = {}
    for one in starts:
        layouts.setdefault(one.guided, one)
    if len(layouts) == 1:
        return starts[0]
    raced = list(layouts.values())[:RACED]
    found = [(race(one, len(raced)), one) for one in raced]
    won, start = min(found, key=lambda pair: pair[0].error)
    return Start.of(won.plan) or start
