"""What a command shows: tables on stdout; progress on stderr, a bar on a terminal and else a line now and then."""

from __future__ import annotations

import json
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from typing import Any

import click

from fewstep.cli.headings import LAST, option

JSON = option("--json", "as_json", is_flag=True, heading=LAST, help="Print the result as JSON.")
EVERY, SELDOM = 2.0, 60.0
"""Most seconds without a line where there is no bar: at first, and after long work."""
GROWTH = 1.25
"""By how much the next wait is longer, after each line that came of waiting."""


def show_json(value: Any) -> None:
    """Print a value as JSON on stdout."""
    click.echo(json.dumps(value, indent=2, allow_nan=False))


def note(text: str) -> None:
    """Print a line for people, on stderr."""
    click.echo(text, err=True)


@contextmanager
def noted() -> Iterator[None]:
    """Warnings to the caller become notes at the end, each once."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        yield
    for message in dict.fromkeys(str(warning.message) for warning in caught):
        note(f"warning: {message}")


def show_table(columns: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[str] = ()) -> None:
    """Print a table on stdout, as wide as it has to be off a terminal; columns in `right` hold numbers."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(file=sys.stdout, width=None if sys.stdout.isatty() else 1000, highlight=False)
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="bold")
    for name in columns:
        table.add_column(Text(name), justify="right" if name in right else "left", no_wrap=name == columns[0])
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    with console.capture() as printed:
        console.print(table)
    click.echo("\n".join(line.rstrip() for line in printed.get().splitlines()))


class Lines:
    """Progress where there is no bar: a line at once where one is given, else where nothing was said for long.

    What is long grows from `EVERY` to `SELDOM` seconds with each line that came of waiting, so that an hour of work
    has some 70 lines.
    """

    def __init__(self, task: str, total: float = 0, clock: Callable[[], float] = time.monotonic):
        self.task, self.clock = task, clock
        self.done, self.of, self.words = 0.0, total, ""
        self.began = self.said = clock()
        self.wait = EVERY

    def update(self, done: float, of: float | None = None, words: str = "", line: str = "") -> None:
        """Take how much is done, and say `line`."""
        self.done, self.words = done, words
        self.of = self.of if of is None else of
        if line:
            self._say(line)

    def beat(self) -> float:
        """Say how far it is if nothing was said for long. Returns the seconds until it may have to again."""
        silent = self.clock() - self.said
        if silent < self.wait:
            return self.wait - silent
        count = f"{self.done:,.0f} of {self.of:,.0f}" if self.of > 1 else ""
        self._say(", ".join(filter(None, (self.task, count, self.words, f"{self.clock() - self.began:.0f} s"))))
        self.wait = min(SELDOM, GROWTH * self.wait)
        return self.wait

    def _say(self, line: str) -> None:
        self.said = self.clock()
        note(line)


@contextmanager
def progress(task: str, total: float) -> Iterator[Callable[..., None]]:
    """A bar that vanishes at the end, or lines where there is no terminal.

    What is yielded takes how much is done, and optionally a new total, words, and a line for where there is no bar.
    """
    if not sys.stderr.isatty():
        lines = Lines(task, total)
        with _beating(lines):
            yield lines.update
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, TextColumn("{task.fields[words]}"), console=Console(stderr=True), transient=True) as bar:
        name = bar.add_task(task, total=total, words="")
        yield lambda done, of=None, words="", line="": bar.update(name, completed=done, total=of, words=words)


@contextmanager
def waiting(task: str) -> Iterator[None]:
    """Say `task`, and without a terminal that it still goes on: for work that tells nothing of how far it is."""
    note(f"{task} ..")
    with nullcontext() if sys.stderr.isatty() else _beating(Lines(task)):
        yield


@contextmanager
def _beating(lines: Lines) -> Iterator[None]:
    """A thread that lets the lines say something in time, whatever the work is doing."""
    over = threading.Event()

    def beat() -> None:
        with suppress(OSError, ValueError):  # nobody reads what is said any more
            while not over.wait(lines.beat()):
                pass

    thread = threading.Thread(target=beat, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
