"""The group of all commands, which turns every failure into one line and a code.

Exit codes: 0 done; 1 the work itself failed, such as a network that returns NaN; 2 bad input or a file that cannot be
used; 130 interrupted by Ctrl-C. An error inside a library, such as in a network whose configuration somebody edited, is
one line too; FEWSTEP_TRACEBACK=1 shows where it is. An error of our own is shown whole.
"""

from __future__ import annotations

import io
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import click

import fewstep as fs
from fewstep.cli.commands import Commands, Entry
from fewstep.core import InvalidInput

FAILED, BAD_INPUT, INTERRUPTED = 1, 2, 130
LONGEST_WORD, LONGEST_LINE = 200, 900
"""Most characters of a word, such as a path or a number, and of all that a failure says."""
_BYTES = frozenset(map(chr, range(0xDC80, 0xDD00)))
"""How Python holds bytes in names of files that are not text."""


COMMANDS = {
    "generate": Entry("fewstep.cli.generate", "Draw images with a model."),
    "batch": Entry("fewstep.cli.batch", "Draw many prompts or seeds into a folder; resume at will."),
    "redraw": Entry("fewstep.cli.redraw", "Draw a picture again, to the same pixels."),
    "compare": Entry("fewstep.cli.compare", "Draw the same noise with several samplers and step counts."),
    "img2img": Entry("fewstep.cli.images", "Draw from a picture and words."),
    "inpaint": Entry("fewstep.cli.images", "Repaint a part of a picture."),
    "edit": Entry("fewstep.cli.images", "Invert a picture with one prompt, draw it with another."),
    "invert": Entry("fewstep.cli.images", "Find the noise of a picture, and draw it again."),
    "interpolate": Entry("fewstep.cli.images", "Draw the pictures between two prompts or seeds."),
    "samplers": Entry("fewstep.cli.lists", "List the samplers, or the options of one."),
    "grids": Entry("fewstep.cli.lists", "List the time grids and their options."),
    "plan": Entry("fewstep.cli.plan", "Compile a sampler and show its table of coefficients."),
    "bench": Entry("fewstep.cli.bench", "Measure samplers, grids and steps on the same noise; resume at will."),
    "tune": Entry("fewstep.cli.tune", "Fit a plan of few evaluations to a model, with a certificate."),
    "distill": Entry("fewstep.cli.distill", "Train a student that draws in few evaluations."),
    "optimize": Entry("fewstep.cli.optimize", "Make the calls of a model cheaper, by measurement here."),
    "choose": Entry("fewstep.cli.choose", "Choose a sampler and steps for a budget, by measurements."),
    "show": Entry("fewstep.cli.show", "Draw pictures that teach: paths, errors, schedules, steps."),
    "train": Entry("fewstep.cli.train", "Train a small model; interrupt and resume at will."),
    "doctor": Entry("fewstep.cli.doctor", "Name the prediction type and noise schedule of a network."),
}


class Failure(click.ClickException):
    """The work itself failed; exit code 1."""

    exit_code = FAILED


class App(Commands):
    """The group of all commands, and the codes it ends with."""

    def main(  # type: ignore[override]
        self, args: Sequence[str] | None = None, prog_name: str | None = None, **extra: Any
    ) -> NoReturn:
        """Run, and exit with a code that says how it went."""
        extra["standalone_mode"] = False
        _write_any_name()
        try:
            code = super().main(args, prog_name or "fewstep", **extra)
            sys.stdout.flush()
        except click.exceptions.NoArgsIsHelpError as error:  # a group alone, whose message is its help
            click.echo(error.format_message())
            code = 0
        except click.UsageError as error:
            hint = "" if error.ctx is None else f". See `{error.ctx.command_path} --help`"
            _fail(f"{error.format_message().rstrip('.')}{hint}", BAD_INPUT)
        except click.ClickException as error:
            _fail(error.format_message(), error.exit_code)
        except (click.Abort, KeyboardInterrupt):
            click.echo("fewstep: interrupted", err=True)
            sys.exit(INTERRUPTED)
        except BrokenPipeError:  # the reader of our output, such as `head`, has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(FAILED)
        except (InvalidInput, OSError) as error:
            _fail(_one_line(error), BAD_INPUT)
        except UnicodeEncodeError as error:  # half of a pair of characters, which no file and no model takes
            _fail(f"{error.object[error.start : error.end]!r} is not a character: leave it out", BAD_INPUT)
        except Exception as error:
            if isinstance(error, ArithmeticError) and isinstance(error, fs.NonFinite):
                _fail(str(error), FAILED)
            if _out_of_memory(error):
                _fail(f"out of memory ({error}): draw fewer or smaller images at once", FAILED)
            library = _library(error)
            if library is None or os.environ.get("FEWSTEP_TRACEBACK"):
                raise
            what = f"{library} failed ({type(error).__name__}: {error!s:.300})"
            _fail(f"{what}: the files of a model may not fit it. FEWSTEP_TRACEBACK=1 shows where", FAILED)
        sys.exit(code if isinstance(code, int) else 0)


def _one_line(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    return str(error)


def _library(error: Exception) -> str | None:
    """The installed package in whose code an error arose; None for our own and Python's."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    parts = () if trace is None else Path(trace.tb_frame.f_code.co_filename).parts
    installed = [parts[i + 1] for i, part in enumerate(parts[:-1]) if part in ("site-packages", "dist-packages")]
    return installed[-1] if installed and installed[-1] not in ("fewstep", "click") else None


def _out_of_memory(error: Exception) -> bool:
    """Whether memory ran out; torch has a class of its own for that on a card, and none on the host."""
    own = type(error).__name__ == "OutOfMemoryError" or "not enough memory" in str(error)
    return isinstance(error, MemoryError) or own


def _fail(message: str, code: int) -> NoReturn:
    click.echo(f"fewstep: error: {_short(message)}", err=True)
    sys.exit(code)


def _short(message: str) -> str:
    """One line, in which long words and what is in the middle of a long message are left out."""
    line = re.sub(rf"\S{{{LONGEST_WORD + 1},}}", lambda word: f"{word[0][:60]}..{word[0][-20:]}", message)
    line = "".join(c if c.isprintable() or c in _BYTES else " " for c in " ".join(line.split()))
    if len(line) <= LONGEST_LINE:
        return line
    return f"{line[: LONGEST_LINE // 2]} .. {line[-LONGEST_LINE // 2 :]}"


def _write_any_name() -> None:
    """Let files be named whose names are not text in the encoding of the terminal."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="surrogateescape" if stream.encoding == "utf-8" else "backslashreplace")


@click.group(
    "fewstep",
    cls=App,
    entries=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(package_name="fewstep", message="fewstep %(version)s")
def app() -> None:
    """Sample diffusion and flow-matching models in few network evaluations."""
