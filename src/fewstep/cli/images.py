"""`fewstep img2img`, `inpaint`, `invert`, `edit` and `interpolate`: a picture in, or two ends, and a picture out."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fewstep.cli import methods, place
from fewstep.cli.output import note, progress, show_json
from fewstep.cli.values import Pair, Several, mapping

if TYPE_CHECKING:
    from fewstep import Progress
    from fewstep.pipeline import Images, TextPipeline

FITS, MEANINGS = ("crop", "stretch", "exact"), ("steps", "noise")
_SIDE = click.IntRange(1, 16_384)
_GRID = (
    click.option("--sampler", help="A name from `fewstep samplers`."),
    click.option("--steps", type=click.IntRange(1, 10_000), help="Steps of the whole time grid."),
    click.option("--grid", help="A name from `fewstep grids`.  [default: trailing]"),
    click.option("--option", type=Pair(), multiple=True, help="Of the sampler, such as eta=1. May be repeated."),
    click.option("--guidance", type=float, help="Guidance scale; 1 is none, at half the cost."),
    methods.OPTIONS,
    click.option("--negative", help="Words to be guided away from."),
    click.option("--height", type=_SIDE, help="In pixels.  [default: what the model was made for]"),
    click.option("--width", type=_SIDE, help="In pixels.  [default: what the model was made for]"),
)
_PLACE = (
    click.option("--cache", type=click.Path(), help="Folder for embeddings and latents, used again by later runs."),
    place.OPTIONS,
    click.option("--output", type=click.Path(), help="The file to write.  [default: in out/]"),
    click.option("--json", "as_json", is_flag=True, help="Print JSON."),
)
_SEED = click.option("--seed", type=click.IntRange(0, 2**63), default=0, help="Of the noise.  [default: 0]")
_FIT = click.option("--fit", type=click.Choice(FITS), default="crop", help="How a picture of another size is fitted.")
_STRENGTH = (
    click.option("--strength", type=float, help="How much is drawn anew, above 0 and up to 1."),
    click.option("--strength-of", type=click.Choice(MEANINGS), default="steps", help="What strength is a share of."),
)


def _options(*options: Callable[..., Any]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def add(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            command = option(command)
        return command

    return add


@click.command()
@click.argument("model")
@click.argument("image", type=click.Path())
@click.argument("prompts", nargs=-1, required=True, metavar="PROMPT...")
@_options(*_STRENGTH, _SEED, _FIT, *_GRID, *_PLACE)
def img2img(model: str, image: str, prompts: tuple[str, ...], **given: Any) -> None:
    """Draw each PROMPT from the picture IMAGE: it is noised to some level and denoised again. --strength-of steps is
    the share of the grid's steps that is run, noise the standard deviation of the noise at the start.

    \b
        fewstep img2img stable-diffusion/ cat.jpg "a lion" --strength 0.6 --sampler ddim --steps 30
    """
    pipe = _load(model, given)
    wanted = _chosen(pipe, given, "strength", "strength_of", "seed", "fit")
    with _shown() as on_row:
        images = pipe.img2img(image, list(prompts), **wanted, on_row=on_row)
    _finish(images, given, f"{Path(image).stem}-img2img")


@click.command()
@click.argument("model")
@click.argument("image", type=click.Path())
@click.argument("mask", type=click.Path())
@click.argument("prompts", nargs=-1, required=True, metavar="PROMPT...")
@click.option("--no-paste", is_flag=True, help="Leave the kept pixels as the VAE decodes them.")
@_options(*_STRENGTH, _SEED, _FIT, *_GRID, *_PLACE)
def inpaint(model: str, image: str, mask: str, prompts: tuple[str, ...], no_paste: bool, **given: Any) -> None:
    """Repaint the white part of MASK in the picture IMAGE, with each PROMPT.

    \b
        fewstep inpaint stable-diffusion/ room.png sofa.png "a green sofa" --steps 20
    """
    pipe = _load(model, given)
    wanted = _chosen(pipe, given, "strength", "strength_of", "seed", "fit")
    with _shown() as on_row:
        images = pipe.inpaint(image, mask, list(prompts), paste=not no_paste, **wanted, on_row=on_row)
    _finish(images, given, f"{Path(image).stem}-inpaint")


@click.command()
@click.argument("model")
@click.argument("image", type=click.Path())
@click.argument("source")
@click.argument("prompts", nargs=-1, required=True, metavar="PROMPT...")
@_options(*_STRENGTH, _FIT, *_GRID, *_PLACE)
def edit(model: str, image: str, source: str, prompts: tuple[str, ...], **given: Any) -> None:
    """Invert the picture IMAGE with SOURCE, the words for what it shows, and draw each PROMPT from the noise that was
    found. Nothing is drawn at random, so there is no seed.

    \b
        fewstep edit stable-diffusion/ cat.jpg "a photo of a cat" "a photo of a dog" --guidance 3
    """
    pipe = _load(model, given)
    wanted = _chosen(pipe, given, "strength", "strength_of", "fit")
    with _shown() as on_row:
        images = pipe.edit(image, source, list(prompts), **wanted, on_row=on_row)
    _finish(images, given, f"{Path(image).stem}-edit")


@click.command()
@click.argument("model")
@click.argument("image", type=click.Path())
@click.argument("prompt", default="")
@_options(_FIT, *(methods.METHOD if option is methods.OPTIONS else option for option in _GRID), *_PLACE)
def invert(model: str, image: str, prompt: str, **given: Any) -> None:
    """Find the noise that draws the picture IMAGE, and draw it again: says how near that comes, in decibels. PROMPT is
    what the picture shows. Nothing is drawn at random, so there is no seed.

    \b
        fewstep invert stable-diffusion/ cat.jpg "a photo of a cat" --sampler belm
    """
    pipe = _load(model, given)
    with _shown() as on_row:
        found = pipe.invert(image, prompt, **_chosen(pipe, given, "fit"), on_row=on_row)
    path = found.save(given["output"] or Path("out") / f"{Path(image).stem}-invert.png")
    figures = {name: getattr(found, name) for name in ("psnr_latents", "psnr_pixels", "psnr_vae", "error")}
    nfe = {"up": found.up.nfe, "down": found.down.nfe}
    if given["as_json"]:
        finite = {name: value if math.isfinite(value) else None for name, value in figures.items()}
        timings = {stage: round(seconds, 4) for stage, seconds in found.timings.items()}
        show_json({"path": str(path), **finite, "nfe": nfe, "timings": timings})
        return
    click.echo(path)
    note(
        f"PSNR {found.psnr_latents:.1f} dB in latents (largest error {found.error:.2g}), {found.psnr_pixels:.1f} dB in "
        f"pixels, of which the VAE alone keeps {found.psnr_vae:.1f} dB; NFE {nfe['up']} up, {nfe['down']} down"
    )


@click.command()
@click.argument("model")
@click.argument("prompts", nargs=-1, required=True, metavar="PROMPT [PROMPT]")
@click.option(
    "--seed", type=Several(int, "a seed", 0, 2**63, most=2), default="0", metavar="S[,S]", help="Of the ends."
)
@click.option("--frames", type=click.IntRange(2, 1000), default=8, help="Pictures, the ends included.  [default: 8]")
@click.option("--columns", type=click.IntRange(1, 1000), help="Frames in a row of a .png.")
@click.option("--milliseconds", type=click.IntRange(10, 60_000), default=100, help="For each frame of a .gif.")
@_options(*_GRID, *_PLACE)
def interpolate(
    model: str,
    prompts: tuple[str, ...],
    seed: tuple[int, ...],
    frames: int,
    columns: int | None,
    milliseconds: int,
    **given: Any,
) -> None:
    """Draw the pictures between two PROMPTs, two seeds, or both, as a .png with all or as a .gif.

    \b
        fewstep interpolate stable-diffusion/ "a cat" "a lion" --seed 1,2 --frames 16 --output way.gif
    """
    from fewstep.core.errors import InvalidInput

    target = Path(given["output"] or Path("out") / "interpolate.png")
    if target.suffix.lower() not in (".png", ".gif"):  # before the work
        raise InvalidInput(f"frames are written as .png or .gif, got {str(target)!r}")
    if columns is not None and target.suffix.lower() == ".gif":
        raise click.UsageError("--columns is for a .png: a .gif shows one frame after the other")
    pipe = _load(model, {**given, "output": None})
    with _shown() as on_row:
        found = pipe.interpolate(list(prompts), seeds=list(seed), frames=frames, **_chosen(pipe, given), on_row=on_row)
    path = found.save(target, columns, milliseconds)
    if given["as_json"]:
        timings = {stage: round(seconds, 4) for stage, seconds in found.timings.items()}
        show_json({"path": str(path), "frames": len(found), "nfe": found.nfe, "timings": timings})
        return
    click.echo(path)
    note(f"{len(found)} frames, NFE {found.nfe:g} each, {found.seconds:.2f} s")


def _load(model: str, given: dict[str, Any]) -> TextPipeline:
    from fewstep.pipeline import TensorCache, TextPipeline, load, png_path

    if given["output"] is not None:  # before the work
        png_path(given["output"])
    cache = None if given["cache"] is None else TensorCache(folder=given["cache"])
    pipe = load(model, cache=cache, **place.arguments(given))
    if not isinstance(pipe, TextPipeline):
        raise click.UsageError(f"{pipe.name} draws classes; this needs a model that takes prompts")
    return pipe


def _chosen(pipe: TextPipeline, given: dict[str, Any], *more: str) -> dict[str, Any]:
    """The arguments that were given, by the names of the pipeline's methods."""
    names = ("sampler", "steps", "grid", "guidance", "negative", "height", "width", *more)
    wanted = {name: given[name] for name in names if given[name] is not None} | methods.chosen(pipe, given)
    options = mapping(given["option"], "--option")
    return {**wanted, "options": options} if options else wanted


@contextmanager
def _shown() -> Iterator[Callable[[Progress], None]]:
    """A bar of progress; warnings become notes at the end."""
    with warnings.catch_warnings(record=True) as caught, progress("drawing", 1) as bar:
        warnings.simplefilter("always", UserWarning)
        yield lambda row: bar(row.index + 1, of=row.rows)
    for warning in caught:
        note(f"warning: {warning.message}")


def _finish(images: Images, given: dict[str, Any], name: str) -> None:
    """Write the images and say what was written."""
    path = images.save(given["output"] or Path("out") / f"{name}.png")
    if given["as_json"]:
        show_json(
            {
                "path": str(path),
                "images": len(images),
                "nfe": images.nfe,
                "timings": {stage: round(seconds, 4) for stage, seconds in images.timings.items()},
                "pixels": images.digest,
                "recipe": images.recipe.to_json(),
            }
        )
        return
    click.echo(path)
    several = "image" if len(images) == 1 else "images"
    guided = methods.words(images.recipe.guidance)
    note(f"{len(images)} {several}, NFE {images.nfe:g}, {images.seconds:.2f} s{guided}")
