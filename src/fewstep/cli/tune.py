"""`fewstep tune`: a plan that is fitted to a model, and a certificate of what it gains."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fewstep.cli import place
from fewstep.cli.output import note, progress, show_json, show_table
from fewstep.cli.values import Several

if TYPE_CHECKING:
    from fewstep.pipeline import Pipeline, TextPipeline
    from fewstep.tuning import Certificate, Problem


@click.command()
@click.argument("model", default="digits")
@click.option("--nfe", type=click.IntRange(2, 32), metavar="N", help="Network evaluations of the plan, 2 to 32.")
@click.option(
    "--ms",
    type=click.FloatRange(0, min_open=True),
    metavar="M",
    help="Milliseconds an image may take here, in place of --nfe: what fits is measured.",
)
@click.option(
    "--seconds", type=click.FloatRange(1), default=120.0, show_default=True, metavar="S", help="How long it may take."
)
@click.option("--guidance", type=float, metavar="S", help="Guidance scale to tune for.  [default: the model's own]")
@click.option(
    "--constant-guidance", is_flag=True, help="The same guidance in all rows, as diffusers pipelines need it."
)
@click.option(
    "--interval",
    is_flag=True,
    help="Guide only some rows, so that there are more at the cost of N guided ones; one that is not costs half.",
)
@click.option(
    "--objective",
    type=click.Choice(("rmse", "psnr")),
    default="rmse",
    show_default=True,
    help="What becomes small: the error over all images, or the typical image's, which goes with their mean PSNR.",
)
@click.option("--prompts", "prompt_file", type=click.Path(), help="A prompt a line, for a model that takes prompts.")
@click.option(
    "--samplers",
    type=Several(str, "a name", most=100),
    metavar="NAME,..",
    help="To search among.  [default: all that draw no noise]",
)
@click.option(
    "--iterations",
    type=click.IntRange(0, 1_000_000),
    default=1500,
    show_default=True,
    metavar="N",
    help="Of learning, at most; 0 searches alone.",
)
@click.option(
    "--images",
    type=click.IntRange(8, 65536),
    metavar="N",
    help="Training images; half as many validate, as many are held out.  [default: what --seconds allow]",
)
@click.option(
    "--batch", type=click.IntRange(1, 1024), default=64, show_default=True, metavar="N", help="Images seen at once."
)
@click.option(
    "--seed", type=click.IntRange(0, 2**20 - 1), default=0, show_default=True, metavar="N", help="Of the noise."
)
@place.OPTIONS
@click.option("--output", type=click.Path(dir_okay=False), help="The plan to write.  [default: out/MODEL-N-nfe.json]")
@click.option("--json", "as_json", is_flag=True, help="Print the certificate as JSON.")
@click.pass_context
def tune(
    ctx: click.Context,
    model: str,
    nfe: int | None,
    ms: float | None,
    seconds: float,
    guidance: float | None,
    constant_guidance: bool,
    interval: bool,
    objective: str,
    prompt_file: str | None,
    samplers: tuple[str, ...] | None,
    iterations: int,
    images: int | None,
    batch: int,
    seed: int,
    output: str | None,
    as_json: bool,
    **where: Any,
) -> None:
    """Find a better plan of N network evaluations for MODEL: search, then learn times and weights by gradient.

    The plan is written as a file for `generate --plan` and `PlanScheduler.from_plan`, with a certificate beside it,
    as JSON and as a page: what was compared on noise that the tuning never saw, the gain with its interval, and what it
    took. Where nothing beats the model's default beyond noise, that is what you get. Ctrl-C keeps the best so far;
    once more, while that is measured, keeps it without a certificate.

    \b
        fewstep tune --nfe 6
        fewstep generate --plan out/digits-6-nfe.json
        fewstep tune scenes --ms 300 --guidance 3
    """
    from fewstep.benchmark.problems import problem_of
    from fewstep.files import check_writable
    from fewstep.pipeline import load
    from fewstep.tuning import Sizes, Uncertified
    from fewstep.tuning import tune as run

    if (nfe is None) == (ms is None):
        raise click.UsageError("give --nfe N, the network evaluations of the plan, or --ms M, the time of an image")
    if interval and constant_guidance:
        raise click.UsageError("--interval guides some rows alone, --constant-guidance all alike: give one of them")
    if output is not None and not output.endswith(".json"):
        raise click.UsageError(f"--output {output} must end in .json: a plan is a JSON file")
    pipe = load(model, **place.arguments(where))
    problem = problem_of(pipe, guidance, prompt_file, batch, seed)
    problem = replace(problem, objective=objective)
    if nfe is None:
        assert ms is not None
        nfe = _fitting(pipe, problem, ms)
    target = Path(output or f"out/{pipe.name}-{nfe}-nfe.json")
    os.makedirs(target.parent, exist_ok=True)
    for file in (target, *certificate_of(target)):
        check_writable(file)
    default = pipe.plan(steps=nfe)
    note(
        f"Tuning {pipe.name} for {nfe} evaluations: about {seconds:g} s. At most half of them find converged solutions "
        "and compare every sampler on every grid; the rest learns. Ctrl-C keeps the best so far"
    )
    with progress("teacher", 1) as bar:
        last = ""

        def watch(stage: str, done: int, of: int, words: str) -> None:
            nonlocal last
            bar(done, of=of, words=f"{stage}: {words}" if words else stage)
            if stage != last:
                last = stage
                quiet(stage)

        sizes = None if images is None else Sizes.of(images)
        try:
            found = run(
                problem,
                nfe,
                default=default,
                seconds=seconds,
                iterations=iterations,
                samplers=samplers,
                sizes=sizes,
                factors=not constant_guidance,
                interval=interval,
                watch=watch,
            )
        except Uncertified as stopped:
            found = stopped
    found.plan.save(target)
    if isinstance(found, Uncertified):
        for file in certificate_of(target):  # of an earlier plan
            file.unlink(missing_ok=True)
        show_json({"path": str(target), "certificate": []}) if as_json else click.echo(target)
        note("interrupted: the best plan so far is kept, without a certificate")
        ctx.exit(130)
    tell(found.certificate, target, as_json)


def certificate_of(plan: Path) -> tuple[Path, Path]:
    """Where the certificate of a plan lies, as JSON and as a page."""
    file = plan.with_name(f"{plan.stem}.certificate.json")
    return file, file.with_suffix(".html")


def tell(certificate: Certificate, target: Path, as_json: bool) -> None:
    """Write the certificate beside its plan, and print it."""
    paths = certificate.save(certificate_of(target)[0])
    if as_json:
        show_json({"path": str(target), "certificate": [str(p) for p in paths], **certificate.to_json()})
        return
    show(certificate)
    click.echo()
    click.echo(target)
    note(f"certificate: {paths[1]}")


def _fitting(pipe: Pipeline | TextPipeline, problem: Problem, ms: float) -> int:
    """The evaluations that fit in `ms` milliseconds an image, in the problem's batches and with decoding; says them."""
    from fewstep.pipeline import Pipeline
    from fewstep.tuning.budget import fitting_nfe

    given: dict[str, Any] = {"guidance": problem.settings["guidance"], "batch": problem.batch}

    def run(steps: int) -> None:
        if isinstance(pipe, Pipeline):
            labels = [n % pipe.classes if pipe.classes else None for n in range(problem.batch)]
            pipe(labels, steps=steps, **given)
        else:
            pipe("a picture", count=problem.batch, steps=steps, **given)

    note(f"Measuring what fits in {ms:g} ms an image, in batches of {problem.batch} ..")
    found = fitting_nfe(run, problem.batch, ms, device=problem.device)
    note(f"{found.nfe} evaluations take {found.ms:.3g} ms an image")
    return found.nfe


