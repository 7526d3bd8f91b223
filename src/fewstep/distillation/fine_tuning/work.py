"""A fine-tune of a student that is checked: twin, trajectories and settings, and what is trained and written of it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from fewstep.core.plan import Plan
from fewstep.data import Source
from fewstep.denoise.convert import Network
from fewstep.distillation import student as files
from fewstep.distillation.beginning import Beginning
from fewstep.distillation.fine_tuning.keeping import Keep, Learner, kept_subjects, new_subjects
from fewstep.distillation.fine_tuning.steadfast import Both, Steadfast
from fewstep.distillation.judging.judge import by_student, ratio
from fewstep.distillation.judging.reference import Interval
from fewstep.distillation.pictures import pairs as drawing
from fewstep.distillation.pictures.pairs import Pairs
from fewstep.distillation.pictures.teacher import Conditions, Teacher
from fewstep.files import write_whole
from fewstep.measure.distance import squares
from fewstep.models import copies
from fewstep.pipeline import Pipeline, load
from fewstep.training import (
    STUDENT,
    Denoising,
    Forecast,
    Place,
    Processes,
    Role,
    Run,
    Settings,
    forecast_of,
    student_of,
)
from fewstep.training.adapter import merged
from fewstep.training.sheets import MOST, SHEETS, Sheets, by_order

REPORT = "report.json"
HELD_OUT, KEPT = 10**8, 5 * 10**8
"""Numbers of pairs begin here: of those that no training sees, and of what is kept."""
MEASURED = 64
"""Pairs of what is new, and as many of what is kept, that the report is of."""


class Work(NamedTuple):
    """What is to be done, checked.

    Attributes:
        settings: of the student's own training.
        origin: the files of the teacher; `teacher`: as it draws what is kept; `new`: subjects of the new pictures.
    """

    learner: Learner
    keep: Keep
    folder: Path
    settings: Settings
    place: Place
    processes: Processes
    origin: Path
    teacher: Teacher
    new: list[Any]

    @staticmethod
    def of(
        source: Source,
        student: str | os.PathLike[str],
        folder: Path,
        keep: Keep | None,
        settings: Settings | None,
        place: Place | None,
    ) -> Work:
        """Load student and teacher. Raises `InvalidInput` where anything does not fit."""
        keep, place = keep or Keep(), place or Place()
        settings = keep.settings or settings or Settings()
        processes = Processes.joined(place)
        processes.share(settings.batch, settings.accumulate)
        learner = Learner.of(student, keep, place.here)
        origin = files.source_of(learner.teacher)
        pipe = load(learner.teacher, device=place.here)
        Beginning.of(student, pipe.model).check(Role(pipe.model.denoiser()))
        new = new_subjects(source, keep.count)
        teacher = learner.drawing(pipe, kept_subjects(keep, pipe, new), keep.teacher_steps)
        return Work(learner, keep, folder, settings, place, processes, origin, teacher, new)

    def arguments(
        self, method: Denoising | None, settings: Settings | None, mirror: bool, place: Place | None
    ) -> dict[str, Any]:
        """Of the twin's training. It recommends what the teacher draws by, where nothing else is asked for."""
        method, recipe = method or Denoising(), self.teacher.order.plan.recipe
        if (method.sampler, method.grid) == (None, None) and recipe.grid != "times":
            method = replace(method, sampler=recipe.sampler, grid=recipe.grid)
        return {"method": method, "settings": settings, "mirror": mirror, "place": place}

    def twin(self, pipe: Pipeline) -> Teacher:
        """The twin as it draws what is new: by the plan of the teacher, whatever else it recommends."""
        return self.learner.drawing(pipe, self.new, None, self.teacher.order.plan)

    @property
    def batch(self) -> int:
        """Pictures that are drawn at once."""
        return min(self.settings.batch, 256)

    def pairs(self, teacher: Teacher, first: int, count: int, watch: Callable[[int, int], None]) -> Pairs:
        """So many trajectories with the numbers from `first`."""
        folder = self.folder / "pairs"
        return drawing.drawn(teacher, count, folder, first, self.batch, watch, self.processes)

    def data(self, new: Pairs) -> Both:
        """What the student learns from, of the twin's trajectories and of subjects that it keeps."""
        return Both(new, Conditions(self.teacher))

    def run(self, data: Both) -> Run:
        """The student's training."""
        model, settings, method = self.learner.pipe.model, self.settings, self.learner.method
        roles = student_of(model.denoiser(), adapter=settings.adapter, seed=settings.seed)
        rows = tuple(len(plan.rows) for plan in self.learner.plans)
        steadfast = Steadfast(method, rows, self.keep.weight)
        identity = {"begins": model.digest, "of": {"name": method.name}}
        return Run(steadfast, roles, data, settings, self.folder, identity, self.place)

    def sheets(self, every: int) -> Sheets:
        """Pictures of what is new and of what is kept, as the student draws if asked no more."""
        some = MOST // 2
        pipe, kept = self.learner.pipe, self.teacher.order.drawing.subjects
        subjects = [*self.new[:some], *kept[:some]]
        order = pipe.order(subjects, seed=0, batch=min(self.batch, len(subjects)))
        return Sheets(by_order(pipe.model, order), pipe.model.codec.value_range, self.folder / SHEETS, every)

    def forecast(self) -> Forecast:
        """What the student's training needs, by trial steps on pictures of noise."""
        new = self.twin(load(self.learner.teacher, device=self.place.here))  # which the twin is as large as
        count, blank = self.keep.count + 2 * MEASURED, drawing.blank(new, self.keep.count)
        run = self.run(self.data(blank))
        one = drawing.seconds_of(new, blank, self.batch)
        return forecast_of(run, self.processes, drawing.bytes_of(new, count), one * count)

    def held_out(self, twin: Teacher) -> tuple[Pairs, Pairs]:
        """Pairs of what is kept and of what is new that no training sees."""
        places = (self.teacher, HELD_OUT + KEPT), (twin, HELD_OUT)
        kept, new = (self.pairs(teacher, first, MEASURED, lambda done, of: None) for teacher, first in places)
        return kept, new

    def measured(self, network: Network, held_out: tuple[Pairs, Pairs]) -> tuple[Interval, Interval]:
        """How many times as far a student is from the pictures of what is kept, and of what is new, as it was."""
        before, plan = self.learner.pipe.model.denoiser(), self.learner.plans[0]  # which no training changes
        kept, new = (ratio(errors(network, plan, each), errors(before, plan, each)) for each in held_out)
        return kept, new

    def finish(self, run: Run, held_out: tuple[Pairs, Pairs], path: Path) -> tuple[Interval, Interval]:
        """Write the student and its report; `path`: where the twin lies."""
        role = run.roles[STUDENT]
        module = role.module.eval().requires_grad_(False)
        kept, new = self.measured(role.network, held_out)
        if run.settings.adapter is not None:
            module, changes = merged(module)
            copies.write_lora(self.folder, self.origin, changes)
        of = files.taught_by(self.teacher, str(path), run.settings.steps)
        method: Any = self.learner.method
        facts = {**run.known_as, "student": of, "method": {"name": method.name, **asdict(method)}}
        target = files.target_of(self.folder, self.origin)
        files.write(target, self.origin, module, self.learner.plans, facts)
        report = {"kept": kept._asdict(), "new": new._asdict(), "pairs": MEASURED}
        write_whole(self.folder / REPORT, json.dumps(report, indent=1).encode())
        return kept, new


def errors(network: Network, plan: Plan, held_out: Pairs) -> Tensor:
    """(n,) mean squared differences of what a plan makes of the noise of some pairs to their pictures."""
    everything = range(held_out.count)
    return squares(by_student(network, plan, held_out)(everything), held_out.states(everything))
