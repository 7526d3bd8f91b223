"""`fewstep generate`: labels or prompts in, one PNG out that knows how it was drawn."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from fewstep.cli import bulk, config, methods, source
from fewstep.cli import prompts as text
from fewstep.cli.app import Failure
from fewstep.cli.output import note, progress, show_json
from fewstep.cli.values import BatchSize, Label, Labels, Pair, Seeds, Several, Span, Threshold, mapping

if TYPE_CHECKING:
    import fewstep as fs
    from fewstep.pipeline import Images, Layout, Pipeline, Stamp, TextPipeline

COUNT, MOST = 10, 10_000
BY_RECIPE = (
    "prompts", "prompt_file", "seeds", "labels", "count", "sampler", "steps", "grid", "grid_option", "bias", "times",
    "sigmas", "option", "guidance", "guidance_schedule", "guidance_method", "guidance_option", "negative",
    "guidance_interval", "rescale", "clip", "dynamic_threshold", "seed", "batch", "height", "width", "preset",
    "clip_skip", "sliced", "tiled", "overlap",
)  # fmt: skip
"""What a recipe decides, so that `--like` leaves no choice."""
BY_PLAN = ("sampler", "steps", "grid", "grid_option", "bias", "times", "sigmas", "option")
NUMBERS = Several(float, "a number")


@click.command()
@click.argument("model", required=False)
@click.argument("prompts", nargs=-1, metavar="[PROMPT]...", callback=source.split)
@click.option("--prompts", "prompt_file", type=click.Path(), help="Draw all of a file: a prompt a line, or .jsonl.")
@click.option("--seeds", type=Seeds(), metavar="S,S,..", help="Draw each prompt with each seed, such as 0-9,42.")
@click.option("--labels", type=Labels(), metavar="L,L,..", help="Such as 0,3-5,none.  [default: each class]")
@click.option("--count", type=click.IntRange(1, 10_000), help="Images of each label or prompt.  [default: 10; 1]")
@click.option("--sampler", help="A name from `fewstep samplers`.  [default: deis-3]")
@click.option("--steps", type=click.IntRange(1, 10_000), help="Steps of the time grid.  [default: 12]")
@click.option("--grid", help="A name from `fewstep grids`.  [default: quadratic]")
@click.option("--grid-option", type=Pair(), multiple=True, help="Of the grid, such as rho=5. May be repeated.")
@click.option("--bias", type=float, help="Above 0: more steps at low noise; below 0: at high noise.")
@click.option("--times", type=NUMBERS, metavar="T,T,..", help="The grid itself, decreasing, N + 1 for N steps.")
@click.option("--sigmas", type=NUMBERS, metavar="S,S,..", help="As --times, as sigma / alpha; 0 is clean.")
@click.option("--option", type=Pair(), multiple=True, help="Of the sampler, such as eta=1. May be repeated.")
@click.option("--guidance", type=float, help="Guidance scale; 1 is none, at half the cost.  [default: 2]")
@click.option("--negative", help="Label or words to be guided away from.  [default: none]")
@click.option("--guidance-interval", type=Span(), help="Guide only where sigma / alpha is in it.")
@click.option("--rescale", type=click.FloatRange(0, 1), help="Bring the guided contrast back by this share.")
@methods.OPTIONS
@click.option("--clip", is_flag=True, help="Clip the estimated data to its range at each evaluation.")
@click.option("--dynamic-threshold", type=Threshold(), help="Clip it to its own percentile instead, such as 0.995.")
@click.option("--seed", type=click.IntRange(0, 2**63), help="Of the first image; the next ones count up.  [default: 0]")
@click.option(
    "--batch", "--batch-size", "batch", type=BatchSize(), help="Images seen at once; auto: what fits.  [default: 100]"
)
@text.OPTIONS
@click.option("--plan", type=click.Path(), help="A plan that `fewstep plan --output` wrote, in place of a sampler.")
@click.option("--force", is_flag=True, help="Take a plan that was tuned for another model.")
@click.option("--like", type=click.Path(), help="Draw this PNG again: the same pixels.")
@click.option(
    "--output", type=click.Path(), help="The PNG, or the folder of many.  [default: in out/, named by its recipe]"
)
@click.option("--scale", type=click.IntRange(1, 64), help="Enlargement of a pixel.  [default: images 64 wide]")
@click.option("--columns", type=click.IntRange(1, 10_000), help="Images in a row.  [default: --count]")
@click.option("--each", is_flag=True, help="Write each image as a PNG of its own, too, in a folder beside.")
@click.option("--no-config", is_flag=True, help="Leave out the defaults of your configuration file.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with the recipe.")
@click.pass_context
def generate(ctx: click.Context, model: str | None, **given: Any) -> None:
    """Draw images with MODEL: the shipped digits or scenes, a .safetensors file that fewstep trained, or a diffusers
    model, as a folder or an id on the hub, with the PROMPTs that it takes. Without MODEL, PROMPTs of several words are
    drawn by the scenes, and else there are digits. Defaults are those of the digits; a model that takes prompts has its
    own.

    The path of the picture is printed; the picture carries its recipe.

    \b
        fewstep generate
        fewstep generate "a red circle left of a blue square"
        fewstep generate stable-diffusion/ "a red circle" --steps 8 --negative blue
        fewstep generate --labels 3,1,4 --sampler ddim --steps 20 --seed 7
        fewstep generate --like out/picture.png
        fewstep generate stable-diffusion/ --prompts prompts.txt --seeds 0-9 --output folder/
    """
    from fewstep.pipeline import TextPipeline, load, png_path, read

    like: str | None = given["like"]
    many = given["prompt_file"] is not None or given["seeds"] is not None
    if many:
        bulk.refuse(given, _named(ctx))
    _refuse_together(ctx, "--like", like, BY_RECIPE, "the picture's recipe decides")
    _refuse_together(ctx, "--plan", given["plan"], BY_PLAN, "the plan decides")
    if not many and given["output"] is not None:
        png_path(given["output"])
    if given["batch"] == "auto" and not many:
        raise click.UsageError("--batch-size auto is for many images, with --prompts or --seeds: give a number")
    defaults = None if given["no_config"] else config.read_defaults(ctx)
    if defaults is not None:
        defaults.apply(given, config.decided(defaults, given, _named(ctx), BY_RECIPE, BY_PLAN))
    stamp = None if like is None else read(like)
    name = model or (source.default(given) if stamp is None else _shipped(str(like), stamp))
    pipe = load(name, **text.loading(given))
    if defaults is not None:
        defaults.tell(given, isinstance(pipe, TextPipeline))
    if many:
        if isinstance(pipe, TextPipeline):
            text.refuse_classes(pipe, given)
        else:
            _refuse_words(ctx, pipe)
        bulk.run(pipe, given, _wanted(pipe, given))
    else:
        _one(ctx, pipe, stamp, given)


def _one(ctx: click.Context, pipe: Pipeline | TextPipeline, stamp: Stamp | None, given: dict[str, Any]) -> None:
    """Draw one picture, and print where it is."""
    from fewstep.pipeline import LostImages, TextPipeline

    layout = text.layout(pipe, stamp, given) if isinstance(pipe, TextPipeline) else _labelled(ctx, pipe, stamp, given)
    before = pipe.cache if isinstance(pipe, TextPipeline) else None
    lost = None
    try:
        images = _draw(pipe, stamp, given)
    except LostImages as error:
        if error.finished is None:
            raise
        images, lost = error.finished, error
    began = time.perf_counter()
    path = images.save(_target(given, images), layout)
    each = images.save_each(path.with_suffix(""), layout.scale) if given["each"] else []
    saving = time.perf_counter() - began
    same = None if stamp is None or lost else images.digest == stamp.pixels
    if given["as_json"]:
        show_json(_report(images, path, each, same))
    else:
        click.echo(path)
        guided = methods.words(images.recipe.guidance)
        note(f"{_several(len(images))}, NFE {images.nfe:g} each, {images.seconds:.2f} s{guided}")
    if given["timings"]:
        note(text.timings({**images.timings, "save": saving}, before, pipe))
    if stamp is not None and same is not None:
        note(_compared(stamp, given["like"], same))
    if lost is not None:
        raise Failure(f"{lost}. Finished and kept: {_several(len(images))}, in {path}")


def _labelled(ctx: click.Context, pipe: Pipeline, stamp: Stamp | None, given: dict[str, Any]) -> Layout:
    """The layout for a model of classes, after refusing what only prompts have."""
    _refuse_words(ctx, pipe)
    count = len(_labels(pipe, stamp, given))
    layout = _layout(count, pipe.pixel_shape[-1], stamp, given)
    layout.size(count, *pipe.pixel_shape[-2:])
    return layout


def _refuse_words(ctx: click.Context, pipe: Pipeline) -> None:
    also = [name for name in text.NAMES if name in _named(ctx)]
    if also:
        named = ", ".join("PROMPT" if name == "prompts" else f"--{name.replace('_', '-')}" for name in also)
        raise click.UsageError(f"{named} is for models that take prompts, and {pipe.name} draws classes: use --labels")


def _named(ctx: click.Context) -> set[str]:
    """Options and arguments that are on the command line."""
    return {name for name in ctx.params if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE}


def _labels(pipe: Pipeline, stamp: Stamp | None, given: dict[str, Any]) -> list[int | None]:
    if stamp is not None:
        return [stamp.recipe.labels[i] for i in stamp.recipe.kept]
    labels = (range(pipe.classes) or (None,)) if given["labels"] is None else given["labels"]
    count = given["count"] or COUNT
    if len(labels) * count > MOST:
        raise click.UsageError(f"{len(labels)} labels with {count} images each are more than {MOST}: give fewer")
    return [label for label in labels for _ in range(count)]


def _draw(pipe: Pipeline | TextPipeline, stamp: Stamp | None, given: dict[str, Any]) -> Images:
    import fewstep as fs

    with progress("drawing", 1) as bar:

        def on_row(row: fs.Progress) -> None:
            bar(row.index + 1, of=row.rows)

        if stamp is not None:
            return pipe.redraw(stamp.recipe, plan=_plan(pipe, given), weak=given["weak"], on_row=on_row)
        wanted = _wanted(pipe, given)
        if isinstance(pipe, fs.TextPipeline):
            return text.draw(pipe, wanted, given, on_row)
        if "negative" in wanted:
            wanted["negative"] = Label().convert(wanted["negative"], None, None)
        return pipe(_labels(pipe, None, given), **wanted, on_row=on_row)


def _wanted(pipe: Pipeline | TextPipeline, given: dict[str, Any]) -> dict[str, Any]:
    """The arguments of the pipeline's call that were chosen."""
    import fewstep as fs

    plan = _plan(pipe, given)
    grid_options = mapping(given["grid_option"], "--grid-option")
    if given["bias"] is not None:
        grid_options["bias"] = given["bias"]
    settings = {
        "sampler": plan or given["sampler"],
        "grid_options": grid_options or None,
        "options": mapping(given["option"], "--option") or None,
        "interval": given["guidance_interval"],
    }
    settings |= {k: given[k] for k in ("steps", "grid", "times", "sigmas", "guidance", "rescale", "seed", "batch")}
    settings |= {"negative": given["negative"], **methods.chosen(pipe, given)}
    wanted = {name: value for name, value in settings.items() if value is not None}
    if isinstance(pipe, fs.TextPipeline):
        return text.wanted(wanted, given)
    inside = {} if given["dynamic_threshold"] is None else {"dynamic_threshold": given["dynamic_threshold"]}
    return {**wanted, **inside, "clip": given["clip"]}


