"""`fewstep compare`: the same noise drawn by several samplers in several numbers of steps."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from fewstep.cli.classes import load_classes
from fewstep.cli.output import note, progress, show_json, show_table
from fewstep.cli.values import Labels, Pair, Several, mapping

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from fewstep.pipeline import Images, Pipeline

NAMES, STEPS = Several(str, "a name", most=20), Several(int, "a number of steps", 1, 10_000, most=12)
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
@click.option("--samplers", type=NAMES, default="ddim,dpmpp-2m,unipc-3,deis-3", show_default=True, metavar="NAME,..")
@click.option("--steps", type=STEPS, default="4,8,16", show_default=True, metavar="N,..")
@click.option("--labels", type=Labels(), metavar="L,L,..", help="Such as 0,3-5,none.  [default: each class]")
@click.option("--count", type=click.IntRange(1, 1000), default=4, show_default=True, help="Images of each label.")
@click.option("--grid", help="A name from `fewstep grids`.  [default: quadratic]")
@click.option("--grid-option", type=Pair(), multiple=True, help="Of the grid, such as rho=5. May be repeated.")
@click.option("--bias", type=float, help="Above 0: more steps at low noise; below 0: at high noise.")
@click.option("--guidance", type=float, help="Guidance scale; 1 is none, at half the cost.  [default: 2]")
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
@click.option("--output", type=click.Path(), default="out/compare.png", show_default=True, help="The PNG to write.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def compare(
    model: str,
    samplers: tuple[str, ...],
    steps: tuple[int, ...],
    labels: tuple[int | None, ...] | None,
    count: int,
    grid: str | None,
    grid_option: tuple[tuple[str, Any], ...],
    bias: float | None,
    guidance: float | None,
    seed: int,
    reference_steps: int,
    output: str,
    as_json: bool,
) -> None:
    """Draw the same noise with several samplers and step counts of MODEL, and measure how far each is from converged.

    The distance is the root mean square over all pixels (data from -1 to 1) to the solution of the probability-flow
    ODE from the same noise. Stochastic samplers draw other images, so theirs does not vanish with more steps.
    """
    from fewstep.core.errors import unknown_name
    from fewstep.pipeline import png_path, save_png
    from fewstep.solvers.registry import SAMPLERS

    png_path(output)
    for name in samplers:
        if name not in SAMPLERS:
            raise unknown_name("sampler", name, SAMPLERS)
    pipe = load_classes(model, "compare")
    chosen: list[int | None] = list(range(pipe.classes) if labels is None else labels)
    if len(chosen) * count > 1000:
        raise click.UsageError(f"{len(chosen)} labels with {count} images each are more than 1000: give fewer")
    settings: dict[str, Any] = {"labels": [label for label in chosen for _ in range(count)], "seed": seed}
    if guidance is not None:
        settings["guidance"] = guidance
    grid_options = mapping(grid_option, "--grid-option") | ({} if bias is None else {"bias": bias})
    runs = [(name, n) for name in samplers for n in steps]
    for name, n in runs:  # a wrong value is refused before the first network evaluation
        pipe.plan(name, steps=n, grid=grid, grid_options=grid_options)
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
    )
    if any(SAMPLERS[name].stochastic for name in samplers):
        note("* draws noise of its own: not expected to converge to the reference")


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
        "guidance": reference.recipe.guidance.scale,
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
