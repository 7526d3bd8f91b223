"""`fewstep plan`: the table that a sampler compiles to."""

from __future__ import annotations

import os
from typing import Any

import click

import fewstep as fs
from fewstep.cli import options, sampling
from fewstep.cli.headings import LAST, SAMPLER, Command, option
from fewstep.cli.output import JSON, note, show_table


@click.command(cls=Command)
@click.argument("sampler")
@sampling.NOISE_SCHEDULE
@options.fields("sampling", without=("sampler", "plan"), usual={"grid": "trailing", "steps": ""})
@option(
    "--reverse",
    is_flag=True,
    heading=SAMPLER,
    help="Compile from data up to noise, for samplers that draw no noise.",
)
@option("--output", type=click.Path(dir_okay=False), heading=LAST, help="Write the plan to this file.")
@JSON
@click.pass_context
def plan(
    ctx: click.Context, sampler: str, schedule: Any, reverse: bool, as_json: bool, output: str | None, **_: Any
) -> None:
    """Compile SAMPLER to its plan and show it.

    A row is one network evaluation. With R0 the network's input and x0 its estimate of the data, the columns on the
    right say what each register becomes. The file that --output writes is what `fewstep generate --plan` reads.

    \b
        fewstep plan dpmpp-2m --steps 8 --grid karras
    """
    if output is not None:
        fs.files.check_writable(output, parents=True)
    asked = options.asked(ctx).get("sampling", {})
    given = [f"--{name}" for name in ("steps", "times", "sigmas") if name in asked]
    if len(given) != 1:
        raise click.UsageError(f"give one of --steps, --times and --sigmas, got {' and '.join(given) or 'none'}")
    grid = {"grid": "trailing"} if "steps" in asked else {}
    sampling = fs.Sampling(sampler, **{**grid, **asked})
    compiled = fs.compile(
        sampler,
        schedule=schedule,
        steps=sampling.steps,
        grid=sampling.grid or "trailing",
        grid_options=sampling.grid_options,
        times=sampling.times,
        sigmas=sampling.sigmas,
        reverse=reverse,
        **sampling.options,
    )
    if output is not None:
        os.makedirs(os.path.dirname(output) or ".", exist_ok=True)
        compiled.save(output)
    if as_json:
        click.echo(compiled.to_json())
    elif output is None:
        show_plan(compiled)
    else:
        click.echo(output)
        note(summary(compiled))


def summary(plan: fs.Plan) -> str:
    """One line on a plan."""
    recipe = plan.recipe
    several = "" if plan.registers == 1 else "s"
    return (
        f"{recipe.sampler} on {recipe.schedule['kind']}, grid {recipe.grid}: {plan.steps} steps, "
        f"{len(plan.rows)} rows, {plan.registers} register{several}, digest {plan.digest}"
    )


def show_plan(plan: fs.Plan) -> None:
    """Print the table of a plan for people."""
    names = [f"R{k}" for k in range(plan.registers)]
    inputs = ["x", "y"][: plan.inputs]
    click.echo(summary(plan))
    if plan.note:
        click.echo(f"departs from the schedule: {plan.note}")
    click.echo(f"start  alpha {plan.entry[0]:.6g}, sigma {plan.entry[1]:.6g}")
    for name, weights in zip(names, plan.init, strict=True):
        if weights.any():
            click.echo(f"       {name} = {_sum(zip(weights, [*inputs, 'z'], strict=True))}")
    click.echo()
    raw = ["x0", "raw x0"] if plan.uses_raw else ["x0", "x0"]
    rows = []
    for i, row in enumerate(plan.rows):
        formulas = [
            _sum(zip([*plan.A[i, k], *plan.B[i, k], plan.s[i, k]], [*names, *raw, "z"], strict=True))
            for k in range(plan.registers)
        ]
        rows.append([str(i), row.label, f"{row.t:.6g}", f"{row.alpha:.6g}", f"{row.sigma:.6g}", *formulas])
    show_table(
        ["row", "label", "time", "alpha", "sigma", *(f"{name} becomes" for name in names)],
        rows,
        right=("row", "time", "alpha", "sigma"),
    )
    click.echo()
    click.echo(f"end    R0, alpha {plan.exit[0]:.6g}, sigma {plan.exit[1]:.6g}")


def _sum(terms: Any) -> str:
    parts = []
    for weight, name in terms:
        if weight:
            size = "" if abs(weight) == 1 else f"{abs(weight):.5g} "
            sign = ("- " if weight < 0 else "+ ") if parts else ("-" if weight < 0 else "")
            parts.append(f"{sign}{size}{name}")
    return " ".join(parts) or "0"
