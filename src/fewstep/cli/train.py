"""`fewstep train`: training on pictures, and of the shipped models, a command for each."""

from __future__ import annotations

import click

from fewstep.cli.commands import Commands, Entry

MODELS = {
    "model": Entry("fewstep.cli.train_model", "Your own pictures: a new model, or one that goes on."),
    "digits": Entry("fewstep.cli.training", "Handwritten digits, 8x8, by class."),
    "classifier": Entry("fewstep.cli.training", "A reader of the digits, to measure on."),
    "autoencoder": Entry("fewstep.cli.training", "The autoencoder of the scenes, 64x64."),
    "scenes": Entry("fewstep.cli.training", "Scenes of coloured shapes, from text."),
}


@click.group(cls=Commands, entries=MODELS)
def train() -> None:
    """Train a model on pictures, or one of the shipped ones. Ctrl-C stops it; the same command goes on."""
