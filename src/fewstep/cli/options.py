"""Options that are the fields of a `Drawing`: their kinds, bounds and help are those of the fields.

A command takes those that it has a use for, and what was given becomes an overlay, `asked`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import click
from annotated_types import Ge, Gt, Le, Lt
from click.core import ParameterSource
from pydantic import BaseModel
from pydantic.fields import FieldInfo

import fewstep as fs
from fewstep.cli.headings import (
    DRAWN,
    ESTIMATES,
    GUIDANCE,
    MEMORY,
    PICTURE,
    SAMPLER,
    Decorator,
    Option,
    argument,
    option,
    several,
    shown,
)
from fewstep.cli.output import note
from fewstep.cli.source import is_prompt
from fewstep.cli.values import LABELS, NUMBERS, SEED, WEIGHTS, Pair, PlanFile, Span, mapping

Path = tuple[str, ...]

NAMES = {
    "sampling.options": "option",
    "sampling.grid_options": "grid-option",
    "guidance.scale": "guidance",
    "guidance.method": "guidance-method",
    "guidance.options": "guidance-option",
    "guidance.interval": "guidance-interval",
    "estimate.threshold": "dynamic-threshold",
}
"""Options with another name than their field."""
METAVARS = {"sampling.sampler": "NAME", "sampling.grid": "NAME", "guidance.method": "NAME"}
"""Options that take a name of a list, for the help."""
TYPES = {"seed": (SEED, "S[,S,..]")}
"""Options that take more than the first kind of what their field holds: the type, and how the help writes it."""
NO_OPTIONS = (
    "prompts", "lora", "guidance.weaker", "source.task", "source.picture", "source.mask", "source.prompt",
    "source.paste",
)  # fmt: skip
"""Fields that commands take as arguments, or find out."""
HEADINGS = {
    "sampling": SAMPLER,
    "guidance": GUIDANCE,
    "estimate": ESTIMATES,
    "source": PICTURE,
    "decode": MEMORY,
}
"""Of the options of each part."""
RECOMMENDED = "fewstep.recommended"
OWN = ("height", "width", "sampling.sampler", "sampling.steps", "sampling.grid", "guidance.scale")
"""Fields for which each model has a value of its own."""


def fields(*parts: str, without: Collection[str] = (), usual: Mapping[str, str] | None = None) -> Decorator:
    """The options of the fields of a drawing, or of some of its parts, but for some by their names.

    `usual` is what the command does where some of them are not given.
    """
    found = []
    for path, info in _leaves(fs.drawing.Drawing):
        name = NAMES.get(".".join(path), path[-1].replace("_", "-"))
        wanted = path[0] in parts if parts else path[0] != "source"
        if wanted and ".".join(path) not in NO_OPTIONS and name not in without:
            found.append((name, _settings(path, info, (usual or {}).get(name))))
    return several(*[option(f"--{name}", **settings) for name, settings in found])


RESCALE = option(
    "--rescale",
    type=click.FloatRange(0, 1),
    metavar="X",
    path=("guidance", "options", "rescale"),
    heading=GUIDANCE,
    help="Take back this share of the contrast that cfg adds, 0 to 1.",
)
SCHEDULE = option(
    "--guidance-schedule",
    type=WEIGHTS,
    metavar="W,W,..",
    path=("guidance", "scale"),
    heading=GUIDANCE,
    help="In place of --guidance: a scale for each row, W,W,.., or linear:NOISY,CLEAN or cosine:NOISY,CLEAN.",
)
WEAK = option(
    "--weak",
    type=click.Path(),
    metavar="MODEL",
    heading=GUIDANCE,
    help="The weaker model of autoguidance.",
)
PRESET = option(
    "--preset",
    metavar="NAME",
    heading=DRAWN,
    help=f"Options by use: {', '.join(fs.drawing.PRESETS)}. Prints what they are.",
)


def asked(
    ctx: click.Context, below: Mapping[str, Any] | None = None, model: fs.models.Model | None = None
) -> dict[str, Any]:
    """What was given, over the configuration `below`, as arguments of a pipeline's call. A preset, which is that for a
    model where one is named, is printed.
    """
    name = ctx.params.get("preset")
    layers = [below or {}]
    if name is not None:
        wanted = fs.drawing.preset(name) if model is None else fs.models.preset_for(model, name)
        note(f"--preset {name} is {' '.join(f'{key}={value}' for key, value in flat(wanted))}")
        layers.insert(ctx.get_parameter_source("preset") is ParameterSource.COMMANDLINE, wanted)
    found = fs.drawing.merged(*layers, overlay(ctx.command, ctx.params))
    if ctx.params.get("force") and "plan" not in found.get("sampling", {}):
        raise click.UsageError("--force takes a plan that was tuned for another model: give --plan")
    return {**found.pop("run", {}), **found}


def overlay(command: click.Command, given: Mapping[str, Any]) -> dict[str, Any]:
    """The overlay of values by the names of a command's parameters."""
    found: dict[str, Any] = {}
    for param in command.params:
        value = given.get(str(param.name))
        if not isinstance(param, Option) or not param.path or value is None or value is False or value == ():
            continue
        if param.multiple:
            value = mapping(value, param.opts[0])
        *parts, last = param.path
        inner = found
        for part in parts:
            inner = inner.setdefault(part, {})
        if isinstance(value, dict):
            value = {**value, **inner.get(last, {})}
        elif last in inner:
            raise click.UsageError(f"--guidance is one scale for all rows, {param.opts[0]} is in its place: give one")
        inner[last] = value
    return found


