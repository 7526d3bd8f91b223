"""The commands of `fewstep train`: each shipped model's training, to be interrupted and resumed at will."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import wraps
from pathlib import Path
from typing import Any

import click

import fewstep as fs
from fewstep.cli.app import Failure
from fewstep.cli.headings import LAST, TRAINING, Command, Decorator, option, several
from fewstep.cli.output import JSON, note, progress, show_json
from fewstep.cli.trainer import alone
from fewstep.core import InvalidInput
from fewstep.recipes import AUTOENCODER, CLASSIFIER, SCENES, DigitsRecipe
from fewstep.zoo.scenes.assemble import assemble
from fewstep.zoo.scenes.networks import load_autoencoder

LINE_EVERY = 500
"""Steps between lines where there is no terminal for a bar."""
MOST_USED = ("steps", "batch", "resume", "output")
DIGITS = DigitsRecipe()
SEED = option(
    "--seed",
    type=click.IntRange(0, 2**63 - 1),
    default=0,
    heading=TRAINING,
    help="Seed of the weights and of all that is drawn at random.",
)


def _number(name: str, default: int, text: str, most: int = 100_000_000) -> Decorator:
    return option(f"--{name}", type=click.IntRange(1, most), default=default, heading=TRAINING, help=text)


def _rate(name: str, parameter: str, default: float, text: str) -> Decorator:
    kind = click.FloatRange(0, 1)
    return option(f"--{name}", parameter, type=kind, default=default, heading=TRAINING, help=text)


def _output(default: str, words: str) -> Decorator:
    return option("--output", type=click.Path(), default=default, metavar="PATH", heading=LAST, help=words)


def _save_every(default: int) -> Decorator:
    words = "Steps between the states that it can go on from."
    kind = click.IntRange(1, 100_000_000)
    return option("--save-every", "state_every", type=kind, default=default, heading=TRAINING, help=words)


def _of_scenes(usual: fs.training.Settings) -> Decorator:
    """How a part of the text-to-image model is trained."""
    return several(
        _number("steps", usual.steps, "Steps of the optimiser."),
        _number("batch", usual.batch, "Pictures a step.", most=65536),
        _rate("learning-rate", "rate", usual.rate, "Learning rate, until the last steps."),
        _rate("muon", "muon", usual.muon, "Learning rate of Muon, for matrices; 0 leaves them to AdamW."),
        _number("cooldown", usual.cooldown, "Last steps, in which the learning rate falls to 0."),
        SEED,
        option("--device", default="cpu", metavar="NAME", heading=TRAINING, help="Where to train, such as cuda."),
        _number("threads", 2, "CPU threads.", most=256),
        _save_every(usual.state_every),
        JSON,
    )


def _command(function: Callable[..., Any]) -> click.Command:
    @wraps(function)
    def run(**given: Any) -> None:
        alone(f"fewstep train {function.__name__}")
        function(**given)

    return click.command(cls=Command, most_used=MOST_USED)(run)


@_command
@_number("steps", DIGITS.settings.steps, "Steps of the optimiser.")
@_number("batch", DIGITS.settings.batch, "Images a step.", most=65536)
@_rate("learning-rate", "rate", DIGITS.settings.rate, "Learning rate at its peak.")
@SEED
@_number("threads", DIGITS.threads, "CPU threads; another number rounds otherwise.", most=256)
@_save_every(DIGITS.settings.state_every)
@option(
    "--resume/--restart",
    default=True,
    usual="resume",
    heading=TRAINING,
    help="Go on where this run stopped, or start anew.",
)
@_output("runs/digits.safetensors", "The file to write.")
@JSON
def digits(output: str, resume: bool, as_json: bool, threads: int, **given: Any) -> None:
    """Train a small class-conditional model of handwritten digits (needs `pip install 'fewstep[train]'`).

    Ctrl-C stops it; the same command goes on, to the same weights. The path of the model is printed.
    """
    recipe = replace(DIGITS, settings=replace(DIGITS.settings, **given), threads=threads)
    target = _made(output)
    with watched(recipe.settings.steps) as report:
        done = fs.recipes.train_digits(recipe, target, resume=resume, watch=report, command=_typed(recipe))
    _show(done.path, done._asdict(), as_json)
    if not as_json:
        note(
            f"digest {done.digest}, loss {done.held_out_loss:.4f} on images held out and {done.train_loss:.4f} on "
            f"training images, {done.seconds:.0f} s"
        )


def _typed(recipe: DigitsRecipe) -> str:
    """The shortest command that trains the same digits."""
    usual, own = DIGITS.settings, recipe.settings
    more = {
        "steps": (own.steps, usual.steps),
        "batch": (own.batch, usual.batch),
        "learning-rate": (own.rate, usual.rate),
        "threads": (recipe.threads, DIGITS.threads),
    }
    words = [f"--{name} {value}" for name, (value, default) in more.items() if value != default]
    return " ".join(["fewstep train digits", f"--seed {own.seed}", *words])


@_command
@_number("steps", CLASSIFIER.steps, "Steps of the optimiser.")
@_number("batch", CLASSIFIER.batch, "Images a step.", most=65536)
@SEED
@_output("runs/classifier.safetensors", "The file to write.")
@JSON
def classifier(output: str, as_json: bool, **given: Any) -> None:
    """Train a classifier of handwritten digits (needs `pip install 'fewstep[train]'`), in seconds.

    Its features are for `fewstep.measure`, as those of the shipped one are. The path of the classifier is printed.
    """
    settings, target = replace(CLASSIFIER, **given), _made(output)
    with watched(settings.steps) as report:
        done = fs.recipes.train_classifier(settings, target, watch=report)
    accuracy = done.training["accuracy"]
    _show(target, {"digest": done.digest, "accuracy": accuracy}, as_json)
    if not as_json:
        note(f"digest {done.digest}, reads {accuracy:.1%} of the digits held out")


@_command
@_output("runs/autoencoder", "The folder to write to.")
@_of_scenes(AUTOENCODER)
def autoencoder(output: str, as_json: bool, device: str, threads: int, **given: Any) -> None:
    """Train the autoencoder of the scenes: 64x64 pixels to 8x8 latents of 8 channels (needs diffusers).

    OUTPUT/model is a diffusers AutoencoderKL. Its path is printed.
    """
    folder, settings = Path(output), replace(AUTOENCODER, **given)
    fs.run.checked_device(device)
    fs.files.check_writable(folder / "model" / "config.json", parents=True)
    with watched(settings.steps) as report:
        model = fs.recipes.train_autoencoder(settings, folder, device=device, threads=threads, watch=report)
    model.save_pretrained(folder / "model")
    _show(folder / "model", {**asdict(settings), "device": device, "threads": threads}, as_json)


@_command
@_output("runs/scenes", "The folder to write to.")
@option(
    "--autoencoder",
    type=click.Path(file_okay=False),
    metavar="FOLDER",
    heading=TRAINING,
    help="What `fewstep train autoencoder` wrote, in place of the shipped one.",
)
@option("--scenes", type=click.IntRange(256), default=122880, heading=TRAINING, help="Scenes to train on.")
@_number("reading", 1500, "Steps in which the text encoder learns to read captions, before the others.")
@_of_scenes(SCENES)
def scenes(output: str, autoencoder: str | None, as_json: bool, **given: Any) -> None:
    """Train the text encoder and the denoiser of the scenes (needs diffusers and transformers).

    OUTPUT/model is a folder for diffusers' StableDiffusionPipeline. Its path is printed.
    """
    more = {name: given.pop(name) for name in ("scenes", "reading", "device", "threads")}
    folder, settings = Path(output), replace(SCENES, **given)
    fs.run.checked_device(more["device"])
    fs.files.check_writable(folder / "model" / "config.json", parents=True)
    if (folder / "model").exists():
        raise InvalidInput(f"{folder / 'model'} exists already: it is finished, or belongs to another run")
    with watched(settings.steps) as report:
        decoder = load_autoencoder() if autoencoder is None else load_autoencoder(Path(autoencoder))
        model = fs.recipes.train_text_to_image(settings, decoder, folder, **more, watch=report)
    assemble(decoder, model.unet, model.text_encoder, folder / "model")
    _show(folder / "model", {**asdict(settings), **more}, as_json)


@contextmanager
def watched(steps: int) -> Iterator[Callable[[fs.training.Progress], None]]:
    """Who is told how a training goes on."""
    note(f"{steps} steps. Ctrl-C stops; the same command goes on from the state saved last")
    reached = 0
    with progress("training", steps) as bar:

        def report(now: fs.training.Progress) -> None:
            nonlocal reached
            reached = now.step
            loss = "".join(f"loss {value:.4f}" for value in now.losses.values()) or "as it was left"
            said = now.step % LINE_EVERY == 0 or now.step == now.steps or not now.losses
            line = f"step {now.step} of {now.steps}: {loss}, {now.seconds:.0f} s, {now.left:.0f} s left" if said else ""
            bar(now.step, of=now.steps, words=loss, line=line)

        try:
            yield report
        except KeyboardInterrupt:
            note(f"stopped after step {reached}; the same command goes on from the state saved last")
            raise
        except fs.training.Diverged as error:
            raise Failure(str(error)) from error
        except ModuleNotFoundError as error:
            raise Failure(f"training on scenes needs {error.name}: pip install 'fewstep[diffusers]'") from error


def _made(output: str) -> Path:
    """The path of a file, whose folder is made."""
    target = Path(output)
    fs.files.check_writable(target, parents=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    return target


def _show(path: Path, facts: dict[str, Any], as_json: bool) -> None:
    """Print the path, or JSON with the facts."""
    if as_json:
        show_json({**facts, "path": str(path)})
    else:
        click.echo(path)
