"""Distil, then tune: the times, weights and fresh noise of a student's plan are searched for, and certified against its
own plan on noise that no search saw.
"""

from __future__ import annotations

import os
from dataclasses import asdict
from typing import NamedTuple

from fewstep.benchmark.yardstick import features_of
from fewstep.core.errors import InvalidInput, unknown_name
from fewstep.core.plan import Plan
from fewstep.distillation.plan_search.certificate import StudentCertificate
from fewstep.distillation.plan_search.comparison import compared
from fewstep.distillation.plan_search.grounds import SEARCH_SHARE, Grounds, StudentTask, grounds_of, objective_of
from fewstep.distillation.plan_search.trials import DISTANCE, OBJECTIVES_OF_STUDENTS
from fewstep.distillation.plan_search.tunable import Tunable, tunable_of
from fewstep.measure.features import Features
from fewstep.pipeline import Pipeline, load
from fewstep.tuning import TuningSettings, Uncertified
from fewstep.tuning.blind import BlindSearch
from fewstep.tuning.task import Watch
from fewstep.tuning.timelimit import TimeLimit


class TunedStudent(NamedTuple):
    """The plan, which is the student's own where nothing surely beats that, and what is known of it."""

    plan: Plan
    certificate: StudentCertificate


def tune_student(
    student: str | os.PathLike[str],
    *,
    rows: int | None = None,
    guidance: float | None = None,
    teacher: str | os.PathLike[str] | None = None,
    teacher_steps: int | None = None,
    clip: str | os.PathLike[str] | None = None,
    settings: TuningSettings | None = None,
    pipe: Pipeline | None = None,
    watch: Watch | None = None,
) -> TunedStudent:
    """Find the times, weights and fresh noise with which a student draws nearest to its teacher, in as many rows.

    Nothing is trained: plans around its own one are tried, on noise of their own (`fewstep.tuning.blind`). Where the
    student is to make the teacher's picture of the same noise, plans draw no noise and the error judges; else the
    distance of all pictures does. Ctrl-C ends the search, and the best plan so far is measured.

    Args:
        student: a student that `fewstep distill` wrote, or a shipped one.
        rows: of the plan, 2 to 8; None are those of its own plan.
        guidance: the scale to tune for, of a student that is told it.
        teacher: the model that taught it; None is the one that its files name.
        teacher_steps: in which the teacher draws; None are those in which it drew for the student.
        clip: a folder with CLIP's weights, on whose features distances are measured.
        settings: `seconds`, `sizes`, `prompts`, `batch`, `seed`; `iterations` are the most plans that are tried after
            the first ones; `objective` may also be "distance". The others are those of `fewstep.tune` alone.
        pipe: the student as it is loaded already.
        watch: told the stage, how much of it is done, of how much, and the best so far in words.

    Raises:
        InvalidInput: for a model that is no student or cannot draw by other times, rows that it has no plan for, a
            teacher that is not there or is another one, and settings that mean nothing here.
        KeyboardInterrupt: where there is no plan yet; as `fewstep.tuning.Uncertified`, which has it, while it is
            measured.
    """
    settings = settings or TuningSettings()
    check(settings)
    pipe = load(student) if pipe is None else pipe
    found = tunable_of(
        student,
        pipe,
        rows=rows,
        guidance=guidance,
        prompts=settings.prompts,
        teacher=teacher,
        teacher_steps=teacher_steps,
    )
    return tuned(found, features_of(pipe, clip), settings, watch or (lambda stage, done, of, words: None))


def check(settings: TuningSettings) -> None:
    """Raise `InvalidInput` for settings that mean nothing where a student is tuned."""
    for name, given, why in (
        ("samplers (--samplers)", settings.samplers is not None, "plans around its own one are searched"),
        ("interval (--interval)", settings.interval, "its guidance is inside, in all rows"),
        ("factors=False (--constant-guidance)", not settings.factors, "its guidance is inside, the same in all rows"),
    ):
        if given:
            raise InvalidInput(f"a student is tuned without {name}, as {why}: leave it out")
    if settings.objective is not None and settings.objective not in OBJECTIVES_OF_STUDENTS:
        raise unknown_name("objective", str(settings.objective), OBJECTIVES_OF_STUDENTS)


