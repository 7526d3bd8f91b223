"""`fewstep show ode`: what a step size does, on an equation that can be solved on paper."""

from __future__ import annotations

from typing import Any

import click

import fewstep as fs
from fewstep.cli.figures import check, deliver, written
from fewstep.cli.headings import DATA, Command, option
from fewstep.cli.values import Several

STARTS = Several(float, "a start", most=20)


@click.command(cls=Command, most_used=("step", "output"))
@option("--step", type=click.FloatRange(0, 100, min_open=True), default=0.5, heading=DATA, help="Size of a step.")
@option("--end", type=click.FloatRange(0, 100, min_open=True), default=3.0, heading=DATA, help="Time at the end.")
@option(
    "--starts",
    type=STARTS,
    default="0.5,1.5,2.5,3",
    heading=DATA,
    help="Where paths begin at time 0, between -pi and pi.",
)
@written("ode")
def ode(step: float, end: float, starts: tuple[float, ...], **given: Any) -> None:
    """Draw dx/dt = -sin(x) t by Euler and by Heun, beside the exact paths.

    Halve --step, and the error of Euler halves while that of Heun falls to a quarter. With a wide step both leave the
    path, as a sampler does in too few steps.
    """
    check(given)
    found = fs.show.ode.ode(starts, step=step, end=end)
    rows = [[m.method, f"{len(found.step_times) - 1}", f"{m.evaluations}", f"{m.error:.3g}"] for m in found.methods]
    deliver(found, ["method", "steps", "evaluations", "error"], rows, given)
