"""A distillation that is checked: its teacher, method and sizes, and what is drawn, trained and written of it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

from fewstep.benchmark.yardstick import features_of
from fewstep.data import Tolerant, open_data
from fewstep.distillation import lora
from fewstep.distillation import student as files
from fewstep.distillation.beginning import Beginning
from fewstep.distillation.judging.health import WIDTHS, Health, Watcher
from fewstep.distillation.judging.judge import Judge
from fewstep.distillation.judging.report import Cost, Report, report_of
from fewstep.distillation.judging.rivals import nfe_of
from fewstep.distillation.judging.trajectory import Consistent, Trajectories
from fewstep.distillation.pictures import pairs as drawing
from fewstep.distillation.pictures.pairs import Pairs
from fewstep.distillation.pictures.real import Real, subjects_of
from fewstep.distillation.pictures.teacher import Teacher
from fewstep.distillation.plan_search.offer import offer_of
from fewstep.distillation.source import Measuring, Source
from fewstep.distillation.suitability import (
    check,
    check_guidance,
    check_noise,
    check_seen,
    check_takes_data,
    original_of,
    scales_of,
)
from fewstep.distillation.terms.plan import settled
from fewstep.files import write_whole
from fewstep.measure.features import Features
from fewstep.pipeline import Pipeline, load
from fewstep.training import (
    STATES,
    STUDENT,
    Ending,
    Forecast,
    Method,
    Place,
    Processes,
    Role,
    Roles,
    Run,
    Settings,
    forecast_of,
    further_roles,
    row_facts_of,
    schedule_of,
    student_of,
)
from fewstep.training.adapter import merged
from fewstep.training.examples import Examples, bytes_of, pictures_of
from fewstep.training.examples import seconds_of as encoding_seconds

REPORT = "report.json"
HELD_OUT, REFERENCE, WATCHED = 10**8, 2 * 10**8, 4 * 10**8
"""Numbers of pairs begin here that no training sees: of the report, of what its distances are measured to, and of the
looks while it trains.
"""
FIRST = 16
"""Samples that a method's own roles are made from."""


class Drawn(NamedTuple):
    """What there is to learn from, the teacher's pairs or real pictures, and the teacher's pairs to judge by in the end
    and while it is trained.
    """

    data: Pairs | Real
    judge: Judge
    watched: Judge | None


