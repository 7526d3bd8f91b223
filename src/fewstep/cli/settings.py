"""How long and how fast something is trained: options that the trainings on the one loop share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

import click

import fewstep as fs
from fewstep.cli.headings import TRAINING, option, several
from fewstep.core import InvalidInput

LINE_EVERY = 500
"""Steps between lines where there is no terminal for a bar."""
OPTIMISERS = ("adam", "adamw", "radam")
"""Here too, so that the help needs no torch."""
OPTIONS = several(
    option("--steps", type=click.IntRange(1), default=1000, heading=TRAINING, help="Steps of the optimiser."),
    option("--batch", type=click.IntRange(1), default=128, heading=TRAINING, help="Samples of a step."),
    option(
        "--accumulate",
        type=click.IntRange(1),
        default=1,
        heading=TRAINING,
        help="Equal parts in which a batch is done, one after the other, to save memory.",
    ),
    option("--rate", type=click.FloatRange(0), default=1e-3, heading=TRAINING, help="Learning rate at its peak."),
    option(
        "--optimiser",
        type=click.Choice(OPTIMISERS),
        default="adam",
        heading=TRAINING,
        help="What moves the weights.",
    ),
    option(
        "--muon",
        type=click.FloatRange(0),
        default=0.0,
        usual="without",
        heading=TRAINING,
        help="Rate of Muon for the matrices, beside which --optimiser adamw has the rest.",
    ),
    option(
        "--average",
        "width",
        type=click.FloatRange(0),
        default=0.05,
        heading=TRAINING,
        help="Width of the average of the weights that is kept, a share of the training; 0 keeps the last ones.",
    ),
    option("--seed", type=click.IntRange(0), default=0, heading=TRAINING, help="Decides everything."),
    option(
        "--save-every",
        "state_every",
        type=click.IntRange(1, 100_000_000),
        default=200,
        heading=TRAINING,
        help="Steps between the states that it can go on from.",
    ),
)
"""Adds all of them."""
TARGETS = ("all", "linear", "attention")
"""Of a LoRA; here too, so that the help needs no torch."""
LORA = several(
    option(
        "--lora-rank",
        type=click.IntRange(1, 1024),
        usual="all weights are trained",
        heading=TRAINING,
        help="Train a LoRA of this rank in place of all weights.",
    ),
    option(
        "--lora-alpha",
        type=click.FloatRange(0, min_open=True),
        usual="the rank",
        heading=TRAINING,
        help="The LoRA counts alpha / rank.",
    ),
    option(
        "--lora-targets",
        type=click.Choice(TARGETS),
        usual="all",
        heading=TRAINING,
        help="Layers with a LoRA: linear ones and convolutions, linear ones alone, or those of attention.",
    ),
)
"""Of a command that can train a LoRA in place of all weights."""


def settings_of(given: Mapping[str, Any]) -> fs.training.Settings:
    """The settings of the loop, of the options that a command has."""
    known = [one.name for one in fields(fs.training.Settings)]
    adapter = adapter_of(given) if "lora_rank" in given else None
    return fs.training.Settings(adapter=adapter, **{name: given[name] for name in known if name in given})


def adapter_of(given: Mapping[str, Any]) -> fs.training.Adapter | None:
    """The LoRA that is trained, where its rank is given. Raises `InvalidInput` for other options of it alone."""
    own = {name: given[f"lora_{name}"] for name in ("rank", "alpha", "targets")}
    options = {name: value for name, value in own.items() if value is not None}
    if options and "rank" not in options:
        raise InvalidInput(f"--lora-{next(iter(options))} is of a LoRA: give --lora-rank too, such as 16")
    return fs.training.Adapter(**options) if options else None


def telling(bar: Callable[..., None]) -> Callable[[fs.training.Progress], None]:
    """Shows how a training goes on by a bar, or in lines."""

    def tell(now: fs.training.Progress) -> None:
        several = len(now.losses) > 1  # then it says whose
        loss = ", ".join(f"loss {f'of the {role} ' * several}{value:.4g}" for role, value in now.losses.items())
        words = f"{loss}, {now.speed:.3g} images/s" if loss else "as it was left"
        said = now.step % LINE_EVERY == 0 or now.step == now.steps or not now.losses
        line = f"step {now.step} of {now.steps}: {words}, {now.left:.0f} s left" if said else ""
        bar(now.step, of=now.steps, words=words, line=line)

    return tell
