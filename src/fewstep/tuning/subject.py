"""From a pipeline to the endless images that plans are tuned and measured on: its classes in turn, or prompts."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from fewstep import zoo
from fewstep.batch.prompts import subjects
from fewstep.core.errors import InvalidInput
from fewstep.core.plan import Plan
from fewstep.denoise.base import Denoiser
from fewstep.drawing import Layout, png_bytes
from fewstep.models.identity import in_dtype
from fewstep.pipeline import Pipeline, sheet_of
from fewstep.tuning.problem import Problem
from fewstep.tuning.settings import HELD_OUT, TuningSettings
from fewstep.zoo.scenes.prompts import held_out_prompts, training_prompts

Subject = Pipeline | Problem
"""What is tuned for: a pipeline, or a problem of the caller's own."""
Conditions = Sequence[Any]
"""Labels or prompts; image i has number i modulo their count."""
TUNED_ON = 256
"""Captions of the kind that a model of scenes was trained on that it is tuned on where no prompts are given."""


def problem_at(subject: Subject, guidance: float | None, settings: TuningSettings) -> Problem:
    """What plans are tuned on: the problem that is given or that of a pipeline, as the settings have it."""
    if isinstance(subject, Problem):
        if guidance is not None or settings.prompts is not None:
            raise InvalidInput("a problem has its own guidance and prompts: leave out guidance= and prompts=")
        problem = subject
    else:
        problem = problem_of(subject, guidance, settings.prompts)
    given = {"objective": settings.objective, "batch": settings.batch, "seed": settings.seed}
    return replace(problem, **{name: value for name, value in given.items() if value is not None})


def problem_of(pipe: Pipeline, guidance: float | None = None, prompts: str | os.PathLike[str] | None = None) -> Problem:
    """What a pipeline draws, as a problem of tuning; of prompts a quarter are for the held-out images alone.

    Args:
        guidance: the scale; None is the model's own.
        prompts: a file with a prompt a line, for a model that takes prompts.

    Raises:
        InvalidInput: for prompts to a model of classes, guidance of a model without condition, and fewer than 8
            prompts.
    """
    scale = scale_of(pipe, guidance)
    if pipe.model.teacher is not None:
        raise InvalidInput(
            f"{pipe.name} is a student, which is judged by what its teacher draws: tune it by "
            f"fewstep.distillation.tune_student or `fewstep tune`, or tune its teacher, {pipe.model.teacher.name}"
        )
    others = sorted({1.0, 1.5 * scale} - {scale})
    conditioner = pipe.model.conditioner
    if conditioner.field == "labels":
        labels = labels_of(pipe, prompts)
        return drawing(pipe, lambda n: labels[n % len(labels)], scale, others if conditioner.guides else ())
    train, held_out = prompts_in_parts(pipe, prompts)

    def prompt(number: int) -> str:
        own = held_out if number >= HELD_OUT else train
        return own[number % len(own)]

    def seen(numbers: Sequence[int]) -> Denoiser:
        return pipe.denoiser([train[n % len(train)] for n in numbers], guidance=scale)

    problem = drawing(pipe, prompt, scale, others)
    return replace(problem, elsewhere={"prompts it learned from": seen, **problem.elsewhere})


def drawing(pipe: Pipeline, condition: Callable[[int], Any], scale: float, others: Sequence[float] = ()) -> Problem:
    """The problem of a pipeline whose image i has the `condition` of i, at a guidance scale; `others` are scales on
    which a tuned plan is tried too. Its settings say the precision where that is not float32.
    """
    lower = in_dtype(pipe.model.dtype)

    def drawn(at: float) -> Callable[[Sequence[int]], Denoiser]:
        return lambda numbers: pipe.denoiser([condition(n) for n in numbers], guidance=at)

    def draw(rows: int, images: int) -> Any:
        return pipe([condition(n) for n in range(images)], steps=rows, guidance=scale, batch=images)

    return Problem(
        drawn(scale),
        pipe.schedule_at(),
        pipe.state_shape(),
        name=pipe.name,
        digest=pipe.model.identity.merged,
        settings={"guidance": scale, **({"precision": lower["dtype"]} if lower else {})},
        elsewhere={f"guidance {other:g}": drawn(other) for other in others},
        device=pipe.model.device,
        default=lambda rows: usual_plan(pipe, rows),
        draw=draw,
        picture=lambda states: _picture(pipe, states),
    )


