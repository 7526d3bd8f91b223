"""`fewstep samplers` and `fewstep grids`."""

from __future__ import annotations

from typing import Any

import click

import fewstep as fs
from fewstep.cli.headings import Command
from fewstep.cli.output import JSON, show_json, show_table
from fewstep.core import unknown_name


@click.command(cls=Command)
@click.argument("name", required=False)
@JSON
def samplers(name: str | None, as_json: bool) -> None:
    """List the samplers: order of convergence, network evaluations (NFE) a step, source.

    With NAME, list the options of that sampler and their default values.
    """
    if name is not None and name not in fs.SAMPLERS:
        raise unknown_name("sampler", name, fs.SAMPLERS)
    chosen = fs.SAMPLERS if name is None else {name: fs.SAMPLERS[name]}
    if as_json:
        show_json(
            [
                {
                    "name": key,
                    "order": s.order,
                    "nfe_per_step": s.evaluations,
                    "stochastic": s.stochastic,
                    "source": s.source,
                    "summary": s.summary,
                    "options": fs.solver_of(key)[1],
                }
                for key, s in chosen.items()
            ]
        )
        return
    show_table(
        ["sampler", "order", "NFE/step", "noise", "what it is", "source"],
        [
            [key, str(s.order), str(s.evaluations), "draws" if s.stochastic else "", s.summary, s.source]
            for key, s in chosen.items()
        ],
        right=("order", "NFE/step"),
    )
    if name is not None:
        options = fs.solver_of(name)[1]
        click.echo()
        if options:
            show_table(["option", "default"], [[key, _shown(value)] for key, value in options.items()])
        else:
            click.echo(f"{name} has no options")


@click.command(cls=Command)
@JSON
def grids(as_json: bool) -> None:
    """List the time grids. Every grid also takes `bias` (-20 to 20), `start` (above 0, to 1) and `final` (clean or
    sigma_min).
    """
    if as_json:
        show_json(
            [
                {"name": key, "summary": g.summary, "source": g.source, "options": {**g.options, **_EVERY_GRID}}
                for key, g in fs.GRIDS.items()
            ]
        )
        return
    show_table(
        ["grid", "what it is", "options", "source"],
        [
            [key, g.summary, ", ".join(f"{k}={_shown(v)}" for k, v in g.options.items()), g.source]
            for key, g in fs.GRIDS.items()
        ],
    )
    click.echo()
    click.echo(
        "Every grid also takes bias=0 (above 0: more steps at low noise), start=1 (below 1: begins "
        "after pure noise) and final=clean (or sigma_min)."
    )


_EVERY_GRID = {"bias": 0.0, "start": 1.0, "final": "clean"}


def _shown(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return str(value).lower()
    return f"{value:.4g}" if isinstance(value, float) else str(value)
