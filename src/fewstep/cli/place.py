"""Where a model runs and how its files are read: options of every command that loads one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

import fewstep as fs
from fewstep.cli import garbage
from fewstep.cli.headings import LOADING, Decorator, option, several
from fewstep.cli.output import waiting
from fewstep.cli.values import ScaledFile
from fewstep.denoise import PREDICTIONS

MODEL = click.argument("model", default="digits")
"""The model of a command that measures one; the shipped digits where nobody names another."""
_OPTIONS = {
    "device": option(
        "--device", default="cpu", metavar="NAME", heading=LOADING, help="Where the model runs, such as cuda."
    ),
    "dtype": option(
        "--dtype",
        metavar="NAME",
        usual="float32",
        heading=LOADING,
        help="What the model runs in: float32, float16 or bfloat16.",
    ),
    "variant": option(
        "--variant", metavar="NAME", heading=LOADING, help="Variant of a diffusers model's files, such as fp16."
    ),
    "config": option(
        "--model-config",
        "config",
        metavar="FOLDER",
        heading=LOADING,
        help="Folder or hub id with the configurations of a MODEL that is an original checkpoint.",
    ),
    "prediction": option(
        "--prediction",
        type=click.Choice(PREDICTIONS),
        usual="as the model's files say",
        heading=LOADING,
        help="What the network predicts.",
    ),
    "zero_snr": option(
        "--zero-snr/--no-zero-snr",
        default=None,
        usual="as the model's files say",
        heading=LOADING,
        help="Whether the noise schedule ends in pure noise (zero terminal SNR).",
    ),
    "lora": option(
        "--lora",
        type=ScaledFile(),
        multiple=True,
        metavar="FILE[:SCALE]",
        heading=LOADING,
        help="A LoRA to merge into the weights, such as style.safetensors:0.8. May be repeated.",
    ),
    "allow_pickle": option(
        "--allow-pickle",
        is_flag=True,
        heading=LOADING,
        help="Accept weights that exist only as a pickle. Loads no code from it.",
    ),
}
"""By their names as arguments of `fewstep.load`."""


def options(*names: str) -> Decorator:
    """Adds some of the options to a command."""
    return several(*(_OPTIONS[name] for name in names))


OPTIONS = several(*_OPTIONS.values())
"""Adds all of them."""
IN_FLOAT32 = several(*(add for name, add in _OPTIONS.items() if name != "dtype"))
"""For a command that measures in float32, or has precisions of its own."""


def arguments(given: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `fewstep.load`, of the options that the command has."""
    found = {name: given[name] for name in _OPTIONS if name in given}
    return {**found, "lora": list(found["lora"])} if "lora" in found else found


def loading(given: Mapping[str, Any]) -> fs.benchmark.Loading:
    """The same as a value, for what measures."""
    found = arguments(given)
    return fs.benchmark.Loading(**{**found, "lora": tuple(found["lora"])})


def load(model: str, given: Mapping[str, Any]) -> fs.Pipeline:
    """The pipeline of a model, by the options of the command. Says so first, as the libraries take seconds."""
    cache = given.get("cache")
    with waiting(f"loading {model}"), garbage.waiting():
        return fs.load(model, **arguments(given), cache=None if cache is None else fs.models.TensorCache(folder=cache))
