"""What claims are measured on: the digits, the scenes, and a mixture of Gaussians around digits on two schedules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from mixture import IMAGES, STD, mixture_of_digits
from torch import Tensor

import fewstep as fs
from fewstep.measure import Goal, converge
from fewstep.tuning import Solutions
from fewstep.zoo.scenes.prompts import Prompt, held_out_prompts

MODELS = ("digits", "scenes", "mixture", "flow", "pictures", "couplings")
WHAT = {
    "digits": "the shipped digits, linear schedule, classes in turn, guidance 1",
    "scenes": "the shipped text-to-image model, scaled-linear schedule, held-out prompts, guidance 2",
    "mixture": f"the exact denoiser of {IMAGES} digits with noise of {STD:g} around each, linear schedule",
    "flow": "the same on the flow schedule",
    "pictures": "the exact denoiser of scenes in four sizes",
    "couplings": "two flows to the same data, exact, one of them with straight paths",
}
DISTANCES = {"digits": 1, "mixture": 8, "flow": 8}
"""Distances to data are measured on so many times the images asked for: those of a mixture cost nearly nothing."""
STEPS = {"digits": 384, "scenes": 192, "mixture": 384, "flow": 384}
"""Steps of the converged solution: deis-3 on quadratic; half of them tell its error."""
SHARE = {"digits": 4, "scenes": 25, "mixture": 1, "flow": 1}
"""Errors are measured on one in so many of the images asked for, as they need fewer than distances do."""
ADHERENCE = 8
"""Scenes are read on one in so many."""
FEWEST, LEAST_DISTANCES = 8, 80
"""Images at least; a distance on 64 pixels needs more than 64."""


@lru_cache
def pipeline(model: str) -> fs.Pipeline:
    """A shipped model."""
    return fs.load(model)


@lru_cache
def problem(model: str) -> fs.Problem:
    """A model, and endless images of it, each with its own noise and condition."""
    if model in ("mixture", "flow"):
        return replace(mixture_of_digits(fs.schedules.flow() if model == "flow" else None), name=model)
    pipe = pipeline(model)
    guidance = 1.0 if model == "digits" else 2.0

    def denoiser(numbers: Sequence[int]) -> fs.Denoiser:
        if model == "digits":
            return pipe.denoiser([n % 10 for n in numbers], guidance=guidance)
        return pipe.denoiser([prompt(n).text for n in numbers], guidance=guidance)

    return fs.Problem(
        denoiser,
        pipe.model.schedule,
        pipe.state_shape(),
        name=model,
        digest=pipe.model.identity.merged,
        settings={"guidance": guidance},
    )


@lru_cache
def _prompts() -> list[Prompt]:
    return held_out_prompts(1000)


def prompt(image: int) -> Prompt:
    """What the scene of this number shows."""
    return _prompts()[image % len(_prompts())]


def judged(model: str, images: int) -> int:
    """On how many images errors are measured where so many are asked for."""
    return max(FEWEST, images // SHARE[model])


def distances_on(model: str, images: int) -> int:
    """On how many images distances to data are measured where so many are asked for."""
    return max(LEAST_DISTANCES, images * DISTANCES[model])


def adherence_on(images: int) -> int:
    """On how many scenes adherence is measured where so many images are asked for."""
    return max(FEWEST, images // ADHERENCE)


def counts(images: int) -> str:
    """What all figures rest on, in words."""
    digits, scenes, mixture = (judged(model, images) for model in ("digits", "scenes", "mixture"))
    return (
        f"Distances to data are of {distances_on('digits', images)} digits and {distances_on('mixture', images)} "
        f"images of the mixtures, errors of {digits} digits, {scenes} scenes and {mixture} images of the mixtures, and "
        f"adherence is of {adherence_on(images)} scenes."
    )


@dataclass(frozen=True, eq=False)
class Converged:
    """The converged solutions of the first images; `error` is by how much the last doubling of steps moved them."""

    images: Solutions
    error: float


@lru_cache
def converged(model: str, count: int) -> Converged:
    """Solved once for all claims."""
    numbers = range(count)
    found = converge(problem(model).flow, numbers, Goal(steps=STEPS[model], objective="psnr"))
    moved = found.error.square().clamp_min(1e-24).log().mean().div(2).exp()
    return Converged(Solutions(numbers, found.solution), float(moved))


@lru_cache(maxsize=512)
def _compiled(model: str, sampler: str, steps: int, grid: str, options: tuple[tuple[str, Any], ...]) -> fs.Plan:
    own = {name.removeprefix("grid_"): value for name, value in options if name.startswith("grid_")}
    rest = {name: value for name, value in options if not name.startswith("grid_")}
    schedule = problem(model).schedule
    return fs.compile(sampler, schedule=schedule, steps=steps, grid=grid, grid_options=own or None, **rest)


def plan(model: str, sampler: str, steps: int, grid: str, **options: Any) -> fs.Plan:
    """A plan on the model's schedule; options of the grid begin with `grid_`."""
    return _compiled(model, sampler, steps, grid, tuple(sorted(options.items())))


_known: dict[tuple[str, str, int], Tensor] = {}


def errors(own: fs.Plan, model: str, count: int) -> Tensor:
    """Mean squared distance (count,) of each image to its converged solution."""
    key = (own.digest, model, count)
    if key not in _known:
        _known[key] = problem(model).errors(own, converged(model, count).images)
    return _known[key]


def states(own: fs.Plan, model: str, count: int) -> Tensor:
    """What a plan makes of the noise of the first images, (count, ..)."""
    return problem(model).solve(own, range(count))


def facts(models: Sequence[str]) -> dict[str, str]:
    """What each model is, as the record of a measurement keeps it: another model is measured again."""
    shipped = {model: pipeline(model).model.identity.merged for model in models if model in ("digits", "scenes")}
    return {model: shipped.get(model, "exact") for model in models}
