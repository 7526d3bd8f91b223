"""`fewstep show distillation` and `consistency`: small students that are trained while you wait."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

import fewstep as fs
from fewstep.cli.figures import check, deliver, written
from fewstep.cli.headings import DATA, LAST, TRAINING, Command, option, several
from fewstep.cli.output import progress
from fewstep.core import InvalidInput

MOST_USED = ("steps", "modes", "output")


def _students(count: int, most: int) -> Callable[[Any], Any]:
    """What both figures take."""
    return several(
        option(
            "--steps",
            type=click.IntRange(20, 100_000),
            default=1500,
            heading=TRAINING,
            help="Training steps of the network that all students begin from; theirs are in proportion.",
        ),
        option(
            "--modes", type=click.IntRange(1, 64), default=6, heading=DATA, help="Gaussians of the data, on a ring."
        ),
        option(
            "--std",
            type=click.FloatRange(0.01, 10),
            default=0.25,
            heading=DATA,
            help="Standard deviation of each Gaussian; the ring's radius is 2.2.",
        ),
        option("--noises", type=click.IntRange(1, most), default=count, heading=DATA, help="Paths that are drawn."),
        option("--seed", type=click.IntRange(0, 2**63), default=0, heading=DATA, help="Seed of training and paths."),
        option(
            "--weights",
            type=click.Path(dir_okay=False),
            usual="none",
            heading=LAST,
            help="Write the students too, as one .safetensors file.",
        ),
    )


@click.command(cls=Command, most_used=MOST_USED)
@_students(10, most=100)
@written("distillation")
def distillation(**given: Any) -> None:
    """Train small students in three ways, and draw what they do.

    Progressive distillation halves the steps from 8 to 1, reflow makes the paths straight, and in one step regression
    is shown beside distribution matching: which modes of the data each draws. It takes a minute of one core.
    """
    check_weights(given)
    with progress("training", 4) as bar:
        found = fs.show.distillation.distillation(**_problem(given), on_part=lambda done, of: bar(done, of=of))
    write_weights(found.students, given)
    rows = [[part, what, figure, f"{value:.3g}"] for part, what, figure, value in found.table()[1]]
    deliver(found, ["part", "what", "figure", "value"], rows, given)


@click.command(cls=Command, most_used=MOST_USED)
@_students(3, most=8)
@written("consistency")
def consistency(**given: Any) -> None:
    """Train a small consistency student, and draw where it maps the points of paths from noise to data.

    Beside it stand the exact map, to the end of each path, and the teacher's estimate of the data; below, how far from
    the end each is at every level of noise. It takes half a minute of one core.
    """
    check_weights(given)
    with progress("training", 2) as bar:
        found = fs.show.consistency.consistency(**_problem(given), on_part=lambda done, of: bar(done, of=of))
    write_weights(found.students, given)
    at = (0, len(found.times) // 2, len(found.times) - 1)
    columns = ["what", *(f"error at t = {found.times[i]:.2f}" for i in at)]
    deliver(found, columns, [[a.name, *(f"{a.errors[i]:.3g}" for i in at)] for a in found.answers], given)


def _problem(given: dict[str, Any]) -> dict[str, Any]:
    """The data, the lengths and the seed."""
    mixture = fs.show.ring(given["modes"], std=given["std"])
    return {"mixture": mixture, "steps": given["steps"], "count": given["noises"], "seed": given["seed"]}


def check_weights(given: dict[str, Any]) -> None:
    """Raise before any work what would fail after it."""
    check(given)
    path = given["weights"]
    if path is None:
        return
    if Path(path).suffix != ".safetensors":
        raise InvalidInput(f"students are written as .safetensors, got {path!r}: give such a name")
    fs.files.check_writable(path, parents=True)


def write_weights(students: Any, given: dict[str, Any]) -> None:
    """Write the students, where that is asked for."""
    path = given["weights"]
    if path is not None:
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
        fs.files.write_whole(path, fs.show.students.weights_file(students))
