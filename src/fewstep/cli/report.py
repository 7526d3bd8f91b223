"""The report of a distillation, for people."""

from __future__ import annotations

from typing import Any

import click

import fewstep as fs
from fewstep.cli.output import note, show_table


def show(report: fs.distillation.Report) -> None:
    """Print the report."""
    columns = ["what draws", "rows", "NFE", "error", "95% interval", "distance", "95% interval", "times the error"]
    lines = [
        [line.who, str(line.rows), f"{line.nfe:g}", *figure(line.error), *figure(line.distance), ratio(line)]
        for line in report.lines
    ]
    show_table(columns, lines, right=columns[1:])
    click.echo()
    click.echo(report.verdict)
    for one in report.notes:
        note(one)
    cost = report.cost
    drawn = "" if cost.drawing is None else f" in {cost.drawing:.0f} s"
    learned = (
        f"The student learned from {cost.real} real pictures"
        if cost.real
        else f"The teacher drew {cost.pictures} pictures of {cost.nfe:g} evaluations{drawn}"
    )
    note(
        f"{learned}; training took {cost.training:.0f} s; the rivals are the best of {report.compared} plans without "
        "training"
    )


def figure(interval: Any) -> tuple[str, str]:
    """A figure and its interval, in two cells."""
    return ("-", "") if interval is None else (f"{interval.value:.4g}", str(interval))


def ratio(line: Any) -> str:
    """How many times the student's an error is, with its interval; nothing of the student itself."""
    if line.times is None or line.times == (1.0, 1.0, 1.0):
        return ""
    return f"{line.times.value:.3g} ({line.times.low:.3g} to {line.times.high:.3g})"