class Work(NamedTuple):
    """What a student is made from, checked.

    Attributes:
        real: pictures to learn from in place of the teacher's, None without any; their latents are not encoded yet.
    """

    teacher: Teacher
    method: Method
    folder: Path
    settings: Settings
    source: Source
    measuring: Measuring
    place: Place
    processes: Processes
    origin: Path
    features: Features
    scales: tuple[float, float] | None
    beginning: Beginning | None = None
    real: Real | None = None

    @staticmethod
    def of(
        model: str | os.PathLike[str],
        method: Method,
        folder: str | os.PathLike[str],
        settings: Settings | None,
        source: Source | None,
        measuring: Measuring | None,
        place: Place | None,
        kept: Path | None = None,
    ) -> Work:
        """Load the teacher. Raises `InvalidInput` where anything does not fit.

        Args:
            kept: folder for what is worked out once of a data set, such as the table of its shards; None keeps nothing.
        """
        settings, source, measuring = settings or Settings(), source or Source(), measuring or Measuring()
        place = place or Place()
        origin = files.source_of(model)
        processes = Processes.joined(place)
        processes.share(settings.batch, settings.accumulate)
        pipe = load(model, device=place.here)
        check(method, pipe)
        method.phase(0, settings.steps)
        pictures, subjects = real_pictures(method, source, pipe, processes, kept), source.subjects
        if pictures is not None and subjects is None:
            subjects = processes.together(lambda: subjects_of(pictures, source.held_out))
        teacher = Teacher.of(pipe, subjects, source.guidance, source.steps)
        check_guidance(method, teacher)
        check_noise(method, teacher)
        method = getattr(method, "suited", lambda plan: method)(teacher.order.plan)
        along = getattr(method, "along", None)
        if along is not None:
            teacher = teacher.keeping(along(schedule_of(pipe.model.denoiser())))
        features, scales = features_of(pipe, measuring.clip), scales_of(method, teacher)
        check_seen(method, pipe, features)
        work = Work(
            teacher, method, Path(folder), settings, source, measuring, place, processes, origin, features, scales
        )
        if source.begin is not None:
            work = work._replace(beginning=Beginning.of(source.begin, pipe.model))
        if pictures is not None:
            work = work._replace(real=Real.of(pictures, teacher))
        work.roles(work.blank)  # which refuses what cannot be trained
        return work

    @property
    def blank(self) -> Pairs | Real:
        """What a trial learns from: real pictures, or noise where there are none or have to be encoded first."""
        return drawing.blank(self.teacher, self.source.drawn) if self.real is None else self.real

    @property
    def lost(self) -> dict[int, str]:
        """Why some real pictures could not be read, by number; found out by any of the processes."""
        own = {} if self.real is None else self.real.lost
        return {number: why for each in self.processes.gathered(own) for number, why in each.items()}

    @property
    def batch(self) -> int:
        """Pictures that are drawn at once."""
        return min(self.settings.batch, 256)

    def pairs(self, first: int, count: int, watch: Callable[[int, int], None] = lambda done, of: None) -> Pairs:
        """So many pairs with the numbers from `first`, each part drawn by one of the processes."""
        return drawing.drawn(self.teacher, count, self.folder / "pairs", first, self.batch, watch, self.processes)

    def drawn(self, watch: Callable[[int, int], None], encoding: Callable[[int, int], None]) -> Drawn:
        """All that is learned from and judged by."""
        data, checks = self.data(watch, encoding), self.measuring.checks
        held_out, reference = (self.pairs(first, self.source.held_out, watch) for first in (HELD_OUT, REFERENCE))
        judge = Judge(held_out, reference, self.features, self.batch, real=self.real)
        if not checks.every:
            return Drawn(data, judge, None)
        watched, reference = (self.pairs(WATCHED + i * checks.count, checks.count, watch) for i in range(2))
        return Drawn(data, judge, Judge(watched, reference, self.features, self.batch, WIDTHS, self.real))

    def data(self, watch: Callable[[int, int], None], encoding: Callable[[int, int], None]) -> Pairs | Real:
        """What there is to learn from."""
        if self.real is None:
            return self.pairs(0, self.source.drawn, watch)
        return self.real.encoded(self.folder, encoding, self.processes)

    def roles(self, data: Pairs | Real) -> dict[str, Role]:
        """The networks that take part, and what else the method trains."""
        guidance = self.teacher.guidance if data.guided else 1.0
        succeeds = self.method.phase(0, self.settings.steps).stages > 1
        network = self.teacher.pipe.model.denoiser()
        adapter, seed = self.settings.adapter, self.settings.seed
        rows = row_facts_of(self.method)
        roles = student_of(network, guidance, succeeds, adapter=adapter, scales=self.scales, rows=rows, seed=seed)
        if self.beginning is not None:
            self.beginning.put(roles[STUDENT])
        first = data.batch(range(min(FIRST, data.count)))
        return roles | further_roles(self.method, roles, first)

    def run(self, roles: Roles, data: Pairs | Real) -> Run:
        """What is trained."""
        identity: dict[str, Any] = {"checks": asdict(self.measuring.checks)}
        if self.beginning is not None:
            identity["begins"] = self.beginning.digest
        return Run(self.method, roles, data, self.settings, self.folder, identity, self.place)

    def ending(self, watcher: Watcher | None) -> Ending | None:
        """When the looks of the main process end a run; None where they never do."""
        checks = self.measuring.checks
        return (
            Ending(checks.every, lambda step: watcher is not None and watcher.ends(step)) if checks.patience else None
        )

    def watcher(self, run: Run, watched: Judge | None, tell: Callable[[Health], None]) -> Watcher | None:
        """Who looks at the student of a run while it is trained; None where nobody is to."""
        if watched is None:
            return None
        trajectories = None
        if isinstance(run.method, Consistent) and not self.teacher.order.plan.stochastic:
            between = run.method.consistent(schedule_of(run.roles[STUDENT].network))
            trajectories = Trajectories.of(watched.held_out, between, self.batch)
        folder, steps = run.folder / STATES, run.settings.steps
        watcher = Watcher(run.method, self.measuring.checks, watched, folder, run.known_as, steps, trajectories)
        watcher.tell = tell
        return watcher

    def forecast(self) -> Forecast:
        """What it needs, by trial steps on pictures of noise."""
        blank, checks = self.blank, self.measuring.checks
        count = self.source.drawn + 2 * self.source.held_out + (2 * checks.count if checks.every else 0)
        run = self.run(self.roles(blank), blank)
        size = drawing.bytes_of(self.teacher, count)
        pairs = blank if isinstance(blank, Pairs) else drawing.blank(self.teacher, FIRST)
        seconds = count * drawing.seconds_of(self.teacher, pairs, self.batch)
        if self.real is not None:
            size += bytes_of(self.real.pictures)
            seconds += encoding_seconds(self.real.pictures, self.processes)
        return forecast_of(run, self.processes, size, seconds)

    def finish(self, run: Run, drawn: Drawn, watcher: Watcher | None, seconds: float) -> Report:
        """Write the student and its report. `seconds` is how long training took."""
        step = self.settings.steps if watcher is None else watcher.put_best(run.roles)
        student, method = run.roles[STUDENT], settled(self.method, run.roles)
        module, network = student.module.eval().requires_grad_(False), student.at(self.teacher.guidance)
        drawing_took = drawn.data.seconds if isinstance(drawn.data, Pairs) else None
        nfe = nfe_of(self.teacher.order.plan, drawn.judge.held_out)
        cost = Cost(self.source.drawn, nfe, drawing_took, seconds, 0 if self.real is None else self.real.count)
        report = report_of(network, method, drawn.judge, cost, step, self.settings.steps, self.measuring.tune)
        plans = files.plans_of(method, network)
        if self.settings.adapter is not None:
            module, changes = merged(module)
            if not student.whole:  # which no LoRA holds
                lora.write_lora(self.folder, self.origin, changes, plans[0])
        of = files.taught_by(self.teacher, original_of(self.teacher.pipe), step)
        of |= {"scales": list(self.scales)} if self.scales else {}
        target = files.target_of(self.folder, self.origin)
        files.write(target, self.origin, module, plans, {"student": of, **run.known_as})
        report = replace(report, offer=offer_of(target, network, plans, self.teacher.pipe, self.origin))
        write_whole(self.folder / REPORT, json.dumps(report.to_json(), indent=1).encode())
        return report


def real_pictures(
    method: Method, source: Source, pipe: Pipeline, processes: Processes, kept: Path | None
) -> Examples | None:
    """The data of a source, in pixels; None where it has none.

    Raises `InvalidInput` where the method takes none, or they do not fit the model.
    """
    data = source.data
    if data is None:
        return None
    check_takes_data(method)
    found = processes.main_first(lambda: Tolerant(open_data(data, kept)))
    return processes.together(lambda: pictures_of(found, pipe, source.mirror))
