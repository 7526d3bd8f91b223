"""The digits model: a small class-conditional network that predicts the velocity on the linear noise schedule.

Half the log signal-to-noise ratio of the training times is logistic around 0, so that most work goes where the picture
is decided: how often a level is drawn is its weight in the loss (Kingma & Gao 2023, arXiv 2303.00848). The labels of
some images are dropped, so that one network also learns the unconditional model that guidance needs (Ho & Salimans
2022, arXiv 2207.12598).
"""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from fewstep import schedules
from fewstep.core.errors import InvalidInput
from fewstep.core.schedule import Schedule
from fewstep.denoise.convert import Network
from fewstep.recipes.held_out import measured_loss
from fewstep.recipes.labelled import Labelled
from fewstep.recipes.paths import check_file, folder_of
from fewstep.recipes.threads import limited
from fewstep.training import STATES, STUDENT, Denoising, Progress, Role, Run, Settings, train
from fewstep.training.draws import key_of
from fewstep.training.fresh import SIGMA_DATA
from fewstep.zoo import checkpoint, digits
from fewstep.zoo.dataset import ImageSet
from fewstep.zoo.network import UNet, UNetConfig, build

MOST_BYTES = 1 << 30
"""Of a file that is there already."""
SPREAD = math.pi / math.sqrt(3)
"""Standard deviation of the logistic distribution of scale 1."""
METHOD = Denoising(times="logistic", mean=0.0, deviation=SPREAD, dropout=0.12)
DIGITS = Settings(steps=3000, batch=128, rate=2e-3, warmup=200, optimiser="adamw", weight_decay=0.01, width=0.10)
"""Those of `fewstep train digits`."""


@dataclass(frozen=True)
class DigitsRecipe:
    """What decides the weights. The defaults are those of `fewstep train digits`.

    Attributes:
        network: its channels, size and classes have to be those of the data.
        prediction: what it predicts, one of `fewstep.denoise.PREDICTIONS`, on the noise schedule `schedule`.
        threads: of the CPU, 1 to 256.
    """

    network: UNetConfig = field(default_factory=UNetConfig)
    prediction: str = "v_prediction"
    schedule: Schedule = field(default_factory=schedules.linear)
    method: Denoising = METHOD
    settings: Settings = DIGITS
    threads: int = 1

    def __post_init__(self) -> None:
        if type(self.threads) is not int or not 1 <= self.threads <= 256:
            raise InvalidInput(f"threads must be a whole number from 1 to 256, got {self.threads!r}")

    @property
    def identity(self) -> Mapping[str, Any]:
        """What decides the weights beside method, settings and data, as plain JSON values."""
        return {
            "network": self.network.to_json(),
            "prediction": self.prediction,
            "schedule": self.schedule.spec,
            "threads": self.threads,
        }

    def check(self, data: ImageSet) -> None:
        """Raise `InvalidInput` where the network does not fit the data."""
        network = self.network
        if tuple(data.images.shape[1:]) != network.sample_shape or data.classes != network.classes:
            raise InvalidInput(
                f"the data {data.name!r} are images of {tuple(data.images.shape[1:])} in {data.classes} classes, "
                f"but the network takes {network.sample_shape} in {network.classes}; "
                "set its channels, size and classes to those of the data"
            )


class DigitsTraining(NamedTuple):
    """A finished training.

    Attributes:
        path: the checkpoint; `digest`: its digest.
        held_out_loss: of the averaged weights on images that were never trained on; `train_loss`: the same measure on
            as many that were.
        seconds: of the steps in all sittings; 0 where the finished file was there already.
        resumed_from: the step at which this sitting began.
    """

    path: Path
    digest: str
    held_out_loss: float
    train_loss: float
    seconds: float
    resumed_from: int


