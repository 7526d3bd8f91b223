"""From a teacher and a method to a student on the disk, with a report of what it gained."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from fewstep.core.errors import InvalidInput
from fewstep.core.plan import Plan
from fewstep.denoise.convert import Network
from fewstep.distillation import pairs as drawing
from fewstep.distillation import student as files
from fewstep.distillation.learned import plan_of
from fewstep.distillation.pairs import Pairs, Teacher
from fewstep.distillation.report import Report, report_of
from fewstep.distillation.samples import Samples
from fewstep.drawing import Guidance
from fewstep.files import write_whole
from fewstep.pipeline import Pipeline, load
from fewstep.training import (
    LATEST,
    STATES,
    STUDENT,
    Forecast,
    Logger,
    Method,
    Place,
    Processes,
    Progress,
    Role,
    Roles,
    Run,
    Settings,
    forecast_of,
    further_roles,
    student_of,
    train,
)

REPORT = "report.json"
HELD_OUT = 10**8
"""Numbers of pairs that are held out begin here."""
FIRST = 16
"""Pairs that a method's own roles are made from."""


@dataclass(frozen=True)
class Source:
    """What a teacher is asked to draw, once, for its student to learn from.

    Attributes:
        subjects: prompts or labels in turn; None is every class.
        guidance: the scale, which the student has inside afterwards; None is what the teacher recommends.
        steps: of the teacher's own sampler; None is 20, or the plan of its own where the teacher is a student itself.
        count: pictures to train on; `held_out`: pictures for the report.
    """

    subjects: Sequence[Any] | None = None
    guidance: float | None = None
    steps: int | None = None
    count: int = 8192
    held_out: int = 256

    def __post_init__(self) -> None:
        for name, least in (("steps", 1), ("count", 1), ("held_out", 16)):
            value = getattr(self, name)
            if (type(value) is not int or value < least) and (name, value) != ("steps", None):
                raise InvalidInput(f"{name} must be a whole number of at least {least}, got {value!r}")


class Watch(NamedTuple):
    """Who is told how it goes on.

    Attributes:
        pairs: of those that are drawn, (done, of); `training`: of that.
        forecast: what a run needs, before it begins; a run that surely does not fit into memory is refused then. None
            does not ask.
        loggers: are told the figures and pictures of the log.
        sheets: steps between pictures of the student as it learns; 0 draws none.
    """

    pairs: Callable[[int, int], None] = lambda done, of: None
    training: Callable[[Progress], None] = lambda now: None
    forecast: Callable[[Forecast], None] | None = None
    loggers: Sequence[Logger] = ()
    sheets: int = 0


class Distilled(NamedTuple):
    """A student: its pipeline, where it lies, and what it gained."""

    pipe: Pipeline
    path: Path
    report: Report


def distill(
    teacher: str | os.PathLike[str],
    method: Method,
    folder: str | os.PathLike[str],
    *,
    settings: Settings | None = None,
    source: Source | None = None,
    place: Place | None = None,
    watch: Watch | None = None,
) -> Distilled:
    """Train a student of few evaluations from a teacher of many, and write it as a model of its own.

    In `folder` there are the pairs, the states from which the same call goes on, the log, and in the end `report.json`
    and the student, `student` or `student.safetensors`. Interrupt it in any way: at most `settings.state_every` steps
    are done again.

    Args:
        teacher: a shipped model, a .safetensors file of `fewstep train`, or a folder in the format of diffusers.
        method: one of `fewstep.distillation`, such as `Regression(rows=1)`.
        place: where and how it computes. Where a launcher started several processes, each calls this with the same
            arguments and is given the same student.

    Raises:
        InvalidInput: the method does not fit the teacher, the folder belongs to another run, the run does not fit into
            memory, and what drawing refuses.
        Diverged: a loss is not finite.
        OSError: a file cannot be written; what was written before stays.
    """
    work = Work.of(teacher, method, folder, settings or Settings(), source or Source(), place or Place())
    watch, processes = watch or Watch(), work.processes
    if watch.forecast is not None and not (work.folder / STATES / LATEST).is_file():
        found = processes.on_main(work.forecast)
        if processes.main:
            watch.forecast(found)
        found.check()
    data, held_out = work.pairs(watch.pairs)
    roles = work.roles(data)
    plan_of(method, roles)
    looks = [Samples(held_out, lambda now: plan_of(method, now), work.folder / "samples", watch.sheets)]
    seconds = 0.0

    def told(now: Progress) -> None:
        nonlocal seconds
        seconds = now.seconds
        watch.training(now)

    run = work.run(roles, data)._replace(looks=looks if watch.sheets else (), loggers=watch.loggers)
    train(run, told)
    report = processes.on_main(lambda: work.finish(run, held_out, seconds))
    target = files.target_of(work.folder, work.origin)
    return Distilled(load(target, device=work.place.here), target, report)


def forecast(
    teacher: str | os.PathLike[str],
    method: Method,
    folder: str | os.PathLike[str],
    *,
    settings: Settings | None = None,
    source: Source | None = None,
    place: Place | None = None,
) -> Forecast:
    """What `distill` with the same arguments would need: nothing is drawn, trained or written.

    Raises `InvalidInput` as `distill`.
    """
    work = Work.of(teacher, method, folder, settings or Settings(), source or Source(), place or Place())
    return work.processes.on_main(work.forecast)


