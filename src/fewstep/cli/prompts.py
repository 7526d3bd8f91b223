"""What `fewstep generate` has for models that take prompts: their options, their layout and the call."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import click

from fewstep.cli import place
from fewstep.cli.output import note

if TYPE_CHECKING:
    from fewstep import Progress
    from fewstep.pipeline import CacheCounts, Images, Layout, Pipeline, Stamp, TextPipeline

NAMES = ("prompts", "height", "width", "preset", "clip_skip", "sliced", "tiled", "overlap", "cache")
"""Options that mean nothing to a model of classes."""
_SIDE = click.IntRange(1, 16_384)
_OPTIONS = (
    click.option("--height", type=_SIDE, help="In pixels; a model of prompts has multiples of its own."),
    click.option("--width", type=_SIDE, help="In pixels.  [default: what the model was made for]"),
    click.option("--preset", help="Options by use: realtime, interactive, batch or best. They are printed."),
    click.option("--clip-skip", type=click.IntRange(1, 100), help="Layers of CLIP that the prompt leaves out."),
    click.option("--sliced", is_flag=True, help="Decode one image at a time, to save memory."),
    click.option("--tiled", is_flag=True, help="Decode in tiles, to save memory."),
    click.option("--overlap", is_flag=True, help="Decode a batch while the next is denoised."),
    click.option("--cache", type=click.Path(), help="Folder for embeddings of prompts, used again by later runs."),
    click.option("--timings", is_flag=True, help="Say what each stage took, and what the cache saved."),
)


def OPTIONS(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options to a command."""
    command = place.OPTIONS(command)
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def loading(given: dict[str, Any]) -> dict[str, Any]:
    """The arguments of `fewstep.load`."""
    from fewstep.pipeline import TensorCache

    cache = None if given["cache"] is None else TensorCache(folder=given["cache"])
    return {"cache": cache, **place.arguments(given)}


def refuse_classes(pipe: TextPipeline, given: dict[str, Any]) -> None:
    """Raise for options that only classes have."""
    if given["labels"]:
        raise click.UsageError(f"--labels is for models of classes, and {pipe.name} takes prompts: give a PROMPT")
    for name, value in (("clip", given["clip"] or None), ("dynamic-threshold", given["dynamic_threshold"])):
        if value is not None:
            raise click.UsageError(
                f"--{name} is for models of pixels, and {pipe.name} draws latents, which have no "
                "range: use --rescale or --guidance-method apg against colours that are too strong"
            )


def layout(pipe: TextPipeline, stamp: Stamp | None, given: dict[str, Any]) -> Layout:
    """The layout of the pictures, after refusing what only classes have."""
    from fewstep.pipeline import Layout, PromptRecipe

    refuse_classes(pipe, given)
    if stamp is not None and isinstance(stamp.recipe, PromptRecipe):
        recipe, old = stamp.recipe, stamp.layout
        found = Layout(given["columns"] or old.columns, given["scale"] or old.scale, old.gap)
        found.size(len(recipe.kept), recipe.height, recipe.width)
        return found
    if not given["prompts"] and stamp is None:
        raise click.UsageError(f"{pipe.name} draws from words: give a PROMPT after the model, in quotes")
    height, width = (given[name] or own for name, own in zip(("height", "width"), pipe.size, strict=True))
    count = len(given["prompts"]) * (given["count"] or 1)
    found = Layout.of(count, width, given["columns"] or given["count"] or min(max(count, 1), 10), given["scale"])
    found.size(max(count, 1), height, width)
    return found


def draw(
    pipe: TextPipeline, settings: dict[str, Any], given: dict[str, Any], on_row: Callable[[Progress], None]
) -> Images:
    """The images; `settings` are those of `wanted`."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        images = pipe(list(given["prompts"]), **settings, on_row=on_row)
    for warning in caught:
        note(f"warning: {warning.message}")
    return images


def wanted(settings: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """The arguments of the call that were chosen; `settings` are those that models of classes have too."""
    from fewstep.pipeline import preset

    own = ("height", "width", "clip_skip", "count")
    chosen = {**settings, **{name: given[name] for name in own if given[name] is not None}}
    chosen |= {name: True for name in ("sliced", "tiled", "overlap") if given[name]}
    if given["preset"] is not None:
        options = preset(given["preset"])
        if settings.get("sampler") is not None and not isinstance(settings["sampler"], str):  # a plan decides them
            options = {name: value for name, value in options.items() if name not in ("sampler", "steps", "grid")}
        if given["prompt_file"] is not None or given["seeds"] is not None:
            options.pop("overlap", None)  # a job writes a batch before it draws the next one
        note(f"--preset {given['preset']} is {' '.join(f'{name}={value}' for name, value in options.items())}")
        chosen = {**options, **chosen}
    return chosen


def timings(seconds: Mapping[str, float], cache: CacheCounts | None, pipe: Pipeline | TextPipeline) -> str:
    """One line for people: what each stage cost, and what the cache of `pipe` did since `cache`, its counts before."""
    from fewstep.pipeline import TextPipeline

    stages = ", ".join(f"{stage} {s:.3f} s" for stage, s in seconds.items()) or "nothing was drawn"
    if cache is None or not isinstance(pipe, TextPipeline):
        return stages
    hits, saved = pipe.cache.hits - cache.hits, pipe.cache.seconds_saved - cache.seconds_saved
    return f"{stages}; the cache saved {saved:.3f} s in {hits} hit{'' if hits == 1 else 's'}"
