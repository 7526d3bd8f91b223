"""`fewstep doctor`: what a network's outputs are consistent with."""

from __future__ import annotations

import math
from typing import Any

import click

from fewstep.cli import place
from fewstep.cli.classes import load_classes
from fewstep.cli.output import note, progress, show_json, show_table


@click.command()
@click.argument("model", default="digits")
@click.option(
    "--images",
    type=click.IntRange(2, 1024),
    default=64,
    show_default=True,
    metavar="N",
    help="Images that each reading is tested with.",
)
@click.option("--seed", type=click.IntRange(0, 2**63), default=0, show_default=True, metavar="N", help="Of the noise.")
@place.options("variant", "allow_pickle")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def doctor(model: str, images: int, seed: int, as_json: bool, **where: Any) -> None:
    """Test which prediction type and noise schedule the outputs of MODEL are consistent with.

    A network that is told the wrong thing draws noise, and nothing raises. Every reading is tested on clean images that
    the network draws under it; a right one removes noise better than any linear filter.
    """
    import torch

    import fewstep as fs

    pipe = load_classes(model, "doctor", **place.arguments(where))
    condition = {"label": torch.arange(images) % pipe.classes} if pipe.classes else {}
    with progress("testing", 1) as bar:
        found = fs.diagnose(
            pipe.network,
            (images, *pipe.sample_shape),
            condition=condition,
            seed=seed,
            on_reading=lambda done, of: bar(done, of=of),
        )
    says = {"prediction": pipe.prediction, "schedule": pipe.schedule.kind}
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
