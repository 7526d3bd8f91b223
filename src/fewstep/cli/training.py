"""The commands of `fewstep train`: each shipped model's training, to be interrupted and resumed at will."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
from fewstep.zoo.scenes.assemble import assemble
from fewstep.zoo.scenes.autoencoder import load_autoencoder, train_autoencoder
from fewstep.zoo.scenes.diffusion import train_text_to_image
from fewstep.zoo.scenes.training import Settings
from fewstep.zoo.train import DivergedError, train
from fewstep.zoo.trainclassifier import ClassifierConfig
from fewstep.zoo.trainclassifier import train as train_features
from fewstep.zoo.trainconfig import TrainConfig

LINE_EVERY = 500
"""Steps between lines where there is no terminal for a bar."""
MOST_USED = ("steps", "batch", "resume", "output")
SEED = option(
    "--seed",
    type=click.IntRange(0, 2**63 - 1),
    default=0,
    heading=TRAINING,
    help="Seed of the weights and of all that is drawn at random.",
)


def _number(name: str, default: int | float, text: str, most: int = 100_000_000) -> Decorator:
    kind = click.IntRange(1, most) if isinstance(default, int) else click.FLOAT
    return option(f"--{name}", type=kind, default=default, heading=TRAINING, help=text)


def _output(default: str, words: str) -> Decorator:
    return option("--output", type=click.Path(), default=default, metavar="PATH", heading=LAST, help=words)


def _save_every(default: int) -> Decorator:
    return _number("save-every", default, "Steps between the states that it can go on from.")


def _of_scenes(steps: int, batch: int, rate: float, muon: float, cooldown: int, save_every: int) -> Decorator:
    """How a part of the text-to-image model is trained."""
    return several(
        _number("steps", steps, "Steps of the optimiser."),
        _number("batch", batch, "Pictures a step.", most=65536),
        _number("learning-rate", rate, "Learning rate, until the last steps."),
        _number("muon", muon, "Learning rate of Muon, for matrices; 0 leaves them to AdamW."),
        _number("cooldown", cooldown, "Last steps, in which the learning rate falls to 0."),
        SEED,
        option("--device", default="cpu", metavar="NAME", heading=TRAINING, help="Where to train, such as cuda."),
        _number("threads", 2, "CPU threads.", most=256),
        _save_every(save_every),
        JSON,
    )


def _command(function: Callable[..., Any]) -> click.Command:
    @wraps(function)
    def run(**given: Any) -> None:
        alone(f"fewstep train {function.__name__}")
        function(**given)

    return click.command(cls=Command, most_used=MOST_USED)(run)


@_command
@_number("steps", 3000, "Steps of the optimiser.")
@_number("batch", 128, "Images a step.", most=65536)
@_number("learning-rate", 2e-3, "Learning rate at its peak.")
@SEED
@_number("threads", 1, "CPU threads; another number rounds otherwise.", most=256)
@_save_every(200)
@option(
    "--resume/--restart",
    default=True,
    usual="resume",
    heading=TRAINING,
    help="Go on where this run stopped, or start anew.",
)
@_output("runs/digits.safetensors", "The file to write.")
@JSON
def digits(output: str, resume: bool, as_json: bool, **given: Any) -> None:
    """Train a small class-conditional model of handwritten digits (needs `pip install 'fewstep[train]'`).

    The shipped model is what `fewstep train digits` gives. Ctrl-C stops it; the same command goes on, to the same
    weights. The path of the model is printed.
    """
    given["state_every"] = given.pop("save_every")
    config = TrainConfig(**given, warmup_steps=min(TrainConfig().warmup_steps, given["steps"]))
    usual = vars(TrainConfig(seed=config.seed))
    more = [name for name in ("steps", "batch", "learning_rate", "threads") if given[name] != usual[name]]
    words = [f" --{name.replace('_', '-')} {given[name]}" for name in ("seed", *more)]
    target = _made(output)
    measured: list[float | None] = [None]
    with watched(config.steps) as report:

        def show(now: Any) -> None:
            held = "" if now.held_out_loss is None else f", held out {now.held_out_loss:.4f}"
            line = now.held_out_loss != measured[-1]
            measured.append(now.held_out_loss)
            report(now.step, now.loss, now.seconds, held, line, f", {now.seconds_left:.0f} s left")

        command = f"fewstep train digits{''.join(words)}"
        try:
            done = train(config, target, resume=resume, progress=show, command=command)
        except DivergedError as error:
            raise Failure(str(error)) from error
    _show(done.path, vars(done), as_json)
    if not as_json:
        note(
            f"digest {done.digest}, loss {done.held_out_loss:.4f} on images held out and {done.train_loss:.4f} on "
            f"training images, {done.seconds:.0f} s"
        )


@_command
@_number("steps", 800, "Steps of the optimiser.")
@_number("batch", 128, "Images a step.", most=65536)
@SEED
@_output("runs/classifier.safetensors", "The file to write.")
@JSON
def classifier(output: str, as_json: bool, **given: Any) -> None:
    """Train a classifier of handwritten digits (needs `pip install 'fewstep[train]'`), in seconds.

    Its features are what `fewstep.measure` measures the digits model on. The shipped one is what `fewstep train
    classifier` gives. The path of the classifier is printed.
    """
    config, target = ClassifierConfig(**given), _made(output)
    with progress("training", config.steps) as bar:
        done = train_features(config, target, progress=lambda step, loss: bar(step, words=f"loss {loss:.4f}"))
    accuracy = done.training["accuracy"]
    _show(target, {"digest": done.digest, "accuracy": accuracy}, as_json)
    if not as_json:
        note(f"digest {done.digest}, reads {accuracy:.1%} of the digits held out")


@_command
@_output("runs/autoencoder", "The folder to write to.")
@_of_scenes(steps=2000, batch=32, rate=2e-3, muon=0.0, cooldown=800, save_every=250)
def autoencoder(output: str, as_json: bool, **given: Any) -> None:
    """Train the autoencoder of the scenes: 64x64 pixels to 8x8 latents of 8 channels (needs diffusers).

    OUTPUT/model is a diffusers AutoencoderKL. Its path is printed.
    """
    folder, how = Path(output), _settings(given)
    fs.files.check_writable(folder / "model" / "config.json", parents=True)
    with watched(how.steps) as report:
        model = train_autoencoder(how, folder, report)
    model.save_pretrained(folder / "model")
    _show(folder / "model", vars(how), as_json)


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
@_of_scenes(steps=9000, batch=128, rate=1e-3, muon=2e-3, cooldown=3500, save_every=100)
def scenes(output: str, autoencoder: str | None, scenes: int, reading: int, as_json: bool, **given: Any) -> None:
    """Train the text encoder and the denoiser of the scenes (needs diffusers and transformers).

    OUTPUT/model is a folder for diffusers' StableDiffusionPipeline. Its path is printed.
    """
    folder, how = Path(output), _settings(given)
    fs.files.check_writable(folder / "model" / "config.json", parents=True)
    if (folder / "model").exists():
        raise InvalidInput(f"{folder / 'model'} exists already: it is finished, or belongs to another run")
    with watched(how.steps) as report:
        decoder = load_autoencoder() if autoencoder is None else load_autoencoder(Path(autoencoder))
        model = train_text_to_image(how, decoder, scenes, reading, folder, report)
    assemble(decoder, model["unet"], model["text_encoder"], folder / "model")
    _show(folder / "model", vars(how), as_json)


@contextmanager
def watched(steps: int) -> Iterator[Callable[..., None]]:
    """What the training reports to: step, loss and seconds."""
    note(f"{steps} steps. Ctrl-C stops; the same command goes on from the state saved last")
    reached = 0
    with progress("training", steps) as bar:

        def report(
            step: int, loss: float, seconds: float, held: str = "", line: bool | None = None, left: str = ""
        ) -> None:
            nonlocal reached
            reached = step
            line = (step % LINE_EVERY == 0 or step == steps) if line is None else line
            said = f"step {step} of {steps}: loss {loss:.4f}{held}, {seconds:.0f} s{left}" if line else ""
            bar(step, words=f"loss {loss:.4f}{held}", line=said)

        try:
            yield report
        except KeyboardInterrupt:
            note(f"stopped after step {reached}; the same command goes on from the state saved last")
            raise
        except ArithmeticError as error:
            raise Failure(str(error)) from error
        except ModuleNotFoundError as error:
            raise Failure(f"training on scenes needs {error.name}: pip install 'fewstep[diffusers]'") from error


def _settings(given: dict[str, Any]) -> Settings:
    given["state_every"] = given.pop("save_every")
    fs.run.checked_device(given["device"])
    return Settings(**given, warmup=min(100, given["steps"]))


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
