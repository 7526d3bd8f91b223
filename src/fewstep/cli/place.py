"""Where a model runs and how its files are read: options of every command that loads one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import click

Command = Callable[..., Any]
_OPTIONS = {
    "device": click.option("--device", default="cpu", help="Where the model runs, such as cuda.  [default: cpu]"),
    "dtype": click.option("--dtype", help="float32, float16 or bfloat16.  [default: float32]"),
    "variant": click.option("--variant", help="Of a diffusers model's files, such as fp16."),
    "config": click.option(
        "--model-config",
        "config",
        help="Folder or hub id with the configurations of a MODEL that is one original checkpoint.",
    ),
    "allow_pickle": click.option(
        "--allow-pickle", is_flag=True, help="Load weights that are only there as a pickle, never code."
    ),
}
"""By their names as arguments of `fewstep.load`."""


def options(*names: str) -> Callable[[Command], Command]:
    """Adds some of the options to a command."""

    def add(command: Command) -> Command:
        for name in reversed(names):
            command = _OPTIONS[name](command)
        return command

    return add


OPTIONS = options(*_OPTIONS)
"""Adds all of them."""
IN_FLOAT32 = options("device", "variant", "config", "allow_pickle")
"""For a command that measures in float32, or has precisions of its own."""


def arguments(given: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `fewstep.load`, of the options that the command has."""
    return {name: given[name] for name in _OPTIONS if name in given}