def _plan(pipe: Pipeline | TextPipeline, given: dict[str, Any]) -> fs.Plan | None:
    """The plan of a file, unless it was tuned for another model."""
    import fewstep as fs

    if given["plan"] is None:
        if given["force"]:
            raise click.UsageError("--force takes a plan that was tuned for another model: give --plan")
        return None
    plan = fs.Plan.load(given["plan"])
    if not given["force"]:
        from fewstep.tuning.table import check_model

        check_model(plan, pipe.name, pipe.weights, "tune one for it with `fewstep tune`, or use --force")
    return plan


def _refuse_together(ctx: click.Context, option: str, value: Any, others: tuple[str, ...], why: str) -> None:
    if value is None:
        return
    also = [name for name in others if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE]
    if also:
        named = ", ".join(f"--{name.replace('_', '-')}" for name in also)
        raise click.UsageError(f"{option} cannot be combined with {named}: {why}")


def _shipped(like: str, stamp: Stamp) -> str:
    """The model that a picture names. It is a file's text: it may choose among shipped models, and no path."""
    from fewstep.zoo import SHIPPED

    recipe = stamp.recipe
    if recipe.model in SHIPPED:
        return recipe.model
    raise click.UsageError(
        f"{like} was drawn by a model {recipe.model!r} (digest {recipe.model_digest}) that does not come with "
        "fewstep: give the path of its file as MODEL"
    )


