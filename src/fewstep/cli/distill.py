"""`fewstep distill`: a student of few evaluations, trained from a model of many."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import click

import fewstep as fs
from fewstep.cli import measuring, place, settings
from fewstep.cli.app import Failure
from fewstep.cli.headings import DRAWN, GUIDANCE, LAST, MEASURING, TRAINING, Command, option
from fewstep.cli.output import JSON, note, progress, show_json, show_table
from fewstep.cli.values import LABELS, Pair, mapping
from fewstep.core import InvalidInput, unknown_name

METHODS = ("regression", "progressive", "consistency", "reflow")
"""Here too, so that the help needs no torch."""


@click.command(cls=Command, most_used=("option", "steps", "guidance", "prompts", "output"))
@click.argument("method", type=click.Choice(METHODS))
@click.argument("teacher", default="digits")
@option(
    "--option",
    type=Pair(),
    multiple=True,
    heading=TRAINING,
    help="Option of the method, such as rows=2 or begin=32. May be repeated; see docs/distill.md.",
)
@settings.OPTIONS
@measuring.PROMPTS
@option("--labels", type=LABELS, metavar="N,N,..", usual="every class", heading=DRAWN, help="Classes to learn.")
@option(
    "--pairs",
    "count",
    type=click.IntRange(1),
    default=8192,
    heading=DRAWN,
    help="Pictures that the teacher draws first, to learn from.",
)
@option(
    "--teacher-steps",
    type=click.IntRange(1),
    usual="20, or a student's own plan",
    heading=DRAWN,
    help="Steps of the teacher's own sampler, for these.",
)
@option(
    "--guidance",
    type=click.FLOAT,
    usual="the teacher's own",
    heading=GUIDANCE,
    help="Guidance scale of the teacher, which the student then has inside.",
)
@option(
    "--held-out",
    type=click.IntRange(16),
    default=256,
    heading=MEASURING,
    help="Pictures of other noise that the report is measured on.",
)
@place.options("device")
@option(
    "--output",
    type=click.Path(file_okay=False),
    usual="runs/TEACHER-METHOD",
    heading=LAST,
    help="Folder for pairs, states, log, report and student.",
)
@JSON
def distill(method: str, teacher: str, as_json: bool, **given: Any) -> None:
    """Train a student of few evaluations from TEACHER, the digits by default, with guidance inside.

    METHOD is regression (the student draws by its own plan of 1 to 8 rows and ends where the teacher does), progressive
    (two steps become one, again and again), consistency (one estimate all along a trajectory) or reflow (a flow's own
    ways made straight). The teacher first draws the pictures to learn from. Ctrl-C stops; the same command goes on to
    the same weights. At the end a report says how near the student is to the teacher on other noise, beside the
    strongest samplers without training.

    \b
        fewstep distill regression
        fewstep generate runs/digits-regression/student.safetensors --labels 0-9
        fewstep distill progressive --option begin=16 --option end=4 --steps 4000
        fewstep distill regression scenes --prompts prompts.txt --option rows=4
    """
    made = method_of(method, mapping(given["option"], "--option"))
    how = settings.settings_of(given)
    folder = Path(given["output"] or f"runs/{named(teacher)}-{method}")
    fs.files.check_writable(folder / "log.jsonl", parents=True)
    source = fs.distillation.Source(
        subjects(given), given["guidance"], given["teacher_steps"], given["count"], given["held_out"]
    )
    note(
        f"The teacher draws {source.count} pictures, then the student learns for {how.steps} steps. Ctrl-C stops; "
        "the same command goes on"
    )
    with progress("distilling", 1) as bar:

        def pairs(done: int, of: int) -> None:
            bar(done, of=of, words="drawing with the teacher")

        try:
            found = fs.distillation.distill(
                teacher,
                made,
                folder,
                settings=how,
                source=source,
                device=given["device"],
                watch=fs.distillation.Watch(pairs, settings.telling(bar)),
            )
        except fs.training.Diverged as error:
            raise Failure(str(error)) from error
    if as_json:
        show_json({"path": str(found.path), **found.report.to_json()})
        return
    show(found.report)
    click.echo()
    click.echo(found.path)


def named(teacher: str) -> str:
    """A teacher in the name of a folder; a student is named by the folder of its run."""
    path = Path(teacher).absolute()
    return path.parent.name if path.stem == "student" else path.stem


def method_of(name: str, options: Mapping[str, Any]) -> fs.training.Method:
    """A method with some of its options. Raises `InvalidInput` for those that it has not."""
    kind = fs.distillation.METHODS[name]
    known = [one.name for one in fields(kind)]
    for option_name in options:
        if option_name not in known:
            raise unknown_name(f"option of {name}", option_name, known)
    return kind(**options)


def subjects(given: Mapping[str, Any]) -> list[Any] | None:
    """What the teacher draws: the prompts of a file, or labels."""
    if given["prompts"] is not None and given["labels"] is not None:
        raise InvalidInput("--prompts are for a model that takes words, --labels for one of classes: give one of them")
    if given["prompts"] is not None:
        return fs.batch.subjects(given["prompts"])
    return None if given["labels"] is None else list(given["labels"])


def show(report: fs.distillation.Report) -> None:
    """Print the report for people."""
    columns = ["what draws", "NFE", "error", "95% interval", "times the student's", "95% interval of it"]
    lines = [
        [line.who, f"{line.nfe:g}", f"{line.error:.4g}", f"{line.low:.4g} to {line.high:.4g}"]
        + ([f"{line.times:.3g}", f"{line.times_low:.3g} to {line.times_high:.3g}"] if number else ["", ""])
        for number, line in enumerate(report.lines)
    ]
    show_table(columns, lines, right=columns[1:])
    click.echo()
    click.echo(report.verdict)
    note(
        f"{report.images} pictures of held-out noise; the best of {report.compared} plans without training; "
        f"{report.seconds:.0f} s of training"
    )
