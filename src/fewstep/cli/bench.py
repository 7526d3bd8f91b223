"""`fewstep bench`: every sampler on every grid in every number of steps on the same noise, measured."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from fewstep.cli import place
from fewstep.cli.output import note, progress, show_json, show_table
from fewstep.cli.values import Numbers, Several

if TYPE_CHECKING:
    from fewstep.benchmark import Bench, Estimate, Progress, Run

NAMES, STEPS = Several(str, "a name", most=100), Numbers(1, 1000)


@click.command()
@click.argument("model", default="digits")
@click.option(
    "--samplers",
    type=NAMES,
    metavar="NAME,..",
    help="Or none, for plans alone.  [default: ddim,dpmpp-2m,unipc-3,deis-3,heun]",
)
@click.option("--grids", type=NAMES, metavar="NAME,..", help="[default: trailing,quadratic,karras]")
@click.option("--steps", type=STEPS, metavar="N,..", help="Such as 4-10,15,20.  [default: 4-6,8,10,12,15,20]")
@click.option(
    "--nfe", type=STEPS, metavar="N,..", help="In place of --steps: evaluations; of several a step, as many as fit."
)
@click.option(
    "--guidance", type=Several(float, "a scale", -1e6, 1e6), metavar="S,..", help="Scales.  [default: the model's own]"
)
@click.option("--precision", type=NAMES, default="float32", show_default=True, metavar="NAME,..", help="Also bfloat16.")
@click.option("--plan", "plans", type=click.Path(), multiple=True, help="A plan to compare. May be repeated.")
@click.option("--force", is_flag=True, help="Take plans that were tuned for another model.")
@click.option("--prompts", type=click.Path(), help="A prompt a line, for a model that takes prompts.")
@click.option(
    "--images", type=click.IntRange(2, 100_000), metavar="N", help="Of each row.  [default: 64, or 16 from prompts]"
)
@click.option("--batch", type=click.IntRange(1, 1024), metavar="N", help="Images at once.  [default: 16, or 4]")
@click.option(
    "--seed", type=click.IntRange(0, 2**20 - 1), default=0, show_default=True, metavar="N", help="Of the noise."
)
@click.option("--seconds", type=click.FloatRange(0, min_open=True), metavar="S", help="Stop after about so long.")
@click.option("--clip", type=click.Path(), help="A folder with CLIP's weights, for its score.")
@place.IN_FLOAT32
@click.option("--output", type=click.Path(file_okay=False), help="The folder.  [default: out/bench-MODEL]")
@click.option("--json", "as_json", is_flag=True, help="Print all rows as JSON.")
@click.pass_context
def bench(ctx: click.Context, /, model: str, as_json: bool, **given: Any) -> None:
    """Measure samplers x grids x steps x guidance x precision of MODEL on the same noise, and show which none beats.

    Each row has the distance to the converged solution, with its interval, and what else can be read from the pictures,
    evaluations as counted, and seconds. Rows go into a folder, with a page. Ctrl-C keeps what is done, and the same
    command goes on: nothing is measured twice. The exit code is 130 then, and 0 where --seconds are over.

    \b
        fewstep bench
        fewstep bench scenes --samplers ddim,dpmpp-2m --steps 4-10 --guidance 1,3,5
        fewstep bench digits --nfe 4,6,8 --plan out/digits-6-rows.json
    """
    from fewstep.benchmark import Sweep, groups, table
    from fewstep.benchmark import bench as run

    chosen = {name: given.pop(name) for name in ("samplers", "grids", "steps", "nfe", "guidance")}
    if chosen["samplers"] == ("none",):
        chosen["samplers"] = ()
    fixed = {"precisions": given.pop("precision"), "plans": given.pop("plans"), "force": given.pop("force")}
    sweep = Sweep(**{name: value for name, value in chosen.items() if value is not None}, **fixed)
    with progress("measuring", 1) as bar:
        told = ""

        def watch(now: Progress) -> None:
            nonlocal told
            bar(now.done, of=now.of, words=now.words)
            tenths = f"{10 * math.floor(10 * now.done / max(now.of, 1))}%"
            if tenths != told and not sys.stderr.isatty():
                note(f"{tenths} done, now {now.words}")
            told = tenths

        found = run(model, sweep, announce=announce, watch=watch, **given)
    if as_json:
        show_json(report(found))
    else:
        for group, rows, front in table(found.runs):
            if rows:
                click.echo(f"{group}: {len(rows)} row{'' if len(rows) == 1 else 's'} that no other beats")
                show_rows(rows, front.evaluations, front.seconds)
            else:
                click.echo(f"{group}: no row has an error to compare, as they draw noise on the way or lost images")
                show_unjudged(groups(found.runs)[group])
            click.echo()
        click.echo(found.page)
    tell(found)
    if found.stopped == "interrupted":
        ctx.exit(130)


def announce(estimate: Estimate) -> None:
    """What it will cost."""
    again = f", {estimate.kept} are there already" if estimate.kept else ""
    if not estimate.rows:
        note(f"Nothing is left to measure: all {estimate.kept} rows are there")
        return
    each = ", ".join(
        f"{1e3 * seconds:.2g} ms{'' if scale is None else f' at guidance {scale:g}'}"
        f"{'' if precision == 'float32' else f' in {precision}'}"
        for (scale, precision), seconds in estimate.evaluation.items()
    )
    note(
        f"{estimate.rows} rows of {estimate.images} images{again}: about {duration(estimate.seconds)}, as an "
        f"evaluation of an image takes {each}. Ctrl-C keeps what is done"
    )


def duration(seconds: float) -> str:
    """Seconds for people."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def show_rows(rows: Sequence[Run], evaluations: frozenset[str], seconds: frozenset[str]) -> None:
    """Print rows as a table; the last column says in what they are not beaten."""
    extra = [name for name in ("adherence", "clip", "distance") if any(name in row.figures for row in rows)]
    columns = ["sampler", "steps", "evaluations", "error", "95% interval", "quality", *extra, "ms an image", "best in"]
    precise = any(row.precision != "float32" for row in rows)
    show_table(
        [*columns, "precision"] if precise else columns,
        [
            [
                row.name,
                str(row.steps),
                f"{row.evaluations:g}",
                f"{row.figures['error'].value:.4g}",
                f"{row.figures['error'].low:.4g} to {row.figures['error'].high:.4g}",
                f"{row.figures['quality'].value:.4f}",
                *(f"{row.figures[name].value:.3g}" if name in row.figures else "" for name in extra),
                f"{1e3 * row.seconds.value:.3g}",
                " and ".join(
                    name for name, keys in (("evaluations", evaluations), ("time", seconds)) if row.key in keys
                ),
                *([row.precision] if precise else []),
            ]
            for row in rows
        ],
        right=[name for name in columns if name not in ("sampler", "best in")],
    )


