"""A model made cheaper to call, by what is measured of it on this machine."""

from __future__ import annotations

import math
import os
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from fewstep.benchmark.yardstick import Adherence
from fewstep.core.errors import InvalidInput, positive
from fewstep.core.plan import Plan
from fewstep.files import check_writable, write_whole
from fewstep.optimization.choice import Choice
from fewstep.optimization.quality import Judge
from fewstep.optimization.report import REPORT_FILES, Report, Total
from fewstep.optimization.speed import race
from fewstep.optimization.technique import TECHNIQUES, Technique
from fewstep.pipeline import Pipeline, load
from fewstep.run.machine import machine_of
from fewstep.tuning.subject import prompts_of, scale_of
from fewstep.variants import Store, Variant, files_of, is_variant, write
from fewstep.zoo.scenes.prompts import held_out_prompts

MOST_LOSS = 0.01
FIRST_SEED = 2**33
"""Of the drawings that are timed."""


@dataclass(frozen=True)
class Budget:
    """What measuring may take.

    Attributes:
        seconds: after which no more techniques are tried, None for no limit; a technique that was begun is finished.
        images: that a loss is judged on, at most; it is looked at with fewer first.
    """

    seconds: float | None = None
    images: int = 1024

    def __post_init__(self) -> None:
        if self.seconds is not None:
            positive("seconds", self.seconds)
        if type(self.images) is not int or self.images < 8:
            raise InvalidInput(f"images must be a whole number of at least 8, got {self.images!r}")


@dataclass(frozen=True)
class Optimized:
    """A pipeline made cheaper, what was made of its model, and the report."""

    pipe: Pipeline
    variant: Variant
    report: Report


def optimize(
    subject: Pipeline | str | os.PathLike[str],
    *,
    most_loss: float = MOST_LOSS,
    batches: Sequence[int] = (1,),
    plan: Plan | None = None,
    guidance: float | None = None,
    prompts: str | os.PathLike[str] | None = None,
    device: torch.device | str = "cpu",
    budget: Budget = Budget(),  # it is frozen
    techniques: Sequence[Technique] = TECHNIQUES,
    output: str | os.PathLike[str] | None = None,
    store: Store | None = None,
    watch: Callable[[str], None] = lambda words: None,
) -> Optimized:
    """Measure what makes a model's calls cheaper here, and keep what pays.

    Args:
        subject: a pipeline, or what `fewstep.load` takes.
        most_loss: that is allowed in all, 0.01 is 1%: of the share of prompts that are drawn right, where somebody can
            read pictures, as those of scenes; else the share by which the error of the typical picture grows.
        batches: images at once that the model is to draw; speed is measured for the first.
        plan: that it draws by; None is the model's own. It may not draw noise on the way.
        guidance: the scale; None is the model's own.
        prompts: a file with a prompt a line, for a model that takes prompts and knows none.
        techniques: that are tried.
        output: the folder to write the model to, with its report; None writes nothing. Where nothing pays, the report
            alone is written, and a model that was there before is removed.
        store: where compiled functions are kept; None is the user's own folder.

    Raises:
        InvalidInput: for a student, which has no error of its own; a plan with noise; values out of range; and with
            `output` for a pipeline, and a model whose files cannot be written anew.
    """
    files = None if output is None else _files(subject, Path(output))
    pipe = subject if isinstance(subject, Pipeline) else load(subject, device=device)
    positive("most_loss", most_loss)
    if not batches or any(type(batch) is not int or not 1 <= batch <= 1024 for batch in batches):
        raise InvalidInput(f"batches are whole numbers from 1 to 1024, got {batches!r}")
    choice = _choice(pipe, most_loss, batches, plan, guidance, prompts, budget)
    choice.techniques, choice.watch = techniques, watch
    choice.store = store or Store(watch=watch)
    began = time.monotonic()
    variant = choice.run()
    made = pipe if variant == Variant() else Pipeline(variant.of(pipe.model, batches, choice.store))
    report = _report(choice, made, time.monotonic() - began)
    if files is not None and output is not None:
        _write(Path(output), files, pipe, variant, batches, report)
    return Optimized(made, variant, report)


def _files(subject: Pipeline | str | os.PathLike[str], output: Path) -> Path:
    """Of the model that is to be written. Raises before anything is measured what writing would raise."""
    if isinstance(subject, Pipeline):
        raise InvalidInput("a pipeline does not know its files: give the model's name or path where output is given")
    source = files_of(subject)
    if output.exists() and not (is_variant(output) or is_report(output)):
        raise InvalidInput(f"{output} is there and holds no optimised model: name another folder")
    check_writable(output / "report.json", parents=True)
    return source


