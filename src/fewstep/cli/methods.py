"""The options that choose a method of guidance, and the arguments of the pipelines' calls that they stand for."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from fewstep.cli.values import Pair, ScheduleOfWeights, mapping

if TYPE_CHECKING:
    from fewstep.pipeline import Guidance, Pipeline, TextPipeline

_SCHEDULE = click.option(
    "--guidance-schedule",
    type=ScheduleOfWeights(),
    metavar="W,W,..",
    help="In place of --guidance: W,W,.. for each row that runs, or linear:NOISY,CLEAN or cosine:NOISY,CLEAN.",
)
_METHOD = (
    click.option("--guidance-method", help="cfg, apg, cfg++, cfg-zero, pag or autoguidance.  [default: cfg]"),
    click.option(
        "--guidance-option",
        type=Pair(),
        multiple=True,
        help="Of the method, such as norm_limit=2.5. May be repeated.",
    ),
    click.option("--weak", type=click.Path(), help="The weaker model that autoguidance moves away from."),
)


def OPTIONS(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options to a command."""
    for option in reversed((_SCHEDULE, *_METHOD)):
        command = option(command)
    return command


def METHOD(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add those of the method alone."""
    for option in reversed(_METHOD):
        command = option(command)
    return command


def chosen(pipe: Pipeline | TextPipeline, given: dict[str, Any]) -> dict[str, Any]:
    """The arguments that were chosen; the weaker model is loaded once, where `pipe` is."""
    from fewstep.pipeline.weaker import weaker_of

    schedule = given.get("guidance_schedule")
    if schedule is not None and given["guidance"] is not None:
        raise click.UsageError("--guidance is one scale for all rows, --guidance-schedule is in its place: give one")
    found = {
        "guidance": schedule,
        "guidance_method": given["guidance_method"],
        "guidance_options": mapping(given["guidance_option"], "--guidance-option") or None,
        "weak": weaker_of(pipe, given["weak"]),
    }
    return {name: value for name, value in found.items() if value is not None}


def words(guidance: Guidance) -> str:
    """What a line for people adds about a method other than the usual one, and about weights by row."""
    method = "" if guidance.method == "cfg" else f", guided by {guidance.method}"
    if not isinstance(guidance.scale, tuple):
        return method
    each = ", ".join(f"{w:.3g}" for w in guidance.scale[:8]) + (", .." if len(guidance.scale) > 8 else "")
    return f"{method}, guidance by row {each}"
