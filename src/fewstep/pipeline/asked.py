"""What a caller asks of a drawing: the settings that drawing from words and from pictures have in common."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypedDict

from fewstep.core.errors import InvalidInput
from fewstep.core.plan import Plan
from fewstep.core.schedule import Schedule
from fewstep.pipeline.choices import given_negatives, given_seeds, given_texts
from fewstep.pipeline.conditioning import chosen_guidance
from fewstep.pipeline.draw import Means, OnRow
from fewstep.pipeline.guidance import EVERYWHERE, GivenScale
from fewstep.pipeline.recipe import MAX_IMAGES, PlanSource, PromptRecipe
from fewstep.pipeline.tuned import resolved
from fewstep.pipeline.weaker import weaker_of

if TYPE_CHECKING:
    from fewstep.pipeline.text import TextPipeline


class Grid(TypedDict, total=False):
    """The time grid and the sampler's options, as in `TextPipeline.__call__`."""

    steps: int | None
    grid: str | None
    grid_options: Mapping[str, Any] | None
    options: Mapping[str, Any] | None
    times: Sequence[float] | None
    sigmas: Sequence[float] | None


class Words(TypedDict, total=False):
    """How the words act, as in `TextPipeline.__call__`."""

    negative: str | Sequence[str] | None
    guidance: GivenScale
    guidance_method: str
    guidance_options: Mapping[str, Any] | None
    weak: TextPipeline | str | os.PathLike[str] | None
    interval: tuple[float, float]
    rescale: float
    clip_skip: int | None


class Drawing(Grid, Words, total=False):
    """Those, and how to draw, as in `TextPipeline.__call__`. A name that is not here is a TypeError."""

    sampler: str | Plan
    batch: int
    sliced: bool
    tiled: bool
    overlap: bool
    on_row: OnRow | None


class Settings(Drawing, total=False):
    """Those, and what to draw, as in `TextPipeline.__call__`."""

    seed: int | Sequence[int]
    count: int


@dataclass(frozen=True)
class Asked:
    """The plan and the recipe of a drawing, and what is no part of a recipe."""

    plan: Plan
    recipe: PromptRecipe
    means: Means


def grid_of(
    *,
    steps: int | None = None,
    grid: str | None = None,
    grid_options: Mapping[str, Any] | None = None,
    options: Mapping[str, Any] | None = None,
    times: Sequence[float] | None = None,
    sigmas: Sequence[float] | None = None,
) -> dict[str, Any]:
    """The settings of a grid, None where there is none, for `plan_from`."""
    return {
        "steps": steps,
        "grid": grid,
        "grid_options": grid_options,
        "options": options,
        "times": times,
        "sigmas": sigmas,
    }


def asked(
    pipe: TextPipeline,
    prompts: str | Sequence[str],
    size: tuple[int, int],
    plan_of: Callable[[Schedule, str | Plan | None, dict[str, Any]], Plan],
    *,
    negative: str | Sequence[str] | None = None,
    guidance: GivenScale = None,
    guidance_method: str = "cfg",
    guidance_options: Mapping[str, Any] | None = None,
    weak: TextPipeline | str | os.PathLike[str] | None = None,
    sampler: str | Plan | None = None,
    interval: tuple[float, float] = EVERYWHERE,
    rescale: float = 0.0,
    clip_skip: int | None = None,
    seed: int | Sequence[int] = 0,
    count: int = 1,
    batch: int | None = None,
    sliced: bool = False,
    tiled: bool = False,
    overlap: bool = False,
    on_row: OnRow | None = None,
    **grid: Any,
) -> Asked:
    """What is drawn at `size` with these settings; `plan_of` makes the plan of a schedule, a sampler and a grid."""
    from fewstep.pipeline.text import BATCH

    texts = given_texts(prompts, "prompt")
    if type(count) is not int or not 1 <= count * len(texts) <= MAX_IMAGES:
        raise InvalidInput(f"count must be a whole number from 1 to {MAX_IMAGES // len(texts)}, got {count!r}")
    negatives = given_negatives(negative, len(texts), count)
    schedule = pipe.schedule_at(*size)
    plan = plan_of(schedule, *resolved(pipe, sampler, grid_of(**grid)))
    weaker = weaker_of(pipe, weak, size)
    settings = chosen_guidance(
        pipe,
        negatives,
        plan,
        guidance=guidance,
        method=guidance_method,
        options=guidance_options,
        weak=weaker,
        interval=interval,
        rescale=rescale,
    )
    recipe = PromptRecipe(
        model=pipe.name,
        model_digest=pipe.digest,
        plan=PlanSource.of(plan, schedule),
        labels=(None,) * (len(texts) * count),
        seed=given_seeds(seed),
        guidance=settings,
        batch=BATCH if batch is None else batch,
        prompts=tuple(text for text in texts for _ in range(count)),
        negatives=negatives,
        height=size[0],
        width=size[1],
        clip_skip=clip_skip,
        sliced=bool(sliced),
        tiled=bool(tiled),
    )
    return Asked(plan, recipe, Means(on_row, overlap, weaker))