def quiet(stage: str) -> None:
    """Say the stage in a line where there is no bar."""
    import sys

    if not sys.stderr.isatty():
        note(f"{stage} ..")


def show(certificate: Certificate) -> None:
    """Print the comparison and the verdict."""
    objective = certificate.objective
    head = "error" if objective == "rmse" else "typical error"
    show_table(
        ["plan", "kind", "rows", "evaluations", head, "95% interval"],
        [
            [
                f"{row.sampler} on {row.grid}",
                row.kind,
                str(row.nfe),
                str(row.evaluations),
                f"{row.error(objective).value:.4g}",
                f"{row.error(objective).low:.4g} to {row.error(objective).high:.4g}",
            ]
            for row in certificate.compared
        ],
        right=("rows", "evaluations", head, "95% interval"),
    )
    click.echo()
    click.echo(certificate.verdict)
    for name, found in certificate.elsewhere.items():
        click.echo(f"At {name}: {found} times less error than the best untuned sampler")
    seconds = certificate.seconds
    twice = seconds["twice"]
    reached = "never reached" if twice is None else f"reached after {twice:.1f} s"
    note(f"{seconds['total']:.1f} s in all; half the error of the best untuned sampler {reached}")
    if certificate.stopped:
        note(f"stopped early: {certificate.stopped}")
