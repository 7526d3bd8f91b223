"""`fewstep tune`: a plan that is fitted to a model, and a certificate of what it gains."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import click

import fewstep as fs
from fewstep.cli import measuring, memory, place
from fewstep.cli import tuned_students as students
from fewstep.cli.headings import GUIDANCE, LAST, SAMPLER, SEARCH, Command, option
from fewstep.cli.output import JSON, note, progress, show_table, waiting
from fewstep.cli.tuned import certificate_of, deliver, watching
from fewstep.cli.values import Several


@click.command(cls=Command, most_used=("rows", "nfe", "ms", "seconds", "guidance", "prompts", "output"))
@place.MODEL
@option("--rows", type=click.IntRange(2, 32), heading=SEARCH, help="Rows of the plan, 2 to 32.")
@option(
    "--nfe",
    type=click.IntRange(2, 64),
    heading=SEARCH,
    help="In place of --rows: network evaluations of an image, 2 to 64, of which a guided row takes two.",
)
@option(
    "--ms",
    type=measuring.POSITIVE,
    heading=SEARCH,
    help="In place of --rows: milliseconds an image may take here. What fits is measured.",
)
@measuring.seconds("the tuning may take", default=120.0, kind=click.FloatRange(1))
@measuring.guidance("tune for")
@measuring.PROMPTS
@option(
    "--samplers",
    type=Several(str, "a name", most=100),
    usual="all that draw no noise",
    heading=SAMPLER,
    help="Samplers to search among: names from `fewstep samplers`.",
)
@option(
    "--constant-guidance",
    is_flag=True,
    heading=GUIDANCE,
    help="The same guidance in all rows, as diffusers pipelines need it.",
)
@option(
    "--interval",
    is_flag=True,
    heading=GUIDANCE,
    help="Guide only some rows, so that --nfe buys more of them; a row without guidance costs half.",
)
@option(
    "--objective",
    type=click.Choice(("psnr", "rmse", "distance")),
    usual="psnr, or distance where an error says nothing of a student",
    heading=SEARCH,
    help="What to make small: the error of the typical image (which goes with the mean PSNR) or over all images; or of "
    "a student the distance of all pictures together.",
)
@option(
    "--iterations",
    type=click.IntRange(0, 1_000_000),
    default=1500,
    heading=SEARCH,
    help="Most iterations of learning, or of a student plans of the second search; 0 only searches, or once.",
)
@students.OPTIONS
@measuring.images(
    8, 65536, "what --seconds allow", "Images to learn from; half as many validate, as many are held out."
)
@measuring.SEED
@memory.batch("64")
@place.OPTIONS
@option(
    "--output",
    type=click.Path(dir_okay=False),
    usual="out/MODEL-N-rows.json",
    heading=LAST,
    help="The plan to write, a .json file.",
)
@JSON
@click.pass_context
def tune(ctx: click.Context, **given: Any) -> None:
    """Find a better plan of few rows for MODEL, the digits by default: search, then learn times and weights by
    gradient.

    It writes the plan as a file for `generate --plan` and `PlanScheduler.from_plan`, with a certificate beside it, as
    JSON and as a page: what it compared on noise that the tuning never saw, the gain with its interval, and what it
    took. Where nothing beats the model's default beyond noise, you get the default. Ctrl-C keeps the best plan so far
    and measures it; once more keeps it without a certificate.

    A student of `fewstep distill` is tuned too, in 2 to 8 rows, its own if you do not say: the times and weights of its
    plan and the noise that is drawn between its rows, without gradients. Its teacher draws what it is judged by. You
    get its own plan where no other is surely better.

    \b
        fewstep tune --rows 6
        fewstep generate --plan out/digits-6-rows.json
        fewstep tune --nfe 12 --interval
        fewstep tune scenes --ms 300 --guidance 3
        fewstep tune runs/digits-lcm/student.safetensors --rows 4
    """
    _check(given)
    pipe = place.load(given["model"], given)
    settings = _settings(given)
    if pipe.model.teacher is not None:
        students.tune(ctx, pipe, given, settings)
        return
    _check_ordinary(given)
    with progress("reading what is drawn", 1):
        problem = fs.tuning.problem_at(pipe, given["guidance"], settings)
    budget = _budget(problem, given)
    target = Path(given["output"] or f"out/{pipe.name}-{_words(budget, given)}.json")
    target.parent.mkdir(parents=True, exist_ok=True)
    for file in (target, *certificate_of(target)):
        fs.files.check_writable(file)
    note(
        f"Tuning {pipe.name} for {budget.rows} rows, {budget.nfe:g} evaluations an image: about {settings.seconds:g} "
        "s. At most half of that goes into converged solutions and into comparing every sampler on every grid, the "
        "rest into learning. Ctrl-C keeps the best so far"
    )
    cost: dict[str, Any] = {"nfe": budget.nfe} if settings.interval else {"rows": budget.rows}
    with progress("tuning", 1) as bar:
        try:
            plan, certificate = fs.tuning.tune(
                problem, **cost, settings=replace(settings, prompts=None), watch=watching(bar)
            )
        except fs.tuning.Uncertified as stopped:
            plan, certificate = stopped.plan, None
    plan.save(target)
    deliver(ctx, certificate, target, given["as_json"], show)


def _check(given: dict[str, Any]) -> None:
    """Refuse what does not go together."""
    if len(_budgets(given)) > 1:
        raise _one_budget(given)
    if given["interval"] and given["constant_guidance"]:
        raise click.UsageError("--interval guides some rows alone, --constant-guidance all alike: give one of them")
    if given["interval"] and given["rows"] is not None:
        raise click.UsageError("--interval finds how many rows are best for an image's evaluations: give --nfe N")
    if given["output"] is not None and not given["output"].endswith(".json"):
        raise click.UsageError(f"--output {given['output']} must end in .json: a plan is a JSON file")


def _budgets(given: dict[str, Any]) -> list[str]:
    """What is given of an image's cost."""
    return [f"--{name}" for name in ("rows", "nfe", "ms") if given[name] is not None]


