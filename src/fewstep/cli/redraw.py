"""`fewstep redraw`: a picture in, the same pixels out, or what differs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

import fewstep as fs
from fewstep.cli import delivery, memory, options, place, sampling
from fewstep.cli.app import Failure
from fewstep.cli.headings import PICTURE, SAMPLER, Command, option
from fewstep.cli.output import JSON, note
from fewstep.cli.source import fitted
from fewstep.cli.values import PlanFile


@click.command(cls=Command, most_used=("image", "mask", "output"))
@click.argument("picture", type=click.Path())
@click.argument("model", required=False)
@option("--image", type=click.Path(), metavar="FILE", heading=PICTURE, help="The picture that PICTURE was drawn from.")
@option("--mask", type=click.Path(), metavar="FILE", heading=PICTURE, help="The mask that PICTURE was inpainted with.")
@option(
    "--plan",
    type=PlanFile(dir_okay=False),
    heading=SAMPLER,
    help="The plan of PICTURE, where it was too long to keep.",
)
@sampling.FORCE
@options.WEAK
@memory.CACHE
@place.OPTIONS
@delivery.output()
@delivery.scale("as in PICTURE")
@delivery.columns("as in PICTURE")
@delivery.EACH
@delivery.TIMINGS
@JSON
def redraw(picture: str, model: str | None, **given: Any) -> None:
    """Draw PICTURE, a PNG that fewstep wrote, again, and compare its pixels with those that come out. Where they
    differ, it says how and ends with code 1. MODEL is the one that drew it; a shipped model need not be named.

    \b
        fewstep redraw out/scenes-dpmpp-2m-20-3f2a9c1b.png
        fewstep redraw picture.png stable-diffusion/ --output again.png
    """
    stamp = fs.drawing.read(picture)
    path = given["output"] or fs.drawing.names.again(Path(picture), stamp.drawing.digest)
    delivery.check_place(path, room=delivery.room_of(stamp.drawing))
    pipe = place.load(model or _shipped(picture, stamp), given)
    fitted(pipe, {"sampling": {"plan": given["plan"]}}, given["force"])
    old = stamp.layout
    layout = fs.drawing.Layout(columns=given["columns"] or old.columns, scale=given["scale"] or old.scale, gap=old.gap)
    count = len(stamp.made.kept(len(stamp.drawing)))
    layout.size(count, stamp.drawing.height, stamp.drawing.width)
    beside = {name: given[name] for name in ("image", "mask", "weak", "plan")}
    images, lost = found = delivery.drawn(lambda on_row: pipe.redraw(stamp, **beside, on_row=on_row))
    differs = None if lost else fs.pipeline.difference(picture, images, old)
    facts = {"same_pixels": None if differs is None else not differs, "difference": differs and vars(differs)}
    delivery.deliver(found, path, given, layout, delivery.cache_of(pipe), facts)
    if differs:
        raise Failure(_differing(picture, stamp.made, images.digest == stamp.made.pixels, differs))
    note(f"the same pixels as {picture}")


def _shipped(picture: str, stamp: fs.drawing.Stamp) -> str:
    """The model that a picture names. It is a file's text: it may choose among shipped models, and no path."""
    made = stamp.made
    if made.model in fs.zoo.SHIPPED:
        return made.model
    raise click.UsageError(
        f"{picture} was drawn by a model {made.model!r} (digest {made.model_digest}) that does not come with fewstep: "
        "give the path of its file as MODEL"
    )


def _differing(picture: str, made: fs.drawing.Made, as_then: bool, differs: fs.pipeline.Difference) -> str:
    """What differs, and who changed it: the picture, or how it is drawn now."""
    if as_then:
        return f"{picture} was changed since it was drawn: {differs.words}. Drawn again, the pixels are as they were"
    return (
        f"the pixels are not those of {picture}: {differs.words}. fewstep {made.fewstep} drew it with torch "
        f"{made.torch}: sums round differently in another version or on another machine"
    )
