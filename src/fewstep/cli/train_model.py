"""`fewstep train model`: a model trained on pictures, a new one or one that goes on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import click

import fewstep as fs
from fewstep.cli import keeping, place, settings, trainer
from fewstep.cli.app import Failure
from fewstep.cli.headings import DATA, LAST, NETWORK, OBJECTIVE, TRAINING, Command, option
from fewstep.cli.output import JSON, note, progress, show_json, waiting
from fewstep.cli.values import Several
from fewstep.core import InvalidInput

TARGETS = ("flow", "v_prediction", "epsilon", "sample", "edm")
SCHEDULES = ("flow", "cosine", "linear", "scaled_linear", "edm")
TIMES = ("uniform", "logit-normal", "log-normal", "logistic")
DECAYS = ("constant", "linear", "cosine")
"""Here too, so that the help needs no torch."""
FRESH = ("target", "schedule", "size", "channels", "widths", "blocks", "sigma_data")
"""Options of a new network."""
ENCODED = "encode"
"""How the pictures of a run are made that it says it needs."""


@click.command(cls=Command, most_used=("start", "target", "size", "steps", "batch", "output"))
@click.argument("data")
@option(
    "--from",
    "start",
    metavar="MODEL",
    usual="a new network",
    heading=NETWORK,
    help="A model to go on from: a shipped one, a file of `fewstep train`, or a diffusers folder.",
)
@option(
    "--anew",
    is_flag=True,
    heading=NETWORK,
    help="Give the network of that model new weights first; of a folder its config.json is enough.",
)
@option("--target", type=click.Choice(TARGETS), usual="flow", heading=NETWORK, help="What a new network predicts.")
@option(
    "--schedule",
    type=click.Choice(SCHEDULES),
    usual="flow for a flow, edm for edm, else cosine",
    heading=NETWORK,
    help="Noise schedule of a new network.",
)
@option(
    "--sigma-data",
    type=click.FLOAT,
    usual="0.5",
    heading=NETWORK,
    help="Standard deviation of the data, for --target edm.",
)
@option(
    "--size",
    type=click.IntRange(2, 512),
    usual="32, or that of numbers",
    heading=NETWORK,
    help="Height and width of its pictures; others are scaled and cut to it.",
)
@option(
    "--channels",
    type=click.Choice(("1", "3")),
    usual="as the first picture",
    heading=NETWORK,
    help="1 for grey pictures, 3 for RGB.",
)
@option(
    "--widths",
    type=Several(int, "a width", 8, 4096, most=6),
    metavar="N,N,..",
    usual="32,64",
    heading=NETWORK,
    help="Feature channels of its UNet at each resolution, the finest first.",
)
@option("--blocks", type=click.IntRange(1, 8), usual="1", heading=NETWORK, help="Residual blocks at each resolution.")
@option("--mirror", is_flag=True, heading=DATA, help="Learn each picture with left and right exchanged too.")
@option(
    "--times",
    type=click.Choice(TIMES),
    usual="as suits the schedule",
    heading=OBJECTIVE,
    help="How the levels of noise are drawn; see docs/train.md.",
)
@option("--mean", type=click.FLOAT, usual="as suits the times", heading=OBJECTIVE, help="Of log(sigma / alpha).")
@option("--deviation", type=click.FLOAT, usual="as suits the times", heading=OBJECTIVE, help="Of log(sigma / alpha).")
@option("--min-snr", type=click.FLOAT, usual="none", heading=OBJECTIVE, help="Gamma of min-SNR weights, 5 is usual.")
@option(
    "--dropout",
    type=click.FloatRange(0, 1, max_open=True),
    usual="0.1 where something is told",
    heading=OBJECTIVE,
    help="Share of the samples that are told the empty condition, for guidance.",
)
@option("--transport", is_flag=True, heading=OBJECTIVE, help="Pair noise and data by optimal transport, for flows.")
@keeping.OPTIONS
@settings.OPTIONS
@settings.LORA
@option("--warmup", type=click.IntRange(0), default=0, heading=TRAINING, help="Steps in which the rate rises.")
@option("--decay", type=click.Choice(DECAYS), default="cosine", heading=TRAINING, help="How the rate falls.")
@place.options("device")
@trainer.OPTIONS
@option(
    "--output",
    type=click.Path(file_okay=False),
    usual="runs/DATA",
    heading=LAST,
    help="Folder for states, log and model.",
)
@JSON
def model(data: str, start: str | None, as_json: bool, **given: Any) -> None:
    """Train a model on DATA: a new one, or one that goes on from where it is.

    DATA is a folder of pictures, with sub-folders for classes or captions in metadata.jsonl; an .npz file; a data set
    of Hugging Face on the disk, or parquet files; .tar shards of webdataset; or the project's own digits and scenes.
    Ctrl-C stops; the same command goes on to the same weights. The path of the model is printed, which every other
    command takes.

    \b
        fewstep train model photos --size 32 --steps 20000
        fewstep generate runs/photos/model.safetensors --labels 0-3
        fewstep train model photos --from models/sd15 --rate 1e-5
        fewstep train model photos --from models/sd15 --lora-rank 16 --rate 1e-4
        fewstep train model photos --from scenes-turbo --keep-steps --kept prompts.txt --lora-rank 16
    """
    with trainer.speaking():
        keeping.check(start, given)
        begin = beginning(start, given)
        folder = Path(given["output"] or f"runs/{Path(data).absolute().stem}")
        fs.files.check_writable(folder / "log.jsonl", parents=True)
        arguments = {
            "method": method_of(given),
            "settings": settings.settings_of(given),
            "mirror": given["mirror"],
            "place": trainer.place_of(given),
        }
        if start is not None and given["keep_steps"]:
            with trainer.noting(), failing():
                keeping.run(data, start, folder, arguments, given, as_json)
            return
        if given["dry_run"]:
            with waiting("timing some steps"), trainer.noting():
                needed = fs.training.forecast_on(data, begin, folder, **arguments)
            trainer.show(needed, as_json, ENCODED)
            return
        how, loggers = arguments["settings"], trainer.loggers_of(given, folder)
        note(f"{how.steps} steps of {how.batch}. Ctrl-C stops; the same command goes on from the state saved last")
        with progress("training", how.steps) as bar, trainer.noting(), failing():
            watch = fs.training.Watching(
                partial(trainer.encoding, bar),
                settings.telling(bar),
                partial(trainer.say, made=ENCODED),
                loggers,
                given["sheet_every"],
            )
            found = fs.train_on(data, begin, folder, **arguments, watch=watch)
        show(found, as_json)


def show(found: fs.training.Trained, as_json: bool) -> None:
    """Say where the model lies."""
    if as_json:
        apart = {} if found.lora is None else {"lora": str(found.lora)}
        show_json({"path": str(found.path), **apart, "lost": found.lost})
        return
    trainer.note_lost(found.lost)
    if found.lora is not None:
        note(f"The LoRA alone, for diffusers and other fine-tunes, is {found.lora}")
    click.echo(found.path)


def beginning(start: str | None, given: Mapping[str, Any]) -> Any:
    """What is trained: a new network, or a model that goes on or begins anew.

    Raises `InvalidInput` for options of a new network where there is none.
    """
    fresh = {name: given[name] for name in FRESH if given[name] is not None}
    if start is not None:
        if fresh:
            names = ", ".join("--" + name.replace("_", "-") for name in fresh)
            raise InvalidInput(f"{names}: these are for a new network, and {start} has its own; leave them out")
        return fs.training.Anew(start) if given["anew"] else start
    if given["anew"]:
        raise InvalidInput("--anew is for the network of a model: name it by --from")
    prediction = fresh.pop("target", "flow")
    schedule, channels = fresh.pop("schedule", None), fresh.pop("channels", None)
    return fs.training.New(
        prediction,
        None if schedule is None else getattr(fs.schedules, schedule)(),
        channels=None if channels is None else int(channels),
        **fresh,
    )


def method_of(given: Mapping[str, Any]) -> fs.training.Denoising:
    """What is learned."""
    names = ("times", "mean", "deviation", "min_snr", "dropout", "transport")
    return fs.training.Denoising(**{name: given[name] for name in names})


@contextmanager
def failing() -> Iterator[None]:
    """Within it, a training that diverges is a failure of the command."""
    try:
        yield
    except fs.training.Diverged as error:
        raise Failure(str(error)) from error
