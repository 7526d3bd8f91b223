"""Writes the help texts of docs/cli.md from the commands themselves: `python docs/generate_cli.py`."""

from __future__ import annotations

import click
from block import DOCS, filled

from fewstep.cli.app import COMMANDS, app

PAGE = DOCS / "cli.md"
WIDTH = 100


def helps(name: str) -> list[str]:
    """The help of a command, and of those inside it, at a fixed width, whatever the terminal's is."""
    parent = click.Context(app, info_name="fewstep", terminal_width=WIDTH, **app.context_settings)
    command = app.get_command(parent, name)
    assert command is not None
    with click.Context(command, parent=parent, info_name=name) as ctx:
        texts = [command.get_help(ctx)]
        for inner in command.list_commands(ctx) if isinstance(command, click.Group) else []:
            leaf = command.get_command(ctx, inner)
            assert leaf is not None
            with click.Context(leaf, parent=ctx, info_name=inner) as inside:
                texts.append(leaf.get_help(inside))
        return texts


def commands() -> str:
    """A section for each command."""
    sections = []
    for name, entry in COMMANDS.items():
        blocks = "\n\n".join(f"```\n{text}\n```" for text in helps(name))
        sections.append(f"## {name}\n\n{entry.summary}\n\n{blocks}")
    return "\n\n".join(sections)


def render() -> str:
    """The page as it has to be."""
    return filled(PAGE, {"commands": commands()})


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