def usual_plan(pipe: Pipeline, steps: int) -> Plan:
    """The plan of the model's own sampler in so many steps; DDIM's for a student, whose own plan has its steps."""
    own = () if "plan" not in pipe.model.recommended.get("sampling", {}) else ("ddim",)
    return pipe.plan(*own, steps=steps)


def _picture(pipe: Pipeline, states: Tensor) -> bytes:
    """States decoded, one beside the other, enlarged to 64 pixels at least."""
    pixels = pipe.decode(states)
    layout = Layout(columns=len(pixels), scale=max(1, 64 // pixels.shape[-1]), gap=1)
    return png_bytes(sheet_of(pixels, pipe.value_range, layout))


def scale_of(pipe: Pipeline, guidance: float | None) -> float:
    """The guidance scale, the model's own for None.

    Raises `InvalidInput` for a scale that is not a finite number, where there is nothing to guide, and for a model that
    recommends a second scale, which is not tuned for or measured.
    """
    if pipe.model.recommended["guidance"].get("true_cfg") is not None:
        raise InvalidInput(
            f"{pipe.name} recommends true_cfg, the scale of a negative branch, in its fewstep.json: only the scale "
            "that the network is told is tuned for and measured. Take true_cfg out of a copy of that file"
        )
    if guidance not in (None, 1) and not pipe.model.conditioner.guides:
        raise InvalidInput(f"{pipe.name} takes no condition, so there is nothing to guide: leave out --guidance")
    scale = pipe.model.recommended["guidance"]["scale"] if guidance is None else guidance
    check_scale(scale)
    return float(scale)


def check_scale(guidance: Any) -> None:
    """Raise `InvalidInput` unless a guidance scale is None or a finite number."""
    number = isinstance(guidance, int | float) and not isinstance(guidance, bool)
    if guidance is not None and not (number and math.isfinite(guidance)):
        raise InvalidInput(f"a guidance scale is a finite number, got {guidance!r:.60}")


def labels_of(pipe: Pipeline, prompt_file: str | os.PathLike[str] | None) -> Conditions:
    """The labels of a model of classes, (None,) where it has none."""
    if prompt_file is not None:
        raise InvalidInput(f"--prompts is for models that take prompts, and {pipe.name} draws classes")
    return pipe.model.conditioner.subjects


def prompts_of(pipe: Pipeline, prompt_file: str | os.PathLike[str] | None, count: int, seed: int = 0) -> list[str]:
    """The different prompts of a file; without one, `count` of the captions of scenes that no training saw."""
    if prompt_file is None:
        if not _is_shipped(pipe):
            raise InvalidInput(f"{pipe.name} draws from words: give --prompts FILE, a prompt a line")
        return [prompt.text for prompt in held_out_prompts(count, seed)]
    return subjects(prompt_file)


def prompts_in_parts(pipe: Pipeline, prompt_file: str | os.PathLike[str] | None) -> tuple[list[str], list[str]]:
    """The prompts that a model of words is tuned on, and the quarter that is held out. Raises `InvalidInput` for fewer
    than 8.
    """
    return _split(_tuned_on(pipe, prompt_file))


def _tuned_on(pipe: Pipeline, prompt_file: str | os.PathLike[str] | None) -> list[str]:
    """The prompts to tune on: those of adherence, which no training saw, are left to those who measure it."""
    if prompt_file is not None or not _is_shipped(pipe):
        return prompts_of(pipe, prompt_file, TUNED_ON)
    return list(dict.fromkeys(prompt.text for prompt in training_prompts(TUNED_ON)))


def _is_shipped(pipe: Pipeline) -> bool:
    """Whether the model is the shipped one of scenes, by where it lies: another may have its name."""
    own = zoo.shipped_path("scenes") / "plans"
    return Path(pipe.model.plans or "").resolve() == own.resolve()


def _split(prompts: list[str]) -> tuple[list[str], list[str]]:
    """The prompts that are learned from, and a quarter that is held out."""
    if len(prompts) < 8:
        raise InvalidInput(f"tuning needs at least 8 different prompts, a quarter of them held out, got {len(prompts)}")
    held = len(prompts) // 4
    return prompts[held:], prompts[:held]
