"""Writes the help texts of docs/cli.md from the commands themselves: `python docs/generate_cli.py`."""

from __future__ import annotations

import click
from block import DOCS, filled

from fewstep.cli.app import COMMANDS, app

PAGE = DOCS / "cli.md"
WIDTH = 100


def help_of(name: str) -> str:
    """The help of a command at a fixed width, whatever the terminal's is."""
    parent = click.Context(app, info_name="fewstep", terminal_width=WIDTH, **app.context_settings)
    command = app.get_command(parent, name)
    assert command is not None
    with click.Context(command, parent=parent, info_name=name) as ctx:
        return command.get_help(ctx)


def commands() -> str:
    """A section for each command."""
    return "\n\n".join(f"## {name}\n\n{entry.summary}\n\n```\n{help_of(name)}\n```" for name, entry in COMMANDS.items())


def render() -> str:
    """The page as it has to be."""
    return filled(PAGE, {"commands": commands()})


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
