"""The user's own defaults of `fewstep generate` and `fewstep batch`, from a TOML file; what is taken is always printed.

    [generate]
    negative = "blurry, low contrast"
    steps = 8

Keys are options of `fewstep generate` without their dashes. The file is `fewstep/config.toml` in $XDG_CONFIG_HOME, or
in ~/.config; $FEWSTEP_CONFIG names another.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

import fewstep as fs
from fewstep.cli import options
from fewstep.cli.headings import LAST, Option, option
from fewstep.cli.output import note
from fewstep.core import InvalidInput, shown, unknown_name

FILE_LIMIT = 1 << 20
TABLES = ("generate",)
FOR_WORDS = ("negative", "height", "width", "clip_skip")
"""What means nothing to a model of classes, whose negative is a label."""
NO_CONFIG = option("--no-config", is_flag=True, heading=LAST, help="Leave out the defaults of your configuration file.")


@dataclass(frozen=True)
class Defaults:
    """What a file says, by the names of the command's parameters."""

    path: Path = Path()
    values: dict[str, Any] = field(default_factory=dict)

    def complete(self, ctx: click.Context) -> None:
        """Put what does not belong to the drawing, such as the device, where nobody gives it."""
        for param in ctx.command.params:
            name = str(param.name)
            if name in self.values and not getattr(param, "path", ()) and not _named(ctx, name):
                ctx.params[name] = self.values[name]

    def asked(self, ctx: click.Context, pipe: fs.Pipeline) -> dict[str, Any]:
        """The overlay of the file and of what was given over it, for a model. Prints what is taken from the file."""
        unused = [name for name in FOR_WORDS if name in self.values and pipe.model.conditioner.field == "labels"]
        own = {name: value for name, value in self.values.items() if name not in unused}
        found = options.asked(ctx, options.overlay(ctx.command, own), pipe.model)
        used = [f"{name}={shown(value)}" for name, value in own.items() if _taken(ctx, name, value, found)]
        if used:
            note(f"from {self.path}: {' '.join(used)}")
        if unused:
            note(f"from {self.path}, not used by a model of classes: {', '.join(unused)}")
        return found


def _named(ctx: click.Context, name: str) -> bool:
    return ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE


def _taken(ctx: click.Context, name: str, value: Any, found: Mapping[str, Any]) -> bool:
    """Whether a value of the file is in what is drawn, or in the run."""
    param = next((param for param in ctx.command.params if param.name == name), None)
    if param is None or _named(ctx, name):
        return False
    path = getattr(param, "path", ())
    if not path:
        return ctx.params[name] == value
    return options.at(found, path) == options.at(options.overlay(ctx.command, {name: value}), path)


def config_path() -> Path | None:
    """The file, None where there is none. Raises `InvalidInput` where $FEWSTEP_CONFIG names one that is not there."""
    named = os.environ.get("FEWSTEP_CONFIG")
    if named:
        if not Path(named).is_file():
            raise InvalidInput(f"FEWSTEP_CONFIG names {shown(named)}, which is not a file: correct it, or unset it")
        return Path(named)
    home = os.environ.get("XDG_CONFIG_HOME")
    base = Path(home) if home and os.path.isabs(home) else Path("~/.config").expanduser()
    path = base / "fewstep" / "config.toml"
    return path if path.is_file() else None


def read_defaults(ctx: click.Context, command: click.Command) -> Defaults:
    """What the user's file says of the options of `command`, checked as they are; nothing where it is not wanted.

    Raises:
        InvalidInput: the file is not TOML, or a key or a value in it cannot be used.
    """
    path = None if ctx.params["no_config"] else config_path()
    if path is None:
        return Defaults()
    known = {
        param.opts[-1].removeprefix("--"): param
        for param in command.params
        if isinstance(param, Option) and param.heading != LAST and param.name != "force"
    }
    values = {}
    for key, value in _table(path).items():
        if key not in known:
            raise unknown_name(f"key of [generate] in {path}", key, known)
        values[str(known[key].name)] = _cast(ctx, known[key], value, f"{path}: {key}")
    return Defaults(path, values)


def _table(path: Path) -> dict[str, Any]:
    """The table `generate` of the file."""
    content = fs.files.read_bounded(path, FILE_LIMIT)
    try:
        tables = tomllib.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as error:  # those of TOML and of UTF-8 are ValueErrors, as is a long number
        raise InvalidInput(f"{path} is not TOML ({error}): correct it, or use --no-config") from error
    for name in tables:
        if name not in TABLES:
            raise unknown_name(f"table in {path}", name, TABLES)
    chosen = tables.get("generate", {})
    if not isinstance(chosen, dict):
        raise InvalidInput(f"{path}: generate has to be a table, written [generate]")
    return chosen


def _cast(ctx: click.Context, param: Option, value: Any, where: str) -> Any:
    """A value of the file as the command line would give it."""
    name, kinds = _kinds(param)
    if type(value) not in kinds:
        raise InvalidInput(f"{where} has to be {name}, got {shown(value)}")
    if isinstance(value, str) and "\0" in value:
        raise InvalidInput(f"{where} has the character NUL in it: leave it out")
    try:
        return param.type_cast_value(ctx, list(value.items()) if isinstance(value, dict) else value)
    except click.BadParameter as error:
        raise InvalidInput(f"{where}: {error.message}") from error


def _kinds(param: Option) -> tuple[str, tuple[type, ...]]:
    """What TOML may hold for an option, in words and as types."""
    if param.is_flag:
        return "true or false", (bool,)
    if param.multiple:
        return "a table", (dict,)
    if isinstance(param.type, type(click.INT)) or param.name == "seed":
        return "a whole number", (int,)
    if isinstance(param.type, type(click.FLOAT)):
        return "a number", (int, float)
    if param.name == "batch":
        return "a whole number or auto", (int, str)
    return "a text", (str,)
