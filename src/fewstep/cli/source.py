"""What a command draws with, and what: which of its words are a model, and which are prompts or labels."""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

import fewstep as fs
from fewstep.cli.values import label
from fewstep.core import InvalidInput, shown

AT_ONCE = ("realtime", "interactive")
"""Presets for someone who waits."""


def is_prompt(word: str) -> bool:
    """Whether the first argument is a prompt and not a model: several words that do not name a file."""
    return len(word.split()) > 1 and not word.endswith((".safetensors", "/")) and not Path(word).exists()


def split(ctx: click.Context, _: click.Parameter, prompts: tuple[str, ...]) -> tuple[str, ...]:
    """Callback of the prompts: take over what was read as MODEL and is a prompt."""
    model = ctx.params.get("model")
    if model is None or not is_prompt(model):
        return prompts
    ctx.params["model"] = None
    ctx.set_parameter_source("prompts", ParameterSource.COMMANDLINE)
    return (model, *prompts)


def check_model(ctx: click.Context, model: str | None, prompts: Sequence[str]) -> None:
    """Raise `InvalidInput` for words that name no model, and say how to draw them.

    Names that are nearly those of a shipped model are left to `fewstep.load`, which says which one is meant.
    """
    shipped = fs.zoo.SHIPPED
    if model is None or model in shipped or "/" in model or Path(model).suffix or Path(model).exists():
        return
    if difflib.get_close_matches(model.lower()[:80], shipped, n=1):
        return
    words = " ".join((model, *prompts)) if all(prompt.isalpha() for prompt in prompts) else model
    raise InvalidInput(
        f"no model is called {shown(model)}. To draw it, type `{ctx.command_path} scenes {shlex.quote(words)}`; "
        f"a model is {' or '.join(shipped)}, a path, or an id on the hub such as org/name"
    )


def default(preset: str | None, *prompts: Any) -> str:
    """The shipped model that draws what is asked for: the scenes where there are prompts, or their student, where a
    preset asks for an answer at once.
    """
    if not any(prompts):
        return "digits"
    return "scenes-turbo" if preset in AT_ONCE else "scenes"


def subjects(pipe: fs.Pipeline, prompts: Sequence[str], labels: Sequence[int | None] | None) -> list[Any] | None:
    """What is drawn, of what was given; None for each class.

    Raises:
        UsageError: prompts for a model of classes, or labels for one of prompts, or no prompt.
    """
    if pipe.model.conditioner.field == "labels":
        if prompts:
            raise click.UsageError(
                f"PROMPT is for models that take prompts, and {pipe.name} draws classes: use --labels"
            )
        return None if labels is None else list(labels)
    if labels is not None:
        raise click.UsageError(f"--labels is for models of classes, and {pipe.name} takes prompts: give a PROMPT")
    if not prompts:
        raise click.UsageError(f"{pipe.name} draws from words: give a PROMPT after the model, in quotes")
    return list(prompts)


def fitted(pipe: fs.Pipeline, call: dict[str, Any], force: bool = False) -> dict[str, Any]:
    """A call whose negative is a label where the model draws classes, and whose plan is one for the model."""
    if isinstance(call.get("negative"), str) and pipe.model.conditioner.field == "labels":
        call = {**call, "negative": label(call["negative"])}
    plan = call.get("sampling", {}).get("plan")
    if plan is not None and not force:
        fs.models.check_tuned_for(plan, pipe.model.identity, "tune one for it with `fewstep tune`, or use --force")
    return call
