"""What to type: the command that measures again, and the lines that draw with a plan that was measured."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fewstep.benchmark.measured import Measured, ModelFacts
from fewstep.benchmark.subject import Subject
from fewstep.benchmark.sweep import Sweep


def bench_command(subject: Subject, sweep: Sweep, clip: str | os.PathLike[str] | None) -> str:
    """The `fewstep bench` that measures a sweep."""
    words = ["fewstep", "bench", subject.model.source]
    words += ["--samplers", _listed(sweep.samplers) or "none"]
    if sweep.samplers:
        words += ["--grids", _listed(sweep.grids), f"--{sweep.counted}", _listed(sweep.counts)]
    if subject.guided:
        words += ["--guidance", _listed(exact(subject.scale(scale) or 0.0) for scale in sweep.guidance)]
    words += ["--precision", _listed(sweep.precisions)]
    for plan in sweep.plans:
        words += ["--plan", str(plan)]
    words += ["--force"] * sweep.force
    for option, value in (("--prompts", subject.pictures.prompts), ("--clip", clip)):
        words += [] if value is None else [option, str(value)]
    words += ["--images", str(subject.count), "--batch", str(subject.batch), "--seed", str(subject.pictures.seed)]
    return shlex.join(words + subject.model.loading.words)


def generate_command(
    one: Measured, folder: str | os.PathLike[str] = "", prompted: bool = False, negative: str | None = None
) -> str:
    """The `fewstep generate` that draws with a plan, whose file lies in a folder, and where the model is `prompted`,
    with a PROMPT; away from a `negative` one.
    """
    plan = one.plan
    words = ["fewstep", "generate", one.model.source, *["PROMPT"] * prompted]
    if plan.file is not None:
        words += ["--plan", os.path.join(folder, plan.file)] + ["--force"] * one.foreign
    else:
        words += ["--sampler", plan.sampler, "--steps", str(plan.steps), "--grid", plan.grid]
        words += _pairs("--grid-option", plan.grid_options) + _pairs("--option", plan.options)
    if one.guidance is not None:
        words += ["--guidance", exact(one.guidance)]
    if negative is not None:
        words += ["--negative", negative]
    if one.precision != "float32":
        words += ["--dtype", one.precision]
    return shlex.join(words + one.model.loading.words)


class Lines(NamedTuple):
    """The same choice three times.

    `diffusers` is None for models that are not a pipeline of diffusers, and for plans with guidance by row at a scale
    that its pipelines do not guide by; both it and `command` for a model that is there in Python alone.
    """

    command: str | None
    python: str
    diffusers: str | None


def lines_of(one: Measured, prompted: bool, loaded: bool = False, negative: str | None = None) -> Lines:
    """The lines that draw with a plan; `prompted`: whether from prompts, `loaded`: by a pipeline that is there,
    `negative`: away from this prompt.
    """
    plan, model = one.plan, one.model
    arguments = ['"PROMPT"'] * prompted
    if plan.file is not None:
        arguments.append(f"sampler=fs.Plan.load({_literal(plan.file)})")
    else:
        arguments += _named({"sampler": plan.sampler, "steps": plan.steps, "grid": plan.grid})
        more = {"grid_options": dict(plan.grid_options), "options": dict(plan.options)}
        arguments += _named({"sampling": {name: value for name, value in more.items() if value}})
    drawn = ", ".join([*arguments, *_named({"guidance": one.guidance, "negative": negative})])
    if loaded:
        return Lines(None, f"images = pipe({drawn})", None)
    dtype = None if one.precision == "float32" else one.precision
    source = ", ".join([_literal(model.source), *_named({"dtype": dtype, **model.loading.given})])
    idle = plan.guidance_factors is not None and (one.guidance is None or one.guidance <= 1)
    theirs = (is_folder(model) or prompted) and not idle
    python = f"images = fs.load({source})({drawn})"
    command = generate_command(one, prompted=prompted, negative=negative)
    return Lines(command, python, _diffusers(one, prompted, negative) if theirs else None)


def is_folder(model: ModelFacts) -> bool:
    """Whether a model is in the format of diffusers, as far as its name tells: no single file and not the digits."""
    return model.source != "digits" and Path(model.source).suffix != ".safetensors"


def _diffusers(one: Measured, prompted: bool, negative: str | None = None) -> str:
    """Lines for a pipeline `pipe`, which says itself what its network predicts."""
    plan = one.plan
    call = ['"PROMPT"'] if prompted else ["class_labels=[0]"] * (one.guidance is not None)
    call += _named({"negative_prompt": negative})
    call.append(f"num_inference_steps={plan.steps}")
    if plan.file is not None and plan.guidance_factors is not None:
        drawn = ", ".join([*call, "guidance_scale=by_row.first", "callback_on_step_end=by_row"])
        return (
            f"by_row = GuidanceByRow({_literal(plan.file)}, {exact(one.guidance or 1)}); "
            "pipe.scheduler = PlanScheduler.from_plan(by_row.plan, pipe.scheduler); "
            f"images = pipe({drawn}).images"
        )
    drawn = ", ".join([*call, *([] if one.guidance is None else [f"guidance_scale={exact(one.guidance)}"])])
    if plan.file is not None:
        made = f"from_plan({_literal(plan.file)}, pipe.scheduler)"
    else:  # options, also none, are those of the sampler, whatever the pipeline's scheduler has
        facts = _named({"sampler": plan.sampler, "grid": plan.grid, "grid_options": dict(plan.grid_options)})
        made = f"from_config({', '.join(['pipe.scheduler', *facts, f'options={_literal(dict(plan.options))}'])})"
    return f"pipe.scheduler = PlanScheduler.{made}; images = pipe({drawn}).images"


def exact(value: float) -> str:
    """A number in the fewest digits that read back to it, as a person types it: 2 and not 2.0."""
    return repr(float(value)).removesuffix(".0")


def _listed(values: Any) -> str:
    return ",".join(dict.fromkeys(map(str, values)))


def _pairs(option: str, values: Mapping[str, Any]) -> list[str]:
    return [word for name, value in values.items() for word in (option, f"{name}={value}")]


def _named(values: Mapping[str, Any]) -> Sequence[str]:
    return [f"{name}={_literal(value)}" for name, value in values.items() if value not in ({}, None)]


def _literal(value: Any) -> str:
    """A value as Python reads it, texts in double quotes."""
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{_literal(name)}: {_literal(inner)}' for name, inner in value.items())}}}"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)
