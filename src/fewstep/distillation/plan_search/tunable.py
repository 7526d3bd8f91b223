"""A student whose plan is tuned: its own plan, what of it may change, and the teacher whose pictures judge it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from fewstep.core.errors import InvalidInput
from fewstep.core.plan import Plan
from fewstep.core.schedule import Schedule
from fewstep.denoise.convert import Network
from fewstep.distillation import student as files
from fewstep.distillation.fine_tuning.keeping import teacher_of
from fewstep.distillation.methods.by_name import kind_of, stated
from fewstep.distillation.pictures.teacher import Teacher
from fewstep.models import learned_plans
from fewstep.models.identity import in_dtype
from fewstep.models.model import TeacherFacts
from fewstep.pipeline import Pipeline, load
from fewstep.training import is_paired, schedule_of
from fewstep.training.scale import at_scale
from fewstep.tuning.family import PARTS
from fewstep.tuning.renoised import Renoised, renoised_of
from fewstep.tuning.subject import labels_of, prompts_in_parts

LEAST, MOST = 2, 8
"""Rows of a student's plan that is tuned."""
NOT_SAID = "The student's files do not say by which plan its teacher drew for it: it draws in its usual steps here"
NOT_ALL = "The student did not learn every class in turn, and is tuned on all of them"
TOLD = frozenset({"start", "gaps"})
"""What may change of the plan of a network that is told where its rows lead, and goes there by DDIM."""


class Tunable(NamedTuple):
    """A student, checked.

    Attributes:
        pipe, network: the student, told its guidance scale where it is told one.
        own: its plan in the rows that are tuned for; `numbers`: the same as numbers.
        free: parts of it that are searched (`fewstep.tuning.family`), but for fresh noise where errors judge.
        paired: whether it is to make its teacher's picture of the same noise.
        teacher, held_out: as it draws what is searched on, and what is held out.
        settings: what a tuned plan says it is for.
        notes: what else is to be said, a sentence each.
    """

    pipe: Pipeline
    network: Network
    own: Plan
    numbers: Renoised
    free: frozenset[str]
    paired: bool
    teacher: Teacher
    held_out: Teacher
    settings: dict[str, Any]
    notes: tuple[str, ...]

    @property
    def schedule(self) -> Schedule:
        """The noise schedule of its plans."""
        return schedule_of(self.network)


def tunable_of(
    student: str | os.PathLike[str],
    pipe: Pipeline,
    *,
    rows: int | None = None,
    guidance: float | None = None,
    prompts: str | os.PathLike[str] | None = None,
    teacher: str | os.PathLike[str] | None = None,
    teacher_steps: int | None = None,
) -> Tunable:
    """The student `pipe`, whose files lie in `student`, with its teacher.

    Raises:
        InvalidInput: for a model that is not a student, rows that it has no plan for, a network that gives several
            guesses, and a teacher that is not there or not the one that taught it.
    """
    told, facts = pipe.model.teacher, files.facts_of(student)
    if told is None:
        raise InvalidInput(f"{student} is not a student of `fewstep distill`: use fewstep.tune")
    if pipe.model.rows.guesses > 1:
        raise InvalidInput(
            f"{pipe.name} {pipe.model.rows}, which it learned for the rows of its own plan alone: no other times can "
            "be tried. Distil it anew, in the rows that you want"
        )
    scale = scale_of(pipe, told, guidance)
    network, kind = pipe.model.denoiser(), kind_of(facts)
    own = own_plan(pipe, facts, network, rows)
    numbers = renoised_of(own)
    if numbers is None or own.recipe.schedule_fingerprint != schedule_of(network).fingerprint:
        raise InvalidInput(
            f"{pipe.name} draws by {own.recipe.sampler} in {len(own.rows)} rows, which is not one evaluation after "
            "another on its noise schedule: there is nothing like it to search among"
        )
    origin = teacher if teacher is not None else teacher_of(told.name, student, "teacher=..")
    original = load(origin, device=pipe.model.device, dtype=pipe.model.dtype)
    check_teacher(original, facts, student)
    train, held_out = subjects_of(original, prompts)
    plan = None if teacher_steps is not None else plan_of_teacher(facts)
    drawing, other = (Teacher.of(original, each, scale, teacher_steps, plan) for each in (train, held_out))
    lower = in_dtype(pipe.model.dtype)
    notes = [NOT_SAID if plan is None and teacher_steps is None else "", "" if knows_all(drawing, facts) else NOT_ALL]
    return Tunable(
        pipe,
        network if told.scales is None else at_scale(network, scale),
        own,
        numbers,
        TOLD if pipe.model.rows.second_time else frozenset(PARTS),
        kind is not None and is_paired(kind) and not (own.stochastic or drawing.order.plan.stochastic),
        drawing,
        other,
        {"guidance": scale, **({"precision": lower["dtype"]} if lower else {})},
        tuple(filter(None, notes)),
    )


