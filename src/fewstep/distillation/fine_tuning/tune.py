"""A student of few steps that learns new pictures and stays one.

The loss of training on data teaches a network the mean of all that a noisy state may come from. A student of few steps
answers with one picture of these, so that loss undoes it. Here its teacher learns the new pictures, by that loss, which
suits it: the twin. Then the student learns from what the twin draws of the new subjects, by the method that made it,
and beside that to answer as before on those that it is to keep. What the twin forgot of these it never learns.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fewstep.data import Source, Tolerant, open_data
from fewstep.distillation import student as files
from fewstep.distillation.fine_tuning.keeping import Keep
from fewstep.distillation.fine_tuning.work import Work
from fewstep.distillation.judging.reference import Interval
from fewstep.models import copies
from fewstep.pipeline import Pipeline, load
from fewstep.training import (
    LATEST,
    STATES,
    Denoising,
    Forecast,
    Logger,
    Place,
    Progress,
    Settings,
    Watching,
    forecast_on,
    train,
    train_on,
)

TWIN = "twin"


class Watches(NamedTuple):
    """Who is told how it goes on.

    Attributes:
        twin: of the training of the twin. Its forecast is not asked.
        pairs: of the twin's trajectories, (done, of); `training`: of the student's own training.
        forecast: what both trainings need, before the first; a run that surely does not fit into memory is refused
            then. None does not ask.
        loggers, sheets: of the student's training, as in `Watching`.
    """

    twin: Watching = Watching()
    pairs: Callable[[int, int], None] = lambda done, of: None
    training: Callable[[Progress], None] = lambda now: None
    forecast: Callable[[Forecasts], None] | None = None
    loggers: Sequence[Logger] = ()
    sheets: int = 0


class Forecasts(NamedTuple):
    """What the two trainings need, which run one after the other."""

    twin: Forecast
    student: Forecast

    @property
    def seconds(self) -> float | None:
        """Of both, with their pictures; None where the steps of one do not fit into memory."""
        each = [self.twin.seconds, self.student.seconds]
        return None if None in each else sum(one for one in each if one is not None)

    def check(self) -> None:
        """Raise `InvalidInput` where one surely does not fit."""
        self.twin.check()
        self.student.check()


class FineTuned(NamedTuple):
    """A student that learned something new.

    Attributes:
        path: where it lies; `twin`: its teacher that learned the same, an ordinary model of many steps.
        kept: how many times as far the student is now from its teacher's pictures of what it keeps as it was, by the
            typical error on held-out noise; `new`: the same to the twin's pictures of what is new.
        lost: why some samples could not be read, by number; `lora`: the LoRA of the student alone, if any.
    """

    pipe: Pipeline
    path: Path
    twin: Path
    kept: Interval
    new: Interval
    lost: dict[int, str]
    lora: Path | None = None


def fine_tune(
    data: str | os.PathLike[str] | Source,
    student: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    *,
    keep: Keep | None = None,
    method: Denoising | None = None,
    settings: Settings | None = None,
    mirror: bool = False,
    place: Place | None = None,
    watch: Watches | None = None,
) -> FineTuned:
    """Train a student of few steps on new pictures, while it keeps its plans and what it draws of other things.

    In `folder` there are the twin's training in `twin`, its trajectories in `pairs`, states and log of the student, and
    in the end `report.json` and the student, `student` or `student.safetensors`. Interrupt it in any way: the same
    call goes on, to the same bits.

    Args:
        data: see `fewstep.data.open_data`.
        student: by phased, endpoint, regression, or dmd without noise between its rows; a shipped one, such as
            scenes-turbo, or that of `fewstep distill`.
        keep: what it keeps, and how it learns; of a model that draws from words the prompts to keep have to be named.
        method, settings, mirror: of the twin's training, as for `fewstep.training.train_on`. With an adapter twin and
            student learn a LoRA.

    Raises:
        InvalidInput: the model is not such a student, the data do not fit it, nothing is kept, the folder belongs to
            another run, or a run does not fit into memory.
        Diverged: a loss is not finite.
        OSError: a file cannot be written; what was written before stays.
    """
    source = Tolerant(open_data(data))
    work, watch = Work.of(source, student, Path(folder), keep, settings, place), watch or Watches()
    arguments = work.arguments(method, settings, mirror, place)
    if watch.forecast is not None and not (work.folder / TWIN / STATES / LATEST).is_file():
        needed = forecasts(work, data, arguments)
        if work.processes.main:
            watch.forecast(needed)
        needed.check()
    trained = train_on(data, work.learner.teacher, work.folder / TWIN, **arguments, watch=watch.twin)
    twin = work.twin(trained.pipe)
    run = work.run(work.data(work.pairs(twin, 0, work.keep.count, watch.pairs)))
    held_out = work.held_out(twin)
    looks = [work.sheets(watch.sheets)] if watch.sheets and work.processes.main else []
    train(run._replace(looks=looks, loggers=watch.loggers), watch.training)
    kept, new = work.processes.on_main(lambda: work.finish(run, held_out, trained.path))
    target, apart = files.target_of(work.folder, work.origin), copies.lora_of(work.folder)
    pipe = load(target, device=work.place.here)
    return FineTuned(pipe, target, trained.path, kept, new, trained.lost, apart if apart.is_file() else None)


def fine_tuning_forecast(
    data: str | os.PathLike[str] | Source,
    student: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    *,
    keep: Keep | None = None,
    method: Denoising | None = None,
    settings: Settings | None = None,
    mirror: bool = False,
    place: Place | None = None,
) -> Forecasts:
    """What `fine_tune` with the same arguments would need: nothing is encoded, drawn, trained or written.

    Raises `InvalidInput` as `fine_tune`.
    """
    work = Work.of(Tolerant(open_data(data)), student, Path(folder), keep, settings, place)
    return forecasts(work, data, work.arguments(method, settings, mirror, place))


def forecasts(work: Work, data: Any, arguments: Mapping[str, Any]) -> Forecasts:
    """What both trainings need."""
    twin = forecast_on(data, work.learner.teacher, work.folder / TWIN, **arguments)
    return Forecasts(twin, work.processes.on_main(work.forecast))
