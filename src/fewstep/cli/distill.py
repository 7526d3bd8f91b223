"""`fewstep distill`: a student of few evaluations, trained from a model of many."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import click

import fewstep as fs
from fewstep.cli import measuring, place
from fewstep.cli.app import Failure
from fewstep.cli.headings import DRAWN, GUIDANCE, LAST, MEASURING, TRAINING, Command, option
from fewstep.cli.output import JSON, note, progress, show_json, show_table
from fewstep.cli.values import LABELS, Pair, mapping
from fewstep.core import InvalidInput, unknown_name

LINE_EVERY = 500
"""Steps between lines where there is no terminal for a bar."""
METHODS = ("regression", "progressive", "guidance", "consistency", "lcm", "reflow")
TARGETS = ("all", "linear", "attention")
OPTIMISERS = ("adam", "adamw", "radam")
"""Here too, so that the help needs no torch."""


@click.command(cls=Command, most_used=("option", "steps", "guidance", "prompts", "output"))
@click.argument("method", type=click.Choice(METHODS))
@click.argument("teacher", default="digits")
@option(
    "--option",
    type=Pair(),
    multiple=True,
    heading=TRAINING,
    help="Option of the method, such as rows=2 or begin=32. May be repeated; see docs/distill.md.",
)
@option("--steps", type=click.IntRange(1), default=1000, heading=TRAINING, help="Steps of the optimiser.")
@option("--batch", type=click.IntRange(1), default=128, heading=TRAINING, help="Samples of a step.")
@option(
    "--accumulate",
    type=click.IntRange(1),
    default=1,
    heading=TRAINING,
    help="Equal parts in which a batch is done, one after the other, to save memory.",
)
@option("--rate", type=click.FloatRange(0), default=1e-3, heading=TRAINING, help="Learning rate at its peak.")
@option(
    "--optimiser",
    type=click.Choice(OPTIMISERS),
    default="adam",
    heading=TRAINING,
    help="What moves the weights.",
)
@option(
    "--average",
    "width",
    type=click.FloatRange(0),
    default=0.05,
    heading=TRAINING,
    help="Width of the average of the weights that is kept, a share of the training; 0 keeps the last ones.",
)
@option(
    "--lora-rank",
    type=click.IntRange(1, 1024),
    usual="all weights are trained",
    heading=TRAINING,
    help="Train a LoRA of this rank in place of all weights.",
)
@option(
    "--lora-alpha",
    type=click.FloatRange(0, min_open=True),
    usual="the rank",
    heading=TRAINING,
    help="The LoRA counts alpha / rank.",
)
@option(
    "--lora-targets",
    type=click.Choice(TARGETS),
    usual="all",
    heading=TRAINING,
    help="Layers with a LoRA: linear ones and convolutions, linear ones alone, or those of attention.",
)
@option("--seed", type=click.IntRange(0), default=0, heading=TRAINING, help="Decides everything.")
@option(
    "--save-every",
    "state_every",
    type=click.IntRange(1, 100_000_000),
    default=200,
    heading=TRAINING,
    help="Steps between the states that it can go on from.",
)
@measuring.PROMPTS
@option("--labels", type=LABELS, metavar="N,N,..", usual="every class", heading=DRAWN, help="Classes to learn.")
@option(
    "--pairs",
    "count",
    type=click.IntRange(1),
    default=8192,
    heading=DRAWN,
    help="Pictures that the teacher draws first, to learn from.",
)
@option(
    "--teacher-steps",
    type=click.IntRange(1),
    usual="20, or a student's own plan",
    heading=DRAWN,
    help="Steps of the teacher's own sampler, for these.",
)
@option(
    "--guidance",
    type=click.FLOAT,
    usual="the teacher's own",
    heading=GUIDANCE,
    help="Guidance scale of the teacher, which the student then has inside.",
)
@option(
    "--held-out",
    type=click.IntRange(16),
    default=256,
    heading=MEASURING,
    help="Pictures of other noise that the report is measured on.",
)
@place.options("device")
@option(
    "--output",
    type=click.Path(file_okay=False),
    usual="runs/TEACHER-METHOD",
    heading=LAST,
    help="Folder for pairs, states, log, report and student.",
)
@JSON
def distill(method: str, teacher: str, as_json: bool, **given: Any) -> None:
    """Train a student of few evaluations from TEACHER, the digits by default, with guidance inside.

    METHOD is regression (the student draws by its own plan of 1 to 8 rows and ends where the teacher does), progressive
    (two steps become one, again and again), guidance (the scale becomes an input, so guided rows cost one evaluation),
    consistency (one estimate all along a trajectory), lcm (the same, of the guided teacher in steps of DDIM) or reflow
    (a flow's own ways made straight). The teacher first draws the pictures to learn from. Ctrl-C stops; the same
    command goes on to the same weights. At the end a report says how near the student is to the teacher on other noise,
    beside the strongest samplers without training.

    \b
        fewstep distill regression
        fewstep generate runs/digits-regression/student.safetensors --labels 0-9
        fewstep distill progressive --option begin=16 --option end=4 --steps 4000
        fewstep distill regression scenes --prompts prompts.txt --option rows=4
        fewstep distill guidance --option lowest=1 --option highest=4
        fewstep distill lcm scenes --prompts prompts.txt --lora-rank 64
    """
    made, adapter = method_of(method, mapping(given["option"], "--option")), adapter_of(given)
    settings = fs.distillation.Settings(
        **{one.name: given[one.name] for one in fields(fs.distillation.Settings) if one.name in given}
    )
    folder = Path(given["output"] or f"runs/{named(teacher)}-{method}")
    fs.files.check_writable(folder / "log.jsonl", parents=True)
    source = fs.distillation.Source(
        subjects(given), given["guidance"], given["teacher_steps"], given["count"], given["held_out"]
    )
    note(
        f"The teacher draws {source.count} pictures, then the student learns for {settings.steps} steps. Ctrl-C stops; "
        "the same command goes on"
    )
    with progress("distilling", 1) as bar:

        def pairs(done: int, of: int) -> None:
            bar(done, of=of, words="drawing with the teacher")

        def training(now: fs.training.Progress) -> None:
            loss = ", ".join(f"loss {value:.4g}" for value in now.losses.values()) or "as it was left"
            said = now.step % LINE_EVERY == 0 or now.step == now.steps or not now.losses
            line = f"step {now.step} of {now.steps}: {loss}, {now.left:.0f} s left" if said else ""
            bar(now.step, of=now.steps, words=loss, line=line)

        try:
            found = fs.distillation.distill(
                teacher,
                made,
                folder,
                settings=settings,
                source=source,
                device=given["device"],
                watch=fs.distillation.Watch(pairs, training),
                adapter=adapter,
            )
        except fs.training.Diverged as error:
            raise Failure(str(error)) from error
    if as_json:
        apart = {} if found.lora is None else {"lora": str(found.lora)}
        show_json({"path": str(found.path), **apart, **found.report.to_json()})
        return
    show(found.report)
    click.echo()
    if found.lora is not None:
        note(f"The LoRA alone, for diffusers and other fine-tunes, is {found.lora}")
    click.echo(found.path)


def named(teacher: str) -> str:
    """A teacher in the name of a folder; a student is named by the folder of its run."""
    path = Path(teacher).absolute()
    return path.parent.name if path.stem == "student" else path.stem


def method_of(name: str, options: Mapping[str, Any]) -> fs.training.Method:
    """A method with some of its options. Raises `InvalidInput` for those that it has not."""
    kind = fs.distillation.METHODS[name]
    known = [one.name for one in fields(kind)]
    for option_name in options:
        if option_name not in known:
            raise unknown_name(f"option of {name}", option_name, known)
    return kind(**options)


def adapter_of(given: Mapping[str, Any]) -> fs.distillation.Adapter | None:
    """The LoRA that is trained, where its rank is given. Raises `InvalidInput` for other options of it alone."""
    own = {name: given[f"lora_{name}"] for name in ("rank", "alpha", "targets")}
    options = {name: value for name, value in own.items() if value is not None}
    if options and "rank" not in options:
        raise InvalidInput(f"--lora-{next(iter(options))} is of a LoRA: give --lora-rank too, such as 16")
    return fs.distillation.Adapter(**options) if options else None


def subjects(given: Mapping[str, Any]) -> list[Any] | None:
    """What the teacher draws: the prompts of a file, or labels."""
    if given["prompts"] is not None and given["labels"] is not None:
        raise InvalidInput("--prompts are for a model that takes words, --labels for one of classes: give one of them")
    if given["prompts"] is not None:
        return fs.batch.subjects(given["prompts"])
    return None if given["labels"] is None else list(given["labels"])


def show(report: fs.distillation.Report) -> None:
    """Print the report for people."""
    columns = ["what draws", "NFE", "error", "95% interval", "times the student's", "95% interval of it"]
    lines = [
        [line.who, f"{line.nfe:g}", f"{line.error:.4g}", f"{line.low:.4g} to {line.high:.4g}"]
        + ([f"{line.times:.3g}", f"{line.times_low:.3g} to {line.times_high:.3g}"] if number else ["", ""])
        for number, line in enumerate(report.lines)
    ]
    show_table(columns, lines, right=columns[1:])
    click.echo()
    click.echo(report.verdict)
    note(
        f"{report.images} pictures of held-out noise; the best of {report.compared} plans without training; "
        f"{report.seconds:.0f} s of training"
    )