def flat(found: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The values of an overlay by their own names."""
    for name, value in found.items():
        if isinstance(value, Mapping):
            yield from flat(value)
        else:
            yield name, value


def at(found: Any, path: Path) -> Any:
    """The value of a field in an overlay, or None."""
    for name in path:
        found = found.get(name) if isinstance(found, Mapping) else None
    return found


def _leaves(kind: type[BaseModel], above: Path = ()) -> Iterator[tuple[Path, FieldInfo]]:
    """The fields of a value, and of the values in it in their place."""
    for name, info in kind.model_fields.items():
        inner = _kind(info.annotation, [])[0]
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from _leaves(inner, (*above, name))
        else:
            yield (*above, name), info


def _settings(path: Path, info: FieldInfo, usual: str | None) -> dict[str, Any]:
    """How the option of a field is made."""
    kind, bounds = _kind(info.annotation, info.metadata)
    settings: dict[str, Any] = {
        "path": path,
        "heading": HEADINGS.get(path[0], DRAWN),
        "help": info.description,
        "usual": _usual(path, info) if usual is None else usual,
    }
    if kind is bool:
        return {**settings, "is_flag": True}
    if kind is fs.drawing.Options:
        return {**settings, "type": Pair(), "multiple": True, "help": f"{info.description} May be repeated."}
    if ".".join(path) in TYPES:
        own, metavar = TYPES[".".join(path)]
        return {**settings, "type": own, "metavar": metavar}
    return {**settings, "type": _type(kind, bounds), "metavar": METAVARS.get(".".join(path))}


def _kind(annotation: Any, bounds: list[Any]) -> tuple[Any, list[Any]]:
    """What a field holds where it is not None, the first of several kinds; and the bounds on the way to it."""
    while get_origin(annotation) in (Annotated, Union, UnionType):
        kinds = [one for one in get_args(annotation) if one is not type(None)]
        if get_origin(annotation) is Annotated:
            bounds = [*bounds, *kinds[1:]]
        annotation = kinds[0]
    return annotation, bounds


def _type(kind: Any, bounds: list[Any]) -> Any:
    """The type of an option that holds what a field holds; of several texts one is given."""
    if kind is fs.Plan:
        return PlanFile(dir_okay=False)
    if get_origin(kind) is Literal:
        return click.Choice(get_args(kind))
    if get_origin(kind) is tuple:
        first, rest = get_args(kind)
        return {float: NUMBERS, int: LABELS}.get(_kind(first, [])[0], click.STRING) if rest is Ellipsis else Span()
    limits = dict(_limits(bounds))
    if kind is int:
        return click.IntRange(**limits)
    if kind is float:
        return click.FloatRange(**limits) if limits else click.FLOAT
    return click.STRING


def _limits(bounds: list[Any]) -> Iterator[tuple[str, Any]]:
    """The arguments of a click range."""
    for bound in bounds:
        if isinstance(bound, FieldInfo):
            yield from _limits(bound.metadata)
        elif isinstance(bound, Ge | Gt):
            yield "min", bound.ge if isinstance(bound, Ge) else bound.gt
            yield "min_open", isinstance(bound, Gt)
        elif isinstance(bound, Le | Lt):
            yield "max", bound.le if isinstance(bound, Le) else bound.lt
            yield "max_open", isinstance(bound, Lt)


def _usual(path: Path, info: FieldInfo) -> Any:
    """What a field is where nobody says it, for the help: of the model in hand, or by default."""
    if ".".join(path) in OWN:
        return lambda ctx: shown(at(_recommended(ctx), path)) or "the model's own"
    plain = isinstance(info.default, str | int | float) and not isinstance(info.default, bool)
    return shown(info.default) if plain else ""


def _recommended(ctx: click.Context) -> Mapping[str, Any]:
    """What the model that the command line names recommends, as far as small files say it."""
    if RECOMMENDED not in ctx.meta:
        model = argument(ctx, "model") or ""
        model = "scenes" if is_prompt(model) else model
        ctx.meta[RECOMMENDED] = fs.models.recommended_by(model) if model else {}
    return ctx.meta[RECOMMENDED]
