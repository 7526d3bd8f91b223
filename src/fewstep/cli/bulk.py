"""What `fewstep generate` does with a file of prompts or many seeds: a job, drawn into a folder and continued there."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fewstep.cli import prompts
from fewstep.cli.app import Failure
from fewstep.cli.output import note, progress, show_json
from fewstep.cli.values import Label

if TYPE_CHECKING:
    from fewstep.pipeline import Item, Job, JobReport, Pipeline, TextPipeline

NOT_HERE = {
    "like": "it draws one picture again",
    "seed": "use --seeds, such as --seeds 0-9",
    "count": "use --seeds, such as --seeds 0-9",
    "each": "each image has a file of its own",
    "columns": "each image has a file of its own",
    "overlap": "a batch is written before the next one is drawn",
}
"""Options that a job has no use for, and why."""


def run(pipe: Pipeline | TextPipeline, given: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Draw a job and print its folder. `wanted` are arguments of the pipeline's call, and the batch size."""
    from fewstep.pipeline import TextPipeline, draw_job

    job = _job(pipe, given, wanted)
    folder = Path(given["output"])
    cache = pipe.cache if isinstance(pipe, TextPipeline) else None
    there = 0
    try:
        with progress("drawing", len(job.items)) as bar, warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)

            def on_batch(done: Any) -> None:
                nonlocal there
                there = done.images
                bar(done.images, of=done.of)

            report = draw_job(job, folder, on_batch=on_batch)
    except KeyboardInterrupt:
        note(f"{there} of {len(job.items)} images are done in {folder}: the same command continues")
        raise
    for message in dict.fromkeys(str(warning.message) for warning in caught):
        note(f"warning: {message}")
    if given["as_json"]:
        show_json(_as_json(report))
    else:
        click.echo(folder)
        note(_summary(report))
    if given["timings"]:
        note(prompts.timings(report.seconds, cache, pipe))
    if report.lost:
        raise Failure(
            f"{len(report.lost)} of {report.images} images are NaN or infinite and have no file: {_first(report.lost)}"
        )


def refuse(given: dict[str, Any], named: set[str]) -> None:
    """Raise for options on the command line that a job has no use for."""
    for name, why in NOT_HERE.items():
        if name in named and given[name]:
            raise click.UsageError(f"--{name} is not for --prompts and --seeds: {why}")
    if given["prompts"] and given["prompt_file"] is not None:
        raise click.UsageError("give prompts after the model or in a file with --prompts, not both")
    if given["labels"] is not None and given["prompt_file"] is not None:
        raise click.UsageError("give --labels or a file with --prompts, not both")
    output = given["output"]
    if output is None or Path(output).suffix.lower() == ".png":
        raise click.UsageError(f"--prompts and --seeds need --output FOLDER for the images, got {output or 'none'}")


def _job(pipe: Pipeline | TextPipeline, given: dict[str, Any], wanted: dict[str, Any]) -> Job:
    from fewstep import Plan
    from fewstep.pipeline import SETTINGS, Job

    known = SETTINGS[type(pipe)]
    settings = {name: wanted[name] for name in known if name in wanted}
    plan = wanted.get("sampler")
    if not isinstance(plan, Plan):
        where = {
            name: wanted[name]
            for name in ("steps", "grid", "grid_options", "times", "sigmas", "options")
            if name in wanted
        }
        where |= {name: settings[name] for name in ("height", "width") if name in settings}
        plan = pipe.plan(*([plan] if plan else []), **where)
    batch = wanted.get("batch")
    return Job(
        pipe=pipe,
        items=tuple(_items(pipe, given, wanted)),
        plan=plan,
        batch=_default_batch(pipe) if batch is None else None if batch == "auto" else batch,
        settings=settings,
        scale=given["scale"] or 1,
    )


def _items(pipe: Pipeline | TextPipeline, given: dict[str, Any], wanted: dict[str, Any]) -> list[Item]:
    """Every prompt with every seed, the seeds of a prompt together."""
    from fewstep.pipeline import PromptLine, TextPipeline, read_prompts

    seeds = given["seeds"] or (0,)
    negative = wanted.get("negative")
    if given["prompt_file"] is not None:
        lines = read_prompts(given["prompt_file"])
    elif isinstance(pipe, TextPipeline):
        if not given["prompts"]:
            raise click.UsageError(f"{pipe.name} draws from words: give a PROMPT after the model, or --prompts FILE")
        lines = [PromptLine(text) for text in given["prompts"]]
    else:
        labels = given["labels"] if given["labels"] is not None else range(pipe.classes) or (None,)
        lines = [PromptLine(label) for label in labels]
    if not isinstance(pipe, TextPipeline) and negative is not None:
        negative = Label().convert(negative, None, None)
    return [item for line in lines for item in line.items(seeds, negative, wanted.get("guidance"))]


def _default_batch(pipe: Pipeline | TextPipeline) -> int:
    from fewstep.pipeline import TextPipeline, pipeline, text

    return text.BATCH if isinstance(pipe, TextPipeline) else pipeline.BATCH


def _summary(report: JobReport) -> str:
    nfe = f", NFE {report.nfe:g} each" if report.drawn else ""
    several = "1 image" if report.images == 1 else f"{report.images} images"
    return f"{several} in batches of {report.batch}, {report.drawn} drawn now{nfe}"


def _first(indices: list[int]) -> str:
    more = "" if len(indices) <= 10 else ", .."
    return ", ".join(map(str, indices[:10])) + more


def _as_json(report: JobReport) -> dict[str, Any]:
    return {
        "folder": str(report.folder),
        "images": report.images,
        "drawn": report.drawn,
        "lost": report.lost,
        "batch": report.batch,
        "nfe": report.nfe,
        "timings": {stage: round(s, 4) for stage, s in report.seconds.items()},
    }
