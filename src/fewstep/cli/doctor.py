"""`fewstep doctor`: what a network's outputs are consistent with, and whether its files say so."""

from __future__ import annotations

import itertools
import math
from typing import Any

import click

import fewstep as fs
from fewstep.cli import measuring, place
from fewstep.cli.app import FAILED, Failure
from fewstep.cli.headings import LAST, Command, option
from fewstep.cli.output import JSON, note, progress, show_json, show_table
from fewstep.core import InvalidInput

IMAGES, OF_WORDS = 64, 16
"""Images to test with, where nobody says it: of classes, and from prompts, as these models take longer."""
STEPS, STEPS_OF_WORDS = 25, 12
"""Steps to draw them in, under each reading."""
PROMPTS = (
    "a photo of a cat", "a mountain lake at dawn", "a bowl of fruit on a table", "a street in the rain",
    "a portrait of a woman", "a red car", "a castle on a hill", "a cup of coffee",
)  # fmt: skip
"""What a model of words draws where no prompts are given."""


@click.command(cls=Command, most_used=("fix", "prompts"))
@place.MODEL
@measuring.PROMPTS
@measuring.images(2, 1024, f"{IMAGES}, or {OF_WORDS} from prompts", "Images to test each reading with.")
@measuring.SEED
@place.options("device", "dtype", "variant", "config", "allow_pickle")
@option(
    "--fix",
    is_flag=True,
    heading=LAST,
    help="Correct `prediction_type` in scheduler_config.json where it is contradicted.",
)
@JSON
@click.pass_context
def doctor(ctx: click.Context, model: str, fix: bool, as_json: bool, **given: Any) -> None:
    """Test which prediction type and noise schedule the outputs of MODEL, the digits by default, are consistent with.

    With the wrong one a network draws noise, and no error says so. This tests every reading on clean images that the
    network draws under it; the right one removes noise better than any linear filter. Where the files of MODEL clearly
    say something else, it says what to change, and ends with code 1; --fix changes it.
    """
    pipe = place.load(model, given)
    file = fs.doctor.scheduler_file(model)
    if fix and file is None:
        raise InvalidInput(f"--fix corrects scheduler_config.json in a folder, and {model} has none")
    found = _diagnosed(pipe, model, given)
    fault = _fault(pipe, found, file)
    fixed = bool(fault) and fix
    if fixed:
        _correct(found, file, fault)
    if as_json:
        says = {"prediction": pipe.model.prediction, "schedule": pipe.model.schedule.kind}
        facts = {"readings": _readings(found), "verdict": found.verdict, "contradiction": fault or None, "fixed": fixed}
        show_json({"model": pipe.name, "file_says": says, **facts})
    else:
        _show(found)
        note(f"{pipe.name} itself says: {pipe.model.prediction} on {pipe.model.schedule.kind}")
    if fixed and file is not None:
        note(f"{fault}. Done: {file.path}")
    elif fault:
        click.echo(fault, err=as_json)
        ctx.exit(FAILED)
    elif fix:
        note("nothing to correct: the outputs do not contradict the file")


def _diagnosed(pipe: fs.Pipeline, model: str, given: dict[str, Any]) -> fs.doctor.Diagnosis:
    """Every reading of the model, tested."""
    own = pipe.model
    if own.rows:
        raise InvalidInput(f"{own.name} {own.rows}, and readings are tested of networks that do not: test its teacher")
    words = own.conditioner.field == "prompts"
    images = given["images"] or (OF_WORDS if words else IMAGES)
    drawn = list(itertools.islice(itertools.cycle(_subjects(pipe, model, given["prompts"])), images))
    conditions = own.conditioner.encode(list(pipe.order(drawn).drawing.each))
    with progress("testing", 1) as bar:
        return fs.diagnose(
            fs.doctor.hosted(own.network, own.device, own.dtype),
            (images, *pipe.state_shape()),
            condition=own.placed([one.positive for one in conditions]),
            seed=given["seed"],
            steps=STEPS_OF_WORDS if words else STEPS,
            claim=fs.doctor.Claim(own.prediction, pipe.schedule_at(), own.time_scale, own.sigma_data),
            on_reading=lambda done, of: bar(done, of=of),
        )


def _subjects(pipe: fs.Pipeline, model: str, prompts: str | None) -> Any:
    """The labels or prompts that images have in turn."""
    if pipe.model.conditioner.field == "labels":
        if prompts is not None:
            raise InvalidInput(f"--prompts is for models that take prompts, and {pipe.name} draws classes")
        return pipe.model.conditioner.subjects
    if prompts is not None:
        return fs.batch.subjects(prompts)
    return [one.text for one in fs.scenes.held_out_prompts(OF_WORDS)] if model == "scenes" else PROMPTS


def _fault(pipe: fs.Pipeline, found: fs.doctor.Diagnosis, file: fs.doctor.SchedulerFile | None) -> str:
    """What the files say, what fits and what to change; "" where they are not contradicted."""
    said, fits = found.claimed, found.fitting
    if said is None or fits is None:
        return ""
    named = file is not None and file.prediction == said.prediction
    where = "scheduler_config.json" if named else pipe.name
    same = said.schedule == fits.schedule and said.time_scale == fits.time_scale
    if same:
        change = "change `prediction_type`" if named else f"load it with prediction={fits.prediction!r}"
        return f"{where} says {said.prediction}, the outputs fit {fits.prediction}: {change}"
    both = [
        f"{one.prediction} on {pipe.model.schedule.kind if one is said else fits.schedule}"
        f"{'' if one.time_scale == 1 else f' with times {one.time_scale:g} times as large'}"
        for one in (said, fits)
    ]
    return f"{where} says {both[0]}, the outputs fit {both[1]}: change the noise schedule" + (
        "" if said.prediction == fits.prediction else " and `prediction_type`"
    )


def _correct(found: fs.doctor.Diagnosis, file: fs.doctor.SchedulerFile | None, fault: str) -> None:
    said, fits = found.claimed, found.fitting
    assert file is not None
    assert said is not None
    assert fits is not None
    if (said.schedule, said.time_scale) != (fits.schedule, fits.time_scale) or file.prediction != said.prediction:
        raise Failure(f"{fault}. --fix corrects `prediction_type` in scheduler_config.json alone: nothing is written")
    file.correct(fits.prediction)


def _readings(found: fs.doctor.Diagnosis) -> list[dict[str, Any]]:
    """The table for JSON; what is not finite is null."""
    return [
        {key: value if not isinstance(value, float) or math.isfinite(value) else None for key, value in row.items()}
        for row in (reading._asdict() for reading in found.table)
    ]


def _show(found: fs.doctor.Diagnosis) -> None:
    """Print the table and the verdict for people."""
    show_table(
        ["prediction", "schedule", "time scale", "error / linear", "bias", "score"],
        [
            [
                r.prediction,
                r.schedule,
                f"{r.time_scale:g}",
                *(f"{v:.3g}" for v in (r.denoising, r.calibration, r.score)),
            ]
            for r in found.table
        ],
        right=("time scale", "error / linear", "bias", "score"),
    )
    click.echo()
    click.echo(found.verdict)
