"""Help under headings: the options that most people need first, then those of each subject."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import click

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]
Usual = str | Callable[[click.Context], str]

TYPED = "fewstep.typed"
FIRST, LAST = "Most used", "Output"
MOST_USED = (
    "prompt_file", "labels", "negative", "sampler", "steps", "guidance", "strength", "seed", "seeds", "count", "height",
    "width", "preset", "batch", "output",
)  # fmt: skip
"""What most people need, by the names of parameters, in the order of the help."""


class Option(click.Option):
    """An option under a heading.

    Attributes:
        path: the field of a drawing that it fills in, if any.
        usual: what it is where nobody gives it, for the help.
    """

    def __init__(self, *args: Any, heading: str = LAST, path: tuple[str, ...] = (), usual: Usual = "", **settings: Any):
        super().__init__(*args, **settings)
        self.heading, self.path, self.usual = heading, path, usual

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
    """A command whose help has headings."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if any("\0" in word for word in args):  # which the system refuses of paths, as a ValueError
            raise click.UsageError("a word has the character NUL in it: leave it out", ctx)
        ctx.meta[TYPED] = list(args)  # for the help, which is asked for before arguments are read
        return super().parse_args(ctx, args)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        sections: dict[str, list[tuple[str, str]]] = {}
        for param in sorted(self.get_params(ctx), key=_place):
            record = param.get_help_record(ctx) if isinstance(param, click.Option) else None
            if record is not None:
                sections.setdefault(_heading(param), []).append(record)
        for heading, records in sections.items():
            with formatter.section(heading):
                formatter.write_dl(records)


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


def _heading(param: click.Parameter) -> str:
    return FIRST if param.name in MOST_USED else getattr(param, "heading", LAST)


def _place(param: click.Parameter) -> int:
    """What is used most comes first, the output last, all else in the order of the command."""
    if param.name in MOST_USED:
        return MOST_USED.index(param.name)
    return len(MOST_USED) + (_heading(param) == LAST)
