"""`fewstep bench`: every sampler on every grid in every number of steps on the same noise, measured."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import click

import fewstep as fs
from fewstep.cli import measuring, memory, place, sampling
from fewstep.cli.headings import GUIDANCE, LAST, LOADING, SAMPLER, Command, option
from fewstep.cli.output import JSON, note, progress, show_json, show_table
from fewstep.cli.values import CountList, Several

NAMES, COUNTS = Several(str, "a name", most=100), CountList(1, 1000)
COMPARED = ("samplers", "grids", "steps", "rows", "nfe", "guidance", "precisions", "plans", "force")
"""Options that say what is compared; those that are left out are as `Sweep` has them."""


@click.command(
    cls=Command,
    most_used=(
        "samplers",
        "grids",
        "steps",
        "rows",
        "nfe",
        "guidance",
        "plans",
        "prompts",
        "images",
        "seconds",
        "output",
    ),
)
@place.MODEL
@option(
    "--samplers",
    type=NAMES,
    usual="ddim,dpmpp-2m,unipc-3,deis-3,heun",
    heading=SAMPLER,
    help="Names from `fewstep samplers`; none measures only what --plan names.",
)
@option("--grids", type=NAMES, usual="trailing,quadratic,karras", heading=SAMPLER, help="Names from `fewstep grids`.")
@option(
    "--steps",
    type=COUNTS,
    usual="4-6,8,10,12,15,20",
    heading=SAMPLER,
    help="Steps of the time grid, such as 4-10,15,20.",
)
@option("--rows", type=COUNTS, heading=SAMPLER, help="In place of --steps: rows of a plan, as many steps as fit.")
@option(
    "--nfe",
    type=COUNTS,
    heading=SAMPLER,
    help="In place of --steps: network evaluations of an image, of which a guided row takes two.",
)
@option(
    "--plan",
    "plans",
    type=click.Path(),
    multiple=True,
    metavar="FILE",
    heading=SAMPLER,
    help="A plan to compare. May be repeated.",
)
@sampling.FORCE
@option(
    "--guidance",
    type=Several(float, "a guidance scale", -1e6, 1e6),
    usual="the model's own",
    heading=GUIDANCE,
    help=f"Guidance scale, or several to compare. {measuring.TOLD}",
)
@measuring.PROMPTS
@measuring.images(2, 100_000, "64, or 16 from prompts", "Images of each plan.")
@measuring.SEED
@measuring.seconds("to measure; the same command goes on later")
@measuring.CLIP
@memory.batch("16, or 4 from prompts")
@option(
    "--precision",
    "precisions",
    type=NAMES,
    default="float32",
    heading=LOADING,
    help="What the network computes in: float32, bfloat16, or both to compare.",
)
@place.IN_FLOAT32
@option(
    "--output",
    type=click.Path(file_okay=False),
    metavar="FOLDER",
    usual="out/bench-MODEL",
    heading=LAST,
    help="Folder for the results.",
)
@JSON
@click.pass_context
def bench(ctx: click.Context, /, model: str, as_json: bool, **given: Any) -> None:
    """Measure samplers, grids, steps, guidance scales and precisions of MODEL, the digits by default, on the same
    noise, and show which plans no other beats.

    It measures each plan's distance to the converged solution, with its interval, what else can be read from the
    pictures, the evaluations and the seconds. Results go into a folder, with a page. Ctrl-C keeps what is done, and
    the same command goes on: nothing is measured twice. The exit code is then 130; it is 0 where --seconds are over.

    \b
        fewstep bench
        fewstep bench scenes --samplers ddim,dpmpp-2m --steps 4-10 --guidance 1,3,5
        fewstep bench digits --rows 4,6,8 --plan out/digits-6-rows.json
    """
    if given["samplers"] == ("none",):
        given["samplers"] = ()
    sweep = fs.benchmark.Sweep(**{name: given[name] for name in COMPARED if given[name] is not None})
    pictures = fs.benchmark.Pictures(given["images"], given["batch"], given["seed"], given["prompts"])
    with progress("measuring", 1) as bar:
        found = fs.benchmark.bench(
            model,
            sweep,
            pictures=pictures,
            loading=place.loading(given),
            reporter=fs.benchmark.Reporter(announce=announce, watch=watcher(bar, tenths)),
            **{name: given[name] for name in ("output", "seconds", "clip")},
        )
    if as_json:
        show_json(report(found))
    else:
        show(found)
    tell(found)
    if found.stopped == "interrupted":
        ctx.exit(130)


def announce(forecast: fs.benchmark.Forecast) -> None:
    """Say what it will cost."""
    if not forecast.left:
        note(f"Nothing is left to measure: all {forecast.kept} {forecast.what} are measured")
        return
    again = f", {forecast.kept} are measured already" if forecast.kept else ""
    each = ", ".join(
        f"{1e3 * seconds:.2g} ms{'' if scale is None else f' at guidance {scale:g}'}"
        f"{'' if precision == 'float32' else f' in {precision}'}"
        for (scale, precision), seconds in forecast.row.items()
    )
    note(
        f"{forecast.left} {forecast.what} of {forecast.images} images{again}: about {duration(forecast.seconds)}, as a "
        f"row of an image takes {each}. Ctrl-C keeps what is done"
    )


def watcher(
    bar: Callable[..., None], words_of: Callable[[fs.benchmark.Stage], str]
) -> Callable[[fs.benchmark.Stage], None]:
    """Moves the bar, and gives the words of a stage as a line, each once."""
    told = ""

    def watch(now: fs.benchmark.Stage) -> None:
        nonlocal told
        words = words_of(now)
        line = f"{words}, now {now.words}" if words and words != told else ""
        bar(now.done, of=now.of, words=now.words, line=line)
        told = words

    return watch


def tenths(now: fs.benchmark.Stage) -> str:
    """How much is done, in steps of 10%."""
    return f"{10 * math.floor(10 * now.done / max(now.of, 1))}% done"


def duration(seconds: float) -> str:
    """Seconds for people."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def show(found: fs.benchmark.Bench) -> None:
    """Print what no other plan beats, for people."""
    for group, best, front in fs.benchmark.table(found.results):
        if best:
            count = f"{len(best)} plan{'' if len(best) == 1 else 's'}"
            click.echo(f"{group}: {count} that no other beats (in error for as few evaluations or as little time)")
            show_plans(best, front)
        else:
            click.echo(f"{group}: no plan has an error to compare, as they draw noise on the way or lost images")
            show_plans(fs.benchmark.groups(found.results)[group])
        click.echo()
    click.echo(found.page)


