"""`fewstep distill`: a student of few evaluations, trained from a model of many."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import click

import fewstep as fs
from fewstep.cli import measuring, place, trainer
from fewstep.cli.app import Failure
from fewstep.cli.headings import DRAWN, GUIDANCE, LAST, MEASURING, TRAINING, Command, option
from fewstep.cli.output import JSON, note, progress, show_json, show_table, waiting
from fewstep.cli.values import LABELS, Pair, mapping
from fewstep.core import InvalidInput, unknown_name

LINE_EVERY = 500
"""Steps between lines where there is no terminal for a bar."""
METHODS = ("regression", "progressive", "consistency", "reflow")
OPTIMISERS = ("adam", "adamw", "radam")
"""Here too, so that the help needs no torch."""


@click.command(cls=Command, most_used=("option", "steps", "guidance", "prompts", "output"))
@click.argument("method")
@click.argument("teacher", default="digits")
@option(
    "--option",
    type=Pair(),
    multiple=True,
    heading=TRAINING,
    help="Option of the method, such as rows=2 or begin=32. May be repeated; see docs/distill.md.",
)
@option(
    "--learn-plan",
    is_flag=True,
    heading=TRAINING,
    help="Learn the times and weights of the student's plan along with it; regression alone does.",
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
@trainer.OPTIONS
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
    (two steps become one, again and again), consistency (one estimate all along a trajectory) or reflow (a flow's own
    ways made straight); or FILE.py:CLASS, a method of your own, whose file is run. The teacher first draws the pictures
    to learn from. Ctrl-C stops; the same command goes on to the same weights. At the end a report says how near the
    student is to the teacher on other noise, beside the strongest samplers without training.

    \b
        fewstep distill regression
        fewstep generate runs/digits-regression/student.safetensors --labels 0-9
        fewstep distill progressive --option begin=16 --option end=4 --steps 4000
        fewstep distill regression scenes --prompts prompts.txt --option rows=4
    """
    with trainer.speaking():
        made = method_of(method, mapping(given["option"], "--option"), given["learn_plan"])
        order = Order.of(teacher, made, given)
        if given["dry_run"]:
            trainer.show(order.forecast(), as_json)
            return
        found = order.student()
        if as_json:
            show_json({"path": str(found.path), **found.report.to_json()})
            return
        show(found.report)
        click.echo()
        click.echo(found.path)


class Order(NamedTuple):
    """What is to be distilled, by the options of the command."""

    teacher: str
    method: fs.training.Method
    folder: Path
    settings: fs.distillation.Settings
    source: fs.distillation.Source
    place: fs.training.Place
    given: Mapping[str, Any]

    @staticmethod
    def of(teacher: str, method: fs.training.Method, given: Mapping[str, Any]) -> Order:
        """Raises `InvalidInput` for what cannot be."""
        settings = fs.distillation.Settings(
            **{one.name: given[one.name] for one in fields(fs.distillation.Settings) if one.name in given}
        )
        folder = Path(given["output"] or f"runs/{named(teacher)}-{method.name}")
        fs.files.check_writable(folder / "log.jsonl", parents=True)
        source = fs.distillation.Source(
            subjects(given), given["guidance"], given["teacher_steps"], given["count"], given["held_out"]
        )
        return Order(teacher, method, folder, settings, source, trainer.place_of(given), given)

    def forecast(self) -> fs.training.Forecast:
        """What it needs."""
        with waiting("timing some steps"):
            return fs.distillation.forecast(
                self.teacher, self.method, self.folder, settings=self.settings, source=self.source, place=self.place
            )

    def student(self) -> fs.distillation.Distilled:
        """Train it."""
        note(
            f"The teacher draws {self.source.count} pictures, then the student learns for {self.settings.steps} steps. "
            "Ctrl-C stops; the same command goes on"
        )
        loggers = trainer.loggers_of(self.given, self.folder)
        with progress("distilling", 1) as bar:
            pairs, training = partial(drawing, bar), partial(learning, bar)
            watch = fs.distillation.Watch(pairs, training, trainer.say, loggers, self.given["sheet_every"])
            try:
                return fs.distillation.distill(
                    self.teacher,
                    self.method,
                    self.folder,
                    settings=self.settings,
                    source=self.source,
                    place=self.place,
                    watch=watch,
                )
            except fs.training.Diverged as error:
                raise Failure(str(error)) from error


def drawing(bar: Callable[..., None], done: int, of: int) -> None:
    """Show how many pictures are drawn."""
    bar(done, of=of, words="drawing with the teacher")


def learning(bar: Callable[..., None], now: fs.training.Progress) -> None:
    """Show how far the training is."""
    loss = ", ".join(f"loss {value:.4g}" for value in now.losses.values())
    words = f"{loss}, {now.speed:.3g} images/s" if loss else "as it was left"
    said = now.step % LINE_EVERY == 0 or now.step == now.steps or not now.losses
    line = f"step {now.step} of {now.steps}: {words}, {now.left:.0f} s left" if said else ""
    bar(now.step, of=now.steps, words=words, line=line)


def named(teacher: str) -> str:
    """A teacher in the name of a folder; a student is named by the folder of its run."""
    path = Path(teacher).absolute()
    return path.parent.name if path.stem == "student" else path.stem


def method_of(name: str, options: Mapping[str, Any], learn_plan: bool = False) -> fs.training.Method:
    """A method with some of its options. Raises `InvalidInput` for a method or options that there are not."""
    own = fs.distillation.is_path(name)
    if not own and name not in METHODS:
        raise unknown_name("method", name, METHODS)
    kind: Any = fs.distillation.method_class(name) if own else fs.distillation.METHODS[name]
    known = [one.name for one in fields(kind)]
    if learn_plan and "learn_plan" not in known:
        raise InvalidInput(f"{kind.name} does not learn a plan along: leave --learn-plan out, or use regression")
    for option_name in options:
        if option_name not in known:
            raise unknown_name(f"option of {kind.name}", option_name, known)
    try:
        return kind(**options, **({"learn_plan": True} if learn_plan else {}))
    except TypeError as error:
        raise InvalidInput(f"{kind.name} cannot be made of {dict(options)}: {error}") from error


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
