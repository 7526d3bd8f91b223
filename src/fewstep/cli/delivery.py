"""Images that a command draws: progress while it does, a file, and what is said of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

import fewstep as fs
from fewstep.cli.app import Failure
from fewstep.cli.headings import LAST, Decorator, option, several
from fewstep.cli.output import JSON, note, noted, progress, show_json


def output(words: str = "The PNG to write.", usual: str = "in out/, named by what is drawn") -> Decorator:
    """The file that a command writes."""
    return option("--output", type=click.Path(), metavar="FILE", usual=usual, heading=LAST, help=words)


def scale(usual: str) -> Decorator:
    """How large a pixel is drawn."""
    return option("--scale", type=click.IntRange(1, 64), usual=usual, heading=LAST, help="Enlarge each pixel N times.")


def columns(usual: str, most: int = 10_000, words: str = "Images in a row.") -> Decorator:
    """How many images stand side by side."""
    return option("--columns", type=click.IntRange(1, most), usual=usual, heading=LAST, help=words)


EACH = option(
    "--each", is_flag=True, heading=LAST, help="Write each image as a PNG of its own too, in a folder beside."
)
TIMINGS = option(
    "--timings", is_flag=True, heading=LAST, help="Print the seconds of each stage, and what the cache saved."
)
SHEET = several(output(), scale("images 64 wide, one alone 512"), columns("--count"), EACH, TIMINGS, JSON)
"""Where a picture of several images goes, and what is said of it."""

Drawn = tuple["fs.pipeline.Images", "fs.pipeline.LostImages | None"]


def drawn(draw: Callable[[Callable[[Any], Any]], Any], what: str = "") -> Drawn:
    """The images of `draw`, which is called with what shows progress, or those that are finished, and what was lost."""
    note(f"drawing {what}..")
    with noted(), progress("drawing", 1) as bar:
        try:
            return draw(lambda row: bar(row.index + 1, of=row.rows)), None
        except fs.pipeline.LostImages as error:
            if error.finished is None:
                raise
            return error.finished, error


def check_place(output: str | Path | None, png: bool = True, room: int = fs.files.ROOM) -> None:
    """Raise before any work what writing the picture would raise after it: a name that is not one of a PNG, a folder
    that cannot be written, a full disk. `output` is None where the picture will be named in `out/`.
    """
    if output is not None and png:
        fs.drawing.png_path(output)
    try:
        fs.files.check_writable(output or fs.drawing.names.OUT / "picture.png", room=room, parents=True)
    except OSError as error:
        raise OSError(error.errno, f"cannot write the picture ({error.strerror})", error.filename) from error


def room_of(drawing: fs.Drawing) -> int:
    """Bytes that the picture of a drawing may take: its pixels as they are, and its text."""
    return 3 * len(drawing) * drawing.height * drawing.width + fs.files.ROOM


def deliver(
    found: Drawn,
    path: str | Path,
    given: Mapping[str, Any],
    layout: fs.drawing.Layout | None = None,
    cache: fs.models.CacheCounts | None = None,
    facts: Mapping[str, Any] | None = None,
) -> None:
    """Write images to `path` and say so.

    Args:
        given: the options; `cache`: counts before and after, subtracted; `facts`: more of the JSON.

    Raises:
        Failure: some images were lost; the others are written.
    """
    images, lost = found
    layout = layout or images.layout(given.get("columns"), given.get("scale"))
    began = time.perf_counter()
    target = images.save(path, layout)
    each = images.save_each(target.with_suffix(""), layout.scale) if given.get("each") else []
    saving = time.perf_counter() - began
    several = count_of(len(images))
    if given["as_json"]:
        show_json(
            {
                "path": str(target),
                "each": [str(one) for one in each],
                "images": len(images),
                "nfe": images.nfe,
                "seconds": round(images.seconds, 4),
                "timings": rounded(images.timings),
                "pixels": images.digest,
                **(facts or {}),
                "drawing": images.drawing.to_json(),
                "made": images.made.to_json(),
            }
        )
    else:
        click.echo(target)
        note(f"{several}, NFE {images.nfe:g} each, {images.seconds:.2f} s{guided(images.drawing.guidance)}")
    if given.get("timings"):
        note(stages({**images.timings, "save": saving}, cache))
    if lost is not None:
        raise Failure(f"{lost}. Finished and kept: {several}, in {target}")


def count_of(images: int) -> str:
    """So many images, in words."""
    return "1 image" if images == 1 else f"{images} images"


def rounded(seconds: Mapping[str, float]) -> dict[str, float]:
    """Seconds by stage, for JSON."""
    return {stage: round(s, 4) for stage, s in seconds.items()}


def stages(seconds: Mapping[str, float], cache: fs.models.CacheCounts | None) -> str:
    """One line for people: what each stage took, and what the cache did."""
    words = ", ".join(f"{stage} {s:.3f} s" for stage, s in seconds.items()) or "nothing was drawn"
    if cache is None:
        return words
    return f"{words}; the cache saved {cache.seconds_saved:.3f} s in {cache.hits} hit{'' if cache.hits == 1 else 's'}"


def guided(guidance: fs.Guidance) -> str:
    """What a line for people adds about a method other than the usual one, and about weights by row."""
    method = "" if guidance.method == "cfg" else f", guided by {guidance.method}"
    if not isinstance(guidance.scale, tuple):
        return method
    each = ", ".join(f"{w:.3g}" for w in guidance.scale[:8]) + (", .." if len(guidance.scale) > 8 else "")
    return f"{method}, guidance by row {each}"


def cache_of(pipe: fs.Pipeline) -> fs.models.CacheCounts | None:
    """What the cache of a model of prompts did."""
    return pipe.cache if pipe.model.conditioner.field == "prompts" else None
