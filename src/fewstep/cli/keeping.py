"""`fewstep train model --keep-steps`: a student of few steps that learns new pictures and stays one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import click

import fewstep as fs
from fewstep.cli import settings, trainer
from fewstep.cli.headings import KEEPING, option, several
from fewstep.cli.output import note, progress, show_json, show_table, waiting
from fewstep.core import InvalidInput

PAIRS = 2048
OWN = ("kept", "pairs", "teacher", "teacher_steps", "distill_steps", "distill_rate", "keep_weight")
"""Options that --keep-steps alone has a use for."""
OPTIONS = several(
    option(
        "--keep-steps",
        is_flag=True,
        heading=KEEPING,
        help="Train a student of few steps, such as scenes-turbo, so that it keeps them: its teacher learns the "
        "pictures, and is distilled back into it.",
    ),
    option(
        "--kept",
        type=click.Path(),
        metavar="FILE",
        usual="classes that the data do not show",
        heading=KEEPING,
        help="File with a prompt a line, of what it is to go on drawing as it does.",
    ),
    option(
        "--pairs",
        type=click.IntRange(1),
        usual=f"{PAIRS}",
        heading=KEEPING,
        help="Pictures that its teacher draws of what it learned, to learn from.",
    ),
    option(
        "--teacher",
        metavar="MODEL",
        usual="as its files say",
        heading=KEEPING,
        help="The model that it was distilled from.",
    ),
    option(
        "--teacher-steps",
        type=click.IntRange(1),
        usual="as many as it has levels, or 20",
        heading=KEEPING,
        help="Steps of the teacher's own sampler, for these pictures.",
    ),
    option(
        "--distill-steps",
        type=click.IntRange(1),
        usual="as --steps",
        heading=KEEPING,
        help="Steps of the optimiser for the student, after those of its teacher.",
    ),
    option(
        "--distill-rate",
        type=click.FloatRange(0),
        usual="as --rate",
        heading=KEEPING,
        help="Learning rate of the student at its peak.",
    ),
    option(
        "--keep-weight",
        type=click.FloatRange(0, min_open=True),
        usual="1",
        heading=KEEPING,
        help="How much what it keeps counts, beside what is new.",
    ),
)
"""Adds all of them."""


def check(start: str | None, given: Mapping[str, Any]) -> None:
    """Raise `InvalidInput` for options that do not go together."""
    used = [name for name in OWN if given[name] is not None]
    if used and not given["keep_steps"]:
        names = ", ".join("--" + name.replace("_", "-") for name in used)
        raise InvalidInput(f"{names}: of --keep-steps alone, which is not there; give it, or leave these out")
    if given["keep_steps"] and start is None:
        raise InvalidInput("--keep-steps is for a student of few steps: name it by --from")
    if given["keep_steps"] and given["anew"]:
        raise InvalidInput("--keep-steps keeps what a student has learned, and --anew gives it new weights: leave one")


def keep_of(given: Mapping[str, Any], how: fs.training.Settings) -> fs.distillation.Keep:
    """What a student keeps, and how it is trained; `how`: its teacher."""
    own = {"steps": given["distill_steps"], "rate": given["distill_rate"]}
    return fs.distillation.Keep(
        None if given["kept"] is None else fs.batch.subjects(given["kept"]),
        given["pairs"] or PAIRS,
        given["teacher"],
        given["teacher_steps"],
        replace(how, **{name: value for name, value in own.items() if value is not None}),
        given["keep_weight"] or 1.0,
    )


def run(
    data: str, student: str, folder: Path, arguments: Mapping[str, Any], given: Mapping[str, Any], as_json: bool
) -> None:
    """Say what it needs, or do it and show what came of it."""
    keep, how = keep_of(given, arguments["settings"]), arguments["settings"]
    if given["dry_run"]:
        with waiting("timing some steps"):
            needed = fs.distillation.fine_tuning_forecast(data, student, folder, keep=keep, **arguments)
        show_forecasts(needed, as_json)
        return
    own = keep.settings or how
    note(
        f"Its teacher learns the pictures for {how.steps} steps of {how.batch} and draws {keep.count} of its own, and "
        f"the student learns from them for {own.steps} steps. Ctrl-C stops; the same command goes on"
    )
    twin = folder / fs.distillation.TWIN
    with progress("training", how.steps + own.steps) as bar:
        watch = fs.distillation.Watches(
            fs.training.Watching(
                partial(trainer.encoding, bar),
                settings.telling(bar),
                loggers=trainer.loggers_of(given, twin),
                sheets=given["sheet_every"],
            ),
            partial(drawing, bar),
            settings.telling(bar),
            say,
            trainer.loggers_of(given, folder),
            given["sheet_every"],
        )
        found = fs.distillation.fine_tune(data, student, folder, keep=keep, **arguments, watch=watch)
    show(found, as_json)


def drawing(bar: Callable[..., None], done: int, of: int) -> None:
    """Show how many pictures are drawn."""
    bar(done, of=of, words="drawing with its teacher")


def parts(found: fs.distillation.Forecasts) -> list[tuple[str, fs.training.Forecast, str]]:
    """The two trainings, what each needs, and how its pictures are made."""
    return [("its teacher", found.twin, "encode"), ("the student", found.student, "draw")]


def say(found: fs.distillation.Forecasts) -> None:
    """What both trainings need, in a line each."""
    for who, one, made in parts(found):
        note(f"For {who} it needs " + "; ".join(words for _, words in trainer.lines_of(one, made)))


def show_forecasts(found: fs.distillation.Forecasts, as_json: bool) -> None:
    """What both trainings need, and no more of it."""
    if as_json:
        each = {"twin": found.twin, "student": found.student}
        show_json({**{name: trainer.facts_of(one) for name, one in each.items()}, "seconds": found.seconds})
        return
    lines = [
        [f"{who}: {what}", words] for who, one, made in parts(found) for what, words in trainer.lines_of(one, made)
    ]
    whole = "not known" if found.seconds is None else trainer.spoken(found.seconds)
    show_table(["what it needs", ""], [*lines, ["in all: time", whole]])


def show(found: fs.distillation.FineTuned, as_json: bool) -> None:
    """Say where the student lies, and what it kept and learned."""
    if as_json:
        apart = {} if found.lora is None else {"lora": str(found.lora)}
        errors = {"kept": found.kept._asdict(), "new": found.new._asdict()}
        show_json({"path": str(found.path), "twin": str(found.twin), **apart, **errors, "lost": found.lost})
        return
    trainer.note_lost(found.lost)
    note(f"Its error in what it keeps is {found.kept.value:.3g} times that of before (95%: {found.kept})")
    note(f"Its error in what is new is {found.new.value:.3g} times that of before (95%: {found.new})")
    note(f"Its teacher that learned the same, with any guidance, is {found.twin}")
    if found.lora is not None:
        note(f"The LoRA alone is {found.lora}")
    click.echo(found.path)