def show_plans(measured: Sequence[fs.benchmark.Measured], front: fs.benchmark.Front | None = None) -> None:
    """Print plans as a table: by their errors where there is a front, else by what their pictures show."""
    read = ("adherence", "clip", "distance") if front else ("diversity", "saturation", "adherence", "clip", "distance")
    names = [name for name in read if any(name in one.figures for one in measured)]
    columns = ["sampler", "steps", "rows", "NFE", *(["error", "95% interval", "quality"] if front else []), *names]
    columns += ["ms an image", *(["best in"] if front else [])]
    lines = []
    for one in measured:
        line = [one.name, f"{one.plan.steps}", f"{one.plan.rows}", f"{one.nfe:g}"]
        if front:
            error = one.figures["error"]
            interval = f"{error.low:.4g} to {error.high:.4g}"
            line += [f"{error.value:.4g}", interval, f"{one.figures['quality'].value:.4f}"]
        line += [f"{one.figures[name].value:.3g}" if name in one.figures else "" for name in names]
        line.append(f"{1e3 * one.seconds.value:.3g}")
        if front:
            best = {"NFE": front.nfe, "time": front.seconds}
            line.append(" and ".join(name for name, keys in best.items() if one.key in keys))
        lines.append(line)
    show_table(columns, lines, right=[name for name in columns if name not in ("sampler", "best in")])


def tell(found: fs.benchmark.Bench) -> None:
    """What was left out, and what is left to do, on stderr."""
    noisy = [one for one in found.results if not one.lost and "error" not in one.figures]
    if noisy and len(noisy) < len(found.results):
        note(f"{len(noisy)} plans draw noise on the way and have no error, so they are not in the table")
    lost = [one for one in found.results if one.lost]
    if lost:
        note(f"{len(lost)} plans lost images that were not finite, and are not compared; the first is {lost[0].name}")
    if found.skipped:
        name, why = next(iter(found.skipped.items()))
        note(f"{len(found.skipped)} combinations cannot be made; the first is {name}: {why}")
    for name, why in found.missing.items():
        note(fs.benchmark.lacking(name, why))
    if found.stopped:
        note(f"{found.stopped}: {len(found.results)} plans are done, {found.left} are left; the same command goes on")


def report(found: fs.benchmark.Bench) -> dict[str, Any]:
    """All results as JSON values."""
    fronts = [
        {"group": group._asdict(), "nfe": sorted(front.nfe), "seconds": sorted(front.seconds)}
        for group, _, front in fs.benchmark.table(found.results)
    ]
    return {
        "folder": str(found.folder),
        "page": str(found.page),
        "results": [one.to_json() for one in found.results],
        "fronts": fronts,
        "left": found.left,
        "stopped": found.stopped,
        "skipped": dict(found.skipped),
        "missing": dict(found.missing),
    }