def tuned(subject: Tunable, features: Features, settings: TuningSettings, watch: Watch) -> TunedStudent:
    """All stages, one after the other; what is done when it is interrupted goes into the certificate."""
    objective = objective_of(subject, settings.objective)
    task = StudentTask(
        subject, features, settings, objective, TimeLimit(float(settings.seconds), settings.clock), watch
    )
    with task.time.stage("teacher"):
        grounds = grounds_of(task)
    hunt, stopped = hunt_of(task, grounds), ""
    try:
        with task.time.stage("search"):
            hunt.run()
    except KeyboardInterrupt:
        if not hunt.best:
            raise
        stopped = "interrupted"
    if not stopped and hunt.tried == 0:
        stopped = "no time was left to search"
    chosen = subject.own
    try:
        with task.time.stage("choosing"):
            chosen = chosen_of(task, grounds, hunt)
        with task.time.stage("certificate"):
            return TunedStudent(*certified(task, grounds, hunt, chosen, stopped))
    except KeyboardInterrupt as stop:
        raise Uncertified(chosen) from stop


def hunt_of(task: StudentTask, grounds: Grounds) -> BlindSearch:
    """The search on the training pictures."""
    what = "distance" if task.objective == DISTANCE else "error"
    return BlindSearch(
        task.family,
        task.subject.own,
        grounds.train.score,
        grounds.sizes.train,
        task.settings.iterations,
        task.seed,
        task.time.until(SEARCH_SHARE),
        lambda done, of, best: task.watch("search", done, of, f"{what} {best:.4g}"),
    )


def chosen_of(task: StudentTask, grounds: Grounds, hunt: BlindSearch) -> Plan:
    """The best of the last plans on other noise; the own one where none is better there."""
    own = task.subject.own
    plans = {plan.digest: plan for plan in (own, *(one.plan for one in hunt.best))}
    if len(plans) == 1:
        return own
    values = {}
    for done, (digest, plan) in enumerate(plans.items()):
        task.watch("choosing", done, len(plans), "")
        values[digest] = grounds.validation.value(plan)
    return plans[min(values, key=values.__getitem__)]


def certified(
    task: StudentTask, grounds: Grounds, hunt: BlindSearch, chosen: Plan, stopped: str
) -> tuple[Plan, StudentCertificate]:
    """The plan that was chosen, or the own one where that is not surely worse, and the certificate."""
    subject = task.subject
    task.watch("certificate", 0, 1, "")
    others = grounds.train.reference if task.objective == DISTANCE else grounds.held_out.pairs
    found = compared(grounds.held_out, subject.own, chosen, task.family, others)
    plan = chosen if found.better else subject.own
    model, teacher, order = subject.pipe.model, subject.teacher.pipe.model, subject.teacher.order
    task.time.spent["total"] = task.time.elapsed
    sizes = asdict(grounds.sizes)
    return plan, StudentCertificate(
        plan=plan.digest,
        better=found.better,
        rows=len(subject.own.rows),
        model={"name": model.name, "digest": model.identity.merged},
        teacher={
            "name": teacher.name,
            "digest": teacher.digest,
            "sampler": order.plan.recipe.sampler,
            "rows": len(order.plan.rows),
        },
        settings=subject.settings,
        schedule=subject.schedule.fingerprint,
        seed=task.seed,
        objective=task.objective,
        measure=grounds.held_out.judge().measure,
        compared=found.lines,
        gain=found.gain,
        farther=found.farther,
        floor=found.floor,
        images={name: sizes[name] for name in ("train", "validation", "held_out")},
        search={"tried": hunt.tried, "cut": hunt.cut, "free": sorted(task.family.free)},
        seconds=dict(task.time.spent),
        stopped=stopped,
        notes=subject.notes,
        pictures=found.pictures,
    )
