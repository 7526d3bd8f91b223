"""On what a model is measured: options that `tune`, `bench`, `choose` and `doctor` share."""

from __future__ import annotations

import click

from fewstep.cli.headings import DRAWN, GUIDANCE, MEASURING, Decorator, option

PROMPTS = option(
    "--prompts",
    type=click.Path(),
    metavar="FILE",
    heading=DRAWN,
    help="File with a prompt a line, for a model that takes prompts.",
)
TOLD = "A network that is told its scale, such as FLUX.1-dev, is measured without a negative branch."
"""What the help of every scale to measure at adds."""
CLIP = option(
    "--clip",
    type=click.Path(),
    metavar="FOLDER",
    heading=MEASURING,
    help="Folder with CLIP's weights: measure by its score how well pictures fit their prompts.",
)
DATA = option(
    "--data",
    type=click.Path(),
    metavar="FOLDER",
    heading=MEASURING,
    help="Folder of real pictures: measure by the distance to them.",
)
POSITIVE = click.FloatRange(0, min_open=True)
SEED = option("--seed", type=click.IntRange(0, 2**20 - 1), default=0, heading=MEASURING, help="Seed of the noise.")


def images(least: int, most: int, usual: str, words: str) -> Decorator:
    """How many images; `words` say of what."""
    return option("--images", type=click.IntRange(least, most), usual=usual, heading=MEASURING, help=words)


def seconds(
    words: str, name: str = "--seconds", default: float | None = None, kind: click.FloatRange = POSITIVE
) -> Decorator:
    """About how long something may take; `words` say what."""
    return option(
        name, "seconds", type=kind, default=default, heading=MEASURING, help=f"About how many seconds {words}."
    )


def guidance(what: str, kind: click.ParamType = click.FLOAT) -> Decorator:
    """The scale of a command that measures at one; `what` says what is done at it, `kind` reads it."""
    return option(
        "--guidance",
        type=kind,
        metavar="X",
        usual="the model's own",
        heading=GUIDANCE,
        help=f"Guidance scale to {what}. {TOLD}",
    )
