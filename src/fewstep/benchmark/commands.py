"""Commands that measure a row again, or draw with it."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from fewstep.benchmark.row import Run
from fewstep.benchmark.subject import Subject
from fewstep.benchmark.sweep import Sweep


def bench_command(subject: Subject, sweep: Sweep, images: int, clip: str | os.PathLike[str] | None) -> str:
    """The `fewstep bench` that measures a sweep."""
    words = ["fewstep", "bench", subject.model.source]
    words += ["--samplers", ",".join(dict.fromkeys(sweep.samplers)) or "none"]
    if sweep.samplers:
        words += ["--grids", ",".join(dict.fromkeys(sweep.grids))]
        words += ["--nfe" if sweep.nfe else "--steps", ",".join(map(str, sweep.counts))]
    scales = [subject.scale(scale) for scale in sweep.guidance]
    if subject.guided:
        words += ["--guidance", ",".join(exact(scale) for scale in dict.fromkeys(scales) if scale is not None)]
    words += ["--precision", ",".join(dict.fromkeys(sweep.precisions))]
    for plan in sweep.plans:
        words += ["--plan", str(plan)]
    if sweep.force:
        words.append("--force")
    for option, value in (("--prompts", subject.prompts), ("--clip", clip)):
        if value is not None:
            words += [option, str(value)]
    words += ["--images", str(images), "--batch", str(subject.batch), "--seed", str(subject.seed)]
    device = str(subject.device)
    words += [] if device == "cpu" else ["--device", device]
    return _joined(words + subject.loading.words)


def generate_command(run: Run, folder: str | os.PathLike[str], prompted: bool = False) -> str:
    """The `fewstep generate` that draws with the plan of a row, and where the model is `prompted`, with a PROMPT."""
    words = ["fewstep", "generate", run.model.source, *["PROMPT"] * prompted]
    if run.plan_file is not None:
        words += ["--plan", os.path.join(folder, run.plan_file)] + ["--force"] * run.foreign
    else:
        words += ["--sampler", run.sampler, "--steps", str(run.steps), "--grid", run.grid]
        words += _pairs("--grid-option", run.grid_options) + _pairs("--option", run.options)
    if run.guidance is not None:
        words += ["--guidance", exact(run.guidance)]
    if run.precision != "float32":
        words += ["--dtype", run.precision]
    device, _, _ = run.machine.device.partition(" ")
    words += [] if device == "cpu" else ["--device", device]
    return _joined(words + run.model.loading.words)


def exact(value: float) -> str:
    """A number in the fewest digits that read back to it, as a person types it: 2 and not 2.0."""
    return repr(float(value)).removesuffix(".0")


def _pairs(option: str, values: Mapping[str, Any]) -> list[str]:
    return [word for name, value in values.items() for word in (option, f"{name}={value}")]


def _joined(words: Sequence[str]) -> str:
    return " ".join(shlex.quote(word) for word in words)
