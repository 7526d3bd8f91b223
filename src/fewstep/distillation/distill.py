"""From a teacher and a method to a student on the disk, with a report of what it gained."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fewstep.core.errors import InvalidInput
from fewstep.core.plan import Plan
from fewstep.distillation import lora
from fewstep.distillation import pairs as drawing
from fewstep.distillation import student as files
from fewstep.distillation.pairs import Pairs, Teacher
from fewstep.distillation.report import Report, report_of
from fewstep.distillation.suitability import check, check_guidance, original_of, scales_of
from fewstep.files import write_whole
from fewstep.pipeline import Pipeline, load
from fewstep.training import STUDENT, TEACHER, Adapter, Method, Progress, Role, Run, Settings, student_of, train

REPORT = "report.json"
HELD_OUT = 10**8
"""Numbers of pairs that are held out begin here."""


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
    """Who is told how it goes on: of the pairs that are drawn, (done, of), and of training."""

    pairs: Callable[[int, int], None] = lambda done, of: None
    training: Callable[[Progress], None] = lambda now: None


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
    place = Path(folder)
    origin = files.source_of(teacher)
    pipe = load(teacher, device=device)
    check(method, pipe)
    succeeds = method.phase(0, settings.steps).stages > 1
    of = Teacher.of(pipe, source.subjects, source.guidance, source.steps)
    check_guidance(method, of)
    scales = scales_of(method, of)
    roles = student_of(pipe.model.denoiser(), 1.0, succeeds, adapter=adapter, scales=scales, seed=settings.seed)
    batch = min(settings.batch, 256)
    data = drawing.drawn(of, source.count, place / "pairs", 0, batch, watch.pairs)
    held_out = drawing.drawn(of, source.held_out, place / "pairs", HELD_OUT, batch)
    if data.conditions.guided:
        roles[TEACHER] = replace(roles[TEACHER], guidance=of.guidance)
    plan = method.plan(roles[STUDENT].network)
    seconds = 0.0

    def told(now: Progress) -> None:
        nonlocal seconds
        seconds = now.seconds
        watch.training(now)

    run = Run(method, roles, data, settings, place, {} if adapter is None else {"lora": asdict(adapter)})
    module = train(run, told)
    module.eval().requires_grad_(False)
    found = report_of(student_draws(roles[STUDENT], plan, held_out), plan, held_out, seconds, batch)
    apart = None
    if adapter is not None:
        module, changes = lora.merged(module)
        apart = lora.write_lora(place, origin, changes, plan)
    target = files.target_of(place, origin)
    student = {"teacher": original_of(pipe), "guidance": of.guidance, **({"scales": list(scales)} if scales else {})}
    facts = {"student": student, **run.known_as}
    files.write(target, origin, module, plan, facts)
    write_whole(place / REPORT, json.dumps(found.to_json(), indent=1).encode())
    return Distilled(load(target, device=device), target, found, apart)


def student_draws(student: Role, plan: Plan, held_out: Pairs) -> Callable[[Sequence[int]], Tensor]:
    """Draws held-out pairs with the student, by their numbers from 0."""

    def draw(part: Sequence[int]) -> Tensor:
        numbers = [held_out.first + number for number in part]
        batch = held_out.batch(part)
        if student.told is not None:
            batch = replace(batch, scales=(held_out.teacher.guidance,) * len(part))
        noise = drawing.noise_of(numbers, held_out.shape, held_out.teacher.pipe.model.device)
        return drawing.run(plan, student.answering(batch), noise, numbers)

    return draw
