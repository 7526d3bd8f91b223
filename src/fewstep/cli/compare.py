"""`fewstep compare`: the same noise drawn by several samplers in several numbers of steps, or over guidance scales."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import click
from click.core import ParameterSource

import fewstep as fs
from fewstep.cli import delivery, measuring, memory, options, place, source
from fewstep.cli.comparison import Comparison, Outcome, outcome
from fewstep.cli.headings import DRAWN, GUIDANCE, LAST, MEASURING, SAMPLER, Command, option
from fewstep.cli.output import JSON, note, noted, progress, show_json, show_table
from fewstep.cli.values import Several
from fewstep.core import InvalidInput, unknown_name

NAMES, STEPS = Several(str, "a name", most=20), Several(int, "a number of steps", 1, 10_000, most=12)
SCALES = Several(float, "a guidance scale", -1e6, 1e6, most=20)
REFERENCE, MOST = "deis-3", 1000
"""The sampler of the converged images, and most images of a run."""


@click.command(cls=Command)
@place.MODEL
@click.argument("prompts", nargs=-1, metavar="[PROMPT]...")
@option(
    "--samplers",
    type=NAMES,
    default="ddim,dpmpp-2m,unipc-3,deis-3",
    heading=SAMPLER,
    help="Names from `fewstep samplers`.",
)
@option("--steps", type=STEPS, default="4,8,16", heading=SAMPLER, help="Steps of the time grid.")
@option(
    "--guidance", type=SCALES, usual="the model's own", heading=GUIDANCE, help="Guidance scale, or several to compare."
)
@options.fields("labels", "negative", "seed")
@option("--count", type=click.IntRange(1, 1000), default=4, heading=DRAWN, help="Images of each label or prompt.")
@options.fields(
    "sampling",
    "guidance",
    without=("sampler", "steps", "option", "times", "sigmas", "plan", "guidance"),
)
@options.RESCALE
@options.SCHEDULE
@options.WEAK
@option(
    "--held-out",
    type=click.IntRange(1, 1000),
    heading=MEASURING,
    help="Draw N held-out prompts of scenes, and count those that come out right.",
)
@option(
    "--reference-steps",
    type=click.IntRange(20, 10_000),
    default=400,
    heading=MEASURING,
    help=f"Steps of the converged reference, {REFERENCE}.",
)
@measuring.CLIP
@measuring.DATA
@memory.CACHE
@place.OPTIONS
@option(
    "--output",
    type=click.Path(),
    default="out/compare.png",
    metavar="FILE",
    heading=LAST,
    help="The PNG to write.",
)
@JSON
@click.pass_context
def compare(ctx: click.Context, model: str, prompts: tuple[str, ...], **given: Any) -> None:
    """Draw the same noise of MODEL, the digits by default, with several samplers and step counts, and measure how far
    each is from converged.

    The distance is the root mean square over all pixels (data from -1 to 1) to the solution of the probability-flow
    ODE from the same noise. Stochastic samplers draw other images, so theirs does not vanish with more steps.

    With several scales in --guidance, it draws the same seeds with each, by one sampler in one number of steps, and
    measures how saturated the images are. Where something tells which scale is the better one, it says which are as
    good as the best: --held-out takes prompts of scenes that no training saw, and counts the pictures that are right in
    all that is named; --clip and --data measure other models.

    \b
        fewstep compare
        fewstep compare --guidance 1,3,5,7.5,10
        fewstep compare scenes --held-out 50 --guidance 1,3,5,7.5,10
    """
    delivery.check_place(given["output"])
    scales = tuple(dict.fromkeys(given["guidance"] or ()))
    over_scales = len(given["guidance"] or ()) > 1
    _refuse(ctx, over_scales)
    asked = options.asked(ctx)
    pipe = place.load(model, given)
    call = {**source.fitted(pipe, asked), "weak": fs.models.weaker_of(pipe.model, given["weak"])}
    call.pop("labels", None)
    if scales:
        call["guidance"] = {**call.get("guidance", {}), "scale": scales[0]}
    work = _Query(pipe, *_subjects(ctx, pipe), call)
    found = _over_scales(ctx, work, scales) if over_scales else _over_samplers(ctx, work)
    path = fs.drawing.save_png(found.picture(), given["output"])
    if given["as_json"]:
        show_json({"path": str(path), **found.report()})
        return
    show_table(*found.table())
    click.echo()
    click.echo(path)
    for text in found.notes:
        note(text)


class _Query(NamedTuple):
    """What is drawn again and again: subjects, those of held-out scenes with what they name, and the call."""

    pipe: fs.Pipeline
    subjects: Sequence[Any]
    known: Sequence[fs.scenes.Prompt] | None
    call: dict[str, Any]

    def plan(self, *sampler: str, steps: int | None = None) -> fs.Plan:
        """A plan with the grid that was asked for."""
        return self.pipe.plan(*sampler, steps=steps, sampling=self.call.get("sampling"))

    def told(self, **more: Any) -> dict[str, Any]:
        """The call without its sampling, which is a plan."""
        return {**{name: value for name, value in self.call.items() if name != "sampling"}, **more}

    def draw(self, plan: fs.Plan) -> fs.pipeline.Images:
        """The images of a plan."""
        return self.pipe(self.subjects, sampler=plan, **self.told())


def _refuse(ctx: click.Context, over_scales: bool) -> None:
    """Raise for what has no meaning in this kind of comparison."""
    given = ctx.params
    if given["guidance"] is not None and given["guidance_schedule"] is not None:
        raise click.UsageError("--guidance is one scale for all rows, --guidance-schedule is in its place: give one")
    if not over_scales:
        for name in ("held_out", "clip", "data"):
            if given[name] is not None:
                word = name.replace("_", "-")
                raise click.UsageError(f"--{word} is for several guidance scales, such as --guidance 1,3,5")
        for name in given["samplers"]:
            if name not in fs.SAMPLERS:
                raise unknown_name("sampler", name, fs.SAMPLERS)
        return
    if _said(ctx, "reference_steps"):
        raise click.UsageError("--reference-steps is for comparing samplers: guidance scales have no reference")
    for name in ("samplers", "steps"):
        if _said(ctx, name) and len(given[name]) > 1:
            raise click.UsageError(f"--{name} takes one value where several guidance scales are compared")


def _said(ctx: click.Context, name: str) -> bool:
    return ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE


def _subjects(ctx: click.Context, pipe: fs.Pipeline) -> tuple[list[Any], list[fs.scenes.Prompt] | None]:
    """What is drawn, each as often as asked; and what the prompts name where they are those of scenes."""
    given = ctx.params
    if given["held_out"] is not None:
        return _held_out(ctx, pipe)
    found = source.subjects(pipe, given["prompts"], given["labels"]) or list(pipe.model.conditioner.subjects)
    if len(found) * given["count"] > MOST:
        what = pipe.model.conditioner.field
        raise click.UsageError(
            f"{len(found)} {what} with {given['count']} images each are more than {MOST}: give fewer"
        )
    return [subject for subject in found for _ in range(given["count"])], None


def _held_out(ctx: click.Context, pipe: fs.Pipeline) -> tuple[list[Any], list[fs.scenes.Prompt]]:
    if pipe.model.conditioner.field != "prompts":
        raise click.UsageError(f"--held-out is for models that take prompts, and {pipe.name} draws classes")
    if ctx.params["prompts"] or _said(ctx, "count"):
        raise click.UsageError("--held-out brings its prompts, one image each: leave out PROMPT and --count")
    side, shape = fs.scenes.SIZE, pipe.pixel_shape()
    if shape != (3, side, side):
        raise click.UsageError(
            f"--held-out reads pictures of {side} x {side} in colour, and {pipe.name} makes {shape[2]} x {shape[1]} "
            f"with {shape[0]} channels: give PROMPTs"
        )
    known = fs.scenes.held_out_prompts(ctx.params["held_out"])
    return [prompt.text for prompt in known], known


def _over_samplers(ctx: click.Context, work: _Query) -> Comparison:
    """Distances of samplers in numbers of steps to the converged images."""
    given = ctx.params
    plans = {(name, n): work.plan(name, steps=n) for name in given["samplers"] for n in given["steps"]}
    _check(work, list(plans.values()))
    outcomes: list[Outcome] = []
    with progress("comparing", 2 + len(plans)) as bar, noted():
        reference, change = _reference(work, given["reference_steps"], bar)
        for done, ((name, n), plan) in enumerate(plans.items()):
            bar(2 + done, words=f"{name}, {n} steps")

            def figures(images: fs.pipeline.Images) -> dict[str, float]:
                return {"distance": _distance(images, reference)}

            facts = {"sampler": name, "steps": n, "stochastic": fs.SAMPLERS[name].stochastic}
            outcomes.append(outcome(lambda plan=plan: work.draw(plan), facts, figures))
    guidance, steps = reference.drawing.guidance, given["reference_steps"]
    scale = list(guidance.scale) if isinstance(guidance.scale, tuple) else guidance.scale
    head = {
        "guidance": scale,
        "guidance_method": guidance.method,
        "reference": {
            "sampler": REFERENCE,
            "steps": steps,
            "nfe": reference.nfe,
            "change_from_half_the_steps": change,
            "seconds": round(reference.seconds, 4),
        },
    }
    notes = [
        f"{len(reference)} images. The reference is {REFERENCE} in {steps} steps; from {steps // 2} steps to these it "
        f"still changed by {change:.1e}{delivery.guided(guidance)}"
    ]
    if any(one.facts["stochastic"] for one in outcomes):
        notes.append("* draws noise of its own: not expected to converge to the reference")
    return Comparison(work.pipe, outcomes, head, notes, given["count"], reference)


def _over_scales(ctx: click.Context, work: _Query, scales: Sequence[float]) -> Comparison:
    """Saturation of the same seeds over guidance scales, and their adherence where it can be told."""
    given = ctx.params
    sampler = given["samplers"][:1] if _said(ctx, "samplers") else ()
    plan = work.plan(*sampler, steps=given["steps"][0] if _said(ctx, "steps") else None)
    pipe, (yardstick, why) = work.pipe, _yardstick(ctx, work)

    def figures(images: fs.pipeline.Images) -> dict[str, Any]:
        share, chroma = fs.saturation(images.tensor, *images.value_range)
        found: dict[str, Any] = {"saturated": float(share.mean()), "chroma": float(chroma.mean())}
        if yardstick is not None:
            values = yardstick.read(fs.benchmark.signed(images.tensor, images.value_range), work.subjects)
            found["figure"] = yardstick.figure(values, work.subjects)
        return found

    outcomes: list[Outcome] = []
    with progress("comparing", len(scales)) as bar, noted():
        for done, scale in enumerate(scales):
            bar(done, words=f"guidance {scale:g}")
            call = work.told(guidance={**work.call.get("guidance", {}), "scale": scale})
            draw = lambda call=call: pipe(work.subjects, sampler=plan, **call)  # noqa: E731
            outcomes.append(outcome(draw, {"guidance": scale}, figures))
    name, steps = plan.recipe.sampler, plan.steps
    method = outcomes[0].images.drawing.guidance.method
    head = {"sampler": name, "steps": steps, "plan": plan.digest, "guidance_method": method}
    notes = [
        f"{len(work.subjects)} images a scale, {name} in {steps} steps. Saturated: pixels at or beyond the range in "
        "some channel; chroma: largest channel less the smallest, in shares of the range"
    ]
    verdict = None
    if yardstick is not None:
        rungs = [_rung(one, plan) for one in outcomes]
        if any(rung.figure is not None for rung in rungs):
            verdict = fs.benchmark.Verdict.of(yardstick.name, rungs, pipe.model.recommended["guidance"]["scale"])
            notes += verdict.words
    else:
        notes.append(f"No scale is said to be better: {why}")
    return Comparison(pipe, outcomes, head, notes, verdict=verdict)


def _yardstick(ctx: click.Context, work: _Query) -> tuple[fs.benchmark.Yardstick | None, str]:
    """What tells the better scale; or why nothing does, where nothing was given to tell it."""
    given, pipe = ctx.params, work.pipe
    asked = given["clip"] is not None or given["data"] is not None
    try:
        found = fs.benchmark.yardstick_of(pipe, work.known, given["clip"], given["data"])
    except InvalidInput as error:
        if asked:
            raise
        return None, str(error).removesuffix(", or a scale")
    count = len(work.subjects)
    classes = pipe.model.conditioner.subjects
    if not asked and classes and {work.subjects.count(label) for label in classes} != {given["count"]}:
        return None, f"the {found.name} is to pictures of all classes: leave out --labels"
    if count >= found.least:
        return found, ""
    each = -(-found.least * given["count"] // count)
    more = f"--held-out {found.least}" if work.known is not None else f"--count {each}"
    why = f"{count} images are too few for the {found.name}, which needs {found.least}: give {more}"
    if asked:
        raise click.UsageError(why)
    return None, why


def _rung(one: Outcome, plan: fs.Plan) -> fs.benchmark.Rung:
    """A scale as it is judged."""
    found, images = one.figures or {}, one.images
    lost = 0 if one.figures is not None else int((~images.tensor.isfinite().flatten(1).all(dim=1)).sum())
    figure, saturated = found.get("figure"), found.get("saturated")
    return fs.benchmark.Rung(one.facts["guidance"], len(plan.rows), images.nfe, len(images), lost, figure, saturated)


def _check(work: _Query, plans: Sequence[fs.Plan]) -> None:
    """Refuse what cannot be guided so before the first network evaluation."""

    def check(plan: fs.Plan) -> None:
        work.pipe.denoiser(work.subjects, plan=plan, **work.told()).check(plan)

    for plan in plans:
        check(plan)
    try:
        check(work.pipe.plan(REFERENCE, steps=100))
    except InvalidInput as error:
        by_row = getattr(work.call.get("guidance", {}).get("scale"), "values", None) is not None
        instead = "give --guidance-schedule linear:NOISY,CLEAN" if by_row else "compare guidance scales"
        raise click.UsageError(f"the converged reference cannot be drawn in this way ({error}); {instead}") from None


def _reference(work: _Query, steps: int, bar: Any) -> tuple[fs.pipeline.Images, float]:
    """The converged images, and how far they moved since half the steps."""
    bar(0, words=f"reference, {steps // 2} steps")
    half = work.draw(work.pipe.plan(REFERENCE, steps=steps // 2))
    bar(1, words=f"reference, {steps} steps")
    full = work.draw(work.pipe.plan(REFERENCE, steps=steps))
    return full, _distance(half, full)


def _distance(a: fs.pipeline.Images, b: fs.pipeline.Images) -> float:
    return float((a.tensor - b.tensor).double().square().mean().sqrt())
