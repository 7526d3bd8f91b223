"""What a student's plans are tuned on: the noise and the teacher's pictures, as many as the time allows."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from fewstep.core.errors import InvalidInput
from fewstep.core.plan import TunedFor
from fewstep.distillation.pictures.pairs import Pairs, blank, seconds_of
from fewstep.distillation.pictures.teacher import Teacher
from fewstep.distillation.plan_search.trials import (
    BESIDE,
    DISTANCE,
    HELD_OUT,
    REFERENCE,
    TRAIN,
    VALIDATION,
    Trials,
    noise_alone,
    numbers_of,
    pictures_of,
)
from fewstep.distillation.plan_search.tunable import Tunable
from fewstep.measure.features import Features
from fewstep.tuning import Sizes, TuningSettings
from fewstep.tuning.family import Family
from fewstep.tuning.task import Watch
from fewstep.tuning.timelimit import TimeLimit

DRAWING_SHARE, SEARCH_SHARE = 0.35, 0.8
"""Of the time: what the teacher's pictures may take, and when the search is over."""
BATCH = 64
LEAST_IMAGES, LEAST_TOGETHER, MOST_IMAGES = 32, 128, 1024
"""Fewest pictures; where all are judged together; and the most, unless the settings say so."""
TRIED = 80
"""Plans for which there is to be time, where the number of pictures is chosen by it."""


class StudentTask(NamedTuple):
    """What is asked for, and the time that it takes."""

    subject: Tunable
    features: Features
    settings: TuningSettings
    objective: str
    time: TimeLimit
    watch: Watch

    @property
    def batch(self) -> int:
        """Pictures that are drawn at once."""
        return BATCH if self.settings.batch is None else self.settings.batch

    @property
    def seed(self) -> int:
        """Of the noise and of the search."""
        return 0 if self.settings.seed is None else self.settings.seed

    @property
    def family(self) -> Family:
        """The plans that are searched."""
        subject = self.subject
        free = subject.free if self.objective == DISTANCE else subject.free - {"fresh"}
        tuned_for = TunedFor(subject.pipe.model.identity.merged, subject.settings)
        return Family(subject.numbers, subject.schedule, frozenset(free), tuned_for)


class Grounds(NamedTuple):
    """The noise that plans are searched on, chosen by and reported on."""

    sizes: Sizes
    train: Trials
    validation: Trials
    held_out: Trials


def objective_of(subject: Tunable, asked: str | None) -> str:
    """What plans are judged by. Raises `InvalidInput` for errors where they say nothing."""
    if asked is None:
        return "psnr" if subject.paired else DISTANCE
    if asked != DISTANCE and not subject.paired:
        raise InvalidInput(
            f"{subject.pipe.name} draws noise between its rows, or was not taught the teacher's picture of the same "
            f"noise, so that an error says nothing: leave the objective {asked} out, or give distance"
        )
    return asked


def grounds_of(task: StudentTask) -> Grounds:
    """The teacher's pictures, of as many as the settings say or the time allows."""
    subject, by_distance = task.subject, task.objective == DISTANCE
    sizes = task.settings.sizes or affordable(task)
    teachers = subject.teacher, subject.teacher, subject.held_out
    places = (TRAIN, sizes.train), (VALIDATION, sizes.validation), (HELD_OUT, sizes.held_out)
    sets = []
    for teacher, (part, count) in zip(teachers, places, strict=True):
        numbers = numbers_of(part, count, task.seed)
        sets.append(noise_alone(teacher, numbers) if by_distance else pictures_of(*drawing(task, teacher, numbers)))
    reference = None
    if by_distance:
        reference = pictures_of(*drawing(task, subject.teacher, numbers_of(REFERENCE, sizes.train, task.seed)))
    beside = pictures_of(*drawing(task, subject.held_out, numbers_of(BESIDE, sizes.held_out, task.seed)))

    def trials(number: int, other: Pairs | None) -> Trials:
        return Trials(subject.network, sets[number], other, task.features, task.objective, task.batch)

    return Grounds(sizes, trials(0, reference), trials(1, reference), trials(2, beside))


def drawing(
    task: StudentTask, teacher: Teacher, numbers: range
) -> tuple[Teacher, range, int, Callable[[int, int], None]]:
    """The arguments of `pictures_of`."""
    words = f"{len(numbers)} pictures in {len(teacher.order.plan.rows)} steps"
    return teacher, numbers, task.batch, lambda done, of: task.watch("teacher", done, of, words)


def affordable(task: StudentTask) -> Sizes:
    """As many pictures as there is time to draw by the teacher, and to try many plans on: a power of two."""
    teacher, rows = task.subject.teacher, len(task.subject.own.rows)
    each = seconds_of(teacher, blank(teacher, task.batch), task.batch, task.time.clock)
    own = each * rows / len(teacher.order.plan.rows) / (2 if teacher.guides else 1)
    pictures, least = (2.0, LEAST_TOGETHER) if task.objective == DISTANCE else (3.5, LEAST_IMAGES)
    count, allowed = MOST_IMAGES, task.time.allowed
    while count > least and (
        pictures * count * each > DRAWING_SHARE * allowed
        or TRIED * count * own > (SEARCH_SHARE - DRAWING_SHARE) * allowed
    ):
        count //= 2
    return Sizes.of(count)