def train_digits(
    recipe: DigitsRecipe,
    out: str | os.PathLike[str],
    *,
    data: ImageSet | None = None,
    resume: bool = True,
    watch: Callable[[Progress], None] = lambda now: None,
    command: str | None = None,
) -> DigitsTraining:
    """Train a network and write it to `out`, whole or not at all.

    Beside `out` there is a folder of its name without `.safetensors`, with the log, and with the states from which the
    same call goes on after an interruption, to the same bits; these are removed at the end.

    Args:
        data: the images; the digits of scikit-learn when None.
        resume: go on where the same run stopped, and do nothing when it is finished. False begins anew and replaces
            what is there.
        watch: is told how it goes on; an exception that it raises ends the run, which can be resumed.
        command: what the user typed, for the facts in the file.

    Raises:
        InvalidInput: the data do not fit the network, or `out` or the states belong to another run.
        Diverged: a loss is not finite.
    """
    out = Path(out)
    data = digits.load() if data is None else data
    check_file(out)
    recipe.check(data)
    kept, held = digits.split(data, recipe.settings.seed)
    run = run_of(recipe, kept, folder_of(out))
    done = done_before(run, out, resume)
    if done is None:
        sitting: list[Progress] = []

        def told(now: Progress) -> None:
            sitting.append(now)
            watch(now)

        with limited(recipe.threads):
            train(run, told)
            losses = measured(run, kept, held)
        more = {"trained_on": len(kept), "held_out": len(held), "torch": torch.__version__}
        own = {"command": command or f"fewstep train {data.name} --seed {recipe.settings.seed}"}
        digest = write(run, recipe, data, {**losses, **own, **more}, out)
        begun = 0 if sitting[0].losses else sitting[0].step
        done = DigitsTraining(out, digest, **losses, seconds=sitting[-1].seconds, resumed_from=begun)
    shutil.rmtree(run.folder / STATES, ignore_errors=True)
    return done


def done_before(run: Run, out: Path, resume: bool) -> DigitsTraining | None:
    """What `out` holds, where that is the result of this very run, which is to be resumed.

    Raises `InvalidInput` where the file is another run's. A run that begins anew loses its states.
    """
    states = run.folder / STATES
    if not resume:
        shutil.rmtree(states, ignore_errors=True)
        return None
    found = finished_in(out, run) if out.exists() else None
    if out.exists() and found is None and not states.exists():
        raise InvalidInput(
            f"{out} exists already, made by another run; give another path, "
            "or start anew with resume=False, which replaces it"
        )
    return found


def run_of(recipe: DigitsRecipe, kept: ImageSet, folder: Path) -> Run:
    """The training of a new network on the images that are not held out."""
    network = build(recipe.network, key_of(recipe.settings.seed, "weights")).train()
    told = spec_of(recipe, kept, {}).time_scale  # as whoever loads the file tells it
    role = Role(Network(network, recipe.schedule, recipe.prediction, time_scale=told))
    return Run(recipe.method, {STUDENT: role}, Labelled(kept), recipe.settings, folder, recipe.identity)


def write(run: Run, recipe: DigitsRecipe, data: ImageSet, more: Mapping[str, Any], out: Path) -> str:
    """Write the network of a run with the facts of its training, and return the digest of the file."""
    role = run.roles[STUDENT]
    assert isinstance(role.module, UNet)
    facts = {**run.known_as, "seed": run.settings.seed, "steps": run.settings.steps, **more}
    return checkpoint.save(out, role.module, spec_of(recipe, data, facts))


def spec_of(recipe: DigitsRecipe, data: ImageSet, facts: Mapping[str, Any]) -> checkpoint.Spec:
    """What the weights mean, with facts of their training."""
    sigma_data = SIGMA_DATA if recipe.prediction == "edm" else None
    return checkpoint.Spec(recipe.network, recipe.prediction, recipe.schedule, data.value_range, facts, sigma_data)


def measured(run: Run, kept: ImageSet, held: ImageSet) -> dict[str, float]:
    """The loss on the images held out, and on as many of the others, evenly picked."""
    network, seed = run.roles[STUDENT].network, key_of(run.settings.seed, "measure")
    picked = torch.linspace(0, len(kept) - 1, min(len(held), len(kept))).round().long()
    seen = replace(kept, images=kept.images[picked], labels=kept.labels[picked])
    return {
        "held_out_loss": measured_loss(network, held, seed),
        "train_loss": measured_loss(network, seen, seed),
    }


def finished_in(out: Path, run: Run) -> DigitsTraining | None:
    """What `out` holds, where that is the result of this very run."""
    loaded = checkpoint.load(out, max_bytes=MOST_BYTES)
    facts = loaded.spec.training
    if any(facts.get(name) != value for name, value in run.known_as.items()):
        return None
    losses = {name: facts[name] for name in ("held_out_loss", "train_loss")}
    return DigitsTraining(out, loaded.digest, **losses, seconds=0.0, resumed_from=facts["steps"])
