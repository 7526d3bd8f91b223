"""Groups of commands that are imported when they are called."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import click

from fewstep.core import unknown_name


class Entry(NamedTuple):
    """Where a command is, and what the list of commands says of it."""

    module: str
    summary: str


class Commands(click.Group):
    """A group whose commands are named in `entries`; each is the attribute of that name, `_` for `-`, of its module."""

    def __init__(self, *args: Any, entries: Mapping[str, Entry], **settings: Any):
        super().__init__(*args, **settings)
        self.entries = entries

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.entries)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.entries:
            return None
        return getattr(importlib.import_module(self.entries[cmd_name].module), cmd_name.replace("-", "_"))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in self.entries and not args[0].startswith("-"):
            raise unknown_name("command", args[0], self.entries)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.summary) for name, entry in self.entries.items()])
