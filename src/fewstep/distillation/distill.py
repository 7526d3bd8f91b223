"""From a teacher and a method to a student on the disk, with a report of what it gained."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch

from fewstep.benchmark.yardstick import features_of
from fewstep.core.errors import InvalidInput
from fewstep.distillation import lora
from fewstep.distillation import pairs as drawing
from fewstep.distillation import student as files
from fewstep.distillation.health import WIDTHS, Checks, Health, Watcher
from fewstep.distillation.judge import Judge
from fewstep.distillation.pairs import Pairs, Teacher
from fewstep.distillation.report import Cost, Report, report_of
from fewstep.distillation.rivals import nfe_of
from fewstep.distillation.trajectory import Consistent, Trajectories
from fewstep.drawing import Guidance
from fewstep.files import write_whole
from fewstep.measure.features import Features
from fewstep.pipeline import Pipeline, load
from fewstep.training import STATES, STUDENT, Adapter, Method, Progress, Run, Settings, schedule_of, student_of, train

REPORT = "report.json"
HELD_OUT, REFERENCE, WATCHED = 10**8, 2 * 10**8, 4 * 10**8
"""Numbers of pairs begin here that no training sees: of the report, of what its distances are measured to, and of the
looks while it trains.
"""


@dataclass(frozen=True)
class Source:
    """What a teacher is asked to draw, once, for its student to learn from.

    Attributes:
        subjects: prompts or labels in turn; None is every class.
        guidance: the scale, which the student has inside afterwards; None is what the teacher recommends.
        steps: of the teacher's own sampler; None is 20, or the plan of its own where the teacher is a student itself.
        count: pictures to train on; `held_out`: pictures for the report, and as many to measure distances to.
    """

    subjects: Sequence[Any] | None = None
    guidance: float | None = None
    steps: int | None = None
    count: int = 8192
    held_out: int = 512

    def __post_init__(self) -> None:
        for name, least in (("steps", 1), ("count", 1), ("held_out", 16)):
            value = getattr(self, name)
            if (type(value) is not int or value < least) and (name, value) != ("steps", None):
                raise InvalidInput(f"{name} must be a whole number of at least {least}, got {value!r}")


@dataclass(frozen=True)
class Measuring:
    """How a student is measured, while it is trained and in the end.

    Attributes:
        checks: the looks while it is trained.
        clip: a folder with CLIP's weights, on whose features distances are measured; None takes those of the shipped
            classifier for digits, and thumbnails for other pictures.
        tune: seconds in which a plan of the teacher's network is tuned, to stand beside the student at as many
            evaluations; 0 tunes none. Plans that come with the teacher stand there anyway.
    """

    checks: Checks = field(default_factory=Checks)
    clip: str | os.PathLike[str] | None = None
    tune: float = 0.0

    def __post_init__(self) -> None:
        if not (isinstance(self.tune, int | float) and math.isfinite(self.tune) and self.tune >= 0):
            raise InvalidInput(f"tune is a number of seconds of at least 0, got {self.tune!r}")


class Watch(NamedTuple):
    """Who is told how it goes on: of the pairs that are drawn, (done, of), of training, and of looks at the student."""

    pairs: Callable[[int, int], None] = lambda done, of: None
    training: Callable[[Progress], None] = lambda now: None
    health: Callable[[Health], None] = lambda found: None


class Distilled(NamedTuple):
    """A student: its pipeline, where it lies, what it gained, and the LoRA that is written apart, if any."""

    pipe: Pipeline
    path: Path
    report: Report
    lora: Path | None = None


def distill(
    teacher: str | os.PathLike[str],
    method: Method,
    folder: str | os.PathLike[str],
    *,
    settings: Settings | None = None,
    source: Source | None = None,
    measuring: Measuring | None = None,
    device: torch.device | str = "cpu",
    watch: Watch | None = None,
    adapter: Adapter | None = None,
) -> Distilled:
    """Train a student of few evaluations from a teacher of many, and write it as a model of its own.

    In `folder` there are the pairs, the states from which the same call goes on, the log, and in the end `report.json`
    and the student, `student` or `student.safetensors`. Interrupt it in any way: at most `settings.state_every` steps
    are done again.

    Args:
        teacher: a shipped model, a .safetensors file of `fewstep train`, or a folder in the format of diffusers.
        method: one of `fewstep.distillation`, such as `Regression(rows=1)`.
        adapter: trains a LoRA in place of all weights. The student has it merged; of a folder it is written apart too,
            as `lora/pytorch_lora_weights.safetensors`.

    Raises:
        InvalidInput: the method does not fit the teacher, the folder belongs to another run, and what drawing refuses.
        Diverged: a loss is not finite.
        OSError: a file cannot be written; what was written before stays.
    """
    settings, source, watch = settings or Settings(), source or Source(), watch or Watch()
    measuring = measuring or Measuring()
    place = Path(folder)
    origin = files.source_of(teacher)
    pipe = load(teacher, device=device)
    check(method, pipe)
    succeeds = method.phase(0, settings.steps).stages > 1
    of = Teacher.of(pipe, source.subjects, source.guidance, source.steps)
    check_guidance(method, of)
    features = features_of(pipe, measuring.clip)
    batch = min(settings.batch, 256)

    def draw(first: int, count: int) -> Pairs:
        return drawing.drawn(of, count, place / "pairs", first, batch, watch.pairs)

    data = draw(0, source.count)
    judge = Judge(draw(HELD_OUT, source.held_out), draw(REFERENCE, source.held_out), features, batch)
    scale = of.guidance if data.conditions.guided else 1.0
    roles = student_of(pipe.model.denoiser(), scale, succeeds, adapter, settings.seed)
    method.plan(roles[STUDENT].network)
    decides = {"checks": asdict(measuring.checks)} | ({} if adapter is None else {"lora": asdict(adapter)})
    run = Run(method, roles, data, settings, place, decides)
    watcher = watcher_of(run, draw, measuring.checks, features, batch)
    if watcher is not None:
        watcher.tell = watch.health
    seconds = 0.0

    def told(now: Progress) -> None:
        nonlocal seconds
        seconds = now.seconds
        watch.training(now)

    module = train(run._replace(looks=() if watcher is None else (watcher,)), told)
    step = settings.steps if watcher is None else watcher.put_best(roles[STUDENT].weights)
    module.eval().requires_grad_(False)
    network = roles[STUDENT].network
    cost = Cost(source.count, nfe_of(of.order.plan, data), data.seconds, seconds)
    found = report_of(network, method, judge, cost, step, settings.steps, measuring.tune)
    apart = None
    if adapter is not None:
        module, changes = lora.merged(module)
        apart = lora.write_lora(place, origin, changes, method.plan(network))
    target = files.target_of(place, origin)
    facts = {"student": {"teacher": pipe.model.name, "guidance": of.guidance, "step": step}, **run.known_as}
    files.write(target, origin, module, method.plan(network), facts)
    write_whole(place / REPORT, json.dumps(found.to_json(), indent=1).encode())
    return Distilled(load(target, device=device), target, found, apart)


def watcher_of(
    run: Run,
    draw: Callable[[int, int], Pairs],
    checks: Checks,
    features: Features,
    batch: int,
) -> Watcher | None:
    """Who looks at the student of a run while it is trained; None where nobody is to.

    `draw` gives the pairs from a number on, so many.
    """
    if not checks.every:
        return None
    watched = draw(WATCHED, checks.count)
    judge = Judge(watched, draw(WATCHED + checks.count, checks.count), features, batch, WIDTHS)
    trajectories = None
    if isinstance(run.method, Consistent) and not watched.teacher.order.plan.stochastic:
        between = run.method.consistent(schedule_of(run.roles[STUDENT].network))
        trajectories = Trajectories.of(watched, between, batch)
    return Watcher(run.method, checks, judge, run.folder / STATES, run.known_as, run.settings.steps, trajectories)


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
