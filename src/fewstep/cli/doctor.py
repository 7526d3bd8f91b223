"""`fewstep doctor`: what a network's outputs are consistent with."""

from __future__ import annotations

import itertools
import math
from typing import Any

import click

import fewstep as fs
from fewstep.cli import place
from fewstep.cli.headings import Command
from fewstep.cli.output import note, progress, show_json, show_table
from fewstep.core import InvalidInput


@click.command(cls=Command)
@click.argument("model", default="digits")
@click.option(
    "--images",
    type=click.IntRange(2, 1024),
    default=64,
    show_default=True,
    metavar="N",
    help="Images to test each reading with.",
)
@click.option(
    "--seed", type=click.IntRange(0, 2**63), default=0, show_default=True, metavar="N", help="Seed of the noise."
)
@place.options("variant", "allow_pickle")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def doctor(model: str, images: int, seed: int, as_json: bool, **where: Any) -> None:
    """Test which prediction type and noise schedule the outputs of MODEL are consistent with.

    With the wrong one a network draws noise, and no error says so. This tests every reading on clean images that the
    network draws under it; the right one removes noise better than any linear filter.
    """
    pipe = place.load(model, where)
    own = pipe.model
    if own.conditioner.field != "labels":
        raise InvalidInput(
            f"{pipe.name} draws from prompts, and `fewstep doctor` knows classes only: use `fewstep.diagnose` in Python"
        )
    labels = list(itertools.islice(itertools.cycle(own.conditioner.subjects), images))
    conditions = own.conditioner.encode(list(pipe.order(labels).drawing.each))
    with progress("testing", 1) as bar:
        found = fs.diagnose(
            own.network,
            (images, *pipe.state_shape()),
            condition=own.placed([one.positive for one in conditions]),
            seed=seed,
            on_reading=lambda done, of: bar(done, of=of),
        )
    says = {"prediction": own.prediction, "schedule": own.schedule.kind}
    if as_json:
        readings = [
            {key: value if not isinstance(value, float) or math.isfinite(value) else None for key, value in row.items()}
            for row in (reading._asdict() for reading in found.table)
        ]
        show_json({"model": pipe.name, "file_says": says, "readings": readings, "verdict": found.verdict})
        return
    show_table(
        ["prediction", "schedule", "time scale", "error / linear", "bias", "score"],
        [
            [
                r.prediction,
                r.schedule,
                f"{r.time_scale:g}",
                *(f"{v:.3g}" for v in (r.denoising, r.calibration, r.score)),
            ]
            for r in found.table
        ],
        right=("time scale", "error / linear", "bias", "score"),
    )
    click.echo()
    click.echo(found.verdict)
    note(f"{pipe.name} itself says: {says['prediction']} on {says['schedule']}")
