"""`fewstep compare --guidance 1,3,5`: the same seeds over guidance scales, with a saturation figure each."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from fewstep.cli.output import note, progress, show_json, show_table

if TYPE_CHECKING:
    from pathlib import Path

    from PIL.Image import Image
    from torch import Tensor

    from fewstep.core.plan import Plan
    from fewstep.pipeline import Images, Pipeline, TextPipeline
    from fewstep.zoo.scenes.prompts import Prompt

SHOWN, TILE = 12, 64
"""Images of each scale in the picture, and about how many pixels wide each is."""


class Scale(NamedTuple):
    """What one guidance scale did.

    Attributes:
        share, chroma: `fewstep.saturation` of the images, their mean; None where an image was not finite.
        method: of guidance.
        adherence: share of the images that are right in all that their prompt names; None where nobody can tell.
    """

    guidance: float
    nfe: float
    seconds: float
    share: float | None
    chroma: float | None
    adherence: float | None
    tensor: Tensor
    method: str


def compare_scales(
    pipe: Pipeline | TextPipeline,
    subjects: list[Any],
    scales: tuple[float, ...],
    plan: Plan,
    settings: dict[str, Any],
    held_out: list[Prompt] | None,
    output: str,
    as_json: bool,
) -> None:
    """Draw `subjects`, prompts or labels, once for each scale; write the picture and print the table.

    Args:
        settings: arguments of the pipeline's call, the same for all scales.
        held_out: what the prompts of scenes name, for adherence; None is no such figure.
    """
    from fewstep.pipeline import save_png

    found = []
    with progress("comparing", len(scales)) as bar, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        for done, guidance in enumerate(scales):
            bar(done, words=f"guidance {guidance:g}")
            found.append(_scale(pipe, subjects, guidance, plan, settings, held_out))
    path = save_png(_picture(pipe, found, plan), output)
    for message in dict.fromkeys(str(warning.message) for warning in caught):
        note(f"warning: {message}")
    if as_json:
        show_json(_report(path, pipe, plan, len(subjects), found))
        return
    _table(found)
    click.echo()
    click.echo(path)
    note(
        f"{len(subjects)} images a scale, {plan.recipe.sampler} in {plan.steps} steps. Saturated: pixels at or beyond "
        "the range in some channel; chroma: largest channel less the smallest, in shares of the range"
    )


def _scale(
    pipe: Pipeline | TextPipeline,
    subjects: list[Any],
    guidance: float,
    plan: Plan,
    settings: dict[str, Any],
    held_out: list[Prompt] | None,
) -> Scale:
    from fewstep.measure.saturation import saturation
    from fewstep.pipeline import LostImages
    from fewstep.zoo.scenes.prompts import adherence

    try:
        images: Images = pipe(subjects, sampler=plan, guidance=guidance, **settings)
    except LostImages as lost:
        images = lost.everything
        method = images.recipe.guidance.method
        return Scale(guidance, images.nfe, images.seconds, None, None, None, images.tensor, method)
    method = images.recipe.guidance.method
    share, chroma = (float(figure.mean()) for figure in saturation(images.tensor, *images.value_range))
    right = None if held_out is None else adherence(list(images.pixels), held_out)
    return Scale(guidance, images.nfe, images.seconds, share, chroma, right, images.tensor, method)


def _picture(pipe: Pipeline | TextPipeline, found: list[Scale], plan: Plan) -> Image:
    """Row = scale, each with the same images, evenly picked."""
    from fewstep.cli.comparison import Cell, draw
    from fewstep.pipeline import Layout, Pipeline, sheet_of

    count, width = len(found[0].tensor), found[0].tensor.shape[-1]
    shown = min(SHOWN, count)
    indices = [round(i * (count - 1) / max(1, shown - 1)) for i in range(shown)]
    layout = Layout(columns=shown, scale=max(1, TILE // width), gap=1)
    span = pipe.value_range if isinstance(pipe, Pipeline) else (-1.0, 1.0)
    cells = [[Cell(sheet_of(f.tensor[indices].nan_to_num(), span, layout), _caption(f))] for f in found]
    head = f"{plan.recipe.sampler}, {plan.steps} step{'' if plan.steps == 1 else 's'}"
    head += "" if found[0].method == "cfg" else f", {found[0].method}"
    return draw([f"guidance {f.guidance:g}" for f in found], [head], cells)


def _caption(scale: Scale) -> str:
    words = [f"NFE {scale.nfe:g}"]
    if scale.share is None or scale.chroma is None:
        return "   ".join([*words, "not finite"])
    words += [f"saturated {scale.share:.1%}", f"chroma {scale.chroma:.3f}"]
    return "   ".join(words + ([] if scale.adherence is None else [f"adherence {scale.adherence:.0%}"]))


def _table(found: list[Scale]) -> None:
    heads = ["guidance", "NFE", "saturated", "chroma", "adherence", "seconds"]
    if all(f.adherence is None for f in found):
        heads.remove("adherence")

    def cell(scale: Scale, head: str) -> str:
        if head not in ("guidance", "NFE", "seconds") and scale.share is None:
            return "not finite"
        return {
            "guidance": f"{scale.guidance:g}",
            "NFE": f"{scale.nfe:g}",
            "saturated": f"{scale.share or 0:.2%}",
            "chroma": f"{scale.chroma or 0:.4f}",
            "adherence": f"{scale.adherence or 0:.1%}",
            "seconds": f"{scale.seconds:.3f}",
        }[head]

    show_table(heads, [[cell(f, head) for head in heads] for f in found], right=heads)


def _report(path: Path, pipe: Pipeline | TextPipeline, plan: Plan, images: int, found: list[Scale]) -> dict[str, Any]:
    return {
        "path": str(path),
        "model": pipe.name,
        "model_digest": pipe.digest,
        "images": images,
        "sampler": plan.recipe.sampler,
        "steps": plan.steps,
        "plan": plan.digest,
        "guidance_method": found[0].method,
        "results": [
            {
                "guidance": f.guidance,
                "nfe": f.nfe,
                "saturated": f.share,
                "chroma": f.chroma,
                "adherence": f.adherence,
                "seconds": round(f.seconds, 4),
            }
            for f in found
        ],
    }