def scale_of(pipe: Pipeline, told: TeacherFacts, guidance: float | None) -> float:
    """The scale that a student has inside, or the one that it is told. Raises `InvalidInput` where it takes no such."""
    if guidance is None:
        return told.guidance
    if told.scales is None:
        raise InvalidInput(
            f"{pipe.name} is a student with guidance {told.guidance:g} inside, and takes no other: leave --guidance out"
        )
    low, high = told.scales
    if not low <= guidance <= high:
        raise InvalidInput(f"{pipe.name} is told guidance from {low:g} to {high:g}, got {guidance:g}")
    return float(guidance)


def own_plan(pipe: Pipeline, facts: Mapping[str, Any], network: Network, rows: int | None) -> Plan:
    """The plan of a student that is to be beaten: the one that it recommends, or that of other rows as it learned them,
    or as its method says.

    Raises `InvalidInput` where there is none in so many rows, and for 1 row or too many.
    """
    plans = learned_plans(pipe.model)
    if not plans:
        raise InvalidInput(f"{pipe.name} recommends no plan of its own, so that there is none to begin from")
    if rows is None:
        rows = len(pipe.plan().rows)
    if type(rows) is not int or not LEAST <= rows <= MOST:
        known = ", ".join(str(one) for one in plans if LEAST <= one <= MOST)
        raise InvalidInput(
            f"plans of {LEAST} to {MOST} rows are tuned of a student, as one row leaves nothing to choose and many "
            f"need gradients, got {rows}: "
            + (f"give --rows {known}, which it has plans for" if known else "it has none, so distil one of more rows")
        )
    if rows in plans:
        return plans[rows]
    method = stated(facts)
    if method is None:
        raise InvalidInput(f"{pipe.name} has plans of {', '.join(map(str, plans))} rows, got {rows}: give one of these")
    return method.plan(network, rows)


def check_teacher(teacher: Pipeline, facts: Mapping[str, Any], student: str | os.PathLike[str]) -> None:
    """Raise `InvalidInput` where a student says that another model taught it."""
    data, identity = facts.get("data"), teacher.model.identity
    wanted = data.get("teacher") if isinstance(data, Mapping) else None
    if isinstance(wanted, str) and wanted not in (identity.digest, identity.merged, identity.weights):
        raise InvalidInput(
            f"{student} was distilled from a model with digest {wanted}, and {teacher.name} has {identity.digest}: "
            "name the model that taught it (--teacher, or teacher=..)"
        )


def subjects_of(
    teacher: Pipeline, prompts: str | os.PathLike[str] | None
) -> tuple[Sequence[Any] | None, Sequence[Any] | None]:
    """What pictures show that a student is tuned on, and those that are held out; None for every class."""
    if teacher.model.conditioner.field == "labels":
        labels_of(teacher, prompts)
        return None, None
    return prompts_in_parts(teacher, prompts)


def knows_all(teacher: Teacher, facts: Mapping[str, Any]) -> bool:
    """Whether a student of classes learned all that it is tuned on, as far as its files say."""
    data = facts.get("data")
    learned = data.get("subjects") if isinstance(data, Mapping) else None
    classes = teacher.pipe.model.conditioner.field == "labels"
    return not classes or learned is None or learned == teacher.identity["subjects"]


def plan_of_teacher(facts: Mapping[str, Any]) -> Plan | None:
    """The plan by which a teacher drew for its student; None where the student's files do not say."""
    told = facts.get("student")
    plan = told.get("plan") if isinstance(told, Mapping) else None
    return None if plan is None else Plan.from_json(json.dumps(plan))
