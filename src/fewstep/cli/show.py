"""`fewstep show`: pictures that teach, a command for each."""

from __future__ import annotations

import click

from fewstep.cli.commands import Commands, Entry

FIGURES = {
    "trajectories": Entry("fewstep.cli.figures", "Paths of samplers from the same noise, beside the exact ones."),
    "solver-error": Entry("fewstep.cli.figures", "Error against evaluations, with fitted orders."),
    "schedules": Entry("fewstep.cli.figures", "The noise schedules, and where each grid puts its steps."),
    "steps": Entry("fewstep.cli.figures", "The evaluations each strategy needs for equal error."),
    "distillation": Entry(
        "fewstep.cli.student_figures", "Students of few steps: halved, straightened, matched to the data."
    ),
    "consistency": Entry(
        "fewstep.cli.student_figures", "Every point of a path mapped to its end, by a student and exactly."
    ),
    "ode": Entry("fewstep.cli.equation", "A step size at work: Euler and Heun beside the exact path."),
}


@click.group(cls=Commands, entries=FIGURES)
def show() -> None:
    """Draw a picture that teaches, and write its numbers beside it (drawing needs `pip install 'fewstep[show]'`).

    Samplers and students run on a mixture of Gaussians in the plane, whose score and flow are known exactly; `ode` is
    an equation of one number.
    """
