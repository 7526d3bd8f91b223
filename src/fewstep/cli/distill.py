"""`fewstep distill`: a student of few evaluations, trained from a model of many."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import click

import fewstep as fs
from fewstep.cli import measuring, place, report, settings, trainer
from fewstep.cli.app import Failure
from fewstep.cli.headings import DATA, DRAWN, GUIDANCE, LAST, MEASURING, TRAINING, Command, option
from fewstep.cli.output import JSON, note, progress, show_json, waiting
from fewstep.cli.values import LABELS, Pair, mapping, scalar
from fewstep.core import InvalidInput, unknown_name

METHODS = (
    "regression", "endpoint", "phased", "progressive", "guidance", "consistency", "lcm", "reflow", "dmd", "add",
    "policy", "scm", "meanflow",
)  # fmt: skip
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
@settings.OPTIONS
@settings.LORA
@option(
    "--begin",
    metavar="MODEL",
    usual="the teacher",
    heading=TRAINING,
    help="Another student of the teacher, whose weights this one begins with.",
)
@option(
    "--data",
    type=click.Path(),
    usual="the teacher draws them",
    heading=DATA,
    help="Real pictures to learn from, as `fewstep train model` takes them; of methods that can.",
)
@option("--mirror", is_flag=True, heading=DATA, help="Learn each of them with left and right exchanged too.")
@measuring.PROMPTS
@option(
    "--labels",
    type=LABELS,
    metavar="N,N,..",
    usual="every class, or those of --data",
    heading=DRAWN,
    help="Classes to learn; beside --data, to judge by.",
)
@option(
    "--pairs",
    "count",
    type=click.IntRange(1),
    usual="8192, none with --data",
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
    default=512,
    heading=MEASURING,
    help="Pictures of other noise that the report is measured on, and as many of the teacher's to compare them with.",
)
@option(
    "--check-every",
    type=click.IntRange(0),
    default=100,
    heading=MEASURING,
    help="Steps between looks at the student on other noise, the best of which is kept; 0 keeps the last.",
)
@option(
    "--check-count",
    type=click.IntRange(16),
    default=128,
    heading=MEASURING,
    help="Pictures of a look. Methods that match distributions are judged by these together: give 512 or more.",
)
@option(
    "--patience",
    type=click.IntRange(0),
    default=0,
    heading=MEASURING,
    help="Looks without a better one after which training ends; 0 goes to the last step.",
)
@option(
    "--clip",
    "clip_folder",
    type=click.Path(),
    metavar="FOLDER",
    heading=MEASURING,
    help="Folder with CLIP's weights: measure distances on its features.",
)
@option(
    "--tune",
    type=click.FloatRange(0),
    default=0,
    heading=MEASURING,
    help="Seconds in which a plan without training is tuned, to stand beside the student; 0 tunes none.",
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

    METHOD is regression (the student draws by its own plan of 1 to 8 rows and ends where the teacher does), endpoint
    (every state of the teacher's trajectory is mapped to its end, for one student in any number of rows), phased (the
    rows of several plans go from state to state of the trajectory), progressive (two steps become one, again and
    again), guidance (the scale becomes an input, so guided rows cost one evaluation), consistency (one estimate all
    along a trajectory), lcm (the same, of the guided teacher in steps of DDIM), reflow (a flow's own ways made
    straight), dmd (drawings are to be distributed as the teacher's), add (a discriminator tells drawings from data),
    policy (one evaluation says the data all along a row, and the teacher is asked on the way), scm (consistency by its
    derivative along the trajectory) or meanflow (each row goes by an average velocity, for one student in any number of
    rows); or FILE.py:CLASS, a method of your own, whose file is run. The teacher first draws the pictures to learn
    from; many methods take your own in their place (--data). Ctrl-C stops; the same command goes on to the same
    weights. At the end a report says how near the student is to the teacher on other noise, beside the strongest
    samplers without training.

    \b
        fewstep distill regression
        fewstep generate runs/digits-regression/student.safetensors --labels 0-9
        fewstep distill progressive --option begin=16 --option end=4 --steps 4000
        fewstep distill phased scenes --prompts prompts.txt --teacher-steps 10
        fewstep distill guidance --option lowest=1 --option highest=4
        fewstep distill lcm scenes --prompts prompts.txt --lora-rank 64
        fewstep distill dmd digits --data digits --option adversary=0.001
    """
    with trainer.speaking():
        made = method_of(method, mapping(given["option"], "--option"), given["learn_plan"])
        order = Order.of(teacher, made, given)
        if given["dry_run"]:
            trainer.show(order.forecast(), as_json, order.made)
            return
        found = order.student()
        if as_json:
            apart = {} if found.lora is None else {"lora": str(found.lora)}
            lost = {"lost": found.lost} if given["data"] is not None else {}
            show_json({"path": str(found.path), **apart, **found.report.to_json(), **lost})
            return
        report.show(found.report)
        trainer.note_lost(found.lost)
        click.echo()
        if found.lora is not None:
            note(f"The LoRA alone, for diffusers and other fine-tunes, is {found.lora}")
        click.echo(found.path)


