"""`fewstep batch`: a file of prompts, or many seeds, drawn into a folder, and continued there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

import fewstep as fs
from fewstep.cli import config, delivery, memory, options, place, sampling, source
from fewstep.cli.app import Failure
from fewstep.cli.generate import generate
from fewstep.cli.headings import DRAWN, LAST, Command, option
from fewstep.cli.output import JSON, note, noted, progress, show_json
from fewstep.cli.values import SEEDS


@click.command(cls=Command)
@click.argument("model", required=False)
@click.argument("prompts", nargs=-1, metavar="[PROMPT]...", callback=source.split)
@option(
    "--prompts",
    "prompt_file",
    type=click.Path(),
    metavar="FILE",
    heading=DRAWN,
    help="File with a prompt a line, or .jsonl.",
)
@option("--seeds", type=SEEDS, usual="0", heading=DRAWN, help="Seeds for each prompt, such as 0-9,42.")
@options.fields(without=("seed", "count"))
@options.RESCALE
@options.SCHEDULE
@options.WEAK
@options.PRESET
@sampling.FORCE
@memory.BATCH_OR_AUTO
@memory.CACHE
@place.OPTIONS
@config.NO_CONFIG
@option("--output", type=click.Path(), required=True, metavar="FOLDER", heading=LAST, help="Folder for the pictures.")
@delivery.scale("1")
@delivery.TIMINGS
@JSON
@click.pass_context
def batch(ctx: click.Context, model: str | None, prompts: tuple[str, ...], **_: Any) -> None:
    """Draw each PROMPT, or each label, with each seed into a folder: a PNG for each image, and a manifest. After Ctrl-C
    or a crash the same command goes on where it stopped.

    A line of a .jsonl file may say more of its images, and wins over the options:

    \b
        {"prompt": "a red circle", "negative": "blue", "seed": [1, 2], "guidance": 5}
        {"prompt": "a star", "sampler": "ddim", "steps": 8}

    \b
        fewstep batch stable-diffusion/ --prompts prompts.txt --seeds 0-9 --output out/many
        fewstep batch digits --labels 0-9 --seeds 0-99 --output out/digits
    """
    given = ctx.params
    _refuse(given)
    source.check_model(ctx, model, prompts)
    defaults = config.read_defaults(ctx, generate)
    defaults.complete(ctx)
    lines = None if given["prompt_file"] is None else fs.batch.read_prompts(given["prompt_file"])
    pipe = place.load(model or source.default(given["preset"], prompts, lines), given)
    if lines is None:
        drawn = source.subjects(pipe, prompts, given["labels"])
        lines = [fs.batch.PromptLine(one) for one in drawn or pipe.model.conditioner.subjects]
    words = [line.subject for line in lines if isinstance(line.subject, str)]
    if words and pipe.model.conditioner.field == "labels":
        raise click.UsageError(f"{pipe.name} draws classes, and {words[0]!r:.100} is words: give labels")
    job = _job(pipe, lines, defaults.asked(ctx, pipe), given)
    _draw(pipe, job, Path(given["output"]), given)


def _refuse(given: dict[str, Any]) -> None:
    if given["prompts"] and given["prompt_file"] is not None:
        raise click.UsageError("give prompts after the model or in a file with --prompts, not both")
    if given["labels"] is not None and given["prompt_file"] is not None:
        raise click.UsageError("give --labels or a file with --prompts, not both")
    if Path(given["output"]).suffix.lower() == ".png":
        raise click.UsageError(f"--output is the folder for the images, got {given['output']}")
    fs.files.check_writable(Path(given["output"]) / "job.json", parents=True)


def _job(pipe: fs.Pipeline, lines: Any, asked: dict[str, Any], given: dict[str, Any]) -> fs.batch.Batch:
    """The images, all of them checked."""
    call = source.fitted(pipe, asked, given["force"])
    size = given["batch"] or call.pop("batch", pipe.model.batch)
    for name in ("labels", "seed", "count", "batch", "overlap"):
        call.pop(name, None)
    call["weak"] = fs.models.weaker_of(pipe.model, given["weak"])
    return fs.batch.Batch.of(
        pipe, lines, given["seeds"] or (0,), call, None if size == "auto" else size, given["scale"] or 1
    )


def _draw(pipe: fs.Pipeline, job: fs.batch.Batch, folder: Path, given: dict[str, Any]) -> None:
    """Draw what is missing, and say what was done."""
    there, of = 0, len(job.items)
    note(f"drawing {delivery.count_of(of)} ..")
    try:
        with progress("drawing", of) as bar, noted():

            def on_batch(done: Any) -> None:
                nonlocal there
                there = done.images
                bar(done.images, of=done.of)

            report = fs.batch.draw_batch(job, folder, on_batch=on_batch)
    except KeyboardInterrupt:
        note(f"{there} of {of} images are done in {folder}: the same command continues")
        raise
    if given["as_json"]:
        facts = {name: getattr(report, name) for name in ("images", "drawn", "lost", "batch", "nfe")}
        show_json({"folder": str(report.folder), **facts, "timings": delivery.rounded(report.seconds)})
    else:
        click.echo(folder)
        nfe = f", NFE {report.nfe:g} each" if report.drawn else ""
        note(f"{delivery.count_of(report.images)} in batches of {report.batch}, {report.drawn} drawn now{nfe}")
    if given["timings"]:
        note(delivery.stages(report.seconds, delivery.cache_of(pipe)))
    if report.lost:
        first = ", ".join(map(str, report.lost[:10])) + (", .." if len(report.lost) > 10 else "")
        raise Failure(f"{len(report.lost)} of {report.images} images are NaN or infinite and have no file: {first}")