def _one_budget(given: dict[str, Any]) -> click.UsageError:
    """That one of them is needed."""
    return click.UsageError(
        "give one of --rows N, the rows of the plan, --nfe N, the network evaluations of an image, and --ms M, its "
        f"time; got {' and '.join(_budgets(given)) or 'none'}"
    )


def _check_ordinary(given: dict[str, Any]) -> None:
    """Refuse what is for students alone."""
    if not _budgets(given):
        raise _one_budget(given)
    for name in students.OWN:
        if given[name] is not None:
            raise click.UsageError(
                f"--{name.replace('_', '-')} is for students of `fewstep distill`, and {given['model']} is none: leave "
                "it out"
            )
    if given["objective"] == "distance":
        raise click.UsageError(
            f"--objective distance is for students, and {given['model']} is none: give psnr, or rmse"
        )


def _settings(given: dict[str, Any]) -> fs.tuning.TuningSettings:
    names = ("seconds", "iterations", "samplers", "interval", "objective", "prompts", "batch", "seed")
    return fs.tuning.TuningSettings(
        **{name: given[name] for name in names},
        sizes=None if given["images"] is None else fs.tuning.Sizes.of(given["images"]),
        factors=not given["constant_guidance"],
    )


def _budget(problem: fs.tuning.Problem, given: dict[str, Any]) -> fs.tuning.RowBudget:
    """What a plan may cost; says how it was measured."""
    ms = given["ms"]
    if ms is not None:
        with waiting(f"Measuring what fits in {ms:g} ms an image, in batches of {problem.batch}"):
            budget = fs.tuning.budget_of(problem, given["rows"], given["nfe"], ms)
        note(f"{budget.rows} rows take {budget.ms:.3g} ms an image")
        return budget
    return fs.tuning.budget_of(problem, given["rows"], given["nfe"], ms)


def _words(budget: fs.tuning.RowBudget, given: dict[str, Any]) -> str:
    """What the plan's file is named by."""
    return f"{budget.rows}-rows" if given["nfe"] is None else f"{given['nfe']}-nfe"


def show(certificate: fs.tuning.Certificate) -> None:
    """Print the comparison and the verdict."""
    objective = certificate.objective
    head = "error" if objective == "rmse" else "typical error"
    show_table(
        ["plan", "kind", "rows", "NFE", "images", head, "95% interval"],
        [
            [
                f"{row.sampler} on {row.grid}",
                row.kind,
                str(row.rows),
                f"{row.nfe:g}",
                str(row.images),
                f"{row.error(objective).value:.4g}",
                f"{row.error(objective).low:.4g} to {row.error(objective).high:.4g}",
            ]
            for row in certificate.compared
        ],
        right=("rows", "NFE", "images", head, "95% interval"),
    )
    click.echo()
    click.echo(certificate.verdict)
    for name, found in certificate.elsewhere.items():
        click.echo(f"At {name}: {found} times less error than {certificate.rival}")
    seconds = certificate.seconds
    twice = seconds["twice"]
    reached = "never reached" if twice is None else f"reached after {twice:.1f} s"
    note(f"{seconds['total']:.1f} s in all; half the error of the best untuned sampler {reached}")
    if certificate.search.get("cut"):
        note(fs.tuning.CUT)
    if certificate.stopped:
        note(f"stopped early: {certificate.stopped}")