def is_report(folder: Path) -> bool:
    """Whether a folder holds the report of a model that stayed as it is, or nothing."""
    return folder.is_dir() and {path.name for path in folder.iterdir()} <= set(REPORT_FILES)


def _write(output: Path, files: Path, pipe: Pipeline, variant: Variant, batches: Sequence[int], report: Report) -> None:
    """The model with its variant and the report, or the report alone where nothing pays."""
    if variant != Variant():
        if output.exists() and not is_variant(output):
            shutil.rmtree(output)
        write(output, files, pipe.model, variant, batches, report.files)
        return
    if is_variant(output):
        shutil.rmtree(output)
    output.mkdir(parents=True, exist_ok=True)
    for name, content in report.files.items():
        write_whole(output / name, content)


def _choice(
    pipe: Pipeline,
    most_loss: float,
    batches: Sequence[int],
    plan: Plan | None,
    guidance: float | None,
    prompts: str | os.PathLike[str] | None,
    budget: Budget,
) -> Choice:
    """What is to be measured, before anything is."""
    if pipe.model.teacher is not None:
        raise InvalidInput(
            f"{pipe.name} is a student, whose pictures have no converged solution to be measured against: optimise its "
            f"teacher, {pipe.model.teacher.name}, and make the same of the student (fewstep.variants)"
        )
    scale, batch = scale_of(pipe, guidance), batches[0]
    condition, adherence = _conditions(pipe, prompts, budget.images)
    judge = Judge(pipe, plan or pipe.plan(), scale, condition, budget.images, max(batches), adherence)

    def draw(one: Pipeline, turn: int) -> Any:
        subjects = [condition(turn * batch + i) for i in range(batch)]
        return one(subjects, sampler=judge.plan, guidance=scale, batch=batch, seed=FIRST_SEED + turn * batch)

    end = math.inf if budget.seconds is None else time.monotonic() + budget.seconds
    return Choice(judge, most_loss, draw, batch, batches, Store(), end)


def _conditions(
    pipe: Pipeline, prompts: str | os.PathLike[str] | None, count: int
) -> tuple[Callable[[int], Any], Adherence | None]:
    """The label or prompt of each image, and who reads whether pictures show it."""
    conditioner = pipe.model.conditioner
    if conditioner.field == "labels":
        if prompts is not None:
            raise InvalidInput(f"prompts are for models that take them, and {pipe.name} draws classes: leave them out")
        labels = conditioner.subjects
        return lambda number: labels[number % len(labels)], None
    texts = prompts_of(pipe, prompts, count)
    named = Adherence(held_out_prompts(count)) if prompts is None else None
    return lambda number: texts[number % len(texts)], named


def _report(choice: Choice, made: Pipeline, seconds: float) -> Report:
    """What was found, with the whole variant beside the model as it is at every number of images at once."""
    judge, model = choice.judge, choice.judge.pipe.model
    totals = []
    for batch in () if made is judge.pipe else choice.batches:
        choice.watch(f"timing the whole at batch {batch}")

        def draw(pipe: Pipeline, turn: int, batch: int = batch) -> Any:
            subjects = [judge.condition(turn * batch + i) for i in range(batch)]
            return pipe(subjects, sampler=judge.plan, guidance=judge.guidance, batch=batch, seed=FIRST_SEED + turn)

        (times,) = race(
            lambda turn: draw(judge.pipe, turn), [lambda turn: draw(made, turn)], torch.device(model.device)
        )
        totals.append(Total(batch, times.ratio, sum(times.base) / len(times.base), times.seconds))
    last = next((trial for trial in reversed(choice.trials) if trial.kept), None)  # which was judged with all before
    return Report(
        model={"name": model.name, "weights": model.weights, "digest": made.model.digest},
        variant=choice.variant,
        machine=machine_of(model.device),
        plan={
            "sampler": judge.plan.recipe.sampler,
            "grid": judge.plan.recipe.grid,
            "rows": len(judge.plan.rows),
            "digest": judge.plan.digest,
            "guidance": judge.guidance,
        },
        most_loss=choice.most,
        trials=tuple(choice.trials),
        totals=tuple(totals),
        loss=last and last.loss,
        adherence=last and last.adherence,
        images=0 if last is None else max(one.n for one in (last.loss, last.adherence) if one is not None),
        seconds=seconds,
        cut=choice.cut,
    )
