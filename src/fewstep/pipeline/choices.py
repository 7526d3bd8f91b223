"""What a caller chose, the same for every kind of pipeline: a plan, seeds, a recipe to draw again; and presets."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any

from fewstep.core.errors import InvalidInput, unknown_name
from fewstep.core.plan import Plan
from fewstep.core.schedule import Schedule
from fewstep.pipeline.recipe import MAX_IMAGES, ImageRecipe, compiled

LONGEST_PROMPT = 20_000
"""Most characters of a prompt: no encoder reads as many, and a tokenizer should not try."""
PRESETS: Mapping[str, Mapping[str, Any]] = {
    "realtime": {"sampler": "ddim", "steps": 4, "grid": "trailing", "batch": 1},
    "interactive": {"sampler": "ddim", "steps": 8, "grid": "trailing", "batch": 1},
    "batch": {"sampler": "dpmpp-2m", "steps": 16, "grid": "trailing", "batch": 8, "sliced": True, "overlap": True},
    "best": {"sampler": "dpmpp-2m", "steps": 40, "grid": "trailing", "batch": 1},
}
"""Options by use. A preset is nothing but these options: `pipe(prompt, **preset("interactive"))`.

In few steps under guidance the first order holds where higher ones swing out: with the shipped scenes at scale 5 and 8
steps, 82% of pictures are right with ddim, 57% with dpmpp-2m and fewer with unipc-3 (`docs/scenes.md`).
"""


def preset(name: str) -> dict[str, Any]:
    """The options that a preset stands for, to be seen and changed. Raises `InvalidInput` for an unknown name."""
    if name not in PRESETS:
        raise unknown_name("preset", str(name), PRESETS)
    return dict(PRESETS[name])


def chosen_plan(schedule: Schedule, sampler: str | Plan, given: Mapping[str, Any], steps: int, grid: str) -> Plan:
    """The plan of a sampler by name, or a plan that is given and then decides everything.

    Args:
        given: steps, grid, grid_options, times, sigmas and options, None where the caller chose nothing.
        steps, grid: where nothing else is chosen.
    """
    if isinstance(sampler, Plan):
        twice = [name for name, value in given.items() if value is not None]
        if twice:
            raise InvalidInput(f"the plan already decides {', '.join(twice)}: leave them out, or name a sampler")
        return sampler
    where: dict[str, Any] = {"grid_options": given["grid_options"]}
    if given["times"] is None and given["sigmas"] is None:
        where |= {"steps": steps if given["steps"] is None else given["steps"], "grid": given["grid"] or grid}
    elif given["grid"] is None:
        where |= {name: given[name] for name in ("steps", "times", "sigmas")}
    else:
        raise InvalidInput(f"the grid is given by its times or sigmas: leave out grid {given['grid']!r}")
    return compiled(sampler, schedule, given["options"] or {}, **where)


def given_texts(value: Any, what: str) -> list[str]:
    """One text or several as a list."""
    several = [value] if isinstance(value, str) else value
    if not isinstance(several, list | tuple) or not several or not all(isinstance(text, str) for text in several):
        raise InvalidInput(f"a {what} is a text, or give a list of texts, got {value!r:.100}")
    if len(several) > MAX_IMAGES:
        raise InvalidInput(f"at most {MAX_IMAGES} {what}s are drawn at once, got {len(several)}")
    for text in several:
        if len(text) > LONGEST_PROMPT:
            raise InvalidInput(f"a {what} has {len(text):,} characters; at most {LONGEST_PROMPT:,} are read")
    return list(several)


def given_negatives(value: Any, prompts: int, count: int) -> tuple[str | None, ...]:
    """One negative prompt for all images, or one for each."""
    if value is None:
        return (None,)
    several = given_texts(value, "negative prompt")
    if len(several) not in (1, prompts):
        raise InvalidInput(f"give one negative prompt, or one for each of the {prompts} prompts, got {len(several)}")
    return tuple(several) if len(several) == 1 else tuple(text for text in several for _ in range(count))


def given_seeds(seed: Any) -> int | tuple[int, ...]:
    """One seed or several as Python's own integers."""
    try:
        return operator.index(seed) if not hasattr(seed, "__len__") else tuple(operator.index(s) for s in seed)
    except TypeError as error:
        raise InvalidInput(f"a seed must be a whole number, or one for each image, got {seed!r}") from error


def check_model(recipe: ImageRecipe, name: str, digest: str, plan: Plan | None, hint: str = "") -> None:
    """Raise `InvalidInput` where a recipe is of another model, which ends in the `hint`, or of another plan than the
    one that is given.
    """
    if recipe.model_digest != digest:
        raise InvalidInput(
            f"the picture was drawn by the model {recipe.model!r} with digest {recipe.model_digest}, this is "
            f"{name!r} with digest {digest}: give the model that drew it{hint}"
        )
    if plan is not None and plan.digest != recipe.plan.digest:
        raise InvalidInput(f"the picture was drawn with the plan {recipe.plan.digest}, the given one is {plan.digest}")
