"""From a teacher and a method to a student on the disk, with a report of what it gained."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from fewstep.distillation import student as files
from fewstep.distillation.judging.health import Health
from fewstep.distillation.judging.report import Report
from fewstep.distillation.judging.samples import by_pairs
from fewstep.distillation.source import Measuring, Source
from fewstep.distillation.terms.plan import plan_of
from fewstep.distillation.work import Work
from fewstep.models import copies
from fewstep.pipeline import Pipeline, load
from fewstep.training import Forecast, Logger, Look, Method, Place, Progress, Settings, train
from fewstep.training.forecast import announce
from fewstep.training.sheets import SHEETS, Sheets


class Watch(NamedTuple):
    """Who is told how it goes on.

    Attributes:
        pairs: of those that are drawn, (done, of); `encoding`: of real pictures; `training`: of that.
        forecast: what a run needs, before it begins; a run that surely does not fit into memory is refused then. None
            does not ask.
        health: of looks at the student.
        loggers: are told the figures and pictures of the log.
        sheets: steps between pictures of the student as it learns; 0 draws none.
    """

    pairs: Callable[[int, int], None] = lambda done, of: None
    training: Callable[[Progress], None] = lambda now: None
    forecast: Callable[[Forecast], None] | None = None
    health: Callable[[Health], None] = lambda found: None
    loggers: Sequence[Logger] = ()
    sheets: int = 0
    encoding: Callable[[int, int], None] = lambda done, of: None


class Distilled(NamedTuple):
    """A student: its pipeline, where it lies, what it gained, and the LoRA that is written apart, if any; and why some
    real pictures could not be read, by number.
    """

    pipe: Pipeline
    path: Path
    report: Report
    lora: Path | None = None
    lost: Mapping[int, str] = {}


def distill(
    teacher: str | os.PathLike[str],
    method: Method,
    folder: str | os.PathLike[str],
    *,
    settings: Settings | None = None,
    source: Source | None = None,
    measuring: Measuring | None = None,
    place: Place | None = None,
    watch: Watch | None = None,
) -> Distilled:
    """Train a student of few evaluations from a teacher of many, and write it as a model of its own.

    In `folder` there are the pairs, latents of real pictures where the model has a VAE, the states from which the same
    call goes on, the log, and in the end `report.json` and the student, `student` or `student.safetensors`. Interrupt
    it in any way: at most `settings.state_every` steps are done again.

    Args:
        teacher: a shipped model, a .safetensors file of `fewstep train`, or a folder in the format of diffusers.
        method: one of `fewstep.distillation`, such as `Regression(rows=1)`.
        settings: with an adapter a LoRA is trained in place of all weights. The student has it merged; of a folder it
            is written apart too, as `lora/pytorch_lora_weights.safetensors`.
        place: where and how it computes. Where a launcher started several processes, each calls this with the same
            arguments and is given the same student.

    Raises:
        InvalidInput: the method does not fit the teacher or takes no data, data do not fit the model or cannot be read,
            the folder belongs to another run, the run does not fit into memory, and what drawing refuses.
        Diverged: a loss is not finite.
        OSError: a file cannot be read or written; what was written before stays.
    """
    work = Work.of(teacher, method, folder, settings, source, measuring, place, Path(folder))
    watch, processes = watch or Watch(), work.processes
    if watch.forecast is not None:
        announce(work.folder, processes, work.forecast, watch.forecast)
    drawn = work.drawn(watch.pairs, watch.encoding)
    roles = work.roles(drawn.data)
    method = work.method
    plan_of(method, roles)
    run = work.run(roles, drawn.data)
    watcher = work.watcher(run, drawn.watched, watch.health) if processes.main else None
    looks: list[Look] = [] if watcher is None else [watcher]
    if watch.sheets:
        draw = by_pairs(drawn.judge.held_out, lambda now: plan_of(method, now))
        looks.append(Sheets(draw, work.teacher.pipe.model.codec.value_range, work.folder / SHEETS, watch.sheets))
    seconds = 0.0

    def told(now: Progress) -> None:
        nonlocal seconds
        seconds = now.seconds
        watch.training(now)

    train(run._replace(looks=looks, loggers=watch.loggers, ending=work.ending(watcher)), told)
    report = processes.on_main(lambda: work.finish(run, drawn, watcher, seconds))
    target, apart = files.target_of(work.folder, work.origin), copies.lora_of(work.folder)
    lora = apart if apart.is_file() else None
    return Distilled(load(target, device=work.place.here), target, report, lora, work.lost)


def forecast(
    teacher: str | os.PathLike[str],
    method: Method,
    folder: str | os.PathLike[str],
    *,
    settings: Settings | None = None,
    source: Source | None = None,
    measuring: Measuring | None = None,
    place: Place | None = None,
) -> Forecast:
    """What `distill` with the same arguments would need: nothing is drawn, trained or written.

    Raises `InvalidInput` as `distill`.
    """
    work = Work.of(teacher, method, folder, settings, source, measuring, place)
    return work.processes.on_main(work.forecast)
