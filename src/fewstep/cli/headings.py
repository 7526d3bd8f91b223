"""Help under headings: the options that most people need first, then those of each subject."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import click

from fewstep.cli import garbage

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]
Usual = str | Callable[[click.Context], str]

TYPED = "fewstep.typed"
FIRST, LAST = "Most used", "Output"
PICTURE, DRAWN, DATA = "The picture it starts from", "What is drawn", "Data and noise"
SAMPLER, GUIDANCE, ESTIMATES = "Sampler and time grid", "Guidance", "Estimates of pixels"
NETWORK, OBJECTIVE, KEEPING = "The network", "What is learned", "A few-step model that stays one"
TRAINING, SEARCH, MEASURING = "Training", "Search and learning", "Measuring"
MEMORY, LOADING = "Memory", "Loading the model"
ORDER = (
    FIRST, PICTURE, DRAWN, NETWORK, DATA, SAMPLER, GUIDANCE, ESTIMATES, OBJECTIVE, KEEPING, TRAINING, SEARCH,
    MEASURING, MEMORY, LOADING, LAST,
)  # fmt: skip
"""All headings, in the order in which every command has those that it needs."""
MOST_USED = (
    "prompt_file", "labels", "negative", "samplers", "sampler", "steps", "guidance", "strength", "seed", "seeds",
    "count", "height", "width", "preset", "batch", "output",
)  # fmt: skip
"""What most people need of a command that draws, by the names of parameters, in the order of the help."""


class Option(click.Option):
    """An option under a heading.

    Attributes:
        heading: one of `ORDER`.
        path: the field of a drawing that it fills in, if any.
        usual: what it is where nobody gives it, for the help; the default, where that says it.
    """

    def __init__(self, *args: Any, heading: str, path: tuple[str, ...] = (), usual: Usual = "", **settings: Any):
        super().__init__(*args, **settings)
        self.heading, self.path, self.usual = heading, path, usual or shown(settings.get("default"))
        if self.metavar is None:
            kinds = {click.types.IntParamType: "N", click.types.FloatParamType: "X"}
            self.metavar = next((letter for kind, letter in kinds.items() if isinstance(self.type, kind)), None)

    def get_help_extra(self, ctx: click.Context) -> click.types.OptionHelpExtra:
        extra = super().get_help_extra(ctx)
        extra.pop("range", None)  # errors say it
        return extra

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        record = super().get_help_record(ctx)
        usual = self.usual(ctx) if callable(self.usual) else self.usual
        if record is None or not usual:
            return record
        return record[0], f"{record[1]}  [default: {usual}]"


class Command(click.Command):
    """A command whose help has headings; under the first stands what is `most_used`, by the names of parameters."""

    def __init__(self, *args: Any, most_used: Sequence[str] = MOST_USED, **settings: Any):
        super().__init__(*args, **settings)
        self.most_used = tuple(most_used)

    def invoke(self, ctx: click.Context) -> Any:
        garbage.go_on()
        return super().invoke(ctx)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if any("\0" in word for word in args):  # which the system refuses of paths, as a ValueError
            raise click.UsageError("a word has the character NUL in it: leave it out", ctx)
        ctx.meta[TYPED] = list(args)  # for the help, which is asked for before arguments are read
        return super().parse_args(ctx, args)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        sections: dict[str, list[tuple[str, str]]] = {}
        for param in sorted(self.get_params(ctx), key=self._place):
            record = param.get_help_record(ctx) if isinstance(param, click.Option) else None
            if record is not None:
                sections.setdefault(self.heading(param), []).append(record)
        for heading, records in sections.items():
            with formatter.section(heading):
                formatter.write_dl(records)

    def heading(self, param: click.Parameter) -> str:
        """What a parameter stands under; --help, which click adds, is the last of all."""
        return FIRST if param.name in self.most_used else getattr(param, "heading", LAST)

    def _place(self, param: click.Parameter) -> tuple[int, int]:
        """By the order of headings; what is used most in its own order, all else in that of the command."""
        used = self.most_used.index(param.name) if param.name in self.most_used else 0
        return ORDER.index(self.heading(param)), used


def argument(ctx: click.Context, name: str) -> str | None:
    """An argument on the command line, also while the help is made."""
    found = ctx.command.make_parser(ctx).parse_args(list(ctx.meta.get(TYPED, ())))[0].get(name)
    return found if isinstance(found, str) else None


option = partial(click.option, cls=Option)
"""An option under a heading, as `click.option`."""


def several(*options: Decorator) -> Decorator:
    """Options as one decorator, in the order of the help."""

    def add(command: Callable[..., Any]) -> Callable[..., Any]:
        for one in reversed(options):
            command = one(command)
        return command

    return add


def shown(value: Any) -> str:
    """A default in words: "" for none, and for a flag, which is off."""
    if value is None or isinstance(value, bool):
        return ""
    return f"{value:g}" if isinstance(value, float) else str(value)
