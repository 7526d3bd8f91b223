"""The commands of `fewstep train`: each shipped model's training, to be interrupted and resumed at will."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

import fewstep as fs
from fewstep.cli.app import Failure
from fewstep.cli.headings import Decorator, several
from fewstep.cli.output import note, progress, show_json
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
FOLDER = click.Path(file_okay=False)
SEED = click.option("--seed", type=click.IntRange(0, 2**63 - 1), default=0, help="Decides everything.")
JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def _number(name: str, default: int | float, text: str, most: int = 100_000_000) -> Decorator:
    kind = click.IntRange(1, most) if isinstance(default, int) else click.FLOAT
    return click.option(f"--{name}", type=kind, default=default, metavar="N", help=text)


def _output(default: str) -> Decorator:
    return click.option("--output", type=click.Path(), default=default, help="The file or folder to write.")


def _of_scenes(steps: int, batch: int, rate: float, muon: float, cooldown: int, save_every: int) -> Decorator:
    """How a part of the text-to-image model is trained."""
    return several(
        _number("steps", steps, "Steps of the optimiser."),
        _number("batch", batch, "Pictures a step.", most=65536),
        _number("learning-rate", rate, "Its level, until the last steps."),
        _number("muon", muon, "That of Muon for matrices; 0 leaves them to AdamW."),
        _number("cooldown", cooldown, "Last steps, where it falls to 0."),
        SEED,
        _number("threads", 2, "CPU threads.", most=256),
        click.option("--device", default="cpu", help="Where to train: cpu or cuda."),
        _number("save-every", save_every, "Steps between states."),
        JSON,
    )


def _command(function: Callable[..., Any]) -> click.Command:
    return click.command(context_settings={"show_default": True})(function)


@_command
@_number("steps", 3000, "Steps of the optimiser.")
@_number("batch", 128, "Images a step.", most=65536)
@_number("learning-rate", 2e-3, "Its peak.")
@SEED
@_number("threads", 1, "CPU threads; another number rounds otherwise.", most=256)
@_number("save-every", 200, "Steps between states to resume from.")
@_output("runs/digits.safetensors")
@click.option("--resume/--restart", default=True, help="Go on where this run stopped, or start anew.")
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
@_output("runs/classifier.safetensors")
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
@_output("runs/autoencoder")
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
@_output("runs/scenes")
@click.option("--autoencoder", type=FOLDER, help="What `fewstep train autoencoder` wrote, in place of the shipped one.")
@click.option("--scenes", type=click.IntRange(256), default=122880, help="Scenes to train on.")
@_number("reading", 1500, "Steps of learning to read captions, before.")
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
