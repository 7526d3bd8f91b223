"""Which of the words of `fewstep generate` are a model, and which shipped model draws where none is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource


def is_prompt(word: str) -> bool:
    """Whether the first argument is no model but a prompt: several words that are no file's name."""
    return len(word.split()) > 1 and not word.endswith((".safetensors", "/")) and not Path(word).exists()


def split(ctx: click.Context, _: click.Parameter, prompts: tuple[str, ...]) -> tuple[str, ...]:
    """Callback of the prompts: take over what was read as MODEL and is a prompt."""
    model = ctx.params.get("model")
    if model is None or not is_prompt(model):
        return prompts
    ctx.params["model"] = None
    ctx.set_parameter_source("model", ParameterSource.DEFAULT)
    ctx.set_parameter_source("prompts", ParameterSource.COMMANDLINE)
    return (model, *prompts)


def default(given: dict[str, Any]) -> str:
    """The shipped model that draws what is asked for."""
    return "scenes" if given["prompts"] or given["prompt_file"] is not None else "digits"
