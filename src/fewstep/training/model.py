"""From data to a model: a new network is trained, or one goes on from where it is."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from fewstep.core.errors import InvalidInput
from fewstep.data import Source, Tolerant, open_data
from fewstep.models import copies, is_bare
from fewstep.pipeline import Pipeline, load
from fewstep.training.course import Course, Regimen
from fewstep.training.denoising import Denoising
from fewstep.training.forecast import Forecast, announce
from fewstep.training.fresh import New
from fewstep.training.log import Logger
from fewstep.training.loop import Progress, train
from fewstep.training.place import Place
from fewstep.training.processes import Processes
from fewstep.training.settings import Settings

START = "start.safetensors"


@dataclass(frozen=True)
class Anew:
    """A model whose network is trained from new weights; its other parts stay as they are.

    Of a folder in the format of diffusers, `config.json` of the network is enough.
    """

    model: str | os.PathLike[str]


Start = New | Anew | str | os.PathLike[str]
"""What training begins with."""


class Watching(NamedTuple):
    """Who is told how it goes on.

    Attributes:
        encoding: of pictures that are encoded, (done, of); `training`: of that.
        forecast: what a run needs, before it begins; a run that surely does not fit into memory is refused then. None
            does not ask.
        loggers: are told the figures and pictures of the log.
        sheets: steps between pictures by the model as it learns; 0 draws none.
    """

    encoding: Callable[[int, int], None] = lambda done, of: None
    training: Callable[[Progress], None] = lambda now: None
    forecast: Callable[[Forecast], None] | None = None
    loggers: Sequence[Logger] = ()
    sheets: int = 0


class Trained(NamedTuple):
    """A trained model: its pipeline, where it lies, why some samples could not be read, by number, and the LoRA that is
    written apart, if any.
    """

    pipe: Pipeline
    path: Path
    lost: dict[int, str]
    lora: Path | None = None


def train_on(
    data: str | os.PathLike[str] | Source,
    start: Start,
    folder: str | os.PathLike[str],
    *,
    method: Denoising | None = None,
    settings: Settings | None = None,
    mirror: bool = False,
    place: Place | None = None,
    watch: Watching | None = None,
) -> Trained:
    """Train a model on pictures, and write it as a model of its own.

    In `folder` there are the states from which the same call goes on, the log, latents where the model has a VAE, and
    in the end the model: `model.safetensors`, or `model` in the format of diffusers. Interrupt it in any way.

    Args:
        data: see `fewstep.data.open_data`.
        start: a new network; a model with new weights; or a model to go on from, a shipped one, a .safetensors file of
            `fewstep train`, or a folder in the format of diffusers.
        method: what is learned and how; None is what is usual.
        settings: with an adapter a LoRA is trained in place of all weights. The model has it merged; of a folder it is
            written apart too, as `lora/pytorch_lora_weights.safetensors`.
        mirror: whether each picture is learned with left and right exchanged too.
        place: where and how it computes. Where a launcher started several processes, each calls this with the same
            arguments and is given the same model.

    Raises:
        InvalidInput: data, model, method and folder do not fit together, the run does not fit into memory, or too many
            samples cannot be read.
        Diverged: a loss is not finite.
        OSError: a file cannot be read or written; what was written before stays.
        Stopped: in a process other than the first, of what that one raises; in all of them, where one is lost.
    """
    regimen, folder, watch = regimen_of(method, settings, place, mirror), Path(folder), watch or Watching()
    processes = joined(regimen)
    source = processes.main_first(lambda: Tolerant(open_data(data, folder)))
    origin = processes.on_main(lambda: origin_of(start, source, regimen, folder))
    anew = isinstance(start, Anew)
    course = processes.together(lambda: Course.of(origin, anew, source, regimen, folder, processes))
    if watch.forecast is not None:
        announce(folder, processes, course.forecast, watch.forecast)
    found = course.examples(watch.encoding)
    run = course.run(found)
    drawing = bool(watch.sheets) and processes.main
    looks = processes.together(lambda: [course.sheets(found, watch.sheets)] if drawing else [])
    train(run._replace(looks=looks, loggers=watch.loggers), watch.training)
    target, apart = processes.on_main(lambda: course.finish(run))
    lost = {number: why for own in processes.gathered(source.lost) for number, why in own.items()}
    return Trained(load(target, device=regimen.place.here), target, lost, apart)


def forecast_on(
    data: str | os.PathLike[str] | Source,
    start: Start,
    folder: str | os.PathLike[str],
    *,
    method: Denoising | None = None,
    settings: Settings | None = None,
    mirror: bool = False,
    place: Place | None = None,
) -> Forecast:
    """What `train_on` with the same arguments would need: nothing is encoded, trained or written.

    Raises `InvalidInput` as `train_on`.
    """
    regimen = regimen_of(method, settings, place, mirror)
    processes, source = joined(regimen), Tolerant(open_data(data))
    with tempfile.TemporaryDirectory() as scratch:
        origin = origin_of(start, source, regimen, Path(scratch))
        course = Course.of(origin, isinstance(start, Anew), source, regimen, Path(folder), processes)
        return processes.on_main(course.forecast)


def regimen_of(method: Denoising | None, settings: Settings | None, place: Place | None, mirror: bool) -> Regimen:
    """What is asked for, or what is usual."""
    return Regimen(method or Denoising(), settings or Settings(), place or Place(), mirror)


def joined(regimen: Regimen) -> Processes:
    """The processes of a run. Raises `InvalidInput` where they cannot share a batch out."""
    processes = Processes.joined(regimen.place)
    processes.share(regimen.settings.batch, regimen.settings.accumulate)
    return processes


def origin_of(start: Start, source: Source, regimen: Regimen, folder: Path) -> Path:
    """The files of the model that is trained; those of a new one are written into a folder.

    Raises `InvalidInput` for a LoRA of weights that are new, and for a network without weights to go on from.
    """
    if regimen.settings.adapter is not None and isinstance(start, New | Anew):
        raise InvalidInput(
            "a LoRA changes the weights of a trained model, and these are new: leave the LoRA out, or go on from a "
            "model"
        )
    if isinstance(start, New):
        return start.write(folder / START, source, regimen.settings.seed)
    found = copies.source_of(start.model if isinstance(start, Anew) else start, "a trained model")
    if is_bare(found) and not isinstance(start, Anew):
        raise InvalidInput(
            f"{found} has a configuration of its network and no weights to go on from: train it anew (--anew, or "
            "fewstep.training.Anew), or fetch the weights"
        )
    return found