def _layout(count: int, width: int, stamp: Stamp | None, given: dict[str, Any]) -> Layout:
    from fewstep.pipeline import Layout

    scale, columns = given["scale"], given["columns"]
    if stamp is not None:
        return Layout(columns or stamp.layout.columns, scale or stamp.layout.scale, stamp.layout.gap)
    of_each = given["count"] or COUNT
    return Layout.of(count, width, columns or (of_each if of_each > 1 else min(count, COUNT)), scale)


def _target(given: dict[str, Any], images: Images) -> Path:
    if given["output"] is not None:
        return Path(given["output"])
    if given["like"] is not None:
        return Path("out") / f"{Path(given['like']).stem}-again.png"
    recipe = images.recipe
    return Path("out") / f"{recipe.model}-{recipe.plan.sampler}-{recipe.plan.steps}-{recipe.digest}.png"


def _report(images: Images, path: Path, each: list[Path], same: bool | None) -> dict[str, Any]:
    return {
        "path": str(path),
        "each": [str(one) for one in each],
        "images": len(images),
        "nfe": images.nfe,
        "seconds": round(images.seconds, 4),
        "timings": {stage: round(seconds, 4) for stage, seconds in images.timings.items()},
        "pixels": images.digest,
        "same_pixels": same,
        "recipe": images.recipe.to_json(),
    }


def _several(count: int) -> str:
    return "1 image" if count == 1 else f"{count} images"


def _compared(stamp: Stamp, like: str, same: bool) -> str:
    if same:
        return f"the same pixels as {like}"
    return (
        f"the pixels are not all those of {like}, which fewstep {stamp.fewstep} drew with torch {stamp.torch}: "
        "sums round differently in another version or on another machine"
    )