def show_unjudged(rows: Sequence[Run]) -> None:
    """Print rows of which none has an error, by what their pictures show."""
    known = ("diversity", "saturation", "adherence", "clip", "distance")
    names = [name for name in known if any(name in row.figures for row in rows)]
    columns = ["sampler", "steps", "evaluations", *names, "ms an image"]
    show_table(
        columns,
        [
            [
                row.name,
                str(row.steps),
                f"{row.evaluations:g}",
                *(f"{row.figures[name].value:.3g}" if name in row.figures else "" for name in names),
                f"{1e3 * row.seconds.value:.3g}",
            ]
            for row in rows
        ],
        right=columns[1:],
    )


def tell(found: Bench) -> None:
    """What was left out, and what is left to do, on stderr."""
    noisy = [run for run in found.runs if not run.lost and "error" not in run.figures]
    if noisy and len(noisy) < len(found.runs):
        note(f"{len(noisy)} rows draw noise on the way and have no error, so they are not in the table")
    lost = [run for run in found.runs if run.lost]
    if lost:
        note(f"{len(lost)} rows lost images that were not finite, and are not compared; the first is {lost[0].name}")
    if found.skipped:
        name, why = next(iter(found.skipped.items()))
        note(f"{len(found.skipped)} combinations cannot be made; the first is {name}: {why}")
    for name, why in found.missing.items():
        note(f"no {name}: {why}")
    if found.stopped:
        note(f"{found.stopped}: {len(found.runs)} rows are done, {found.left} are left; the same command goes on")


def report(found: Bench) -> dict[str, Any]:
    """All rows as JSON values."""
    from fewstep.benchmark import table

    fronts = [
        {"group": group._asdict(), "evaluations": sorted(front.evaluations), "seconds": sorted(front.seconds)}
        for group, _, front in table(found.runs)
    ]
    return {
        "folder": str(found.folder),
        "page": str(found.page),
        "runs": [run.to_json() for run in found.runs],
        "fronts": fronts,
        "left": found.left,
        "stopped": found.stopped,
        "skipped": dict(found.skipped),
        "missing": dict(found.missing),
    }
