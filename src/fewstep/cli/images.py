"""`fewstep img2img`, `inpaint`, `edit`, `invert` and `interpolate`: a picture in, or two ends, and a picture out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

import fewstep as fs
from fewstep.cli import delivery, memory, options, place, sampling, source
from fewstep.cli.headings import DRAWN, LAST, MOST_USED, PICTURE, Command, Decorator, option, several
from fewstep.cli.output import JSON, note, noted, progress, show_json
from fewstep.cli.values import Several
from fewstep.core import InvalidInput, shown

INVERTING = {"sampler": "ddim", "steps": "50", "grid": "trailing"}
"""What runs up and down where nobody says it, for the help."""


def _drawing(*without: str, usual: Mapping[str, str] | None = None) -> Decorator:
    """The options of a drawing from words, but for some, and those of the run."""
    return several(
        options.fields(without=("labels", *without), usual=usual),
        options.RESCALE,
        options.SCHEDULE,
        options.WEAK,
        options.PRESET,
        sampling.FORCE,
        memory.BATCH,
        memory.OVERLAP,
        memory.CACHE,
        place.OPTIONS,
    )


FIT = options.fields("source", without=("strength", "strength-of"))


@click.command(cls=Command)
@click.argument("model")
@click.argument("image", type=click.Path())
@click.argument("prompts", nargs=-1, required=True, metavar="PROMPT...")
@options.fields("source", usual={"strength": "0.8"})
@_drawing()
@delivery.SHEET
@click.pass_context
def img2img(ctx: click.Context, model: str, image: str, prompts: tuple[str, ...], **_: Any) -> None:
    """Draw each PROMPT from the picture IMAGE: add noise up to some level, and denoise it again. With --strength-of
    steps, --strength is the share of the grid's steps that run; with noise, the noise level at the start.

    \b
        fewstep img2img stable-diffusion/ cat.jpg "a lion" --strength 0.6 --sampler ddim --steps 30
    """
    pipe, call = _pipeline(ctx, model)
    found = delivery.drawn(lambda on_row: pipe.img2img(image, list(prompts), **call, on_row=on_row))
    _deliver(ctx, pipe, found, Path(image), "img2img")


@click.command(cls=Command)
@click.argument("model")
@click.argument("image", type=click.Path())
@click.argument("mask", type=click.Path())
@click.argument("prompts", nargs=-1, required=True, metavar="PROMPT...")
@option(
    "--no-paste",
    is_flag=True,
    heading=PICTURE,
    help="Leave the kept pixels as the VAE decodes them.",
)
@options.fields("source")
@_drawing()
@delivery.SHEET
@click.pass_context
def inpaint(ctx: click.Context, model: str, image: str, mask: str, prompts: tuple[str, ...], **given: Any) -> None:
    """Repaint the white part of MASK in the picture IMAGE, with each PROMPT.

    \b
        fewstep inpaint stable-diffusion/ room.png sofa.png "a green sofa" --steps 20
    """
    pipe, call = _pipeline(ctx, model)
    paste = not given["no_paste"]
    found = delivery.drawn(lambda on_row: pipe.inpaint(image, mask, list(prompts), paste=paste, **call, on_row=on_row))
    _deliver(ctx, pipe, found, Path(image), "inpaint")


@click.command(cls=Command)
@click.argument("model")
@click.argument("image", type=click.Path())
@click.argument("shown", metavar="SOURCE")
@click.argument("prompts", nargs=-1, required=True, metavar="PROMPT...")
@options.fields("source")
@_drawing("seed", "count", usual=INVERTING)
@delivery.SHEET
@click.pass_context
def edit(ctx: click.Context, model: str, image: str, shown: str, prompts: tuple[str, ...], **_: Any) -> None:
    """Invert the picture IMAGE with SOURCE, the words for what it shows, and draw each PROMPT from the noise that was
    found. Nothing is drawn at random, so there is no seed.

    \b
        fewstep edit stable-diffusion/ cat.jpg "a photo of a cat" "a photo of a dog" --guidance 3
    """
    pipe, call = _pipeline(ctx, model)
    found = delivery.drawn(lambda on_row: pipe.edit(image, shown, list(prompts), **call, on_row=on_row))
    _deliver(ctx, pipe, found, Path(image), "edit")


@click.command(cls=Command)
@click.argument("model")
@click.argument("image", type=click.Path())
@click.argument("prompt", default="")
@FIT
@options.fields(
    "negative",
    "height",
    "width",
    "clip_skip",
    "sampling",
    "guidance",
    "decode",
    without=("plan",),
    usual={**INVERTING, "guidance": "1"},
)
@options.RESCALE
@options.WEAK
@memory.CACHE
@place.OPTIONS
@delivery.output()
@JSON
@click.pass_context
def invert(ctx: click.Context, model: str, image: str, prompt: str, **given: Any) -> None:
    """Find the noise that draws the picture IMAGE, draw it again, and print how near that comes, in decibels. PROMPT
    says what the picture shows. Nothing is drawn at random, so there is no seed.

    \b
        fewstep invert stable-diffusion/ cat.jpg "a photo of a cat" --sampler belm
    """
    pipe, call = _pipeline(ctx, model)
    if "guidance" in call:
        call["guidance"] = {"scale": 1.0, **call["guidance"]}
    note("inverting ..")
    with noted(), progress("drawing", 1) as bar:
        found = pipe.invert(image, prompt, **call, on_row=lambda row: bar(row.index + 1, of=row.rows))
    path = found.save(given["output"] or fs.drawing.names.task(Path(image), "invert", pipe.name, found.digest))
    figures = {name: getattr(found, name) for name in ("psnr_latents", "psnr_pixels", "psnr_vae", "error")}
    rows = {"up": len(found.up.rows), "down": len(found.down.rows)}
    if given["as_json"]:
        finite = {name: value if math.isfinite(value) else None for name, value in figures.items()}
        show_json({"path": str(path), **finite, "rows": rows, "timings": delivery.rounded(found.timings)})
        return
    click.echo(path)
    note(
        f"PSNR {found.psnr_latents:.1f} dB in latents (largest error {found.error:.2g}), {found.psnr_pixels:.1f} dB in "
        f"pixels, of which the VAE alone keeps {found.psnr_vae:.1f} dB; {rows['up']} rows up, {rows['down']} down"
    )


@click.command(cls=Command, most_used=("frames", *MOST_USED))
@click.argument("model")
@click.argument("prompts", nargs=-1, required=True, metavar="PROMPT [PROMPT]")
@option(
    "--seed",
    type=Several(int, "a seed", 0, 2**64 - 1, most=2),
    default="0",
    metavar="S[,S]",
    heading=DRAWN,
    help="Seeds of the ends.",
)
@option(
    "--frames",
    type=click.IntRange(2, 1000),
    default=8,
    heading=DRAWN,
    help="Number of pictures, the ends included.",
)
@_drawing("seed", "count")
@delivery.output("The .png or .gif to write.")
@delivery.columns("8", 1000, "Frames in a row of a .png.")
@option(
    "--milliseconds",
    type=click.IntRange(10, 60_000),
    default=100,
    heading=LAST,
    help="Time of each frame of a .gif.",
)
@JSON
@click.pass_context
def interpolate(ctx: click.Context, model: str, prompts: tuple[str, ...], **given: Any) -> None:
    """Draw the pictures between two PROMPTs, two seeds, or both, as one .png or as a .gif.

    \b
        fewstep interpolate stable-diffusion/ "a cat" "a lion" --seed 1,2 --frames 16 --output way.gif
    """
    suffix = ".png" if given["output"] is None else Path(given["output"]).suffix.lower()
    if suffix not in (".png", ".gif"):  # before the work
        raise InvalidInput(f"frames are written as .png or .gif, got {shown(given['output'])}")
    if given["columns"] is not None and suffix == ".gif":
        raise click.UsageError("--columns is for a .png: a .gif shows one frame after the other")
    pipe, call = _pipeline(ctx, model, png=False)
    ends = {"seeds": list(given["seed"]), "frames": given["frames"]}
    note("drawing ..")
    with noted(), progress("drawing", 1) as bar:
        found = pipe.interpolate(list(prompts), **ends, **call, on_row=lambda row: bar(row.index + 1, of=row.rows))
    target = given["output"] or fs.drawing.names.between(pipe.name, found.digest)
    path = found.save(target, given["columns"], given["milliseconds"])
    if given["as_json"]:
        timings = delivery.rounded(found.timings)
        show_json({"path": str(path), "frames": len(found), "nfe": found.nfe, "timings": timings})
        return
    click.echo(path)
    note(f"{len(found)} frames, NFE {found.nfe:g} each, {found.seconds:.2f} s")


def _pipeline(ctx: click.Context, model: str, png: bool = True) -> tuple[fs.Pipeline, dict[str, Any]]:
    """The model, and what was given as arguments of its methods."""
    given = ctx.params
    delivery.check_place(given["output"], png)
    asked = options.asked(ctx)
    if given.get("batch") == "auto":
        raise click.UsageError("--batch-size auto is for many images, with `fewstep batch`: give a number")
    pipe = place.load(model, given)
    if pipe.model.conditioner.field != "prompts":
        raise click.UsageError(f"{pipe.name} draws classes; this needs a model that takes prompts")
    call = source.fitted(pipe, asked, bool(given.get("force")))
    call |= call.pop("source", {})
    run = {"batch": given.get("batch"), "overlap": given.get("overlap") or None, "weak": given["weak"]}
    return pipe, {**call, **{name: value for name, value in run.items() if value is not None}}


def _deliver(ctx: click.Context, pipe: fs.Pipeline, found: delivery.Drawn, image: Path, task: str) -> None:
    path = ctx.params["output"] or fs.drawing.names.task(image, task, pipe.name, found[0].drawing.digest)
    delivery.deliver(found, path, ctx.params, cache=delivery.cache_of(pipe))
