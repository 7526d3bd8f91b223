"""`fewstep tune` of a student: options of its own, and what it prints."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import click

import fewstep as fs
from fewstep.cli.distill import named
from fewstep.cli.headings import DRAWN, MEASURING, option, several
from fewstep.cli.output import note, progress, show_table
from fewstep.cli.report import figure
from fewstep.cli.tuned import certificate_of, deliver, watching

OWN = ("teacher", "teacher_steps", "clip")
"""Options for students alone, by the names of parameters."""
OPTIONS = several(
    option(
        "--teacher",
        metavar="MODEL",
        usual="the one that the student's files name",
        heading=DRAWN,
        help="Of a student: the model that taught it, which draws what it is judged by.",
    ),
    option(
        "--teacher-steps",
        type=click.IntRange(1),
        usual="those in which it drew for the student",
        heading=DRAWN,
        help="Of a student: steps of its teacher's own sampler.",
    ),
    option(
        "--clip",
        type=click.Path(),
        metavar="FOLDER",
        heading=MEASURING,
        help="Of a student: folder with CLIP's weights, to measure distances on its features.",
    ),
)


def tune(ctx: click.Context, pipe: fs.Pipeline, given: dict[str, Any], settings: fs.tuning.TuningSettings) -> None:
    """Tune a student's plan, write it with its certificate, and print what was found."""
    if given["ms"] is not None:
        raise click.UsageError(
            f"--ms is not for a student, each of whose rows is one evaluation: give --rows N for {given['model']}"
        )
    rows = given["rows"] if given["nfe"] is None else given["nfe"]
    name, count = named(given["model"]), len(pipe.plan().rows) if rows is None else rows
    target = Path(given["output"] or f"out/{name}-{count}-rows.json")
    target.parent.mkdir(parents=True, exist_ok=True)
    for file in (target, *certificate_of(target)):
        fs.files.check_writable(file)
    note(
        f"Tuning the plan of the student {name} in {count} rows: about {settings.seconds:g} s. A third of that goes "
        "into its teacher's pictures, the rest into trying plans. Ctrl-C keeps the best so far"
    )
    with progress("tuning", 1) as bar:
        try:
            plan, certificate = fs.distillation.tune_student(
                given["model"],
                rows=rows,
                guidance=given["guidance"],
                teacher=given["teacher"],
                teacher_steps=given["teacher_steps"],
                clip=given["clip"],
                settings=replace(settings, objective=given["objective"]),
                pipe=pipe,
                watch=watching(bar),
            )
        except fs.tuning.Uncertified as stopped:
            plan, certificate = stopped.plan, None
    plan.save(target)
    deliver(ctx, certificate, target, given["as_json"], show)


def show(certificate: fs.distillation.StudentCertificate) -> None:
    """Print the comparison and the verdict."""
    columns = ["plan", "times of its rows", "fresh noise", "error", "95% interval", "distance", "95% interval"]
    lines = [
        [
            one.who,
            ", ".join(f"{t:.4g}" for t in one.times),
            ", ".join(f"{share:.2f}" for share in one.fresh[:-1]),
            *figure(one.error),
            *figure(one.distance),
        ]
        for one in certificate.compared
    ]
    show_table(columns, lines, right=columns[3:])
    click.echo()
    click.echo(certificate.verdict)
    if certificate.floor is not None:
        note(f"The distance ({certificate.measure}) of the teacher itself is {certificate.floor.value:.4g}")
    for one in certificate.notes:
        note(one)
    search, seconds = certificate.search, certificate.seconds
    note(f"{search['tried']} plans were tried; {seconds['total']:.1f} s in all")
    if search["cut"]:
        note("the search was cut short, as its time was over: more seconds may find a better plan")
    if certificate.stopped:
        note(f"stopped early: {certificate.stopped}")
