"""The user's own defaults of `fewstep generate`, from a TOML file; what is taken from it is always printed.

    [generate]
    negative = "blurry, low contrast"
    steps = 8

The file is `fewstep/config.toml` in $XDG_CONFIG_HOME, or in ~/.config; $FEWSTEP_CONFIG names another.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from fewstep.cli.output import note
from fewstep.core.errors import InvalidInput, unknown_name

FILE_LIMIT = 1 << 20
TABLES = ("generate",)
KEYS: dict[str, tuple[type, ...]] = {
    "negative": (str,),
    "guidance": (int, float),
    "guidance-method": (str,),
    "sampler": (str,),
    "steps": (int,),
    "grid": (str,),
    "preset": (str,),
    "batch-size": (int, str),
    "height": (int,),
    "width": (int,),
    "device": (str,),
    "dtype": (str,),
    "cache": (str,),
}
"""What the table `generate` may hold, and of which kinds: options of the command, by their names without dashes."""
_PARAMETERS = {"batch-size": "batch", "guidance-method": "guidance_method"}
_WORDS = ("negative", "preset", "height", "width", "cache")
"""Keys that mean nothing to a model of classes, whose negative is a label."""


@dataclass(frozen=True)
class Defaults:
    """What a file says, by the names of the command's parameters."""

    path: Path
    values: dict[str, Any]

    def apply(self, given: dict[str, Any], decided: Collection[str]) -> None:
        """Put into `given` all but what is `decided` otherwise."""
        for name in decided:
            self.values.pop(name, None)
        given.update(self.values)

    def tell(self, given: dict[str, Any], prompts: bool) -> None:
        """Print what is taken from the file; take back what a model without prompts has no use for."""
        unused = [] if prompts else [name for name in _WORDS if name in self.values]
        for name in unused:
            given[name] = None
        used = [f"{name}={value!r}" for name, value in self.values.items() if name not in unused]
        if used:
            note(f"from {self.path}: {' '.join(used)}")
        if unused:
            note(f"from {self.path}, not used by a model of classes: {', '.join(unused)}")


def config_path() -> Path | None:
    """The file, None where there is none. Raises `InvalidInput` where $FEWSTEP_CONFIG names one that is not there."""
    named = os.environ.get("FEWSTEP_CONFIG")
    if named:
        if not Path(named).is_file():
            raise InvalidInput(f"FEWSTEP_CONFIG names {named!r}, which is no file: correct it, or unset it")
        return Path(named)
    home = os.environ.get("XDG_CONFIG_HOME")
    base = Path(home) if home and os.path.isabs(home) else Path("~/.config").expanduser()
    path = base / "fewstep" / "config.toml"
    return path if path.is_file() else None


def read_defaults(ctx: click.Context) -> Defaults | None:
    """What the user's file says of the command of `ctx`, checked as its options are; None where there is no file.

    Raises:
        InvalidInput: the file is no TOML, or a key or a value in it cannot be used.
    """
    path = config_path()
    if path is None:
        return None
    with path.open("rb") as file:
        content = file.read(FILE_LIMIT + 1)
    if len(content) > FILE_LIMIT:
        raise InvalidInput(f"{path} has more than {FILE_LIMIT >> 20} MiB: it is no configuration of fewstep")
    try:
        table = tomllib.loads(content.decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidInput(f"{path} is no TOML ({error}): correct it, or use --no-config") from error
    for name in table:
        if name not in TABLES:
            raise unknown_name(f"table in {path}", name, TABLES)
    chosen = table.get("generate", {})
    if not isinstance(chosen, dict):
        raise InvalidInput(f"{path}: generate has to be a table, written [generate]")
    parameters = {str(parameter.name): parameter for parameter in ctx.command.params}
    values = {}
    for key, value in chosen.items():
        if key not in KEYS:
            raise unknown_name(f"key of [generate] in {path}", key, KEYS)
        if type(value) not in KEYS[key]:
            kinds = " or ".join({str: "a text", int: "a whole number", float: "a number"}[kind] for kind in KEYS[key])
            raise InvalidInput(f"{path}: {key} has to be {kinds}, got {value!r:.60}")
        name = str(_PARAMETERS.get(key, key))
        try:
            values[name] = parameters[name].type_cast_value(ctx, value)
        except click.BadParameter as error:
            raise InvalidInput(f"{path}: {key}: {error.message}") from error
    return Defaults(path, values)


def decided(
    defaults: Defaults, given: dict[str, Any], named: set[str], by_recipe: Collection[str], by_plan: Collection[str]
) -> set[str]:
    """Names that the command line leaves no room for: those it gives, and those that something in it decides."""
    found = set(named)
    if given["like"] is not None:
        found |= set(by_recipe)
    if given["plan"] is not None:
        found |= set(by_plan)
    if given["times"] is not None or given["sigmas"] is not None:
        found |= {"steps", "grid"}
    if given["guidance_schedule"] is not None:
        found.add("guidance")
    if defaults.values.get("batch") == "auto" and given["prompt_file"] is None and given["seeds"] is None:
        found.add("batch")  # one picture has no batches to find a size for
    if "preset" in named:
        from fewstep.pipeline import PRESETS

        found |= set(PRESETS.get(given["preset"], ()))
    return found
