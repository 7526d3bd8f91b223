"""How many images are in memory at once, and what is kept: options of commands that run a model."""

from __future__ import annotations

import click

from fewstep.cli.headings import MEMORY, Decorator, option
from fewstep.cli.values import BatchSize

MOST = 1024
"""Images that a network sees at once, at most."""


def batch(usual: str, kind: click.ParamType | None = None, metavar: str = "N", more: str = "") -> Decorator:
    """How many images the network sees at once; `more` is what the help adds."""
    return option(
        "--batch",
        "--batch-size",
        "batch",
        type=kind or click.IntRange(1, MOST),
        metavar=metavar,
        usual=usual,
        heading=MEMORY,
        help=f"Images that the network sees at once{more}.",
    )


BATCH = batch("the model's own", BatchSize())
BATCH_OR_AUTO = batch("the model's own", BatchSize(), "N|auto", "; auto: as many as fit")
OVERLAP = option("--overlap", is_flag=True, heading=MEMORY, help="Decode a batch while the next is denoised.")
CACHE = option(
    "--cache",
    type=click.Path(),
    metavar="FOLDER",
    heading=MEMORY,
    help="Folder that keeps embeddings of prompts and latents of pictures for later runs.",
)
