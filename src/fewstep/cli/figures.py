"""The commands of `fewstep show`: check, compute, draw, write, and print what was found."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

import fewstep as fs
from fewstep.cli.headings import DATA, LAST, SAMPLER, Command, option, several
from fewstep.cli.output import JSON, note, progress, show_json, show_table
from fewstep.cli.sampling import NOISE_SCHEDULE
from fewstep.cli.values import ScheduleName, Several, Strategies

COUNTS = Several(int, "a number of evaluations", 1, 10_000, most=40)
GRIDS = Several(str, "a grid", most=20)
MOST_USED = ("samplers", "grids", "nfe", "steps", "output")
NUMERIC = ("NFE", "order", "fitted", "error", "steps", "evaluations")


def written(name: str) -> Callable[[Any], Any]:
    """What every figure takes last."""
    return several(
        option(
            "--output",
            type=click.Path(dir_okay=False),
            default=f"out/{name}.svg",
            heading=LAST,
            help="The figure, .svg or .png.",
        ),
        option(
            "--data",
            type=click.Path(dir_okay=False),
            usual="beside the figure, .json",
            heading=LAST,
            help="Its numbers, .json or .csv.",
        ),
        option("--no-figure", is_flag=True, heading=LAST, help="Write the numbers alone; needs no matplotlib."),
        JSON,
    )


def _problem(noises: int, most: int = 4096) -> Callable[[Any], Any]:
    """The data, the schedule and the noise."""
    return several(
        NOISE_SCHEDULE,
        option(
            "--modes", type=click.IntRange(1, 64), default=5, heading=DATA, help="Gaussians of the data, on a ring."
        ),
        option(
            "--std",
            type=click.FloatRange(0.01, 10),
            default=0.4,
            heading=DATA,
            help="Standard deviation of each Gaussian; the ring's radius is 2.2.",
        ),
        option("--noises", type=click.IntRange(1, most), default=noises, heading=DATA, help="Points to start from."),
        option("--seed", type=click.IntRange(0, 2**63), default=0, heading=DATA, help="Seed of the first point."),
    )


def _grid(default: str) -> Callable[[Any], Any]:
    """The grid of samplers that name none."""
    return option("--grid", default=default, metavar="NAME", heading=SAMPLER, help="A name from `fewstep grids`.")


def _samplers(default: str | None, usual: str = "") -> Callable[[Any], Any]:
    """What is drawn side by side."""
    return option(
        "--samplers",
        type=Strategies(),
        default=default,
        usual=usual,
        heading=SAMPLER,
        help="Each with options after colons and a grid after @, as in ddim:eta=0.5@karras.",
    )


@click.command(cls=Command, most_used=MOST_USED)
@_samplers("ddim,heun,dpmpp-2m,unipc-3,euler-a")
@option("--nfe", type=click.IntRange(1, 1000), default=10, heading=SAMPLER, help="Most evaluations.")
@_grid("trailing")
@_problem(10, most=100)
@written("trajectories")
def trajectories(samplers: tuple[Any, ...], nfe: int, grid: str, **given: Any) -> None:
    """Draw the paths of samplers from the same noise to data, beside the exact paths.

    A panel for each sampler, on data whose score is known, with the same number of evaluations.
    """
    check(given)

    strategies = _strategies(samplers, grid)
    found = fs.show.trajectories.trajectories(
        *_problem_of(given), strategies, nfe=nfe, count=given["noises"], seed=given["seed"]
    )
    rows = [
        [p.strategy.name, p.strategy.grid, f"{p.nfe}", "draws noise" if p.error is None else f"{p.error:.3g}"]
        for p in found.paths
    ]
    deliver(found, ["sampler", "grid", "NFE", "error"], rows, given)


@click.command("solver-error", cls=Command, most_used=MOST_USED)
@_samplers("euler,heun,dpmpp-2m,dpmpp-3m,unipc-2,unipc-3")
@option("--nfe", type=COUNTS, usual="13 numbers, 8 to 512", heading=SAMPLER, help="Evaluations, increasing.")
@_grid("exponential")
@_problem(32)
@written("solver-error")
def solver_error(samplers: tuple[Any, ...], nfe: tuple[int, ...] | None, grid: str, **given: Any) -> None:
    """Draw the distance from the exact solution against the number of evaluations.

    The slope of a line is its order of convergence; the legend gives the one fitted to its last points. Both stop at
    the schedule's last noisy time, as the transition from there to clean data has a fixed width.
    """
    check(given)

    strategies = _strategies(samplers, grid)
    with progress("measuring", 1) as bar:
        found = fs.show.convergence.convergence(
            *_problem_of(given),
            strategies,
            nfes=nfe or fs.show.convergence.NFES,
            count=given["noises"],
            seed=given["seed"],
            on_run=lambda done, of: bar(done, of=of),
        )
    rows = [
        [
            c.strategy.name,
            c.strategy.grid,
            "-" if c.strategy.order is None else f"{c.strategy.order}",
            "-" if c.fitted is None else f"{c.fitted:.2f}",
            f"{c.errors[-1]:.2g} at {c.nfe[-1]}",
        ]
        for c in found.curves
    ]
    deliver(found, ["sampler", "grid", "order", "fitted", "least error"], rows, given)


@click.command(cls=Command, most_used=("schedules", *MOST_USED))
@option(
    "--schedule",
    "schedules",
    type=ScheduleName(),
    multiple=True,
    usual="five usual ones",
    heading=DATA,
    help="A noise schedule, with parameters as in flow:shift=3. May be repeated.",
)
@option("--grids", type=GRIDS, usual="all", heading=SAMPLER, help="Names from `fewstep grids`.")
@option("--steps", type=click.IntRange(2, 1000), default=10, heading=SAMPLER, help="Steps of each grid.")
@option("--on", type=ScheduleName(), default="linear", heading=SAMPLER, help="Noise schedule of the grids.")
@written("schedules")
def schedules(schedules: tuple[Any, ...], grids: tuple[str, ...] | None, steps: int, on: Any, **given: Any) -> None:
    """Draw alpha, sigma and lambda of noise schedules over time, and where each grid puts its steps."""
    check(given)
    curves = {_named(s): s for s in schedules} or {
        name: fs.schedules.KINDS[name]() for name in fs.show.levels.SCHEDULES
    }
    found = fs.show.levels.levels(curves, grids or list(fs.GRIDS), grid_schedule=on, steps=steps)
    rows = [
        [name, f"{int((lams < 0).sum())}", f"{int((lams >= 0).sum())}", " ".join(f"{t:.4g}" for t in found.times[name])]
        for name, lams in found.grids.items()
    ]
    deliver(found, ["grid", "lambda < 0", "lambda >= 0", "times"], rows, given)


@click.command(cls=Command, most_used=("error", *MOST_USED))
@_samplers(None, "ten usual ones")
@_grid("exponential")
@option("--error", type=click.FloatRange(1e-8, 10), default=0.02, heading=DATA, help="Error to reach.")
@option("--limit", type=click.IntRange(1, 10_000), default=500, heading=DATA, help="Most evaluations.")
@_problem(32)
@written("steps")
def steps(samplers: tuple[Any, ...] | None, grid: str, error: float, limit: int, **given: Any) -> None:
    """Draw how many evaluations each sampler needs, on its grid, to come within --error of the exact data."""
    check(given)

    chosen = samplers or tuple((name, {}, at) for name, at in fs.show.effort.DEFAULTS)
    strategies = _strategies(chosen, grid)
    with progress("searching", len(strategies)) as bar:
        found = fs.show.effort.effort(
            *_problem_of(given),
            strategies,
            target=error,
            limit=limit,
            count=given["noises"],
            seed=given["seed"],
            on_strategy=lambda done, of: bar(done, of=of),
        )
    rows = [
        [n.strategy.name, n.strategy.grid, f"> {limit}" if n.nfe is None else f"{n.nfe}", f"{n.error:.3g}"]
        for n in found.needs
    ]
    deliver(found, ["sampler", "grid", "NFE", "error"], rows, given)


def _problem_of(given: dict[str, Any]) -> tuple[fs.show.Mixture, Any]:
    """The data and the schedule."""
    return fs.show.ring(given["modes"], std=given["std"]), given["schedule"]


def _strategies(given: tuple[Any, ...], grid: str) -> list[fs.show.Strategy]:
    return [fs.show.Strategy(name, at or grid, options).check() for name, options, at in given]


def _named(schedule: Any) -> str:
    """Its kind, with the parameters that are not the default ones."""
    usual = dict(fs.schedules.KINDS[schedule.kind]().params)
    own = [f"{key}={value:g}" for key, value in schedule.params if value != usual.get(key)]
    return ":".join([schedule.kind, *([",".join(own)] if own else [])])


def check(given: dict[str, Any]) -> None:
    """Raise before any work what would fail after it."""
    fs.show.draw.check_suffix(given["output"])
    if given["data"] is not None:
        fs.show.data.check_suffix(given["data"])
    for path in (given["output"], given["data"] or given["output"]):
        fs.files.check_writable(path, parents=True)
    if not given["no_figure"]:
        fs.show.draw.need_matplotlib()


def deliver(found: fs.show.draw.Result, columns: list[str], rows: list[list[str]], given: dict[str, Any]) -> None:
    """Write the files and print what was found."""
    output = given["output"]
    data = given["data"] or str(Path(output).with_suffix(".json"))
    files = {} if given["no_figure"] else {output: fs.show.draw.picture(found, Path(output).suffix)}
    files[data] = fs.show.data.content(found, Path(data).suffix)
    for path, content in files.items():
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
        fs.files.write_whole(path, content)
    if given["as_json"]:
        show_json({"path": None if given["no_figure"] else output, "data": data, **found.document()})
        return
    show_table(columns, rows, right=[name for name in columns if name in NUMERIC])
    click.echo()
    for path in files:
        click.echo(path)
    note(found.finding)
