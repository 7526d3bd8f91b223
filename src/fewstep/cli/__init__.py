"""The command `fewstep`. Nothing but click is imported until a command runs."""

from __future__ import annotations


def main() -> None:
    """Run the command line; never returns."""
    from fewstep.cli import garbage
    from fewstep.cli.app import app

    garbage.wait()
    app()
