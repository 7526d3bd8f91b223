"""`fewstep optimize`: what makes a model's calls cheaper on this machine, measured, and a model made of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

import fewstep as fs
from fewstep.cli import measuring, place
from fewstep.cli.headings import LAST, MEASURING, MEMORY, SAMPLER, Command, option
from fewstep.cli.output import JSON, note, progress, show_json, show_table
from fewstep.cli.values import Several, Share


@click.command(cls=Command, most_used=("most_loss", "batches", "seconds", "prompts", "output"))
@place.MODEL
@option(
    "--max-loss",
    "most_loss",
    type=Share(),
    default="1%",
    heading=MEASURING,
    help="What may be lost in all: of the share of scenes that are drawn right, or by other models of the error, which "
    "may grow by so much.",
)
@option(
    "--batch",
    "batches",
    type=Several(int, "a number", 1, 1024, most=8),
    default="1",
    heading=MEMORY,
    help="Images at once that it is to draw. Speed is measured for the first number, and shown for all.",
)
@option(
    "--sampler",
    metavar="NAME",
    usual="the model's own",
    heading=SAMPLER,
    help="A name from `fewstep samplers`.",
)
@option("--steps", type=click.IntRange(1, 1000), usual="the model's own", heading=SAMPLER, help="Of the time grid.")
@measuring.guidance("draw at")
@measuring.PROMPTS
@measuring.seconds("it may take; techniques that are left then are not tried")
@measuring.images(8, 65536, "1024", "Images that a loss is judged on at most; it is looked at with fewer first.")
@place.options("device")
@option(
    "--output",
    type=click.Path(file_okay=False),
    usual="MODEL-optimized",
    heading=LAST,
    help="The folder to write the model to.",
)
@JSON
def optimize(**given: Any) -> None:
    """Make the calls of MODEL cheaper, the digits by default, by what is measured on this machine.

    It tries lower precision and compiling, of the network and of the VAE, one on top of the other. What is surely
    faster in drawings that take turns, loses at most what you allow, and is better than fewer steps in the same time is
    kept; all else is refused, with its figures. It writes a folder that loads like any model, with report.json and
    report.html. Compiled code is kept in your own cache and not in the folder.

    \b
        fewstep optimize scenes --batch 1,16
        fewstep generate scenes-optimized "a red circle"
    """
    output = Path(given["output"] or f"{Path(given['model']).stem}-optimized")
    plan = None
    if given["sampler"] is not None or given["steps"] is not None:
        plan = place.load(given["model"], given).plan(given["sampler"], steps=given["steps"])
    with progress("optimizing", 1) as bar:
        found = fs.optimize(
            given["model"],
            most_loss=given["most_loss"],
            batches=given["batches"],
            plan=plan,
            guidance=given["guidance"],
            prompts=given["prompts"],
            device=given["device"],
            budget=fs.optimization.Budget(given["seconds"], given["images"] or 1024),
            output=output,
            watch=lambda words: bar(0, of=1, words=words, line=words),
        )
    if given["as_json"]:
        show_json({"path": str(output), **found.report.to_json()})
        return
    show(found.report)
    click.echo()
    click.echo(output)
    note(f"report: {output / 'report.html'}")


def show(report: fs.optimization.Report) -> None:
    """Print what was tried and the verdict."""
    heads = ["technique", "on", "times faster", "95% interval", "error grows by", "verdict"]
    show_table(
        heads,
        [
            [
                one.technique,
                one.on,
                "-" if one.speed is None else f"{one.speed.value:.2f}",
                "-" if one.speed is None else f"{one.speed.low:.2f} to {one.speed.high:.2f}",
                "-" if one.loss is None else f"{round(one.loss.value, 4) + 0.0:.2%}",
                one.why,
            ]
            for one in report.trials
        ],
        right=heads[2:5],
    )
    click.echo()
    click.echo(report.verdict)
    if report.cut:
        note("the time was over before all was tried: give more --seconds")