class Work(NamedTuple):
    """What a student is made from, checked."""

    teacher: Teacher
    method: Method
    folder: Path
    settings: Settings
    source: Source
    place: Place
    processes: Processes
    origin: Path

    @staticmethod
    def of(
        model: str | os.PathLike[str],
        method: Method,
        folder: str | os.PathLike[str],
        settings: Settings,
        source: Source,
        place: Place,
    ) -> Work:
        """Load the teacher. Raises `InvalidInput` where anything does not fit."""
        origin = files.source_of(model)
        processes = Processes.joined(place)
        processes.share(settings.batch, settings.accumulate)
        pipe = load(model, device=place.here)
        check(method, pipe)
        method.phase(0, settings.steps)
        teacher = Teacher.of(pipe, source.subjects, source.guidance, source.steps)
        check_guidance(method, teacher)
        return Work(teacher, method, Path(folder), settings, source, place, processes, origin)

    @property
    def batch(self) -> int:
        """Pictures that are drawn at once."""
        return min(self.settings.batch, 256)

    def pairs(self, watch: Callable[[int, int], None]) -> tuple[Pairs, Pairs]:
        """Those to learn from and those that are held out, each part drawn by one of the processes."""
        place, shared = self.folder / "pairs", self.processes
        data = drawing.drawn(self.teacher, self.source.count, place, 0, self.batch, watch, shared)
        return data, drawing.drawn(self.teacher, self.source.held_out, place, HELD_OUT, self.batch, processes=shared)

    def roles(self, data: Pairs) -> dict[str, Role]:
        """The networks that take part, and what else the method trains."""
        guidance = self.teacher.guidance if data.conditions.guided else 1.0
        succeeds = self.method.phase(0, self.settings.steps).stages > 1
        roles = student_of(self.teacher.pipe.model.denoiser(), guidance, succeeds)
        first = data.batch(range(min(FIRST, data.count)))
        return roles | further_roles(self.method, roles[STUDENT], first)

    def run(self, roles: Roles, data: Pairs) -> Run:
        """What is trained."""
        return Run(self.method, roles, data, self.settings, self.folder, place=self.place)

    def forecast(self) -> Forecast:
        """What it needs, by trial steps on pictures of noise."""
        blank = drawing.blank(self.teacher, self.source.count)
        run = self.run(self.roles(blank), blank)
        held = drawing.bytes_of(self.teacher, self.source.count + self.source.held_out)
        one = drawing.seconds_of(self.teacher, blank, self.batch)
        return forecast_of(run, self.processes, held, one * (self.source.count + self.source.held_out))

    def finish(self, run: Run, held_out: Pairs, seconds: float) -> Report:
        """Write the student and its report."""
        student, plan = run.roles[STUDENT], plan_of(self.method, run.roles)
        student.module.eval().requires_grad_(False)
        draw = student_draws(student.network, plan, held_out)
        found = report_of(draw, plan, held_out, seconds, self.batch)
        target = files.target_of(self.folder, self.origin)
        of = {"teacher": self.teacher.pipe.model.name, "guidance": self.teacher.guidance}
        files.write(target, self.origin, student.module, plan, {"student": of, **run.known_as})
        write_whole(self.folder / REPORT, json.dumps(found.to_json(), indent=1).encode())
        return found


def check(method: Method, pipe: Pipeline) -> None:
    """Raise `InvalidInput` where a method cannot teach a student of this pipeline, before anything is drawn."""
    model, needs = pipe.model, method.needs
    if model.conditioner.distilled:
        raise InvalidInput(
            f"{model.name} is told its guidance scale, and was distilled already: give the model that it was made from"
        )
    if needs.predictions is not None and model.prediction not in needs.predictions:
        *most, last = needs.predictions
        known = f"{', '.join(most)} or {last}" if most else last
        raise InvalidInput(
            f"{method.name} needs a network that predicts {known}, and {model.name} predicts {model.prediction}: use "
            "regression or consistency, which take any"
        )
    method.plan(model.denoiser())


def check_guidance(method: Method, teacher: Teacher) -> None:
    """Raise `InvalidInput` where a method asks the teacher for guidance that training does not know."""
    guidance = teacher.order.drawing.guidance
    if not method.needs.pairs and guidance not in (Guidance(guidance.scale), Guidance(1.0)):
        raise InvalidInput(
            f"{method.name} asks the teacher at levels of its own, by classifier-free guidance at every level, and "
            f"{teacher.pipe.model.name} recommends {guidance.method} from {guidance.interval[0]:g} to "
            f"{guidance.interval[1]:g} in sigma / alpha: use regression, which learns from what the teacher draws"
        )


def student_draws(network: Network, plan: Plan, held_out: Pairs) -> Callable[[Sequence[int]], Tensor]:
    """Draws held-out pairs with the student, by their numbers from 0."""

    def draw(part: Sequence[int]) -> Tensor:
        numbers = [held_out.first + number for number in part]
        denoiser = network.given(held_out.conditions.of(numbers).positive)
        noise = drawing.noise_of(numbers, held_out.shape, held_out.teacher.pipe.model.device)
        return drawing.run(plan, denoiser, noise, numbers)

    return draw