class Order(NamedTuple):
    """What is to be distilled, by the options of the command."""

    teacher: str
    method: fs.training.Method
    folder: Path
    settings: fs.distillation.Settings
    source: fs.distillation.Source
    measuring: fs.distillation.Measuring
    place: fs.training.Place
    given: Mapping[str, Any]

    @staticmethod
    def of(teacher: str, method: fs.training.Method, given: Mapping[str, Any]) -> Order:
        """Raises `InvalidInput` for what cannot be."""
        how = settings.settings_of(given)
        folder = Path(given["output"] or f"runs/{named(teacher)}-{method.name}")
        fs.files.check_writable(folder / "log.jsonl", parents=True)
        source = fs.distillation.Source(
            subjects(given),
            given["guidance"],
            given["teacher_steps"],
            given["count"],
            given["held_out"],
            given["begin"],
            given["data"],
            given["mirror"],
        )
        checks = fs.distillation.Checks(given["check_every"], given["check_count"], given["patience"])
        measuring = fs.distillation.Measuring(checks, given["clip_folder"], given["tune"])
        return Order(teacher, method, folder, how, source, measuring, trainer.place_of(given), given)

    @property
    def parts(self) -> dict[str, Any]:
        """What drawing, training and measuring are told."""
        values = self.settings, self.source, self.measuring, self.place
        return dict(zip(("settings", "source", "measuring", "place"), values, strict=True))

    @property
    def made(self) -> str:
        """How the pictures of the run are made that it says it needs."""
        return "draw" if self.source.data is None else "draw and encode"

    def forecast(self) -> fs.training.Forecast:
        """What it needs."""
        with waiting("timing some steps"), trainer.noting():
            return fs.distillation.forecast(self.teacher, self.method, self.folder, **self.parts)

    def student(self) -> fs.distillation.Distilled:
        """Train it."""
        drawn = f"{self.source.drawn} pictures" if self.source.data is None else "pictures to judge by"
        learns = "" if self.source.data is None else f" from {self.source.data}"
        note(
            f"The teacher draws {drawn}, then the student learns{learns} for {self.settings.steps} steps. Ctrl-C "
            "stops; the same command goes on"
        )
        loggers = trainer.loggers_of(self.given, self.folder)
        with progress("distilling", 1) as bar, trainer.noting():
            watch = fs.distillation.Watch(
                partial(drawing, bar),
                settings.telling(bar),
                partial(trainer.say, made=self.made),
                healthy,
                loggers,
                self.given["sheet_every"],
                partial(trainer.encoding, bar),
            )
            try:
                return fs.distillation.distill(self.teacher, self.method, self.folder, **self.parts, watch=watch)
            except fs.training.Diverged as error:
                raise Failure(str(error)) from error


def drawing(bar: Callable[..., None], done: int, of: int) -> None:
    """Show how many pictures are drawn."""
    bar(done, of=of, words="drawing with the teacher")


def healthy(found: fs.distillation.Health) -> None:
    """Show what a look found."""
    note(f"step {found.step}: {figures(found)}")
    for remark in found.remarks:
        note(f"step {found.step}: {remark.figure}: {remark.words}")


def named(teacher: str) -> str:
    """A teacher in the name of a folder; a student is named by the folder of its run."""
    path = Path(teacher).absolute()
    return path.parent.name if path.stem == "student" else path.stem


def method_of(name: str, options: Mapping[str, Any], learn_plan: bool = False) -> fs.training.Method:
    """A method with some of its options, over those of its preset.

    Raises `InvalidInput` for a method or options that there are not.
    """
    own = fs.distillation.is_path(name)
    if not own and name not in METHODS:
        raise unknown_name("method", name, METHODS)
    kind: Any = fs.distillation.method_class(name) if own else fs.distillation.METHODS[name]
    presets = {} if own else fs.distillation.PRESETS.get(name, {})
    known = [one.name for one in fields(kind)] + ["preset"] * bool(presets)
    if learn_plan and "learn_plan" not in known:
        raise InvalidInput(f"{kind.name} does not learn a plan along: leave --learn-plan out, or use regression")
    for option_name in options:
        if option_name not in known:
            raise unknown_name(f"option of {kind.name}", option_name, known)
    several = {one.name for one in fields(kind) if isinstance(one.default, tuple)}
    given = {key: _listed(value) if key in several else value for key, value in options.items()}
    chosen = given | ({"learn_plan": True} if learn_plan else {})
    if presets and "preset" in chosen:
        preset = chosen.pop("preset")
        if preset not in presets:
            raise unknown_name(f"preset of {name}", str(preset), presets)
        chosen = {**presets[preset], **chosen}
    try:
        return kind(**chosen)
    except TypeError as error:
        raise InvalidInput(f"{kind.name} cannot be made of {dict(options)}: {error}") from error


def _listed(value: Any) -> tuple[Any, ...]:
    """Values of an option that has several, as 4,2,1."""
    return tuple(scalar(part.strip()) for part in str(value).split(","))


def figures(found: fs.distillation.Health) -> str:
    """What a look found, in a line."""
    shown = ", ".join(f"{name} {value:.3g}" for name, value in found.figures.items() if " at " not in name)
    return f"{shown}, the best so far" if found.best == found.step else f"{shown}; the best was step {found.best}"


def subjects(given: Mapping[str, Any]) -> list[Any] | None:
    """What the teacher draws: the prompts of a file, or labels."""
    if given["prompts"] is not None and given["labels"] is not None:
        raise InvalidInput("--prompts are for a model that takes words, --labels for one of classes: give one of them")
    if given["prompts"] is not None:
        return fs.batch.subjects(given["prompts"])
    return None if given["labels"] is None else list(given["labels"])
