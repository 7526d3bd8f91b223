"""`fewstep train autoencoder` and `fewstep train scenes`: the two parts of the text-to-image model."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from fewstep.cli.app import Failure
from fewstep.cli.output import note, progress, show_json
from fewstep.core.errors import InvalidInput

LINE_EVERY = 500
"""Steps between lines where there is no terminal for a bar."""


def settings(steps: int, batch: int, rate: float, muon: float, cooldown: int, save_every: int) -> Callable[[Any], Any]:
    """The options of how to train, with their defaults."""
    options = [
        click.option("--steps", type=click.IntRange(1, 100_000_000), default=steps, help="Steps of the optimiser."),
        click.option("--batch", type=click.IntRange(1, 65536), default=batch, help="Pictures a step."),
        click.option("--learning-rate", type=float, default=rate, help="Its level, until the last steps."),
        click.option("--muon", type=float, default=muon, help="That of Muon for matrices; 0 leaves them to AdamW."),
        click.option("--cooldown", type=click.IntRange(1), default=cooldown, help="Last steps, where it falls to 0."),
        click.option("--seed", type=click.IntRange(0, 2**63 - 1), default=0, help="Decides everything."),
        click.option("--threads", type=click.IntRange(1, 256), default=2, help="CPU threads."),
        click.option("--device", default="cpu", help="Where to train: cpu or cuda."),
        click.option("--save-every", type=click.IntRange(1), default=save_every, help="Steps between states."),
        click.option("--json", "as_json", is_flag=True, help="Print JSON."),
    ]

    def decorate(command: Any) -> Any:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


@contextmanager
def watched(steps: int) -> Iterator[Callable[[int, float, float], None]]:
    """What the training reports to: a bar on a terminal, else a line now and then."""
    note(f"{steps} steps. Ctrl-C stops; the same command goes on from the state saved last")
    with progress("training", steps) as bar:

        def report(step: int, loss: float, seconds: float) -> None:
            bar(step, words=f"loss {loss:.4f}")
            if not sys.stderr.isatty() and (step % LINE_EVERY == 0 or step == steps):
                note(f"step {step} of {steps}: loss {loss:.4f}, {seconds:.0f} s")

        try:
            yield report
        except ArithmeticError as error:
            raise Failure(str(error)) from error
        except ModuleNotFoundError as error:
            raise Failure(f"training on scenes needs {error.name}: pip install 'fewstep[diffusers]'") from error


def settings_of(given: dict[str, Any]) -> Any:
    """The `Settings` that the options give."""
    from fewstep.zoo.scenes.training import Settings

    given["state_every"] = given.pop("save_every")
    return Settings(**given, warmup=min(100, given["steps"]))


@click.command(context_settings={"show_default": True})
@click.option("--output", type=click.Path(file_okay=False), default="runs/autoencoder", help="The folder to write.")
@settings(steps=2000, batch=32, rate=2e-3, muon=0.0, cooldown=800, save_every=250)
def autoencoder(output: str, as_json: bool, **given: Any) -> None:
    """Train the autoencoder of the scenes: 64x64 pixels to 8x8 latents of 8 channels (needs diffusers).

    OUTPUT/model is a diffusers AutoencoderKL. Its path is printed.
    """
    from fewstep.zoo.scenes.autoencoder import train_autoencoder

    folder, how = Path(output), settings_of(given)
    with watched(how.steps) as report:
        model = train_autoencoder(how, folder, report)
    model.save_pretrained(folder / "model")
    show_result(folder / "model", how, as_json)


@click.command(context_settings={"show_default": True})
@click.option("--output", type=click.Path(file_okay=False), default="runs/scenes", help="The folder to write.")
@click.option(
    "--autoencoder",
    type=click.Path(file_okay=False),
    help="What `fewstep train autoencoder` wrote.  [default: the shipped one]",
)
@click.option("--scenes", type=click.IntRange(256), default=122880, help="Scenes to train on.")
@click.option("--reading", type=click.IntRange(1), default=1500, help="Steps of learning to read captions, before.")
@settings(steps=16000, batch=128, rate=1e-3, muon=2e-3, cooldown=4000, save_every=100)
def scenes(output: str, autoencoder: str | None, scenes: int, reading: int, as_json: bool, **given: Any) -> None:
    """Train the text encoder and the denoiser of the scenes (needs diffusers and transformers).

    OUTPUT/model is a folder for diffusers' StableDiffusionPipeline. Its path is printed.
    """
    from fewstep.zoo.scenes.assemble import assemble
    from fewstep.zoo.scenes.autoencoder import load_autoencoder
    from fewstep.zoo.scenes.diffusion import train_text_to_image

    folder, how = Path(output), settings_of(given)
    if (folder / "model").exists():
        raise InvalidInput(f"{folder / 'model'} exists already: it is finished, or belongs to another run")
    with watched(how.steps) as report:
        decoder = load_autoencoder() if autoencoder is None else load_autoencoder(Path(autoencoder))
        model = train_text_to_image(how, decoder, scenes, reading, folder, report)
    assemble(decoder, model["unet"], model["text_encoder"], folder / "model")
    show_result(folder / "model", how, as_json)


def show_result(path: Path, how: Any, as_json: bool) -> None:
    """Print the path, or JSON with what it took."""
    if as_json:
        show_json({"path": str(path), **vars(how)})
    else:
        click.echo(path)
