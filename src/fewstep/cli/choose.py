"""`fewstep choose`: which sampler, how many steps, for what may be spent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

import fewstep as fs
from fewstep.cli import measuring, place, sampling
from fewstep.cli.bench import announce, watcher
from fewstep.cli.headings import GUIDANCE, MEASURING, Command, option
from fewstep.cli.output import JSON, note, progress, show_json, show_table
from fewstep.cli.values import ScaleOrSearch


@click.command(
    cls=Command,
    most_used=("budget_rows", "budget_nfe", "budget_ms", "quality", "guidance", "prompts", "results", "seconds"),
)
@place.MODEL
@option("--budget-rows", type=click.IntRange(1, 10_000), heading=MEASURING, help="Most rows of the plan.")
@option(
    "--budget-nfe",
    type=click.IntRange(1, 20_000),
    heading=MEASURING,
    help="Most network evaluations of an image, of which a guided row takes two.",
)
@option(
    "--budget-ms",
    type=measuring.POSITIVE,
    heading=MEASURING,
    help="Most milliseconds an image may take here.",
)
@option(
    "--quality",
    type=click.FloatRange(0, 1, min_open=True),
    heading=MEASURING,
    help="Least share of the variance of the converged images, such as 0.95; takes the cheapest.",
)
@option(
    "--guidance",
    type=ScaleOrSearch(),
    usual="the model's own",
    metavar="X",
    heading=GUIDANCE,
    help="Guidance scale to draw with; auto, or several such as 1,3,5, chooses it by measurement. " + measuring.TOLD,
)
@option(
    "--negative",
    multiple=True,
    usual="some usual ones",
    metavar="TEXT",
    heading=GUIDANCE,
    help="For a scale that is chosen: a negative prompt to try. May be repeated.",
)
@measuring.CLIP
@measuring.DATA
@measuring.PROMPTS
@sampling.FORCE
@option(
    "--results",
    type=click.Path(),
    multiple=True,
    usual="what is in out/",
    heading=MEASURING,
    help="A folder of `fewstep bench`, or a tuned plan. May be repeated.",
)
@measuring.seconds("to measure what is missing", "--measure-seconds", default=60.0)
@option(
    "--no-measure", is_flag=True, heading=MEASURING, help="Measure nothing; without any measurement you get advice."
)
@option("--measure", default="quality", metavar="NAME", heading=MEASURING, help="The figure that decides.")
@measuring.images(2, 100_000, "as in the results, else 64, or 16 from prompts", "Least images of each plan.")
@place.IN_FLOAT32
@JSON
def choose(model: str, as_json: bool, **given: Any) -> None:
    """Choose a sampler and steps for MODEL, the digits by default, by measurements: the best within a budget, or the
    cheapest that reaches a quality.

    It reads the results of `fewstep bench` and the plans of `fewstep tune` for this model, and quickly measures what
    they lack. Without any measurement it gives the field's advice, and says so.

    \b
        fewstep choose --budget-rows 8
        fewstep choose scenes --budget-ms 400 --measure adherence
        fewstep choose scenes --budget-nfe 16 --guidance auto
        fewstep choose digits --quality 0.95 --results out/bench-digits --results out/digits-6-rows.json
    """
    limits = [given["budget_rows"], given["budget_nfe"], given["budget_ms"], given["quality"]]
    if limits == [None] * 4:
        raise click.UsageError(
            "give --budget-rows N, --budget-nfe N, --budget-ms MS or --quality Q, or several of them"
        )
    seconds = None if given["no_measure"] else given["seconds"]
    rest = {name: given[name] for name in ("results", "prompts", "images", "force")}

    def begin(why: str, folder: Path) -> None:
        note(f"{why[0].upper()}{why[1:]}: measuring into {folder}, for about {seconds:g} s in all")

    with progress("measuring", 1) as bar:
        answer = fs.benchmark.choose(
            model,
            fs.benchmark.Budget(*limits),
            measure=given["measure"],
            guidance=_scale(given),
            evidence=fs.benchmark.Evidence(seconds=seconds, **rest),
            loading=place.loading(given),
            reporter=fs.benchmark.Reporter(begin, announce, watcher(bar, solving)),
        )
    if as_json:
        show_json(answer.to_json())
    else:
        show(answer)


def _scale(given: dict[str, Any]) -> float | fs.benchmark.ScaleSearch | None:
    """The scale, or how to look for it."""
    scale, how = given["guidance"], {name: given[name] for name in ("negative", "clip", "data")}
    if scale == "auto" or isinstance(scale, tuple):
        return fs.benchmark.ScaleSearch(scale if isinstance(scale, tuple) else (), **how)
    for name, value in how.items():
        if value:
            raise click.UsageError(f"--{name} is for a scale that is chosen: give --guidance auto with it")
    return scale


def solving(now: fs.benchmark.Stage) -> str:
    """A word for the stage that takes long; "" for others."""
    return "Measuring" if now.words.startswith(("converged", "guidance")) else ""


def show(answer: fs.benchmark.Answer) -> None:
    """Print the answer for people."""
    chosen = answer.chosen
    if answer.guidance is not None:
        _show_scales(answer.guidance)
    if answer.advice is not None:
        _show_advice(answer.advice, chosen)
    if answer.choice is not None:
        click.echo(f"For {answer.budget}: {chosen.name}, {count(chosen)}")
        _show_table(answer.choice, answer.measure)
        _say_differences(answer.choice, answer.measure)
    click.echo()
    for what, line in answer.lines._asdict().items():
        if line is not None:
            click.echo(f"{'in ' if what == 'diffusers' else ''}{what}: {line}")
    for words in answer.notes:
        note(words)


def _show_scales(found: fs.benchmark.ScaleChoice) -> None:
    """The guidance scales that were tried, and what is made of them."""
    verdict = found.verdict
    if verdict is not None:
        own = "" if verdict.own is None else f", the model's own is {verdict.own:g}"
        click.echo(f"Guidance scales by {verdict.name}, drawn by {found.sampler} (* is taken{own})")
        columns = ["guidance", "rows", "NFE", "images", verdict.name, "behind the best by", "saturated"]
        show_table(columns, [_rung(verdict, rung) for rung in verdict.rungs], right=columns)
    if found.negatives is not None and found.negatives.tried:
        name = found.negatives.name
        columns = ["negative prompt", "images", name, "gain"]
        click.echo()
        cells = [[one.text, f"{one.images}", *_gain(name, one)] for one in found.negatives.tried]
        show_table(columns, cells, right=columns[1:])
    click.echo()
    for words in found.words:
        click.echo(words)
    click.echo()


def _gain(name: str, one: fs.benchmark.Negative) -> list[str]:
    """What a negative prompt does, as cells of the table."""
    if one.figure is None:
        return ["not finite", ""]
    return [fs.benchmark.told(name, one.figure), fs.benchmark.told(name, one.gain)]


def _rung(verdict: fs.benchmark.Verdict, rung: fs.benchmark.Rung) -> list[str]:
    """A scale as cells of the table."""
    taken = " *" if rung.scale == verdict.scale else ""
    saturated = "" if rung.saturated is None else f"{rung.saturated:.1%}"
    figure = "not finite" if rung.lost else fs.benchmark.told(verdict.name, rung.figure)
    behind = "" if rung.scale == verdict.best else fs.benchmark.told(verdict.name, rung.behind)
    return [f"{rung.scale:g}{taken}", f"{rung.rows}", f"{rung.nfe:g}", f"{rung.images}", figure, behind, saturated]


def count(one: fs.benchmark.Measured) -> str:
    """Steps, rows and evaluations, in words."""
    steps, rows = one.plan.steps, one.plan.rows
    return f"{steps} step{'s' * (steps != 1)}, {rows} row{'s' * (rows != 1)}, NFE {one.nfe:g}"


def _show_advice(advice: fs.benchmark.Advice, one: fs.benchmark.Measured) -> None:
    click.echo("Nothing is measured of this model: this is the field's advice, not a measurement")
    end = "or more" if advice.most is None else f"to {advice.most}"
    span = f"{advice.least} row" if advice.most == 1 else f"{advice.least} {end} rows"
    if advice.distilled:
        click.echo(f"For {span}: {advice.distilled}")
        click.echo(
            f"Of a model that is not distilled expect {advice.expect}. The best bet then: {one.name}, {count(one)}"
        )
    else:
        click.echo(f"For {span}: {' or '.join(advice.others)}. Expect {advice.expect}")
        click.echo(f"Such as {one.name}, {count(one)}")


def _show_table(choice: fs.benchmark.Choice, measure: str) -> None:
    """The choice and its neighbours."""
    titles = {"chosen": choice.chosen, "next better": choice.better, "next cheaper": choice.cheaper}
    shown = {title: one for title, one in titles.items() if one is not None}
    names = [name for name in dict.fromkeys([measure, "quality", "error"]) if _any_has(shown.values(), name)]
    timed = any(one.timed for one in shown.values())
    columns = ["", "plan", "steps", "rows", "NFE", *names, *(["ms an image"] if timed else [])]
    lines = []
    for title, one in shown.items():
        line = [title, one.name, f"{one.plan.steps}", f"{one.plan.rows}", f"{one.nfe:g}"]
        line += [interval(one, name) for name in names]
        if timed:
            line.append(f"{1e3 * one.seconds.value:.3g}" if one.timed else "")
        lines.append(line)
    show_table(columns, lines, right=[name for name in columns if name not in ("", "plan")])


def _any_has(measured: Any, name: str) -> bool:
    return any(name in one.figures for one in measured)


def interval(one: fs.benchmark.Measured, name: str) -> str:
    """A figure with its ends; "" where it has none."""
    figure = one.figures.get(name)
    return "" if figure is None else f"{figure.value:.3g} ({figure.low:.3g} to {figure.high:.3g})"


def _say_differences(choice: fs.benchmark.Choice, measure: str) -> None:
    """Whether the neighbours are surely others, and what is missing."""
    for what, one in (("better", choice.better), ("cheaper", choice.cheaper)):
        if one is None:
            continue
        name = fs.benchmark.deciding(measure, choice.chosen, one)
        assert name is not None
        own, other = choice.chosen.figures[name], one.figures[name]
        if other.low <= own.high and own.low <= other.high:
            click.echo(f"The next {what} one may be as good: the intervals of {name} overlap")
    if choice.tied is not None:
        click.echo(
            f"{choice.tied.name} with {choice.tied.plan.rows} rows has a little less error, by less than 1%: the "
            "cheaper one is chosen"
        )
    if choice.better is None:
        click.echo("Nothing that was measured is better")
    if choice.cheaper is None:
        click.echo("Nothing that was measured is cheaper")
