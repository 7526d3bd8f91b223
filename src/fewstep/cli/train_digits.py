"""`fewstep train digits`: a class-conditional model, to be interrupted and resumed at will."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fewstep.cli.app import Failure
from fewstep.cli.output import note, progress, show_json

if TYPE_CHECKING:
    from fewstep.zoo.train import Progress, Trained
    from fewstep.zoo.trainconfig import TrainConfig


@click.command()
@click.option(
    "--steps", type=click.IntRange(1, 10_000_000), metavar="N", help="Steps of the optimiser.  [default: 3000]"
)
@click.option("--batch", type=click.IntRange(1, 65536), metavar="N", help="Images a step.  [default: 128]")
@click.option("--learning-rate", type=float, metavar="RATE", help="Its peak.  [default: 0.002]")
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), metavar="N", help="Decides everything.  [default: 0]")
@click.option(
    "--threads",
    type=click.IntRange(1, 256),
    metavar="N",
    help="CPU threads; another number rounds otherwise.  [default: 1]",
)
@click.option(
    "--save-every",
    type=click.IntRange(1, 10_000_000),
    metavar="N",
    help="Steps between states to resume from.  [default: 200]",
)
@click.option("--output", type=click.Path(dir_okay=False), help="The model's file.  [default: runs/digits.safetensors]")
@click.option(
    "--resume/--restart", default=True, show_default=True, help="Go on where this run stopped, or start anew."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def digits(output: str | None, resume: bool, as_json: bool, **given: Any) -> None:
    """Train a small class-conditional model of handwritten digits (needs `pip install 'fewstep[train]'`).

    The shipped model is what `fewstep train digits` gives. Ctrl-C stops it; the same command goes on, to the same
    weights. The path of the model is printed.
    """
    from fewstep.zoo.train import DivergedError
    from fewstep.zoo.train import train as run
    from fewstep.zoo.trainconfig import TrainConfig

    target = Path(output or "runs/digits.safetensors")
    given["state_every"] = given.pop("save_every")
    settings = {name: value for name, value in given.items() if value is not None}
    if "steps" in settings:
        settings["warmup_steps"] = min(TrainConfig().warmup_steps, settings["steps"])
    config = TrainConfig(**settings)
    target.parent.mkdir(parents=True, exist_ok=True)
    note(f"{config.steps} steps of {config.batch} images. Ctrl-C stops; the same command goes on")
    reached = 0
    with progress("training", config.steps) as bar:
        measured: float | None = None

        def show(now: Progress) -> None:
            nonlocal reached, measured
            reached = now.step
            held = "" if now.held_out_loss is None else f", held out {now.held_out_loss:.4f}"
            bar(now.step, words=f"loss {now.loss:.4f}{held}")
            if not sys.stderr.isatty() and now.held_out_loss != measured:
                measured = now.held_out_loss
                note(f"step {now.step} of {now.steps}: loss {now.loss:.4f}{held}, {now.seconds_left:.0f} s left")

        try:
            done = run(config, target, resume=resume, progress=show, command=_command(config))
        except DivergedError as error:
            raise Failure(str(error)) from error
        except KeyboardInterrupt:
            note(f"stopped after step {reached}; the same command goes on from the state saved last")
            raise
    _show(done, as_json)


def _command(config: TrainConfig) -> str:
    """What trains these weights again, whatever was typed; the model's file says it."""
    from fewstep.zoo.trainconfig import TrainConfig

    usual = TrainConfig(seed=config.seed)
    names = ("steps", "batch", "learning_rate", "threads")
    more = [(name, getattr(config, name)) for name in names if getattr(config, name) != getattr(usual, name)]
    words = [f"--{name.replace('_', '-')} {value}" for name, value in [("seed", config.seed), *more]]
    return " ".join(["fewstep train digits", *words])


def _show(done: Trained, as_json: bool) -> None:
    facts = {**vars(done), "path": str(done.path)}
    if as_json:
        show_json(facts)
        return
    click.echo(done.path)
    note(
        f"digest {done.digest}, loss {done.held_out_loss:.4f} on images held out and {done.train_loss:.4f} on training "
        f"images, {done.seconds:.0f} s"
    )
