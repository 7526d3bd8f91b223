"""`fewstep plan`: the table that a sampler compiles to."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click

from fewstep.cli.output import note, show_table
from fewstep.cli.values import Pair, ScheduleName, Several, mapping

if TYPE_CHECKING:
    from fewstep.core.plan import Plan

NUMBERS = Several(float, "a number")


@click.command()
@click.argument("sampler")
@click.option("--steps", type=click.IntRange(1, 10_000), help="Transitions of the grid.")
@click.option(
    "--schedule",
    type=ScheduleName(),
    default="linear",
    show_default=True,
    help="linear, scaled_linear, cosine, edm or flow, with parameters as in flow:shift=3.",
)
@click.option("--grid", help="A name from `fewstep grids`.  [default: trailing]")
@click.option("--grid-option", type=Pair(), multiple=True, help="Of the grid, such as rho=5. May be repeated.")
@click.option("--bias", type=float, help="Above 0: more steps at low noise; below 0: at high noise.")
@click.option("--times", type=NUMBERS, metavar="T,T,..", help="The grid itself, decreasing, N + 1 for N steps.")
@click.option("--sigmas", type=NUMBERS, metavar="S,S,..", help="As --times, as sigmas; 0 is clean.")
@click.option("--option", type=Pair(), multiple=True, help="Of the sampler, such as eta=1. May be repeated.")
@click.option("--reverse", is_flag=True, help="From data up to noise, for deterministic samplers.")
@click.option("--json", "as_json", is_flag=True, help="Print the plan itself, as `generate --plan` reads it.")
@click.option("--output", type=click.Path(dir_okay=False), help="Write the plan to this file.")
def plan(
    sampler: str,
    steps: int | None,
    schedule: Any,
    grid: str | None,
    grid_option: tuple[tuple[str, Any], ...],
    bias: float | None,
    times: tuple[float, ...] | None,
    sigmas: tuple[float, ...] | None,
    option: tuple[tuple[str, Any], ...],
    reverse: bool,
    as_json: bool,
    output: str | None,
) -> None:
    """Compile SAMPLER to its plan and show it.

    A row is one network evaluation. With R0 the network's input and x0 its estimate of the data, the columns on the
    right say what each register becomes. For example:

        fewstep plan dpmpp-2m --steps 8 --grid karras
    """
    import fewstep as fs

    given = [name for name, value in (("--steps", steps), ("--times", times), ("--sigmas", sigmas)) if value]
    if len(given) != 1:
        raise click.UsageError(f"give one of --steps, --times and --sigmas, got {' and '.join(given) or 'none'}")
    grid_options = mapping(grid_option, "--grid-option")
    if bias is not None:
        grid_options["bias"] = bias
    if steps is None and (grid or grid_options):
        raise click.UsageError(f"{given[0]} is the grid itself: leave out --grid, --grid-option and --bias")
    options = mapping(option, "--option")
    if clash := {"schedule", "reverse", "steps", "grid", "grid_options", "times", "sigmas"} & set(options):
        raise click.UsageError(
            f"--option {min(clash)} is no option of {sampler}: use --{min(clash).replace('_', '-')} itself"
        )
    compiled = fs.compile(
        sampler,
        schedule=schedule,
        steps=steps,
        grid=grid or "trailing",
        grid_options=grid_options,
        times=times,
        sigmas=sigmas,
        reverse=reverse,
        **options,
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


def summary(plan: Plan) -> str:
    """One line on a plan."""
    recipe = plan.recipe
    several = "" if plan.registers == 1 else "s"
    return (
        f"{recipe.sampler} on {recipe.schedule['kind']}, grid {recipe.grid}: {plan.steps} steps, NFE {plan.nfe}, "
        f"{plan.registers} register{several}, digest {plan.digest}"
    )


def show_plan(plan: Plan) -> None:
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
