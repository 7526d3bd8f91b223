"""`fewstep train classifier`: the digits classifier whose features distances are measured on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from fewstep.cli.output import note, progress, show_json


@click.command()
@click.option("--steps", type=click.IntRange(1, 1_000_000), metavar="N", help="Steps of the optimiser.  [default: 800]")
@click.option("--batch", type=click.IntRange(1, 65536), metavar="N", help="Images a step.  [default: 128]")
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), metavar="N", help="Decides everything.  [default: 0]")
@click.option("--output", default="runs/classifier.safetensors", show_default=True, help="The classifier's file.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def classifier(output: str, as_json: bool, **given: Any) -> None:
    """Train a classifier of handwritten digits (needs `pip install 'fewstep[train]'`), in seconds.

    Its features are what `fewstep.measure` measures the digits model on. The shipped one is what `fewstep train
    classifier` gives. The path of the classifier is printed.
    """
    from fewstep.zoo.trainclassifier import ClassifierConfig, train

    config = ClassifierConfig(**{name: value for name, value in given.items() if value is not None})
    target = Path(output)
    target.parent.mkdir(parents=True, exist_ok=True)
    with progress("training", config.steps) as bar:
        done = train(config, target, progress=lambda step, loss: bar(step, words=f"loss {loss:.4f}"))
    accuracy = done.training["accuracy"]
    if as_json:
        show_json({"path": str(target), "digest": done.digest, "accuracy": accuracy})
        return
    click.echo(target)
    note(f"digest {done.digest}, reads {accuracy:.1%} of the digits held out")
