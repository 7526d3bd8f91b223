"""Where a model runs and how its files are read: options of every command that loads one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import click

NAMES = ("device", "dtype", "variant", "model_config", "allow_pickle")
_OPTIONS = (
    click.option("--device", default="cpu", help="Where the model runs, such as cuda.  [default: cpu]"),
    click.option("--dtype", help="float32, float16 or bfloat16.  [default: float32]"),
    click.option("--variant", help="Of a diffusers model's files, such as fp16."),
    click.option(
        "--model-config", help="Folder or hub id with the configurations of a MODEL that is one original checkpoint."
    ),
    click.option("--allow-pickle", is_flag=True, help="Load weights that are only there as a pickle, never code."),
)


def OPTIONS(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options to a command."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def arguments(given: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `fewstep.load`."""
    return {"config" if name == "model_config" else name: given[name] for name in NAMES}
