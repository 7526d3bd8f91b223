"""`fewstep choose`: which sampler, how many steps, for what may be spent."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from fewstep.cli import place
from fewstep.cli.output import note, progress, show_json, show_table

if TYPE_CHECKING:
    from fewstep.benchmark.choice import Answer, Candidate, Need


@click.command()
@click.argument("model", default="digits")
@click.option("--budget-nfe", type=click.IntRange(1, 10_000), metavar="N", help="At most so many rows of the plan.")
@click.option(
    "--budget-ms", type=click.FloatRange(0, min_open=True), metavar="MS", help="At most so long an image, here."
)
@click.option(
    "--quality",
    type=click.FloatRange(0, 1, min_open=True),
    metavar="Q",
    help="The cheapest with this share of the variance of the converged images, such as 0.95.",
)
@click.option("--measure", default="quality", show_default=True, metavar="NAME", help="The figure that decides.")
@click.option("--guidance", type=float, metavar="S", help="The scale you draw with.  [default: the model's own]")
@click.option("--prompts", type=click.Path(), help="A prompt a line: what the measurements have to be of.")
@click.option(
    "--results",
    "paths",
    type=click.Path(),
    multiple=True,
    help="A folder of `fewstep bench`, or a tuned plan. May be repeated.  [default: what is in out/]",
)
@click.option(
    "--measure-seconds",
    type=click.FloatRange(0, min_open=True),
    default=60.0,
    show_default=True,
    metavar="S",
    help="About how long what is missing may be measured.",
)
@click.option(
    "--images",
    type=click.IntRange(2, 100_000),
    metavar="N",
    help="Of each row at least.  [default: as those that are there, else 64, or 16 from prompts]",
)
@click.option("--no-measure", is_flag=True, help="Measure nothing; without any measurement you get advice.")
@click.option("--force", is_flag=True, help="Take plans that were tuned for another model.")
@place.IN_FLOAT32
@click.option("--json", "as_json", is_flag=True, help="Print the answer as JSON.")
def choose(model: str, as_json: bool, **given: Any) -> None:
    """Choose a sampler and steps for MODEL by what was measured of it: within a budget the best, or the cheapest of a
    quality.

    It reads the rows of `fewstep bench` and the plans of `fewstep tune` that are of this model, and measures quickly
    what they lack. Without any measurement it gives the field's advice, and says so.

    \b
        fewstep choose --budget-nfe 8
        fewstep choose scenes --budget-ms 400 --measure adherence
        fewstep choose digits --quality 0.95 --results out/bench-digits --results out/digits-6-rows.json
    """
    from fewstep.benchmark import Progress
    from fewstep.benchmark.choice import Budget
    from fewstep.benchmark.choice import choose as run
    from fewstep.cli.bench import announce
    from fewstep.pipeline import load

    limits = [given.pop("budget_nfe"), given.pop("budget_ms"), given.pop("quality")]
    if limits == [None, None, None]:
        raise click.UsageError("give --budget-nfe N, --budget-ms MS or --quality Q, or several of them")
    seconds, quick = given.pop("measure_seconds"), not given.pop("no_measure")
    pipe = load(model, **place.arguments(given))
    del given["device"]
    with progress("measuring", 1) as bar:
        told = ""

        def begin(need: Need, folder: Any) -> None:
            note(f"{need.why[0].upper()}{need.why[1:]}: measuring into {folder}, for about {seconds:g} s in all")

        def watch(now: Progress) -> None:
            nonlocal told
            bar(now.done, of=now.of, words=now.words)
            stage = now.words.partition(",")[0]
            if stage.startswith("converged") and stage != told and not sys.stderr.isatty():
                note(f"{stage} ..")
            told = stage

        answer = run(
            pipe,
            model,
            Budget(*limits),
            seconds=seconds if quick else None,
            begin=begin,
            announce=announce,
            watch=watch,
            **given,
        )
    if as_json:
        show_json(answer.to_json())
    else:
        show(answer)


def show(answer: Answer) -> None:
    """Print the answer for people."""
    chosen = answer.chosen
    if answer.advice is not None:
        _show_advice(answer)
    else:
        click.echo(f"For {answer.budget}: {chosen.name}, {count(chosen)}")
        _show_table(answer)
        _say_differences(answer)
    click.echo()
    for what, line in answer.lines._asdict().items():
        if line is not None:
            click.echo(f"{'in ' if what == 'diffusers' else ''}{what}: {line}")
    for words in answer.notes:
        note(words)


def count(one: Candidate) -> str:
    """Steps, rows and evaluations, in words."""
    words = f"{one.steps} {'step' if one.steps == 1 else 'steps'}, NFE {one.nfe}"
    return words if one.evaluations == one.nfe else f"{words}, {one.evaluations:g} evaluations an image with guidance"


def _show_advice(answer: Answer) -> None:
    advice, one = answer.advice, answer.chosen
    assert advice is not None
    click.echo("Nothing is measured of this model: this is the field's advice, not a measurement")
    end = "or more" if advice.most is None else f"to {advice.most}"
    span = str(advice.least) if advice.most == advice.least else f"{advice.least} {end}"
    if advice.distilled:
        click.echo(f"For {span} evaluations: {advice.distilled}")
        click.echo(
            f"Of a model that is not distilled expect {advice.expect}. The best bet then: {one.name}, {count(one)}"
        )
    else:
        click.echo(f"For {span} evaluations: {' or '.join(advice.others)}. Expect {advice.expect}")
        click.echo(f"Such as {one.name}, {count(one)}")


def _show_table(answer: Answer) -> None:
    """The choice and its neighbours."""
    choice = answer.choice
    assert choice is not None
    named = [("chosen", choice.chosen), ("next better", choice.better), ("next cheaper", choice.cheaper)]
    names = list(dict.fromkeys([answer.measure, "quality", "error"]))
    names = [name for name in names if any(one is not None and name in one.figures for _, one in named)]
    timed = any(one is not None and one.seconds is not None for _, one in named)
    columns = ["", "plan", "steps", "NFE", "evaluations", *names, *(["ms an image"] if timed else [])]
    rows = []
    for what, one in named:
        if one is None:
            continue
        ms = "" if one.seconds is None else f"{1e3 * one.seconds.value:.3g}"
        figures = [f"{one.figures[name]:}" if name in one.figures else "" for name in names]
        rows.append(
            [what, one.name, str(one.steps), str(one.nfe), f"{one.evaluations:g}", *figures, *([ms] if timed else [])]
        )
    show_table(columns, rows, right=[name for name in columns if name not in ("", "plan")])


def _say_differences(answer: Answer) -> None:
    """Whether the neighbours are surely others, and what is missing."""
    from fewstep.benchmark.choice.planner import deciding

    choice = answer.choice
    assert choice is not None
    for what, one in (("better", choice.better), ("cheaper", choice.cheaper)):
        if one is None:
            continue
        name = deciding(answer.measure, choice.chosen, one)
        assert name is not None
        own, other = choice.chosen.figures[name], one.figures[name]
        if other.low <= own.high and own.low <= other.high:
            click.echo(f"The next {what} one may be as good: the intervals of {name} meet")
    if choice.tied is not None:
        click.echo(
            f"{choice.tied.name} with NFE {choice.tied.nfe} has a little less error, by less than 1%: the cheaper one "
            "is chosen"
        )
    if choice.better is None:
        click.echo("Nothing that was measured is better")
    if choice.cheaper is None:
        click.echo("Nothing that was measured is cheaper")
