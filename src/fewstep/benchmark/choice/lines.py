"""What to type for a choice: the command, the same in Python, and in a pipeline of diffusers."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from fewstep.benchmark.choice.candidate import Candidate
from fewstep.benchmark.commands import exact
from fewstep.benchmark.loading import PLAIN, Loading
from fewstep.denoise.factors import FACTORS


class Lines(NamedTuple):
    """The same choice three times.

    `diffusers` is None for models that are no pipeline of diffusers, and for plans with guidance by row at a scale that
    its pipelines do not guide by; both it and `command` for a model that is there in Python alone.
    """

    command: str | None
    python: str
    diffusers: str | None


def lines_of(source: str | None, one: Candidate, words: bool, loading: Loading = PLAIN, device: str = "cpu") -> Lines:
    """The lines that draw with a candidate. `source` is what `fewstep.load` takes, with `loading` and `device`, or None
    for a pipeline that is loaded; `words`: whether from prompts.
    """
    command = ["fewstep", "generate", source or "", *(["PROMPT"] if words else [])]
    call: dict[str, Any] = {}
    if one.plan_file is not None:
        command += ["--plan", str(one.plan_file)] + ["--force"] * one.force
        start = f"sampler=fs.Plan.load({_literal(str(one.plan_file))})"
    else:
        command += ["--sampler", one.sampler, "--steps", str(one.steps), "--grid", one.grid]
        command += _pairs("--grid-option", one.grid_options) + _pairs("--option", one.options)
        start = f"sampler={_literal(one.sampler)}, steps={one.steps}, grid={_literal(one.grid)}"
        call = {"grid_options": dict(one.grid_options), "options": dict(one.options)}
    if one.guidance is not None:
        command += ["--guidance", exact(one.guidance)]
        call["guidance"] = one.guidance
    load = loading.given
    if one.precision != "float32":
        command += ["--dtype", one.precision]
        load = {"dtype": one.precision, **load}
    if device != "cpu":
        command += ["--device", device]
        load = {**load, "device": device}
    drawn = ", ".join(['"PROMPT"'] * words + [start, *_named(call)])
    if source is None:
        return Lines(None, f"images = pipe({drawn})", None)
    loaded = ", ".join([_literal(source), *_named(load)])
    python = f"images = fs.load({loaded})({drawn})"
    idle = FACTORS in one.options and (one.guidance is None or one.guidance <= 1)
    theirs = (is_folder(source) or words) and not idle
    return Lines(shlex.join(command + loading.words), python, _diffusers(one) if theirs else None)


def is_folder(source: str) -> bool:
    """Whether a model is in the format of diffusers, as far as its name tells: no single file and not the digits."""
    return source != "digits" and Path(source).suffix != ".safetensors"


def _diffusers(one: Candidate) -> str:
    if one.plan_file is not None and FACTORS in one.options:
        return (
            f"by_row = GuidanceByRow({_literal(str(one.plan_file))}, {exact(one.guidance or 1)}); "
            "pipe.scheduler = PlanScheduler.from_plan(by_row.plan, pipe.scheduler.config); "
            f"pipe(.., num_inference_steps={one.steps}, guidance_scale=by_row.first, callback_on_step_end=by_row)"
        )
    if one.plan_file is not None:
        return f"pipe.scheduler = PlanScheduler.from_plan({_literal(str(one.plan_file))})"
    grid = f", grid_options={dict(one.grid_options)!r}" if one.grid_options else ""
    options = "".join(f", {name}={value!r}" for name, value in one.options.items())
    line = f'PlanScheduler.from_config(pipe.scheduler, sampler="{one.sampler}", grid="{one.grid}"{grid}{options})'
    scale = "" if one.guidance is None else f", guidance_scale={exact(one.guidance)}"
    return f"pipe.scheduler = {line}; pipe(.., num_inference_steps={one.steps}{scale})".replace("'", '"')


def _named(values: Mapping[str, Any]) -> list[str]:
    return [f"{name}={_literal(value)}" for name, value in values.items() if value not in ({}, None)]


def _literal(value: Any) -> str:
    """A value as Python reads it, texts in double quotes."""
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{_literal(name)}: {_literal(inner)}' for name, inner in value.items())}}}"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)


def _pairs(option: str, values: Mapping[str, Any]) -> list[str]:
    return [word for name, value in values.items() for word in (option, f"{name}={value}")]
