"""`fewstep compare`: the same noise drawn by several samplers in several numbers of steps, or over guidance scales."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click
from click.core import ParameterSource

from fewstep.cli import methods, place
from fewstep.cli.classes import load_classes
from fewstep.cli.output import note, progress, show_json, show_table
from fewstep.cli.values import Labels, Pair, ScheduleOfWeights, Several, mapping

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from fewstep.core.plan import Plan
    from fewstep.pipeline import Images, Pipeline, TextPipeline
    from fewstep.zoo.scenes.prompts import Prompt

NAMES, STEPS = Several(str, "a name", most=20), Several(int, "a number of steps", 1, 10_000, most=12)
SCALES = Several(float, "a guidance scale", -1e6, 1e6, most=20)
SHOWN, TILE = 6, 48
"""Images in each cell of the picture, and about how many pixels wide each is."""


class Outcome(NamedTuple):
    """What one sampler did in one number of steps; `distance` is None where images were not finite."""

    sampler: str
    steps: int
    nfe: float
    distance: float | None
    seconds: float
    tensor: Tensor


@click.command()
@click.argument("model", default="digits")
@click.argument("prompts", nargs=-1, metavar="[PROMPT]...")
@click.option("--samplers", type=NAMES, default="ddim,dpmpp-2m,unipc-3,deis-3", show_default=True, metavar="NAME,..")
@click.option("--steps", type=STEPS, default="4,8,16", show_default=True, metavar="N,..")
@click.option("--labels", type=Labels(), metavar="L,L,..", help="Such as 0,3-5,none.  [default: each class]")
@click.option("--count", type=click.IntRange(1, 1000), default=4, show_default=True, help="Images of each label.")
@click.option("--grid", help="A name from `fewstep grids`.  [default: quadratic]")
@click.option("--grid-option", type=Pair(), multiple=True, help="Of the grid, such as rho=5. May be repeated.")
@click.option("--bias", type=float, help="Above 0: more steps at low noise; below 0: at high noise.")
@click.option("--guidance", type=SCALES, metavar="S,..", help="Guidance scale, or several to compare.  [default: 2]")
@click.option(
    "--guidance-schedule",
    type=ScheduleOfWeights(),
    metavar="linear:A,B",
    help="In place of --guidance, from A at pure noise to B at clean data; or cosine:A,B.",
)
@methods.METHOD
@click.option("--negative", help="Words to be guided away from, where scales are compared.")
@click.option("--held-out", type=click.IntRange(1, 1000), metavar="N", help="N prompts of scenes, and the adherence.")
@click.option(
    "--seed",
    type=click.IntRange(0, 2**63),
    default=0,
    show_default=True,
    metavar="N",
    help="Of the first image; the next ones count up.",
)
@click.option(
    "--reference-steps",
    type=click.IntRange(20, 10_000),
    default=400,
    show_default=True,
    metavar="N",
    help="Steps of the converged reference, deis-3.",
)
@place.OPTIONS
@click.option("--output", type=click.Path(), default="out/compare.png", show_default=True, help="The PNG to write.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def compare(
    ctx: click.Context,
    model: str,
    prompts: tuple[str, ...],
    samplers: tuple[str, ...],
    steps: tuple[int, ...],
    labels: tuple[int | None, ...] | None,
    count: int,
    grid: str | None,
    grid_option: tuple[tuple[str, Any], ...],
    bias: float | None,
    guidance: tuple[float, ...] | None,
    guidance_method: str | None,
    guidance_option: tuple[tuple[str, Any], ...],
    weak: str | None,
    negative: str | None,
    held_out: int | None,
    seed: int,
    reference_steps: int,
    output: str,
    as_json: bool,
    **where: Any,
) -> None:
    """Draw the same noise with several samplers and step counts of MODEL, and measure how far each is from converged.

    The distance is the root mean square over all pixels (data from -1 to 1) to the solution of the probability-flow
    ODE from the same noise. Stochastic samplers draw other images, so theirs does not vanish with more steps.

    With several scales in --guidance, it draws the same seeds with each, by one sampler in one number of steps, and
    measures how saturated the images are. MODEL may take PROMPTs then; --held-out takes those of scenes that no
    training saw, and counts the pictures that are right in all that is named.

    \b
        fewstep compare
        fewstep compare --guidance 1,3,5,7.5,10
        fewstep compare scenes/ --held-out 50 --guidance 1,3,5,7.5,10
    """
    from fewstep.core.errors import unknown_name
    from fewstep.pipeline import png_path, save_png
    from fewstep.solvers.registry import SAMPLERS

    png_path(output)
    if guidance is not None and len(guidance) > 1:
        _compare_scales(ctx)
        return
    for name_, value in (("PROMPT", prompts), ("--negative", negative), ("--held-out", held_out)):
        if value:
            raise click.UsageError(f"{name_} is for several guidance scales, such as --guidance 1,3,5")
    for name in samplers:
        if name not in SAMPLERS:
            raise unknown_name("sampler", name, SAMPLERS)
    pipe = load_classes(model, "compare", **place.arguments(where))
    chosen: list[int | None] = list(range(pipe.classes) if labels is None else labels)
    if len(chosen) * count > 1000:
        raise click.UsageError(f"{len(chosen)} labels with {count} images each are more than 1000: give fewer")
    settings: dict[str, Any] = {"labels": [label for label in chosen for _ in range(count)], "seed": seed}
    settings |= methods.chosen(pipe, ctx.params)
    if guidance is not None:
        settings["guidance"] = next(iter(guidance))
    grid_options = mapping(grid_option, "--grid-option") | ({} if bias is None else {"bias": bias})
    runs = [(name, n) for name in samplers for n in steps]
    _check(pipe, settings, [pipe.plan(name, steps=n, grid=grid, grid_options=grid_options) for name, n in runs])
    with progress("comparing", 2 + len(runs)) as bar:
        reference, change = _reference(pipe, reference_steps, settings, bar)
        outcomes = []
        for done, (name, n) in enumerate(runs):
            bar(2 + done, words=f"{name}, {n} steps")
            outcomes.append(
                _outcome(pipe, name, n, {**settings, "grid": grid, "grid_options": grid_options}, reference)
            )
    path = save_png(_picture(pipe, samplers, steps, outcomes, reference, count), output)
    if as_json:
        show_json(_report(path, pipe, reference, change, outcomes))
        return
    _table(outcomes)
    click.echo()
    click.echo(path)
    note(
        f"{len(reference)} images. The reference is {reference.recipe.plan.sampler} in {reference_steps} steps; "
        f"from {reference_steps // 2} steps to these it still changed by {change:.1e}"
        f"{methods.words(reference.recipe.guidance)}"
    )
    if any(SAMPLERS[name].stochastic for name in samplers):
        note("* draws noise of its own: not expected to converge to the reference")


def _check(pipe: Pipeline, settings: dict[str, Any], plans: list[Plan]) -> None:
    """Refuse what cannot be guided so before the first network evaluation."""
    from fewstep.core.errors import InvalidInput

    given = {name: value for name, value in settings.items() if name != "seed"}

    def check(plan: Plan) -> None:
        pipe.denoiser(**given, plan=plan).check(plan)

    for plan in plans:
        check(plan)
    try:
        check(pipe.plan(steps=100))
    except InvalidInput as error:
        by_row = getattr(given.get("guidance"), "values", None) is not None
        instead = "give --guidance-schedule linear:NOISY,CLEAN" if by_row else "compare guidance scales"
        raise click.UsageError(f"the converged reference cannot be drawn so ({error}); {instead}") from None


def _compare_scales(ctx: click.Context) -> None:
    """Compare guidance scales with the options of `ctx`."""
    from fewstep.cli.scales import compare_scales
    from fewstep.pipeline import TextPipeline, load

    given = ctx.params
    said = {name for name in given if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE}
    if "reference_steps" in said:
        raise click.UsageError("--reference-steps is for comparing samplers: guidance scales have no reference")
    for name in ("samplers", "steps"):
        if name in said and len(given[name]) > 1:
            raise click.UsageError(f"give one of --{name} where several guidance scales are compared")
    pipe = load(given["model"], **place.arguments(given))
    known = None
    if isinstance(pipe, TextPipeline):
        subjects, known = _prompts(pipe, said)
    else:
        subjects = _labels(pipe, said)
    subjects = [subject for subject in subjects for _ in range(given["count"] if known is None else 1)]
    if len(subjects) > 1000:
        raise click.UsageError(f"{len(subjects)} images a scale are more than 1000: give fewer")
    grid_options = mapping(given["grid_option"], "--grid-option")
    grid_options |= {} if given["bias"] is None else {"bias": given["bias"]}
    sampler = given["samplers"][:1] if "samplers" in said else ()
    steps = given["steps"][0] if "steps" in said else None
    plan = pipe.plan(*sampler, steps=steps, grid=given["grid"], grid_options=grid_options or None)
    settings: dict[str, Any] = {"seed": given["seed"], **methods.chosen(pipe, given)}
    if given["negative"] is not None:
        settings["negative"] = given["negative"]
    scales = tuple(dict.fromkeys(given["guidance"]))
    compare_scales(pipe, subjects, scales, plan, settings, known, given["output"], given["as_json"])


def _prompts(pipe: TextPipeline, said: set[str]) -> tuple[list[Any], list[Prompt] | None]:
    """The prompts, and what they name where they are those of scenes."""
    from fewstep.zoo.scenes.prompts import held_out_prompts
    from fewstep.zoo.scenes.scene import SIZE

    given = click.get_current_context().params
    if "labels" in said:
        raise click.UsageError(f"--labels is for models of classes, and {pipe.name} takes prompts: give a PROMPT")
    if given["held_out"] is None:
        if not given["prompts"]:
            raise click.UsageError(f"{pipe.name} draws from words: give a PROMPT after the model, or --held-out N")
        return list(given["prompts"]), None
    if given["prompts"] or "count" in said:
        raise click.UsageError("--held-out brings its prompts, one image each: leave out PROMPT and --count")
    shape = pipe.decoder.pixels(pipe.latent_shape())
    if shape != (3, SIZE, SIZE):
        raise click.UsageError(
            f"--held-out reads pictures of {SIZE} x {SIZE} in colour, and {pipe.name} makes {shape[2]} x {shape[1]} "
            f"with {shape[0]} channels: give PROMPTs"
        )
    known = held_out_prompts(given["held_out"])
    return [prompt.text for prompt in known], known


def _labels(pipe: Pipeline, said: set[str]) -> list[Any]:
    """The labels, after refusing what only prompts have."""
    given = click.get_current_context().params
    for name, option in (("prompts", "PROMPT"), ("negative", "--negative"), ("held_out", "--held-out")):
        if name in said and given[name]:
            raise click.UsageError(f"{option} is for models that take prompts, and {pipe.name} draws classes")
    return list(given["labels"] if given["labels"] is not None else range(pipe.classes) or (None,))


def _reference(pipe: Pipeline, steps: int, settings: dict[str, Any], bar: Any) -> tuple[Images, float]:
    """The converged images, and how far they moved since half the steps."""
    bar(0, words=f"reference, {steps // 2} steps")
    half = pipe(**settings, steps=steps // 2)
    bar(1, words=f"reference, {steps} steps")
    full = pipe(**settings, steps=steps)
    return full, _distance(half.tensor, full.tensor)


def _distance(a: Tensor, b: Tensor) -> float:
    return float((a - b).double().square().mean().sqrt())


def _outcome(pipe: Pipeline, name: str, steps: int, settings: dict[str, Any], reference: Images) -> Outcome:
    from fewstep.pipeline import LostImages

    try:
        images = pipe(**settings, sampler=name, steps=steps)
    except LostImages as lost:
        images = lost.everything
        return Outcome(name, steps, images.nfe, None, images.seconds, images.tensor)
    return Outcome(name, steps, images.nfe, _distance(images.tensor, reference.tensor), images.seconds, images.tensor)


def _picture(
    pipe: Pipeline,
    samplers: tuple[str, ...],
    steps: tuple[int, ...],
    outcomes: list[Outcome],
    reference: Images,
    count: int,
) -> Image:
    """Row = sampler, column = steps, the reference last; each cell shows one image of some labels, evenly picked."""
    from fewstep.cli.comparison import Cell, draw
    from fewstep.pipeline import Layout, sheet_of

    labels = len(reference) // count
    shown = min(SHOWN, labels)
    indices = [count * round(i * (labels - 1) / max(1, shown - 1)) for i in range(shown)]
    layout = Layout(columns=len(indices), scale=max(1, TILE // pipe.sample_shape[-1]), gap=1)

    def strip(tensor: Tensor) -> Image:
        return sheet_of(tensor[indices].nan_to_num(), pipe.value_range, layout)

    cells = [
        [Cell(strip(o.tensor), _caption(o)) for o in outcomes if o.sampler == name]
        + [Cell(strip(reference.tensor), "")]
        for name in dict.fromkeys(samplers)
    ]
    heads = [f"{n} step{'' if n == 1 else 's'}" for n in steps]
    return draw(list(dict.fromkeys(samplers)), [*heads, f"converged ({reference.recipe.plan.steps} steps)"], cells)


def _caption(outcome: Outcome) -> str:
    distance = "not finite" if outcome.distance is None else f"distance {outcome.distance:.3f}"
    return f"NFE {outcome.nfe:g}   {distance}"


def _table(outcomes: list[Outcome]) -> None:
    from fewstep.solvers.registry import SAMPLERS

    show_table(
        ["sampler", "steps", "NFE", "distance", "seconds"],
        [
            [
                o.sampler + (" *" if SAMPLERS[o.sampler].stochastic else ""),
                str(o.steps),
                f"{o.nfe:g}",
                "not finite" if o.distance is None else f"{o.distance:.4f}",
                f"{o.seconds:.3f}",
            ]
            for o in outcomes
        ],
        right=("steps", "NFE", "distance", "seconds"),
    )


def _report(path: Path, pipe: Pipeline, reference: Images, change: float, outcomes: list[Outcome]) -> dict[str, Any]:
    from fewstep.solvers.registry import SAMPLERS

    plan = reference.recipe.plan
    return {
        "path": str(path),
        "model": pipe.name,
        "model_digest": pipe.digest,
        "images": len(reference),
        "guidance": reference.recipe.guidance.to_json()["scale"],  # of a schedule, the reference's rows
        "guidance_method": reference.recipe.guidance.method,
        "reference": {
            "sampler": plan.sampler,
            "grid": plan.grid,
            "steps": plan.steps,
            "nfe": reference.nfe,
            "change_from_half_the_steps": change,
            "seconds": round(reference.seconds, 4),
        },
        "results": [
            {
                "sampler": o.sampler,
                "steps": o.steps,
                "nfe": o.nfe,
                "distance": o.distance,
                "seconds": round(o.seconds, 4),
                "stochastic": SAMPLERS[o.sampler].stochastic,
            }
            for o in outcomes
        ],
    }
