"""What stands beside a student: its teacher's network by the best sampler without training, and by tuned plans."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import NamedTuple

from fewstep.core.errors import InvalidInput
from fewstep.core.plan import Plan
from fewstep.core.schedule import Schedule
from fewstep.denoise.guided import Guided
from fewstep.denoise.scale import moments_of
from fewstep.distillation.judging.judge import Judge, Pictures, by_teacher
from fewstep.distillation.pictures.pairs import Pairs
from fewstep.measure.distance import overall
from fewstep.measure.figure import Figure
from fewstep.models.plans import check_tuned_for, tuned_plans
from fewstep.pipeline.stages import denoiser_of
from fewstep.tuning import TuningSettings, tune
from fewstep.tuning.rivals import contenders_of
from fewstep.tuning.subject import drawing

MORE = 4
"""Times the student's evaluations, at which the stronger rivals draw."""
LEAST_TUNED, MOST_TUNED = 2, 32
"""Rows that a plan can be tuned for."""
SOME = 64


class Rival(NamedTuple):
    """A plan of the teacher's network, and what it drew. `at` is 1 or `MORE`, how many times the evaluations."""

    who: str
    plan: Plan
    at: int
    pictures: Pictures
    distance: Figure | None


class Rivals(NamedTuple):
    """The strongest rivals; `compared`: plans without training that they are the best of; `untuned`: why none was tuned
    where one was asked for.
    """

    each: tuple[Rival, ...]
    compared: int
    untuned: str = ""


def rivals_of(judge: Judge, rows: int, noisy: bool, seconds: float = 0.0) -> Rivals:
    """The rivals of a student of some rows.

    Without training these are the best by the distance and, unless the student is `noisy` and its errors say nothing,
    the best by the error. A rival has at least one row, and fewer than the teacher's own plan, which is what all are
    measured by.

    Args:
        seconds: to tune a plan in, for as many evaluations as the student has; 0 takes those that come with the model
            alone.
    """
    found: list[Rival] = []
    compared, untuned = 0, ""
    for at in (1, MORE):
        most = fitting(judge.held_out, rows * at)
        plans = contenders_of(schedule_of(judge.held_out), most)
        compared += len(plans)
        drawn = [drawn_by(judge, f"{one.recipe.sampler} on {one.recipe.grid}", one, at) for one in plans]
        best = [min(drawn, key=farness)] + ([] if noisy else [min(drawn, key=error)])
        found += {one.plan.digest: one for one in best}.values()
        found += [drawn_by(judge, "a tuned plan", plan, at) for plan in tuned(judge.held_out, most)]
        if not seconds or at != 1:
            continue
        if LEAST_TUNED <= most <= MOST_TUNED:
            found.append(drawn_by(judge, f"a plan tuned in {seconds:g} s", newly_tuned(judge, most, seconds), at))
        else:
            untuned = f"No plan was tuned: that takes {LEAST_TUNED} to {MOST_TUNED} rows, and the rivals have {most}"
    return Rivals(tuple(found), compared, untuned)


def drawn_by(judge: Judge, who: str, plan: Plan, at: int) -> Rival:
    """What a plan of the teacher's network draws."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of guidance between levels that the few rows do not meet
        pictures = judge.look(by_teacher(plan, judge.held_out))
    return Rival(who, plan, at, pictures, judge.distance(pictures))


def error(rival: Rival) -> float:
    """Of the typical picture."""
    return overall(rival.pictures.errors, "psnr")


def farness(rival: Rival) -> float:
    """The distance, infinite where a picture is lost."""
    return float("inf") if rival.distance is None else rival.distance.value


def fitting(held_out: Pairs, evaluations: int) -> int:
    """The rows of the teacher's network that cost so many evaluations."""
    guided = 2 if held_out.teacher.guidance != 1.0 and held_out.conditions.guided else 1
    return max(1, min(evaluations // guided, len(held_out.teacher.order.plan.rows) - 1))


def schedule_of(held_out: Pairs) -> Schedule:
    """The noise schedule that the teacher draws on."""
    size = held_out.teacher.order.drawing
    return held_out.teacher.pipe.model.schedule_at(size.height, size.width)


def tuned(held_out: Pairs, rows: int) -> Iterator[Plan]:
    """The plan for its weights that comes with the teacher, for the most steps within `rows`, if there is one."""
    model, schedule = held_out.teacher.pipe.model, schedule_of(held_out)
    found = tuned_plans(model.plans)
    steps = max((steps for steps in found if steps <= rows), default=None)
    if steps is None or found[steps].recipe.schedule_fingerprint != schedule.fingerprint:
        return
    try:
        check_tuned_for(found[steps], model.identity, "")
    except InvalidInput:
        return
    yield found[steps]


def newly_tuned(judge: Judge, rows: int, seconds: float) -> Plan:
    """A plan that is tuned for what the teacher draws."""
    teacher = judge.held_out.teacher
    subjects = teacher.order.drawing.subjects
    problem = drawing(teacher.pipe, lambda number: subjects[number % len(subjects)], teacher.guidance)
    return tune(problem, rows=rows, settings=TuningSettings(seconds=seconds, batch=judge.batch))[0]


def nfe_of(plan: Plan, held_out: Pairs) -> float:
    """Network evaluations of an image by a plan of the teacher's network, the mean over some pictures."""
    teacher, numbers = held_out.teacher, range(min(held_out.count, SOME))
    conditions = held_out.conditions.of([held_out.first + number for number in numbers])
    denoiser = denoiser_of(teacher.pipe.model, teacher.order.drawing.guidance, conditions, plan)
    if not isinstance(denoiser, Guided):
        return float(len(plan.rows))
    moments = moments_of(plan.rows, range(len(plan.rows)))
    return sum(len(denoiser.need(i, moment).branches) for i in numbers for moment in moments) / len(numbers)
