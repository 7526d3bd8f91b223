"""`fewstep generate`: labels or prompts in, one PNG out that knows how it was drawn."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import click

import fewstep as fs
from fewstep.cli import config, delivery, memory, options, place, sampling, source
from fewstep.cli.headings import Command

OF_EACH_CLASS = 10
"""Images of each class, and images in a row, where nobody says it."""


@click.command(cls=Command)
@click.argument("model", required=False)
@click.argument("prompts", nargs=-1, metavar="[PROMPT]...", callback=source.split)
@options.fields(usual={"count": f"{OF_EACH_CLASS} of each class, 1 of each prompt"})
@options.RESCALE
@options.SCHEDULE
@options.WEAK
@options.PRESET
@sampling.FORCE
@memory.BATCH
@memory.OVERLAP
@memory.CACHE
@place.OPTIONS
@config.NO_CONFIG
@delivery.SHEET
@click.pass_context
def generate(ctx: click.Context, model: str | None, prompts: tuple[str, ...], **_: Any) -> None:
    """Draw images with MODEL: the shipped digits or scenes, a .safetensors file that fewstep trained, or a diffusers
    model, as a folder or an id on the hub, with the PROMPTs that it takes. Without MODEL, the scenes draw PROMPTs of
    several words; without either, it draws ten images of each digit.

    It prints the path of the picture. `fewstep redraw` draws the picture again.

    \b
        fewstep generate
        fewstep generate "a red circle left of a blue square"
        fewstep generate stable-diffusion/ "a red circle" --steps 8 --negative blue
        fewstep generate --labels 3,1,4 --sampler ddim --steps 20 --seed 7
    """
    given = ctx.params
    delivery.check_place(given["output"])
    source.check_model(ctx, model, prompts)
    if given["batch"] == "auto":
        raise click.UsageError("--batch-size auto is for many images, with `fewstep batch`: give a number")
    defaults = config.read_defaults(ctx, ctx.command)
    defaults.complete(ctx)
    pipe = place.load(model or source.default(given["preset"], prompts), given)
    drawn = source.subjects(pipe, prompts, given["labels"])
    order = pipe.order(drawn, **_call(defaults.asked(ctx, pipe), pipe, given))
    layout = _layout(order.drawing, given["columns"], given["scale"])
    layout.size(len(order.drawing), order.drawing.height, order.drawing.width)
    path = given["output"] or fs.drawing.names.picture(pipe.name, order.drawing)
    delivery.check_place(path, room=delivery.room_of(order.drawing))
    steps = f"{order.plan.steps} step{'' if order.plan.steps == 1 else 's'}"
    what = f"{delivery.count_of(len(order.drawing))}, {order.plan.recipe.sampler} in {steps} "
    found = delivery.drawn(lambda on_row: pipe.draw(replace(order, run=replace(order.run, on_row=on_row))), what)
    delivery.deliver(found, path, given, layout, delivery.cache_of(pipe))


def _call(asked: dict[str, Any], pipe: fs.Pipeline, given: dict[str, Any]) -> dict[str, Any]:
    """What is asked as arguments of the pipeline's call."""
    call = source.fitted(pipe, asked, given["force"])
    call.pop("labels", None)
    if pipe.model.conditioner.field == "labels":
        call.setdefault("count", OF_EACH_CLASS)
    run = {"batch": None if given["batch"] == "auto" else given["batch"], "overlap": given["overlap"] or None}
    return {**call, **{name: value for name, value in run.items() if value is not None}, "weak": given["weak"]}


def _layout(drawing: fs.Drawing, columns: int | None, scale: int | None) -> fs.drawing.Layout:
    """The images of each label or prompt in a row, or ten of those that have one image each."""
    usual = drawing.count if drawing.count > 1 else min(len(drawing), OF_EACH_CLASS)
    return fs.drawing.Layout.fitting(len(drawing), drawing.width, columns or usual, scale, drawing.height)
