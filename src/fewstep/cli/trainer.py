"""How a training runs, whatever is trained: options that its commands share, and who speaks of several processes."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

import fewstep as fs
from fewstep.cli.app import BAD_INPUT, FAILED, INTERRUPTED, Failure
from fewstep.cli.headings import LAST, MEMORY, TRAINING, option, several
from fewstep.cli.output import note, show_json, show_table
from fewstep.core import InvalidInput

PRECISIONS = ("float32", "bfloat16")
"""Here too, so that the help needs no torch."""
OPTIONS = several(
    option(
        "--precision",
        type=click.Choice(PRECISIONS),
        default="float32",
        heading=TRAINING,
        help="What the networks run in; weights, averages and the optimiser stay in float32.",
    ),
    option(
        "--compile",
        is_flag=True,
        heading=TRAINING,
        help="Compile the networks by torch.compile: minutes at first, then faster steps.",
    ),
    option(
        "--checkpointing",
        is_flag=True,
        heading=MEMORY,
        help="Compute activations again when they are needed, in place of keeping them: less memory, slower steps.",
    ),
    option("--tensorboard", is_flag=True, heading=LAST, help="Write figures and pictures for TensorBoard too."),
    option(
        "--sheet-every",
        type=click.IntRange(0),
        default=500,
        heading=LAST,
        help="Steps between sheets of pictures from the same noise, in the folder samples; 0 draws none.",
    ),
    option(
        "--dry-run", is_flag=True, heading=LAST, help="Only say what it needs: data, memory, seconds a step, hours."
    ),
)
"""Of a command that trains, beside --device."""


def place_of(given: Mapping[str, Any]) -> fs.training.Place:
    """Where and how it computes, by the options of a command."""
    fs.run.checked_device(given["device"])
    return fs.training.Place(given["device"], given["precision"], given["compile"], given["checkpointing"])


def loggers_of(given: Mapping[str, Any], folder: Path) -> list[fs.training.Logger]:
    """Who is told the figures, beside the log of a run in `folder`."""
    return [fs.training.TensorBoard(folder / "tensorboard")] if given["tensorboard"] else []


@contextmanager
def speaking() -> Iterator[None]:
    """Of several processes that a launcher started the first one alone speaks, of what all of them fail at too."""
    with ExitStack() as silenced:
        first = os.environ.get("RANK", "0") == "0"
        if not first:
            nobody = silenced.enter_context(open(os.devnull, "w"))
            silenced.enter_context(redirect_stdout(nobody))
            silenced.enter_context(redirect_stderr(nobody))
        try:
            yield
        except fs.training.Stopped as error:
            if first:
                raise Failure(str(error)) from error
            sys.exit(FAILED)
        except (InvalidInput, click.UsageError):  # of what all are given
            if first:
                raise
            sys.exit(BAD_INPUT)
        except KeyboardInterrupt:
            if first:
                raise
            sys.exit(INTERRUPTED)


@contextmanager
def noting() -> Iterator[None]:
    """Within it, samples that cannot be read are noted at once."""
    with warnings.catch_warnings():
        warnings.simplefilter("always", fs.data.Skipped)
        warnings.showwarning = lambda message, *rest, **more: note(f"warning: {message}")
        yield


def note_lost(lost: Mapping[int, str]) -> None:
    """Say how many samples were left out."""
    if lost:
        note(f"{len(lost)} samples could not be read and were left out")


def encoding(bar: Callable[..., None], done: int, of: int) -> None:
    """Show how many pictures are encoded."""
    bar(done, of=of, words="encoding pictures")


def alone(command: str) -> None:
    """Raise `InvalidInput` where a launcher started several processes of a command that runs in one."""
    count = os.environ.get("WORLD_SIZE", "1")
    if count != "1":
        raise InvalidInput(f"{command} runs in one process, and the launcher started {count}: start it without one")


def say(found: fs.training.Forecast, made: str = "draw") -> None:
    """What a run needs, in a line for people; `made` is how its pictures are made, such as "draw" or "encode"."""
    note("It needs " + "; ".join(words for _, words in lines_of(found, made)))


def show(found: fs.training.Forecast, as_json: bool, made: str = "draw") -> None:
    """What a run needs, and no more of it; `made` as in `say`."""
    if as_json:
        show_json(facts_of(found))
        return
    show_table(["what it needs", ""], [list(line) for line in lines_of(found, made)])


def facts_of(found: fs.training.Forecast) -> dict[str, Any]:
    """What a run needs, as values for JSON."""
    memory = {"more": found.memory.more, "peak": found.memory.peak, "fits": found.memory.fits}
    facts = asdict(found)
    return {**facts, "memory": {**facts["memory"], **memory}, "seconds": found.seconds}


def lines_of(found: fs.training.Forecast, made: str) -> list[tuple[str, str]]:
    """What a run needs, by subject."""
    return [("data", data_words(found)), ("memory", memory_words(found)), ("time", time_words(found, made))]


def data_words(found: fs.training.Forecast) -> str:
    """How many pictures, and how large."""
    if found.samples is None:
        return "pictures without end"
    disk = f", {fs.run.readable(found.data_bytes)} on the disk" if found.data_bytes else ""
    return f"{found.samples:,} pictures{disk}"


def memory_words(found: fs.training.Forecast) -> str:
    """How much memory, and what of."""
    memory = found.memory
    sizes = {words: getattr(memory, name) for name, words in PARTS.items()}
    parts = ", ".join(f"{fs.run.readable(size)} {words}" for words, size in sizes.items() if size)
    where = "" if found.processes == 1 else f" on each of {found.processes} devices"
    unfit = "" if memory.fits else f": more than the {fs.run.readable(memory.free)} that are free"
    return f"{fs.run.readable(memory.peak)} of memory{where} ({parts}){unfit}"


def time_words(found: fs.training.Forecast, made: str) -> str:
    """How long a step and all takes."""
    if found.step_seconds is None or found.seconds is None:
        return "steps do not fit, so none was timed"
    drawing = f", {spoken(found.data_seconds)} to {made} the pictures" if found.data_seconds else ""
    return f"{found.step_seconds:.3g} s a step of {found.batch}{drawing}, {spoken(found.seconds)} in all"


PARTS = {
    "before": "libraries and networks",
    "gradients": "gradients",
    "moments": "moments",
    "averages": "averages",
    "copies": "copies",
    "activations": "activations",
}
"""Of the memory, in words."""


def spoken(seconds: float) -> str:
    """A time in words."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} hours"
