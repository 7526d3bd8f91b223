"""A student of few steps that is to learn something new: how it was made, and what it is to keep.

What it is trained with again is the method that made it, which its files name with all settings, so its plans stay as
they are. That has to be a method which learns from what a teacher drew, and from nothing else. A student by
distribution matching whose plans draw no noise goes on by phases, where its plans are those of phases.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from fewstep import zoo
from fewstep.core.errors import InvalidInput
from fewstep.core.plan import Plan
from fewstep.data import Source
from fewstep.denoise.convert import Network
from fewstep.distillation import student as files
from fewstep.distillation.methods.by_name import stated
from fewstep.distillation.methods.dmd import DistributionMatching
from fewstep.distillation.methods.endpoint import Endpoint
from fewstep.distillation.methods.phased import Phased
from fewstep.distillation.methods.regression import Regression
from fewstep.distillation.pictures.teacher import USUAL_STEPS, Teacher
from fewstep.distillation.terms.simulation import falling
from fewstep.models import learned_plans
from fewstep.pipeline import Pipeline, load
from fewstep.training import Method, Settings
from fewstep.training.examples import subject_of

KINDS = (Phased, Endpoint, Regression)
"""Methods whose students learn from what a teacher drew, and from nothing else."""


@dataclass(frozen=True)
class Keep:
    """What a student of few steps keeps while it learns new pictures, and what it learns from.

    Attributes:
        subjects: prompts or labels that it is to go on drawing as it does, none of them those of the new pictures;
            None are the classes that the new pictures do not show, of a model that draws classes.
        count: trajectories of the new subjects that it learns from.
        teacher: the model that the student was distilled from; None is the one that its files name.
        teacher_steps: of the sampler that draws the trajectories; None are as many as the student's method has levels,
            or 20 where it has none.
        settings: of the student's own training; None are those of the teacher's.
        weight: of what is kept, beside what is new.
    """

    subjects: Sequence[Any] | None = None
    count: int = 2048
    teacher: str | os.PathLike[str] | None = None
    teacher_steps: int | None = None
    settings: Settings | None = None
    weight: float = 1.0

    def __post_init__(self) -> None:
        for name, value in (("count", self.count), ("teacher_steps", self.teacher_steps)):
            if (type(value) is not int or value < 1) and (name, value) != ("teacher_steps", None):
                raise InvalidInput(f"{name} must be a whole number of at least 1, got {value!r}")
        if isinstance(self.weight, bool) or not isinstance(self.weight, int | float) or not 0 < self.weight < math.inf:
            raise InvalidInput(f"weight, of what is kept, must be a number above 0, got {self.weight!r}")


class Learner(NamedTuple):
    """A student as its files have it.

    Attributes:
        student: where it lies; `pipe`: as it is loaded.
        method: that it is trained with again; `plans`: that it knows, the one that it recommends first.
        teacher: that it was made from; `guidance`: the scale that it has inside.
    """

    student: str | os.PathLike[str]
    pipe: Pipeline
    method: Method
    plans: list[Plan]
    teacher: str | os.PathLike[str]
    guidance: float

    @staticmethod
    def of(student: str | os.PathLike[str], keep: Keep, device: Any) -> Learner:
        """Load it. Raises `InvalidInput` for a model that is not such a student."""
        pipe = load(student, device=device)
        told, plans = pipe.model.teacher, learned_plans(pipe.model)
        if told is None or not plans:
            raise InvalidInput(
                f"{student} is not a student of few steps, whose steps could be kept: train it without keep_steps"
            )
        method = method_of(student)
        network = pipe.model.denoiser()
        own = method.plan(network)
        rows = len(own.rows)
        if rows not in plans or any(own_digest(method, network, each) != one.digest for each, one in plans.items()):
            raise InvalidInput(
                f"{student} draws by a plan that is not that of its method, {method.name}, such as one that it learned "
                "along: only students whose times stay as they are can be trained on"
            )
        teacher = keep.teacher if keep.teacher is not None else teacher_of(told.name, student)
        others = [plan for each, plan in plans.items() if each != rows]
        return Learner(student, pipe, method, [own, *others], teacher, told.guidance)

    def drawing(self, pipe: Pipeline, subjects: Sequence[Any], steps: int | None, plan: Plan | None = None) -> Teacher:
        """How a teacher draws for it: by a `plan`, or in so many steps of its own sampler.

        Raises `InvalidInput` where that does not meet the times that the method learns.
        """
        levels = getattr(self.method, "levels", USUAL_STEPS)
        teacher = Teacher.of(pipe, subjects, self.guidance, levels if steps is None else steps, plan)
        along = getattr(self.method, "along", None)
        return teacher if along is None else teacher.keeping(along(pipe.model.schedule))


def method_of(student: str | os.PathLike[str]) -> Method:
    """The method that trains a student on, with its settings: that which made it, as its files say, or phases.

    Raises `InvalidInput` for one whose students cannot learn from what two teachers drew.
    """
    facts = files.facts_of(student)
    name = str(dict(facts.get("method", {})).get("name", "a method that its files do not name"))
    made = None if facts["student"].get("scales") else stated(facts)
    if isinstance(made, DistributionMatching) and made.sampler == "ddim":
        return Phased(plans=tuple(map(len, falling(made.times))) if made.times else (made.rows,))
    if not isinstance(made, KINDS):
        raise InvalidInput(
            f"{student} is a student by {name}, and {', '.join(kind.name for kind in KINDS)} and dmd with sampler=ddim "
            "alone keep their steps, without guidance as an input: train its teacher on the new pictures, and distil "
            "it again"
        )
    return made


def own_digest(method: Method, network: Network, rows: int) -> str:
    """Of the plan of a method in so many rows, "" where it has none."""
    try:
        return method.plan(network, rows).digest
    except InvalidInput:
        return ""


def teacher_of(name: str, student: str | os.PathLike[str], how: str = "Keep(teacher=..)") -> str:
    """The teacher that the files of a student name. Raises `InvalidInput` where it is not there; `how` to give it."""
    if name in zoo.SHIPPED or Path(name).exists():
        return name
    raise InvalidInput(
        f"{student} was distilled from {name!r}, which is neither a shipped model nor a path from here: name its "
        f"teacher (--teacher, or {how})"
    )


def new_subjects(source: Source, count: int) -> list[Any]:
    """What some of the new pictures show, spread over all of them."""
    shown = min(count, source.count)
    numbers = [i * source.count // shown for i in range(shown)]
    return [subject_of(source.read(number).subject, source) for number in numbers]


def kept_subjects(keep: Keep, pipe: Pipeline, new: Sequence[Any]) -> list[Any]:
    """What the student is to go on drawing as it does.

    Raises `InvalidInput` where nothing is, or where it is what the new pictures show.
    """
    conditioner, shown = pipe.model.conditioner, set(new)
    subjects = keep.subjects
    if subjects is None and conditioner.field == "labels":
        subjects = [one for one in conditioner.subjects if one not in shown]
    if not subjects:
        raise InvalidInput(
            f"{pipe.model.name} is to keep what it draws, and nothing names it: give prompts, or classes that the new "
            "pictures do not show (--kept, or Keep(subjects=..))"
        )
    both = [one for one in dict.fromkeys(subjects) if one in shown]
    if both:
        raise InvalidInput(
            f"{len(both)} of what is to be kept are shown by the new pictures too, such as {both[0]!r:.80}: leave them "
            "out, as they cannot both change and stay"
        )
    return list(subjects)
